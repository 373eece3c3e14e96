"""The API against its own schema: whatever is asked, no answer is one that the schema does not tell of, and strangers
get none.
"""

from __future__ import annotations

import shutil

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hpsearch.dashboard.access import Access
from hpsearch.dashboard.app import make_app
from hpsearch.dashboard.record import Record

HOME = "http://127.0.0.1:8787"
TOKEN = "0123456789abcdef" * 4
#: what browsers send along with our own pages' forms
OURS = {"origin": HOME}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: values that reach the record, put in place of three of four that are made up
SAMPLES = {"study": ["fine", "grid"], "number": [0, 1], "name": ["history", "pairs"], "a": [0], "b": [1, 5]}
#: a report takes its time on a busy machine
PROJECT = ProjectConfig(generation=GenerationConfig(deterministic=True), request_timeout=120)
CONFIG = SchemathesisConfig(seed=0, projects=ProjectsConfig(default=PROJECT))


def schema_of(app: FastAPI) -> schemathesis.BaseSchema:
    made = schemathesis.openapi.from_dict(app.openapi(), config=CONFIG)
    made.app = app
    return made


#: of an application without a record: the routes are the same. A stream has no end, and tests of its own
NOBODY = schema_of(make_app(Record("sqlite:////nowhere/record.db"), Access()))
OPERATIONS = [
    (found.ok().method, found.ok().path)
    for found in NOBODY.get_all_operations()
    if not found.ok().path.endswith("/events")
]


@pytest.fixture(scope="module")
def free(url: str) -> schemathesis.BaseSchema:
    """Reading needs nothing."""
    return schema_of(make_app(Record(url), Access()))


@pytest.fixture(scope="module")
def locked(url: str) -> schemathesis.BaseSchema:
    """Everything needs the token."""
    return schema_of(make_app(Record(url), Access(token=TOKEN)))


@pytest.fixture(scope="module")
def open_to_actions(url: str, tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    """A copy of the record, for who has the token to write to; no race has chosen a trial in it."""
    copy = shutil.copy(url.removeprefix("sqlite:///"), tmp_path_factory.mktemp("written") / "record.db")
    return schema_of(make_app(Record(f"sqlite:///{copy}"), Access(token=TOKEN, allow_actions=True)))


def ask_all(schema: schemathesis.BaseSchema, method: str, path: str, examples: int, check) -> None:
    """Hold ``check`` to requests of one operation that are made up, always the same ones."""

    @settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=schema[path][method].as_strategy())
    def asked(case: schemathesis.Case) -> None:
        for part in (case.path_parameters, case.query):
            for name in SAMPLES.keys() & dict(part or {}).keys():
                k = len(str(part[name]))
                if k % 4:
                    part[name] = SAMPLES[name][k % len(SAMPLES[name])]
        check(case)

    asked()


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_whatever_is_asked_is_answered_as_the_schema_says(free, method: str, path: str) -> None:
    ask_all(free, method, path, 15, lambda case: case.call_and_validate(base_url=HOME, checks=CHECKS, headers=OURS))


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_strangers_get_nothing_and_the_token_opens(locked, method: str, path: str) -> None:
    def check(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(base_url=HOME, checks=CHECKS, headers=OURS)
        assert answer.status_code == 401
        assert answer.json()["hint"]
        known = case.call_and_validate(base_url=HOME, checks=CHECKS, headers={"authorization": f"Bearer {TOKEN}"})
        assert known.status_code != 401

    ask_all(locked, method, path, 3, check)


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[0] == "post"])
def test_whatever_is_to_be_done_is_done_or_refused(open_to_actions, method: str, path: str) -> None:
    known = {"authorization": f"Bearer {TOKEN}"}
    statuses = set()

    def check(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(base_url=HOME, checks=CHECKS, headers=known)
        statuses.add(answer.status_code)

    ask_all(open_to_actions, method, path, 25, check)
    assert not statuses & {401, 403}
    assert 422 in statuses if path.endswith("/reveal-test") else statuses & {200, 201}
