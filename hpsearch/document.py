"""The text of a study file -> a tree of plain data, with the line of every field. Knows nothing of studies.

YAML is read by the core schema of YAML 1.2: ``1e-5`` is a number, ``no`` and ``1_000`` are strings. PyYAML (YAML 1.1)
only cuts the text into events; what they mean is decided here. Nothing in a file is ever executed, and a small
file cannot grow: aliases count with all they repeat, and depth and size have limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from hpsearch.errors import Problem, StudyError, shown

if TYPE_CHECKING:
    from yaml import Event

#: where in the tree: keys, and places in lists
Path = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 20

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
}
_TAG = "tag:yaml.org,2002:"


@final
@dataclass
class Document:
    """A tree and where its parts stand."""

    #: as the user named it; empty for a study written in Python
    file: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    #: path -> ``line:column`` of the value, and of its key
    values: dict[Path, str] = field(default_factory=dict)
    keys: dict[Path, str] = field(default_factory=dict)
    #: mistakes that do not keep the rest from being read
    problems: list[Problem] = field(default_factory=list)

    def where(self, path: Path, *, key: bool = False) -> str:
        """``file:line:column`` of the value (or its key) at ``path``, or of the nearest thing around it."""
        for end in range(len(path), -1, -1):
            marks = self.keys if key and end == len(path) else self.values
            mark = marks.get(path[:end]) or self.keys.get(path[:end])
            if mark is not None:
                return mark if mark.startswith("--set") or not self.file else f"{self.file}:{mark}"
        return self.file

    def override(self, dotted: str, value: object) -> None:
        """Set the field at ``a.b.0.c``; a string is read as YAML. What is in the way and no mapping is replaced.

        Raises:
            StudyError: the path is empty, leads nowhere, or the text is no YAML.
        """
        where = f"--set {dotted}"
        path: Path = tuple(int(part) if part.isdigit() else part for part in dotted.split("."))
        if "" in path or isinstance(path[0], int):
            _fail(dotted or "--set", "is no field", where, "--set search_space.lr.points=5")
        if isinstance(value, str):
            value = parse_yaml(value, where, root=object).data["value"]
        node: Any = self.data
        for depth, part in enumerate(path[:-1]):
            if isinstance(node, list):
                node = node[_place(node, part, dotted)]
                continue
            inner = node.get(str(part))
            if isinstance(inner, str) and path[:depth] == () and part in ("strategy", "pruner"):
                inner = {inner: {}}
            if not isinstance(inner, dict | list):
                inner = {}
            node[str(part)] = inner
            node = inner
        if isinstance(node, list):
            node[_place(node, path[-1], dotted)] = value
        else:
            node[str(path[-1])] = value
        for marks in (self.values, self.keys):
            for below in [p for p in marks if p[: len(path)] == path]:
                del marks[below]
        self.values[path] = self.keys[path] = where


def _place(items: list[Any], part: str | int, dotted: str) -> int:
    if isinstance(part, int) and part < len(items):
        return part
    _fail(dotted, f"leads nowhere: {shown(part)} is no place in a list of {len(items)}", f"--set {dotted}")
    raise AssertionError


def _fail(field: str, message: str, where: str, hint: str = "", file: str = "") -> None:
    raise StudyError([Problem(field=field, message=message, where=where, hint=hint)], file=file)


def parse(raw: bytes, file: str) -> Document:
    """The document in ``raw``: TOML where the file is called ``.toml``, else YAML.

    Raises:
        StudyError: no UTF-8, too large, no valid YAML or TOML, or no mapping.
    """
    if len(raw) > MAX_BYTES:
        _fail("file", f"has {len(raw)} bytes; a study file has at most {MAX_BYTES}", file, file=file)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        what = f"is no UTF-8 text: byte 0x{raw[error.start]:02x} in line {line}"
        _fail("file", what, f"{file}:{line}", "save the file as UTF-8", file)
    return _parse_toml(text, file) if file.endswith(".toml") else parse_yaml(text, file)


def parse_yaml(text: str, file: str, *, root: type = dict) -> Document:
    """The one YAML document in ``text``. A tree that is no mapping (``root=object``) stands under ``value``.

    Raises:
        StudyError: no valid YAML; not one document; a tag; too many nodes; no mapping.
    """
    import yaml

    document = Document(file=file)
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        data = _YamlTree(events, document).read()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
        if "\\t" in what:
            what = "a tab where YAML wants spaces"
        at = "" if mark is None else f":{mark.line + 1}:{mark.column + 1}"
        context = getattr(error, "context", None)
        _fail("file", f"is no valid YAML: {what}{f' ({context})' if context else ''}", file + at, file=file)
    if root is object:
        document.data = {"value": data}
        if document.problems:
            raise StudyError(document.problems, file=file)
    elif data is None:
        _fail("file", "is empty", file, "hpsearch init writes a study to start from", file)
    elif not isinstance(data, dict):
        _fail("file", f"must be a mapping of fields, not {shown(data)}", f"{file}:1:1", "name: my-study", file)
    else:
        document.data = data
    return document


@final
class _YamlTree:
    """Builds the tree of one document from PyYAML's events."""

    def __init__(self, events: Iterator[Event], document: Document) -> None:
        self._events = events
        self._document = document
        #: anchor -> its value and how many nodes that has
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0

    def read(self) -> Any:
        import yaml

        data: Any = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._fail(event, "holds more than one document ('---')", "one study a file")
                data = self._node(next(self._events), (), 0)
        return data

    def _node(self, event: Event, path: Path, depth: int) -> Any:
        import yaml

        self._document.values[path] = _mark(event)
        if depth > MAX_DEPTH:
            self._fail(event, f"is nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name not in self._anchors:
                self._fail(event, f"*{shown(name)[1:-1]} names no anchor that is complete here")
            value, nodes = self._anchors[name]
            self._count(event, nodes)
            return value
        before = self._nodes
        self._count(event, 1)
        self._check_tag(event)
        value = (
            self._mapping(path, depth)
            if isinstance(event, yaml.MappingStartEvent)
            else self._sequence(path, depth)
            if isinstance(event, yaml.SequenceStartEvent)
            else self._scalar(event)
        )
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = (value, self._nodes - before)
        return value

    def _mapping(self, path: Path, depth: int) -> dict[str, Any]:
        import yaml

        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            known = len(self._document.problems)
            key = self._node(event, (*path, "\0key"), depth + 1)
            if not isinstance(key, str):
                self._wrong(event, path, f"{shown(key)} cannot be a key: keys are strings", "put it in quotes")
            name = str(key) if len(self._document.problems) == known else f"\0{known}"
            inner = (*path, name)
            if name in mapping:
                first = self._document.keys[inner].partition(":")[0]
                self._wrong(event, inner, f"stands twice; first in line {first}", "keep one of them")
            self._document.keys.setdefault(inner, _mark(event))
            mapping[name] = self._node(next(self._events), inner, depth + 1)
        self._document.values.pop((*path, "\0key"), None)
        return {name: value for name, value in mapping.items() if not name.startswith("\0")}

    def _sequence(self, path: Path, depth: int) -> list[Any]:
        import yaml

        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), depth + 1))
        return items

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        tag = (event.tag or "").removeprefix(_TAG)
        if tag in ("str", "!") or (not tag and not event.implicit[0]):
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            try:
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            except ValueError:  # more than 4300 digits
                self._fail(event, f"{shown(text)} has too many digits")
        if _FLOAT.fullmatch(text):
            return float(text.replace(".", "") if text[-1] in "fFnN" else text)
        return text

    def _check_tag(self, event: Any) -> None:
        tag = event.tag
        if tag in (None, "!") or tag.removeprefix(_TAG) in ("str", "int", "float", "bool", "null", "map", "seq"):
            return
        name = tag.replace(_TAG, "!!")
        self._fail(event, f"the tag {shown(name)} is not allowed: a study file is plain data", "remove the tag")

    def _count(self, event: Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            self._fail(event, f"has more than {MAX_NODES} values, aliases counted as what they repeat")

    def _wrong(self, event: Event, path: Path, message: str, hint: str = "") -> None:
        where = f"{self._document.file}:{_mark(event)}"
        self._document.problems.append(Problem(field=dotted(path) or "file", message=message, where=where, hint=hint))

    def _fail(self, event: Event, message: str, hint: str = "") -> None:
        self._wrong(event, (), message, hint)
        raise StudyError(self._document.problems, file=self._document.file)


def dotted(path: Path) -> str:
    """``search_space.lr[0]``; a name that is long or odd is cut and escaped."""
    parts = [f"[{p}]" if isinstance(p, int) else f".{p if _plain(p) else shown(p)}" for p in path]
    return "".join(parts).removeprefix(".")


def _plain(name: str) -> bool:
    return name.isprintable() and len(name) <= 60


def _mark(event: Event) -> str:
    mark = event.start_mark
    assert mark is not None
    return f"{mark.line + 1}:{mark.column + 1}"


def _parse_toml(text: str, file: str) -> Document:
    import tomllib

    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        message, at = str(error), ""
        if place:
            message, at = message[: place.start()], f":{place[1]}:{place[2]}"
        _fail("file", f"is no valid TOML: {message[:1].lower()}{message[1:]}", file + at, file=file)
    except RecursionError:
        _fail("file", f"is nested more than {MAX_DEPTH} deep", file, file=file)
    document = Document(file=file, data=data, values={(): "1:1"})
    _mark_toml(text, document)
    return document


_TOML_TABLE = re.compile(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?")
_TOML_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=\s*""")


def _mark_toml(text: str, document: Document) -> None:
    """tomllib gives no places, so lines are found by their look: ``[table]`` and ``key =``."""
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TOML_TABLE.fullmatch(line):
            table = tuple(part.strip().strip("\"'") for part in match[1].split("."))
            document.keys.setdefault(table, f"{number}:{match.start(1) + 1}")
        elif match := _TOML_KEY.match(line):
            path = (*table, *(part.strip().strip("\"'") for part in match[1].split(".")))
            document.keys.setdefault(path, f"{number}:{match.start(1) + 1}")
            document.values.setdefault(path, f"{number}:{match.end() + 1}")
