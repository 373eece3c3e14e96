"""What training code says of itself, by a look at its syntax: nothing is imported and nothing is run.

None where that does not tell: a class that is imported, a value that is computed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from hpsearch.errors import ObjectiveError
from hpsearch.objective import ObjectiveAddress, TrainingTask, find

#: classes of ``torch.optim`` by the names that we have for what they do
_CLASSES = {"SGD": "sgd", "Adam": "adam", "AdamW": "adamw", "RMSprop": "rmsprop", "Adagrad": "adagrad"}


def declared_optimizer(address: ObjectiveAddress) -> str | None:
    """The optimizer of a task's class; of a function, the only one of ``torch.optim`` that its file makes."""
    if is_function(address):
        return _made_optimizer(address)
    name = _declared(address, "optimizer")
    return name if isinstance(name, str) else None


def _made_optimizer(address: ObjectiveAddress) -> str | None:
    calls = [node for part in _body(address) for node in ast.walk(part) if isinstance(node, ast.Call)]
    made = [(ast.unparse(call.func).split(".")[-1], call) for call in calls]
    found = set()
    for name, call in made:
        if name in _CLASSES:
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            momentum = name == "SGD" and ast.unparse(given.get("momentum", ast.Constant(0))) not in ("0", "0.0")
            nesterov = momentum and "nesterov" in given and ast.unparse(given["nesterov"]) != "False"
            found.add("nesterov" if nesterov else "momentum" if momentum else _CLASSES[name])
    return found.pop() if len(found) == 1 else None


def declared_epochs(address: ObjectiveAddress) -> int | None:
    """How many epochs a run of a task's class takes at most; None for a function, which need not say."""
    epochs = _declared(address, "epochs")
    return epochs if isinstance(epochs, int) and not isinstance(epochs, bool) and epochs >= 1 else None


def is_function(address: ObjectiveAddress) -> bool:
    """True where the objective is seen to be a plain function."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(isinstance(node, functions) and node.name == address.name for node in _body(address))


def is_task(address: ObjectiveAddress) -> bool:
    """True where the objective is seen to be a class, in its file or in the one that this imports it from."""
    body = _body(address)
    for statement in reversed(body):  # the last one counts
        match statement:
            case ast.ClassDef(name=name) if name == address.name:
                return True
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name == address.name:
                return False
            case ast.ImportFrom(module=str(module), names=aliases):
                for alias in aliases:
                    if (alias.asname or alias.name) == address.name:
                        return any(_defines_class(origin) for origin in _origins(address, module, alias.name))
    return False


def _origins(address: ObjectiveAddress, module: str, name: str) -> list[ObjectiveAddress]:
    """Where an imported name may come from: a worker looks beside the file first, then in the study's folder."""
    return [ObjectiveAddress(module, name, folder) for folder in (find(address).parent, address.folder)]


def _defines_class(address: ObjectiveAddress) -> bool:
    return any(isinstance(node, ast.ClassDef) and node.name == address.name for node in _body(address))


def _body(address: ObjectiveAddress) -> list[ast.stmt]:
    try:
        return ast.parse(find(address).read_bytes()).body
    except ObjectiveError:
        return []


def _declared(address: ObjectiveAddress, attribute: str) -> object:
    classes = {node.name: node for node in _body(address) if isinstance(node, ast.ClassDef)}
    return _of_class(address.name, classes, attribute)


def _of_class(name: str, classes: Mapping[str, ast.ClassDef], attribute: str) -> object:
    """The attribute of a class, or that of its only base, up to ``TrainingTask`` with its defaults."""
    if name not in classes:
        return getattr(TrainingTask, attribute) if name == TrainingTask.__name__ else None
    task, rest = classes[name], {other: node for other, node in classes.items() if other != name}
    if any(isinstance(n, ast.Attribute) and n.attr == attribute and _is_set(n) for n in ast.walk(task)):
        return None  # self.epochs = ... in a method
    for statement in reversed(task.body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == attribute:
                return value.value if isinstance(value, ast.Constant) else None
            case ast.AnnAssign(target=ast.Name(id=target), value=value) if target == attribute and value is not None:
                return value.value if isinstance(value, ast.Constant) else None
    bases = [ast.unparse(base).split(".")[-1] for base in task.bases]
    return _of_class(bases[0], rest, attribute) if len(bases) == 1 else None


def _is_set(node: ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name)
