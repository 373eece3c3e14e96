"""How a running study is watched: redrawn on a terminal, as lines everywhere else."""

from __future__ import annotations

import textwrap
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self, final

from rich.cells import cell_len
from rich.console import RenderableType

from hpsearch.cli.list import counts_text
from hpsearch.cli.terminal import clip, console, duration, lively, number, printable, setting_text, table
from hpsearch.errors import UsageError
from hpsearch.trial import State

if TYPE_CHECKING:
    from hpsearch.progress import Progress

#: redraws a second: more only costs
REDRAWS = 4
#: seconds between two lines where nothing new is the best and nothing fails
LINE_S = 60.0
#: what a line of the log leaves out where it is too long, first to last
SPARED = ("study", "sd", "running", "queued")
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
BAR = 24


class Display(ABC):
    """Hears of the progress while it is entered."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the terminal as it was."""

    @abstractmethod
    def __call__(self, progress: Progress) -> None:
        """What the study's progress is now."""

    @abstractmethod
    def tell(self, text: str) -> None:
        """One line that is no progress: the database is gone, or back."""


def display(kind: str) -> Display:
    """``auto``, ``live``, ``log`` or ``none``; auto is live on a terminal, else (and in CI, on a dumb one) log."""
    if kind == "auto":
        kind = "live" if lively() else "log"
    makers: dict[str, type[Live] | type[Log] | type[Silent]] = {"live": Live, "log": Log, "none": Silent}
    if kind not in makers:
        raise UsageError(f"--progress: {kind!r} is no way to show progress", hint="auto, live, log or none")
    return makers[kind]()


@final
class Silent(Display):
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def __call__(self, progress: Progress) -> None:
        pass

    def tell(self, text: str) -> None:
        pass


@final
class _News:
    """What is said once of how runs are trained, whatever the number of lanes."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def of(self, progress: Progress) -> list[str]:
        """The lines that are new."""
        fresh = {line.split(" lanes, ", 1)[-1]: line for line in progress.engines}
        lines = [line for way, line in fresh.items() if way not in self._said]
        self._said |= fresh.keys()
        return lines


@final
class Log(Display):
    """Lines of ``key=value`` on stderr: one a minute, and one for each new best value, failure and way of training.

    A line that is too long for 80 columns leaves out what the first lines or ``hpsearch status`` say as well.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._best: int | None = None
        self._failed: set[str] = set()
        self._news = _News()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def __call__(self, progress: Progress) -> None:
        for line in self._news.of(progress):
            self._print("trains", study=progress.study, how=line)
        fresh = [(key, reason) for key, reason in progress.failures if key not in self._failed]
        for key, reason in reversed(fresh):
            self._failed.add(key)
            self._print("failed", study=progress.study, run=key, reason=reason)
        best = progress.best[0].number if progress.best else None
        due = time.monotonic() - self._last >= LINE_S
        if best != self._best or due:
            self._best = best
            self._last = time.monotonic()
            self._print("progress", **_facts(progress))

    def tell(self, text: str) -> None:
        self._print("note", text=text)

    def _print(self, event: str, **facts: str) -> None:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        pairs = {name: f"{name}={_quoted(value)}" for name, value in facts.items()}
        for name in SPARED:
            if cell_len(" ".join([at, event, *pairs.values()])) > 80:
                pairs.pop(name, None)
        console(stderr=True).print(" ".join([at, event, *pairs.values()]))


def _facts(progress: Progress) -> dict[str, str]:
    facts = {"study": progress.study, "done": _done_text(progress)}
    facts |= {str(state): str(count) for state, count in progress.counts.items() if state is not State.COMPLETE}
    if progress.best:
        best = progress.best[0]
        facts |= {"best": f"#{best.number}", progress.metric: number(best.value)}
        facts |= {"sd": number(best.sd, 2)} if best.sd is not None else {}
    if progress.eta_s is not None:
        facts["eta"] = f"{progress.eta_s:.0f}s"
    return facts


def _quoted(value: str) -> str:
    text = printable(value)
    plain = text and not any(c in text for c in ' "=')
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _done_text(progress: Progress) -> str:
    done = sum(count for state, count in progress.counts.items() if state.final)
    return str(done) if progress.n_trials is None else f"{done}/{progress.n_trials}"


@final
class Live(Display):
    """A few lines at the bottom of the terminal, redrawn in place."""

    def __init__(self) -> None:
        from rich.live import Live as RichLive

        self._console = console(stderr=True)
        self._progress: Progress | None = None
        self._news = _News()
        self._live = RichLive(
            get_renderable=self._draw, console=self._console, refresh_per_second=REDRAWS, vertical_overflow="crop"
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()

    def __call__(self, progress: Progress) -> None:
        # Only kept: the redrawing thread takes the latest, so a fast study is not slowed down by its picture.
        self._progress = progress
        for line in self._news.of(progress):
            self.tell(line)

    def tell(self, text: str) -> None:
        self._console.print(textwrap.fill(printable(text), min(80, self._console.width), subsequent_indent="  "))

    def _draw(self) -> RenderableType:
        from rich.text import Text

        if self._progress is None:
            return Text("starting ...", style="dim")
        columns = self._console.width
        lines = [clip(line, columns) for line in drawing(self._progress, columns, time.monotonic())]
        return Text("\n".join(lines), no_wrap=True, overflow="crop")


def drawing(progress: Progress, columns: int, now: float) -> Iterator[str]:
    """The lines of the live picture, at most ``columns`` wide: bar, window, best trials, counts, newest failure."""
    spinner = SPINNER[int(now * REDRAWS) % len(SPINNER)]
    head = f"{spinner} {_place(progress)}"
    tail = f"{_done_text(progress)} trials  {duration(progress.seconds)}"
    if progress.eta_s is not None:
        tail += f"  eta {duration(progress.eta_s)}"
    if progress.runs_total:
        room = min(BAR, columns - cell_len(head) - cell_len(tail) - 4)
        tail = f"{bar(progress.runs_done / progress.runs_total, room)}  {tail}" if room >= 5 else tail
    yield f"{head}  {tail}"
    if progress.window:
        ends = (f"{name} {setting_text(a)} … {setting_text(b)}" for name, (a, b) in progress.window.items())
        yield f"  window  {'   '.join(ends)}"
    yield from (f"  {line}" for line in _top(progress, columns - 2))
    counts = counts_text(dict(progress.counts))
    yield f"  {counts or 'nothing has ended yet'}"
    if progress.failures:
        key, reason = progress.failures[0]
        yield f"  failed {key}: {printable(reason)}"
    yield "  Ctrl-C once: finish what runs, twice: stop now"


def _place(progress: Progress) -> str:
    """``round 2`` for a strategy that goes in rounds, else its name."""
    return f"round {progress.batch + 1}" if progress.window else progress.strategy


def bar(share: float, cells: int) -> str:
    """``━━━━╸───``"""
    full = min(cells, int(max(0.0, share) * cells))
    rest = cells - full
    return "━" * full + ("╸" + "─" * (rest - 1) if rest else "")


def _top(progress: Progress, columns: int) -> list[str]:
    if not progress.best:
        return []
    names = list(progress.best[0].params)
    varied = [name for name in names if len({str(t.params.get(name)) for t in progress.best}) > 1]
    rows = [
        [
            "★" if rank == 0 else str(rank + 1),
            f"#{trial.number}",
            number(trial.value),
            f"{number(trial.sd, 2) if trial.sd is not None else ''} ({len(progress.seeds)})".strip(),
            *(setting_text(trial.params.get(name)) for name in varied or names),
        ]
        for rank, trial in enumerate(progress.best)
    ]
    return table(["", "trial", progress.metric, "± sd (n)", *(varied or names)], rows, fit=columns, keep=3)
