"""What a study or a notebook may import, and nothing else."""

import ast
import inspect
from importlib import import_module

import pytest

import hpsearch


def homes_for_type_checkers():
    """name -> module, as the ``if TYPE_CHECKING`` block says."""
    block = next(node for node in ast.parse(inspect.getsource(hpsearch)).body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_the_three_lists_agree():
    assert sorted(hpsearch.__all__) == hpsearch.__all__
    assert set(hpsearch.__all__) == hpsearch._HOME.keys()
    assert homes_for_type_checkers() == hpsearch._HOME
    assert dir(hpsearch) == sorted([*hpsearch.__all__, "__version__"])


@pytest.mark.parametrize("name", hpsearch.__all__)
def test_every_name_is_there_and_says_what_it_is(name):
    value = getattr(hpsearch, name)
    assert value is getattr(import_module(hpsearch._HOME[name]), name)
    assert value is getattr(hpsearch, name)
    # Params is an alias of Mapping[...], and speaks through the comment at its definition.
    assert name == "Params" or inspect.getdoc(value)


def test_another_name_is_refused_by_name():
    with pytest.raises(AttributeError, match="module 'hpsearch' has no attribute 'Strateg'"):
        hpsearch.Strateg  # noqa: B018
