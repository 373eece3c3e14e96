"""Models of one structure as the rows of stacked tensors, and the vmapped forward over them.

Trainable weights are rows of one (S, P) buffer, so that an update is a handful of operations; buffers and frozen
parameters are stacked one by one, the slot first: vmap's BatchNorm loses its running statistics otherwise.
Lanes are the first K slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hpsearch.training.lifted import LaneFunctions
from hpsearch.training.optim import Weights
from hpsearch.training.randomness import KeyedDropout, Stream
from hpsearch.training.structure import CannotFuse, Place
from hpsearch.training.tape import is_for_compiler
from hpsearch.training.weights import copied

#: elements: kernels may round in another way where a lane's matrix begins at an odd address
ALIGNED = 16
#: name -> (K, ...)
Rows = Mapping[str, Tensor]


@final
class Stack:
    """S models as one.

    Args:
        model: the first of them, on its device; from now on the form that all share.
        slots: S.
    """

    def __init__(self, model: nn.Module, slots: int) -> None:
        weights = Weights(model)
        self.form, self.slots = model, slots
        named = dict(model.named_parameters())
        self._shapes = {name: p.shape for name, p in named.items() if p.requires_grad}
        self._starts, self._width = _aligned([shape.numel() for shape in self._shapes.values()])
        device = weights.flat.device
        #: where the weights of a model alone are in a row, (P,)
        self.columns = torch.cat(
            [
                start + torch.arange(shape.numel())
                for start, shape in zip(self._starts, self._shapes.values(), strict=True)
            ]
        ).to(device)
        self.penalised = torch.zeros(self._width, dtype=weights.flat.dtype, device=device)
        self.penalised[self.columns] = weights.penalised
        #: layer -> its part of a row
        self.layers = self._layers()
        frozen = {name: p.detach() for name, p in named.items() if not p.requires_grad}
        #: trainable weights, (S, W): each parameter begins at a multiple of ``ALIGNED``, with zeros in between
        self.flat = torch.zeros(slots, self._width, dtype=weights.flat.dtype, device=device)
        #: buffers and frozen parameters, (S, ...)
        self.rest = {
            name: torch.empty(slots, *tensor.shape, dtype=tensor.dtype, device=tensor.device)
            for name, tensor in {**frozen, **dict(model.named_buffers())}.items()
        }
        #: floats of modules in which the lanes differ, (S,) in double precision
        self.floats: dict[Place, Tensor] = {}
        self._modules = dict(model.named_modules())
        #: a further name of a tensor that several modules have -> its first one; a module has one name, whoever has it
        self._tied = self._further_names()

    @torch.no_grad()
    def put(self, slot: int, model: nn.Module, floats: Mapping[Place, float]) -> list[Place]:
        """Copy a model into a slot: the places of floats in which it differs from the form and no lane did before."""
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, rows in self.views(self.flat[slot : slot + 1]).items():
            rows[0] = named[name]
        for name, rows in self.rest.items():
            rows[slot] = named[name]
        fresh = [place for place, number in floats.items() if place not in self.floats and number != self._own(place)]
        for place in fresh:
            own = torch.full((self.slots,), self._own(place), dtype=torch.float64, device=self.flat.device)
            self.floats[place] = own
        for place, numbers in self.floats.items():
            numbers[slot] = floats[place]
        return fresh

    def unlift(self, places: Iterable[Place]) -> None:
        """No lane is left that differs in these floats."""
        for place in places:
            del self.floats[place]

    @torch.no_grad()
    def move(self, source: int, target: int) -> None:
        """Copy a slot onto another."""
        for rows in [self.flat, *self.rest.values(), *self.floats.values()]:
            rows[target] = rows[source]

    def state(self, slot: int, flat: Tensor | None = None, rest: Rows | None = None) -> dict[str, Tensor]:
        """A ``state_dict`` of the model in a slot, with copies; of other rows (the best ones) where given."""
        rows = {name: part[slot] for name, part in self.views(self.flat if flat is None else flat).items()}
        rows |= {name: part[slot] for name, part in (self.rest if rest is None else rest).items()}
        own = self.form.state_dict(keep_vars=True)
        names = {id(tensor): name for name, tensor in [*self.form.named_parameters(), *self.form.named_buffers()]}
        return copied({name: rows[names[id(value)]] if id(value) in names else value for name, value in own.items()})

    def transient(self, slot: int) -> dict[str, Tensor]:
        """Copies of a slot's buffers that no ``state_dict`` has."""
        saved = self.form.state_dict(keep_vars=True).keys()
        return {name: rows[slot].clone() for name, rows in self.rest.items() if name not in saved}

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Name -> (K, ...), views of the weights (K, W)."""
        return {
            name: flat[:, start : start + shape.numel()].view(len(flat), *shape)
            for start, (name, shape) in zip(self._starts, self._shapes.items(), strict=True)
        }

    def gather(self, parts: Sequence[Tensor], out: Tensor) -> Tensor:
        """Write what is a tensor (K, ...) a parameter into rows (K, W), and return them."""
        k, pieces = len(out), []
        ends = [*self._starts[1:], self._width]
        for part, start, end in zip(parts, self._starts, ends, strict=True):
            rows = part.reshape(k, -1)
            gap = end - start - rows.shape[1]
            pieces += [rows, rows.new_zeros(k, gap)] if gap else [rows]
        if not is_for_compiler():
            return torch.cat(pieces, 1, out=out)
        rows = torch.cat(pieces, 1)  # compiled, one kernel reads it piece by piece, writes it, and goes on with it
        out.copy_(rows)
        return rows

    def _further_names(self) -> dict[str, str]:
        first = {id(t): name for name, t in [*self.form.named_parameters(), *self.form.named_buffers()]}
        held = [
            (f"{path}.{own}".lstrip("."), tensor)
            for path, module in self._modules.items()
            for own, tensor in [*module._parameters.items(), *module._buffers.items()]
            if tensor is not None
        ]
        return {name: first[id(tensor)] for name, tensor in held if first[id(tensor)] != name}

    def _layers(self) -> dict[str, slice]:
        layers: dict[str, slice] = {}
        for start, (name, shape) in zip(self._starts, self._shapes.items(), strict=True):
            layer = name.rpartition(".")[0] or name
            first = layers[layer].start if layer in layers else start
            layers[layer] = slice(first, start + shape.numel())
        return layers

    def leaves(self, lanes: int) -> dict[str, Tensor]:
        """The same of the first lanes' weights, to be differentiated by."""
        return {name: view.detach().requires_grad_() for name, view in self.views(self.flat[:lanes]).items()}

    def over_lanes(
        self, body: Callable[..., Any], lanes: int, shared: int = 0, chunk: int | None = None
    ) -> Callable[..., tuple[Any, Rows]]:
        """``body(model, *own, *shared)`` for each lane at once.

        Returns a function of (leaves, keys, *own, *shared): ``keys`` are pairs of (K,)-tensors, one a dropout; ``own``
        are trees of (K, ...)-tensors of which the body gets its lane's row; the last ``shared`` arguments are the same
        for all lanes. It gives the body's outputs stacked, and the buffers that a forward has put in place of others.
        """
        places = list(self.floats)

        def one(
            weights: dict[str, Tensor], rest: dict[str, Tensor], floats: list[Tensor], keys: Any, *rows: Any
        ) -> tuple[Any, Rows]:
            state = {**weights, **rest}
            state |= {name: state[first] for name, first in self._tied.items()}
            changed: dict[str, Tensor] = {}

            def model(*inputs: Any) -> Any:
                # torch's own tying leaves a module that has two names with the lanes' tensors.
                output = functional_call(self.form, state, inputs, tie_weights=False)
                changed.update({name: state[name] for name in rest if state[name] is not rest[name]})
                return output

            with self._lifted(places, floats), _modes(keys):
                return body(model, *rows), changed

        def run(leaves: Rows, keys: Sequence[Stream], *rows: Any) -> tuple[Any, Rows]:
            rest = {name: part[:lanes] for name, part in self.rest.items()}
            floats = [self.floats[place][:lanes] for place in places]
            own = len(rows) - shared
            in_dims = (0, 0, 0, 0, *[0] * own, *[None] * shared)
            return vmap(one, in_dims=in_dims, chunk_size=chunk)(dict(leaves), rest, floats, list(keys), *rows)

        return run

    @torch.no_grad()
    def take(self, changed: Rows) -> None:
        """Keep the buffers that a forward has put in place of others."""
        for name, rows in changed.items():
            kept = self.rest[name]
            if rows.dtype != kept.dtype or rows.shape[1:] != kept.shape[1:]:
                raise CannotFuse(f"the forward gives the buffer {name} another type or shape")
            kept[: len(rows)].copy_(rows)

    @contextmanager
    def _lifted(self, places: Sequence[Place], numbers: Sequence[Tensor]) -> Iterator[None]:
        """Give the form's modules a lane's numbers, and their own back afterwards."""
        own = [self._own(place) for place in places]
        try:
            for (path, name), number in zip(places, numbers, strict=True):
                self._modules[path].__dict__[name] = number
            yield
        finally:
            for (path, name), value in zip(places, own, strict=True):
                self._modules[path].__dict__[name] = value

    def _own(self, place: Place) -> float:
        path, name = place
        number: float = self._modules[path].__dict__[name]
        return number


def _aligned(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each of these begins in a row, and the row's length."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-size // ALIGNED) * ALIGNED
    return starts, end


def _modes(keys: Sequence[Stream]) -> ExitStack:
    stack = ExitStack()
    stack.enter_context(LaneFunctions())
    stack.enter_context(KeyedDropout(0, 0, keys))
    return stack
