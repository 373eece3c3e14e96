"""One training step of all lanes, on the highest rung of the ladder that works: compiled and captured in a CUDA graph,
captured only, or as plain operations. The result is the same on every rung, to the engine's rounding.

A graph replays the kernels of one step on the same memory, without Python; what changes from step to step is copied
into its inputs first. A shape of its own (the number of lanes, a last partial batch) has a graph of its own.
On a CPU plain steps are played from a ``tape``, which gives the same bits.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast, final

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from hpsearch.training.agreement import COMPARED, Outcome, far_apart
from hpsearch.training.guard import no_garbage
from hpsearch.training.optim import Settings
from hpsearch.training.randomness import Stream
from hpsearch.training.tape import CannotRecord, record, written

#: steps at the same shape from which compiling pays: it takes some ten seconds
COMPILED_STEPS = 2_000
#: steps before a capture, as torch asks for
_WARM = 3
#: plain steps at one shape before one is recorded, which costs some ten of them
TAPED_AFTER = 16


@final
@dataclass(frozen=True, kw_only=True)
class Batch:
    """What changes from step to step, tensors only."""

    #: places of the examples, (K, B)
    rows: Tensor
    #: keys of the dropout masks, pairs of (K,)
    masks: Sequence[Stream]
    #: numbers of the update, (K, 1) or (K, W)
    numbers: Settings
    #: what else a lane's batch needs, (K, ...)
    extra: Mapping[str, Tensor]
    #: inputs (B, ...) and targets (B, ...) of all lanes where data is streamed; else lanes gather their own by ``rows``
    shared: tuple[Tensor, ...] = ()

    @property
    def shape(self) -> Shape:
        """What a compiled, captured or taped step is made for: lanes, examples, and the numbers that there are.

        With the first lane that has a penalty, the update is another one.
        """
        numbers = [f.name for f in fields(self.numbers) if isinstance(getattr(self.numbers, f.name), Tensor)]
        return (*self.rows.shape, *numbers)


#: lanes, examples, and names of numbers: ``Batch.shape``
Shape = tuple[int | str, ...]
#: a batch -> the losses before its update, (K,)
Step = Callable[[Batch], Tensor]


@final
class Steps:
    """The steps of one set of lanes, by shape.

    Args:
        plain: makes a plain step of so many lanes.
        rows: all tensors that a step changes, but for ``gradient``.
        gradient: where a step leaves its own.
        mixed: whether the forward computes in bfloat16.
    """

    def __init__(
        self, plain: Callable[[int], Step], rows: Callable[[], list[Tensor]], gradient: Tensor, *, mixed: bool = False
    ) -> None:
        device = gradient.device
        self._plain, self._rows, self._graphs = plain, rows, device.type == "cuda"
        self._gradient, self._mixed = gradient, mixed
        self._compiles, self._records = device.type == "cuda", device.type == "cpu"
        #: steps of a shape from which it is compiled
        self._compiled_from = COMPILED_STEPS
        #: memory that all graphs use in turn: no two run at once, and what one leaves is copied before the next
        self._pool: Any = None
        self._made: dict[tuple[Shape, bool], Step] = {}
        #: plain steps so far; None: they are not to be recorded
        self._plain_steps: dict[Shape, int | None] = {}
        self._tapes: dict[Shape, Step] = {}
        #: by lanes and shapes of the inputs; None: they cannot be captured
        self._others: dict[Hashable, Callable[[Sequence[Tensor]], Any] | None] = {}
        #: why a rung is not used; empty while none was left
        self.reason = ""
        self.backend = "inductor"

    @property
    def engine(self) -> str:
        """The rung that whole batches take, as far as is known."""
        if not self._graphs:
            return "compiled" if any(compiled for *_, compiled in self._made) else "vmap"
        return "compiled + graph" if any(compiled for *_, compiled in self._made) else "vmap + graph"

    def compile_always(self, backend: str = "inductor") -> None:
        """Compile whatever the number of steps, on any device; ``backend``: torch.compile's."""
        self._compiles, self._compiled_from, self.backend = True, 0, backend
        self._made.clear()

    def capture_never(self) -> None:
        """Neither compile nor capture: steps are plain operations on any device."""
        self._compiles = self._graphs = False
        self._made.clear()

    def forget(self) -> None:
        """The lanes' memory or numbers are others now."""
        self._made.clear()
        self._tapes.clear()
        self._others.clear()

    def of(self, batch: Batch, left: int, *, whole: bool = True) -> Step:
        """The step for batches of this shape.

        Args:
            batch: the first of them.
            left: how many steps of this shape are to come.
            whole: False for a last partial batch: not worth compiling.
        """
        compiled = self._compiles and whole and left >= self._compiled_from
        for key in ((batch.shape, True), (batch.shape, False)):
            if key in self._made:
                return self._made[key]
        step = self._compiled(batch) if compiled else None
        if step is not None:
            self._made[batch.shape, True] = step
            return step
        step = self._made[batch.shape, False] = self._captured(self._plain(len(batch.rows)), batch)
        return step

    def repeated(self, step: Step, batch: Batch) -> Step:
        """The same plain step without its Python, once it has been made often enough: the same to the bit."""
        shape = batch.shape
        if shape in self._tapes:
            return self._tapes[shape]
        done = self._plain_steps.get(shape, 0)
        if not self._records or self._compiles or done is None:
            return step
        if done < TAPED_AFTER:
            self._plain_steps[shape] = done + 1
            return step
        tape = self._kept(lambda: self._taped(step, batch))
        if tape is None:
            self._plain_steps[shape] = None
            return step
        self._tapes[shape] = tape
        return cast(Step, tape)

    def _taped(self, step: Step, batch: Batch) -> Step | None:
        """A step from a tape; None where it is not the step itself, tried with other weights, data and numbers."""

        def tape(batch: Batch) -> Tensor:
            return play(*_tensors(batch))

        try:
            tried = _copied(batch)
            _, play = record(lambda: step(tried), _tensors(tried))
            results = [
                [one(_other(batch)), *(rows.clone() for rows in self._rows())] for one in self._each_kept(step, tape)
            ]
        except Exception:  # noqa: BLE001 - whatever cannot be recorded; what is wrong with the step itself it says later
            return None
        return tape if all(_same_bits(a, b) for a, b in zip(*results, strict=True)) else None

    def _each_kept(self, *steps: Step) -> Iterator[Step]:
        """One after the other, each from where the lanes are now."""
        before = [rows.clone() for rows in self._rows()]
        for step in steps:
            for rows, kept in zip(self._rows(), before, strict=True):
                rows.copy_(kept)
            yield step

    def _compiled(self, batch: Batch) -> Step | None:
        plain = self._plain(len(batch.rows))
        try:
            with no_garbage(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's, about itself
                step: Step = self._kept(lambda: compiled(plain, _copied(batch), self.backend))
                # Another batch than it was written down with, which may have left its numbers there.
                ours, theirs = (self._outcome(one, _other(_copied(batch))) for one in (plain, step))
            if difference := far_apart(ours, theirs):
                raise CannotRecord(difference)
        except Exception as error:  # noqa: BLE001 - whatever a compiler cannot take
            self._leave("compiled", error)
            self._compiles = False
            return None
        return self._captured(step, batch)

    def _outcome(self, step: Step, batch: Batch) -> Outcome:
        """What a step makes from where the lanes are now; it leaves them there."""
        some = slice(None, len(batch.rows), max(1, len(batch.rows) // COMPARED))
        rows = [] if self._mixed else [rows for rows in self._rows() if rows.is_floating_point()]
        before = [part[some].clone() for part in rows]
        self._gradient.zero_()  # what another step has left there would pass for this one's

        def made() -> Outcome:
            losses = step(batch)[some]
            gradient = None if self._mixed else self._gradient[some].clone()
            return Outcome(losses=losses, gradient=gradient, before=before, after=[part[some].clone() for part in rows])

        outcome: Outcome = self._kept(made)
        return outcome

    def captured(self, function: Callable[..., Any], inputs: Sequence[Tensor], lanes: int) -> Callable[..., Any]:
        """Another function of tensors on so many lanes, captured for inputs like these where steps are."""
        if not self._graphs:
            return function
        key = (lanes, *((x.shape, x.dtype) for x in inputs))
        if key not in self._others:
            static = [x.clone() for x in inputs]
            try:
                self._others[key] = self._graph(lambda: function(*static), static)
            except Exception as error:  # noqa: BLE001 - as below
                self._leave("captured in validation", error)
                self._others[key] = None
                torch.cuda.synchronize()
        replay = self._others[key]
        return function if replay is None else lambda *inputs: replay(inputs)

    def _captured(self, step: Step, batch: Batch) -> Step:
        if not self._graphs:
            return step
        static = _copied(batch)
        try:
            replay = self._graph(lambda: step(static), _tensors(static))
        except Exception as error:  # noqa: BLE001 - whatever cannot be captured
            self._leave("captured", error)
            self._graphs = False
            torch.cuda.synchronize()
            return step
        return lambda batch: replay(_tensors(batch))

    def _graph(self, body: Callable[[], Any], inputs: Sequence[Tensor]) -> Callable[[Sequence[Tensor]], Any]:
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        replay: Callable[[Sequence[Tensor]], Any] = self._kept(lambda: _capture(body, inputs, self._pool))
        return replay

    def _kept(self, body: Callable[[], Any]) -> Any:
        """Run something that steps, and take the lanes back to where they were."""
        before = [rows.clone() for rows in self._rows()]
        try:
            return body()
        finally:
            for rows, kept in zip(self._rows(), before, strict=True):
                rows.copy_(kept)

    def _leave(self, rung: str, error: BaseException) -> None:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        self.reason = "; ".join(filter(None, [self.reason, f"not {rung}: {first[:160]}"]))


def expect(steps: int, device: str) -> None:
    """Where so many steps of a shape are going to be compiled, start the compiler's processes.

    They take some ten seconds, and until they are there it compiles one kernel after the other.
    """
    if steps >= COMPILED_STEPS and torch.device(device).type == "cuda":
        with no_garbage(), contextlib.suppress(ImportError):  # torch's own affair: it would start them itself, later
            from torch._inductor.async_compile import maybe_warm_pool

            maybe_warm_pool()


def compiled(step: Step, batch: Batch, backend: str) -> Step:
    """A step that will be compiled whole, when it is first made; with this batch it is made once as it is.

    Raises:
        CannotRecord: it cannot be written down. Whatever the step raises.
    """
    graph, found = written(lambda: step(batch), _tensors(batch))
    # One way to divide each loop, in place of a race between several: that takes seconds, and the fastest may be
    # another one the next time.
    options: dict[str, Any] | None = {"triton.autotune_pointwise": False} if backend == "inductor" else None
    call = torch.compile(graph, fullgraph=True, dynamic=False, backend=backend, options=options)

    @torch.no_grad()
    def again(batch: Batch) -> Tensor:
        # Strides that are always the same, of which it was compiled for one.
        return cast(Tensor, call(*found, *(tensor.contiguous() for tensor in _tensors(batch))))

    return again


def _capture(body: Callable[[], Any], inputs: Sequence[Tensor], pool: Any) -> Callable[[Sequence[Tensor]], Any]:
    """What a body does with its inputs as a CUDA graph (torch's notes on CUDA semantics, "CUDA graphs")."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM):
            body()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Another graph that is freed meanwhile would break this one, and torch no longer collects before a capture.
    with no_garbage(), torch.cuda.graph(graph, pool=pool):
        outputs = body()
    given: list[Tensor | None] = [None] * len(inputs)

    def replay(others: Sequence[Tensor]) -> Any:
        for place, (mine, theirs) in enumerate(zip(inputs, others, strict=True)):
            if given[place] is not theirs:  # numbers of a whole epoch are copied once
                given[place] = theirs
                mine.copy_(theirs)
        graph.replay()
        return tree_map(torch.clone, outputs)

    return replay


def _copied(batch: Batch) -> Batch:
    """A batch to try a step with: a forward may change the data that it shares in place."""
    numbers = {f.name: getattr(batch.numbers, f.name) for f in fields(batch.numbers)}
    copies = {name: value.clone() for name, value in numbers.items() if isinstance(value, Tensor)}
    return Batch(
        rows=batch.rows.clone(),
        masks=tree_map(torch.clone, list(batch.masks)),
        numbers=replace(batch.numbers, **copies),
        extra={name: tensor.clone() for name, tensor in batch.extra.items()},
        shared=tuple(tensor.clone() for tensor in batch.shared),
    )


def _other(batch: Batch) -> Batch:
    """A batch of the same shape, in which every tensor is another."""
    numbers = {f.name: getattr(batch.numbers, f.name) for f in fields(batch.numbers)}
    halves = {name: value / 2 for name, value in numbers.items() if isinstance(value, Tensor)}
    return Batch(
        rows=batch.rows.flip(0, 1),
        masks=[(a ^ 1, b ^ 2) for a, b in batch.masks],
        numbers=replace(batch.numbers, **halves),
        extra={name: x / 2 if x.is_floating_point() else x + 1 for name, x in batch.extra.items()},
        shared=tuple(x.flip(0) for x in batch.shared),
    )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8))


def _tensors(batch: Batch) -> list[Tensor]:
    numbers = [getattr(batch.numbers, f.name) for f in fields(batch.numbers)]
    parts = [batch.rows, *tree_leaves(list(batch.masks)), *numbers, *batch.extra.values(), *batch.shared]
    return [part for part in parts if isinstance(part, Tensor)]
