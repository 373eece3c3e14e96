"""A step written down while it is done: its operations on tensors, to be called again without the Python around them.

What remains on the tape are the operations below vmap and autograd, in their order. Tensors that the step finds
(weights, buffers, data) are used where they lie, as in a CUDA graph.

On a CPU the vmapped forward of a small model costs as much Python as arithmetic: there a tape is played as it is, which
gives the same bits (``Steps`` tries it). A compiler takes the tape of a step whole, with its backward and its update.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence, Set
from contextvars import ContextVar
from typing import Any, final

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

#: bytes of all tensors of a step, above which Python is too small a part of it to matter
LARGEST = 512 * 2**20
#: what makes a Python number or a shape of data, which would be frozen, or draws random numbers
_NOT_AGAIN = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)
_READS = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__)
#: indices of these types make shapes of data
_MASKS = (torch.bool, torch.uint8)
#: what is written now is for a compiler
_COMPILED = ContextVar("hpsearch.training.tape", default=False)


class CannotRecord(Exception):
    """A step that may not be repeated from a tape, or that gains nothing by it."""


def record(step: Callable[[], Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, Callable[..., Tensor]]:
    """Do a step, and write it down.

    Args:
        step: returns one tensor, and changes others in place.
        inputs: the tensors it reads that are others the next time.

    Returns:
        What the step returned, and a function of ``inputs`` that does it again.

    Raises:
        CannotRecord: with the reason. Whatever the step raises.
    """
    tape = _Tape(inputs)
    with _Unread(), tape:
        output = step()
    return output, tape.play(output)


def written(step: Callable[[], Tensor], inputs: Sequence[Tensor]) -> tuple[GraphModule, Sequence[Tensor]]:
    """Do a step, and write it down for a compiler.

    Args:
        step, inputs: as ``record`` says.

    Returns:
        A graph, to be called with what the step found and then ``inputs``; and what it found.

    Raises:
        CannotRecord: with the reason. Whatever the step raises.
    """
    tape, before = _Tape(inputs, played=False), _COMPILED.set(True)
    try:
        # A device's own thread of the backward would not be written down in order.
        with torch.autograd.set_multithreading_enabled(False), _Unread(), tape:
            return tape.written(step())
    finally:
        _COMPILED.reset(before)


def is_for_compiler() -> bool:
    """Whether what is done now is ``written``: what a kernel of its own does well by hand, a compiler does better."""
    return _COMPILED.get()


@final
class _Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what is done within it.

    Args:
        inputs: tensors that are others the next time.
        played: as it is: what it holds is kept alive, to see whose memory is free; else a compiler sees to that.
    """

    def __init__(self, inputs: Sequence[Tensor], *, played: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph, self._played = Graph(), played
        self._nodes = WeakTensorKeyDictionary()
        self._alive: list[Tensor] = []
        self._bytes = 0
        self._inputs = [self._name(tensor, self._graph.placeholder(f"input_{k}")) for k, tensor in enumerate(inputs)]
        #: what the step found: its node, and the tensor
        self._found: dict[Node, Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled; to skip it torch would import all of its compiler, a second

    def _name(self, tensor: Tensor, node: Node) -> Node:
        self._nodes[tensor] = node
        self._keep(node, tensor)
        return node

    def _keep(self, node: Node, tensor: Tensor) -> None:
        if self._played:
            node.meta["tensor"] = tensor
            self._alive.append(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.lift_fresh.default:
            func = torch.ops.aten.lift_fresh_copy.default  # torch.tensor(1.0) is a new one each time
        output = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        indexing = func is torch.ops.aten.index.Tensor and not any(x.dtype in _MASKS for x in tensors[1:])
        if not indexing and any(tag in func.tags for tag in _NOT_AGAIN) and not _drops_nothing(func, args, kwargs):
            raise CannotRecord(f"{func} depends on data or draws random numbers")
        results = [x for x in tree_leaves(output) if isinstance(x, Tensor)]
        if output is None and tensors and not func._schema.is_mutable:
            raise CannotRecord(f"{func} looks at numbers, and may raise")
        if not results and not func._schema.is_mutable:
            return output  # a type, a size: the same again
        if self._played and func.is_view and not any(x in self._nodes for x in tensors):
            return output  # a view of what lies where it lies; a compiler has to see whose
        if len(results) == 1 and len(tensors) == 1 and _same_view(func, tensors[0], results[0]):
            self._name(results[0], self._node_of(tensors[0]))
            return output
        node = self._graph.call_function(func, *tree_map(self._argument, (args, kwargs)))
        if isinstance(output, Tensor):
            self._put(output, node)
        else:
            for k, part in enumerate(output if isinstance(output, tuple | list) else ()):
                if isinstance(part, Tensor):
                    self._put(part, self._graph.call_function(operator.getitem, (node, k)))
        return output

    def _put(self, output: Tensor, node: Node) -> None:
        if output in self._nodes:  # an operation in place: what it returns is its argument
            self._keep(node, output)
            return
        self._bytes += output.numel() * output.element_size()
        if self._played and self._bytes > LARGEST:
            raise CannotRecord("a large step")
        self._name(output, node)

    def _argument(self, value: Any) -> Any:
        return self._node_of(value) if isinstance(value, Tensor) else value

    def _node_of(self, tensor: Tensor) -> Node:
        node: Node | None = self._nodes.get(tensor)  # type: ignore[no-untyped-call]
        if node is None:
            first = next(iter(self._graph.nodes))
            with self._graph.inserting_before(first):
                node = self._name(tensor, self._graph.placeholder(f"found_{len(self._found)}"))
            self._found[node] = tensor
        return node

    def written(self, output: Tensor) -> tuple[GraphModule, Sequence[Tensor]]:
        """The graph, and the tensors that it found, in the order in which it takes them."""
        self._graph.output(self._node_of(output))
        found = [self._found[node] for node in self._graph.nodes if node in self._found]
        return GraphModule(torch.nn.Module(), self._graph), found

    def play(self, output: Tensor) -> Callable[..., Tensor]:
        """The function that does it again."""
        self._graph.output(self._node_of(output))
        _in_place(self._graph)
        found = [self._found[node] for node in self._graph.nodes if node in self._found]
        for node in self._graph.nodes:
            node.meta.clear()
        call = GraphModule(torch.nn.Module(), self._graph).forward

        @torch.no_grad()
        def again(*inputs: Tensor) -> Tensor:
            result: Tensor = call(*found, *inputs)
            return result

        return again


@final
class _Unread(TorchFunctionMode):
    """Within it, what reads a tensor's numbers past every operation is refused: they would be those of one batch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS:
            raise CannotRecord(f"Tensor.{func.__name__} reads the numbers of a batch: it depends on data")
        return func(*args, **(kwargs or {}))


def _drops_nothing(func: Any, args: Sequence[Any], kwargs: Any) -> bool:
    """Whether an attention, which could drop out, does not."""
    names = [argument.name for argument in func._schema.arguments]
    return "dropout_p" in names and dict(zip(names, args, strict=False), **kwargs).get("dropout_p", 0.0) == 0.0


def _same_view(func: Any, tensor: Tensor, result: Tensor) -> bool:
    """Whether a view shows its tensor as it is."""
    return (
        func.is_view
        and result.dtype == tensor.dtype
        and result.shape == tensor.shape
        and result.stride() == tensor.stride()
        and result.storage_offset() == tensor.storage_offset()
        and (result.is_conj(), result.is_neg()) == (tensor.is_conj(), tensor.is_neg())
    )


def _in_place(graph: Graph) -> None:
    """Let elementwise operations write onto an argument that nobody reads again: warm memory costs a third."""
    nodes = list(graph.nodes)
    place = {node: k for k, node in enumerate(nodes)}
    home = {node: _storage(node) for node in nodes}
    #: storage -> the last node that reads it; inputs, what was found and the output are never free
    last: dict[int, int] = {}
    for node in nodes:
        for read in node.all_input_nodes:
            last[home[read]] = len(nodes) if node.op == "output" else place[node]
    for node in nodes:
        if node.op == "placeholder":
            last[home[node]] = len(nodes)
    for node in nodes:
        free = {read for read in node.all_input_nodes if last[home[read]] == place[node]}
        onto = _onto(node, free, home)
        if onto is None:
            continue
        _write_onto(node, onto)
        mine, theirs = home[node], home[onto]
        last[theirs] = last.get(mine, place[node])
        home = {other: theirs if storage == mine else storage for other, storage in home.items()}


def _storage(node: Node) -> int:
    tensor = node.meta.get("tensor")
    return tensor.untyped_storage()._cdata if tensor is not None else -1


def _onto(node: Node, free: Set[Node], home: dict[Node, int]) -> Node | None:
    """The argument whose memory may take what the node makes."""
    func, result, reads = node.target, node.meta.get("tensor"), node.all_input_nodes
    if not isinstance(func, torch._ops.OpOverload) or torch.Tag.pointwise not in func.tags or func._schema.is_mutable:
        return None
    for read in reads:
        tensor = read.meta.get("tensor")
        if tensor is None or result is None or not (_out_of(func) or (_inplace_of(func) and read is node.args[0])):
            continue
        alike = (tensor.dtype, tensor.shape, tensor.stride()) == (result.dtype, result.shape, result.stride())
        alone = [home[other] for other in reads].count(home[read]) == 1
        if alike and alone and tensor.is_contiguous() and read in free:
            return read
    return None


def _write_onto(node: Node, onto: Node) -> None:
    func, out = node.target, _out_of(node.target)
    if out is None:
        node.target = _inplace_of(func)
    else:
        name = next(a.name for a in out._schema.arguments if a.is_out)
        node.target, node.kwargs = out, {**node.kwargs, name: onto}


def _out_of(func: Any) -> Any:
    """The same operation, writing into a tensor that is given; None where it has no kernel of its own for that."""
    if func._overloadname not in ("default", "Tensor"):
        return None
    packet = func.overloadpacket
    return next((getattr(packet, name) for name in ("out", "grad_input") if _has_kernel(packet, name)), None)


def _inplace_of(func: Any) -> Any:
    packet = getattr(torch.ops.aten, f"{func.overloadpacket.__name__}_", None)
    return getattr(packet, func._overloadname) if _has_kernel(packet, func._overloadname) else None


def _has_kernel(packet: Any, overload: str) -> bool:
    """False also for those that torch makes up of the other form and a copy."""
    if packet is None or overload not in packet.overloads():
        return False
    found: bool = getattr(packet, overload).has_kernel_for_dispatch_key(torch._C.DispatchKey.CPU)
    return found
