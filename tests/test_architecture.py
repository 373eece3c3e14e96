"""The house as it is drawn: sizes, shapes of classes, rooms of libraries, and what a cheap command must not pay for.

The tables of exceptions are a ratchet: an entry that is no longer needed fails, so they only shrink.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hpsearch"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_bytes()) for file in FILES}
#: migrations are history: each says its schema in one go
OURS = [
    *[file for file in FILES if "versions" not in file.parts],
    *sorted((ROOT / "studies").rglob("*.py")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
]

FILE_LINES, FUNCTION_LINES, ABSTRACT_METHODS, MAP_LINES = 400, 60, 6, 120

LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
#: contracts of more methods, and why they need them
WIDE_CONTRACTS = {"archive.py:Archive"}  # a method for each kind of rows that readers ask for
#: classes with concrete methods that users subclass or are given (hpsearch/README.md says why)
OPEN_CLASSES = {"objective.py:ActiveRun", "objective.py:TrainingTask"}

#: library -> the rooms that may import it: files, or folders (with a slash)
ROOMS = {
    "torch": ["training/"],
    "optuna": ["strategies/bayesian.py", "importance.py"],
    "sqlalchemy": ["stores/sql/"],
    "alembic": ["stores/sql/"],
    "psycopg": ["stores/sql/"],
    "pandas": ["results.py", "export.py", "compare.py"],
    "pyarrow": ["export.py"],
    "scipy": ["points.py", "verdict.py"],
    "statsmodels": [],
    "pydantic": ["options.py", "dashboard/api/asked.py"],
    "pydantic_core": ["dashboard/api/answer.py"],
    "yaml": ["document.py"],
    "cyclopts": ["cli/"],
    "rich": ["cli/"],
    "plotly": ["figures/"],
    "jinja2": ["report.py", "dashboard/"],
    "ray": ["executors/_ray_driver.py", "bridges/"],
    "fastapi": ["dashboard/"],
    "starlette": ["dashboard/"],
    "uvicorn": ["dashboard/"],
    "h11": ["dashboard/server.py"],
    "sklearn": [],
}
#: the one import outside: TrainingTask's default loss, in the method that needs it
GUESTS = {"objective.py: torch"}
#: the one thing that is executed: a study written in Python (``study.py``), which says so itself
EXECUTED = {"read.py: exec"}
HEAVY = {"torch", "ray", "optuna", "plotly", "pandas", "fastapi", "starlette", "uvicorn"}


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def classes():
    """Every class, also one within a function, by file and name."""
    nodes = [(file, node) for file, tree in TREES.items() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    return [(f"{file}:{node.name}", node) for file, node in nodes]


def names(nodes):
    """The last part of each name: ``dataclasses.dataclass(frozen=True)`` is ``dataclass``."""
    return {ast.unparse(node.func if isinstance(node, ast.Call) else node).split(".")[-1] for node in nodes}


def is_abstract(function):
    return "abstractmethod" in names(function.decorator_list)


def methods(node):
    return [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]


def imports(tree):
    """Every library that runs would import, by its top name; imports under TYPE_CHECKING aside."""
    if isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return {name for part in tree.orelse for name in imports(part)}
    if isinstance(tree, ast.Import):
        return {alias.name.split(".")[0] for alias in tree.names}
    if isinstance(tree, ast.ImportFrom):
        return {str(tree.module).split(".")[0]}
    return {name for part in ast.iter_child_nodes(tree) for name in imports(part)}


def test_no_file_is_too_long():
    long = {f.relative_to(ROOT).as_posix() for f in OURS if len(f.read_text("utf-8").splitlines()) > FILE_LINES}
    assert long == LONG_FILES


def test_no_function_is_too_long():
    """Its docstring is not counted: to explain costs nothing."""
    long = set()
    for file in OURS:
        for node in functions(ast.parse(file.read_bytes())):
            first = node.body[0]
            prose = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
            if node.end_lineno - node.lineno + 1 - prose > FUNCTION_LINES:
                long.add(f"{file.relative_to(ROOT).as_posix()}:{node.name}")
    assert long == LONG_FUNCTIONS


def test_the_loop_is_a_page():
    """The design's own bound; docstrings, comments and blank lines are not counted."""
    tree, lines = TREES["search.py"], (PACKAGE / "search.py").read_text("utf-8").splitlines()
    spans = [node.body[0] for node in ast.walk(tree)
             if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)]  # fmt: skip
    prose = {number for node in spans for number in range(node.lineno, node.end_lineno + 1)}
    code = [
        n for n, text in enumerate(lines, 1) if n not in prose and text.strip() and not text.strip().startswith("#")
    ]
    assert len(code) <= 120


def test_contracts_are_small():
    wide = {name for name, node in classes() if sum(map(is_abstract, methods(node))) > ABSTRACT_METHODS}
    assert wide == WIDE_CONTRACTS


def test_a_class_is_final_or_abstract_with_abstract_methods_only():
    errors = {"Exception", "BaseException"} | {
        name.split(":")[1] for name, _ in classes() if name.startswith("errors.py")
    }
    wrong = set()
    for name, node in classes():
        bases = names(node.bases)
        if "final" in names(node.decorator_list) or bases & {"StrEnum", "IntEnum", "NamedTuple"} or bases & errors:
            continue
        if "Protocol" in bases and not methods(node):
            continue
        if not ("ABC" in bases and methods(node) and all(map(is_abstract, methods(node)))):
            wrong.add(name)
    assert wrong == OPEN_CLASSES


def test_there_are_no_utils():
    assert not [f for f in FILES if re.fullmatch(r"_?(utils?|helpers?|misc|common)\.py", f.name)]


def test_one_library_one_room():
    guests = {
        f"{file}: {library}"
        for file, tree in TREES.items()
        for library in imports(tree) & ROOMS.keys()
        if not any(file == room or (room.endswith("/") and file.startswith(room)) for room in ROOMS[library])
    }
    assert guests == GUESTS


def test_nothing_is_executed_that_was_read():
    """No pickle, no eval, no shell, no unsafe YAML: objectives travel as file and name, records as rows."""
    found = set()
    for file, tree in TREES.items():
        found |= {f"{file}: {name}" for name in imports(tree) & {"pickle", "cloudpickle", "dill", "marshal", "shelve"}}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) and is_unsafe(called, node.keywords):
                found.add(f"{file}: {called}")
    assert found == EXECUTED


def is_unsafe(called, keywords):
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
    if called in ("eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load"):
        return True
    if called.startswith("subprocess.") or called == "Popen":
        return given.get("shell", "False") != "False"
    if called in ("yaml.load", "yaml.load_all", "yaml.parse"):
        return given.get("Loader") not in ("yaml.SafeLoader", "yaml.CSafeLoader")
    return called == "torch.load" and given.get("weights_only") != "True"


@pytest.mark.parametrize(
    "code",
    ["eval(x)", "yaml.load(x, Loader=yaml.Loader)", "subprocess.run(x, shell=True)", "torch.load(x)", "yaml.load(x)"],
)
def test_the_look_for_unsafe_calls_sees_them(code):
    call = ast.parse(code).body[0].value
    assert is_unsafe(ast.unparse(call.func), call.keywords)


def layers():
    """The layers of pyproject.toml, from the top; those in parentheses, which are to come, and ``__main__`` aside."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    lines = [line.split(" | ") for line in config["contracts"][0]["layers"]]
    return [kept for line in lines if (kept := {name for name in line if name[0] != "(" and name != "__main__"})]


def test_the_layers_are_the_listing_of_the_package():
    listing = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set().union(*layers()) == listing - {"__init__", "__main__"}


def test_the_map_shows_the_layers():
    """Each row of the map's table is one layer, or a few that follow each other, from the top down."""
    text = (PACKAGE / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= MAP_LINES
    table = re.findall(r"^\|(.*?)\|.*\|$", text.split("## The grammar")[1].split("\n## ")[0], re.MULTILINE)
    rows = [{name.rstrip("/") for name in re.findall(r"`([\w/]+)`", cell)} for cell in table]
    rows = [row for row in rows if row]
    rest = layers()
    for row in rows:
        taken = set()
        while rest and rest[0] <= row:
            taken |= rest.pop(0)
        assert row == taken, f"the map's row {sorted(row)} is not these layers: {sorted(taken)}, then {rest[:1]}"
    assert not rest, f"the map lacks the layers {rest}"


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A database with one study in it, and the study's file."""
    import hpsearch as hp

    folder = tmp_path_factory.mktemp("record")
    (folder / "train.py").write_text("def train(run):\n    return run['lr']\n")
    (folder / "study.yaml").write_text(
        "name: tiny\nobjective: train.py:train\nsearch_space: {lr: {log: [1e-3, 1]}}\nstrategy: random\n"
        "metric: {val_loss: minimize}\nn_trials: 2\n"
    )
    hp.run(hp.read_study(folder / "study.yaml"), db=f"sqlite:///{folder}/hpsearch.db", on="inline")
    return folder


COMMANDS = {
    "import": "import hpsearch",
    "help": "from hpsearch.cli.app import main; sys.argv = ['hpsearch', '--help']; main()",
    "list": "from hpsearch.cli.app import main; sys.argv = ['hpsearch', 'list']; main()",
    "read": "import hpsearch; assert hpsearch.read_study('study.yaml').name == 'tiny'",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_cheap_commands_import_nothing_heavy(command, record):
    code = (
        f"import json, sys\nstatus = 0\ntry:\n    {COMMANDS[command]}\nexcept SystemExit as error:\n"
        "    status = error.code or 0\nprint('\\n' + json.dumps([status, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=record, capture_output=True, text=True, check=True)
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert "hpsearch" in modules
    assert not HEAVY & set(modules)
