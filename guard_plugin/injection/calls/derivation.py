"""What a host computed from a network's output before it gave it to its criterion, read off the autograd graph.

Only operations that act on each example by itself, and whose arguments autograd has kept, can be done again on other
outputs: casts, views, slices, scaling by constants, (log-)softmax. Anything else leaves the output's origin unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Derivation", "derive"]

OutputT = TypeVar("OutputT")
Operation = Callable[[Tensor], Tensor]


class _Found(Protocol):
    value: Tensor


@dataclass(frozen=True)
class Derivation:
    """The operations between a network's output and what was judged, and which of the batch's rows are left.

    ``obstacle`` names the operation that is not known here, where there is one.
    """

    operations: tuple[Operation, ...] = ()
    rows: tuple[Operation, ...] = ()
    obstacle: str = ""

    @property
    def is_direct(self) -> bool:
        """Whether the output itself was judged."""
        return not (self.operations or self.rows)

    def of_rows(self, batch: Tensor) -> Tensor:
        """Return those rows of the network's batch that what was judged depends on."""
        for choose in self.rows:
            batch = choose(batch)
        return batch

    def of_output(self, output: Tensor) -> Tensor:
        """Return what the host would have judged of an output for those rows."""
        for operation in self.operations:
            output = operation(output)
        return output


def derive(
    judged: Tensor, find: Callable[[Any, int], OutputT | None], *, search: bool
) -> tuple[OutputT | None, Derivation]:
    """Follow a tensor back to the network output that ``find`` knows by its autograd node, and tell the way.

    The result is verified: done again on the output, the operations must give what was judged. With ``search``, an
    output that lies behind an operation that is not known is returned, too.
    """
    node, number, shape = judged.grad_fn, judged.output_nr, judged.shape
    steps: list[_Step] = []
    while node is not None:
        found = find(node, number)
        if found is not None:
            return _verified(judged, found, steps)
        step = _step(node, number, shape)
        inputs = [(one, index) for one, index in node.next_functions if one is not None]
        if step is None or len(inputs) != 1:
            return (_behind(node, find) if search else None), Derivation(obstacle=node.name())
        steps.insert(0, step)
        shape = step.before
        node, number = inputs[0]
    return None, Derivation(obstacle="an unknown tensor")


@dataclass(frozen=True)
class _Step:
    """One operation: the shape before it, whether it chooses rows (else it keeps each), and whether it rounds."""

    run: Operation
    before: torch.Size
    chooses_rows: bool = False
    rounds: bool = False


def _verified(judged: Tensor, found: Any, steps: Sequence[_Step]) -> tuple[Any, Derivation]:
    rows = tuple(step.run for step in steps if step.chooses_rows)
    derivation = Derivation(tuple(step.run for step in steps if not step.chooses_rows), rows)
    if steps:
        with torch.no_grad():
            again = derivation.of_output(derivation.of_rows(found.value))
        rounding = 2.0**-7 if any(step.rounds for step in steps) else 8 * torch.finfo(judged.dtype).eps
        same = again.shape == judged.shape
        if not (same and torch.allclose(again.double(), judged.double(), rounding, rounding, equal_nan=True)):
            return found, Derivation(obstacle="an operation that cannot be repeated")
    return found, derivation


def _behind(node: Any, find: Callable[[Any, int], OutputT | None]) -> OutputT | None:
    """Return a network output that lies somewhere behind a node, for messages and for the account."""
    seen, nodes = {node}, [node]
    while nodes:
        for following, number in nodes.pop().next_functions:
            if following is None or following in seen:
                continue
            found = find(following, number)
            if found is not None:
                return found
            seen.add(following)
            nodes.append(following)
    return None


def _step(node: Any, number: int, shape: torch.Size) -> _Step | None:
    """Return the operation of an autograd node, whose result has this shape; None for one that is not known."""
    name = node.name().rstrip("0123456789")
    if name in ("ToCopyBackward", "CloneBackward", "AliasBackward"):
        return _Step(_same, shape, rounds=name == "ToCopyBackward")  # the penalty is computed in full precision
    make = _MAKERS.get(name)
    return None if make is None else make(node, number, shape)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _scale(node: Any, number: int, shape: torch.Size) -> _Step | None:
    other = node._saved_other if node.next_functions[0][0] is not None else node._saved_self
    if other is None or other.requires_grad or (other.dim() == len(shape) and other.shape[0] != 1):
        return None
    divides = node.name().startswith("Div")
    return _Step((lambda tensor: tensor / other) if divides else (lambda tensor: tensor * other), shape)


def _negate(node: Any, number: int, shape: torch.Size) -> _Step:
    return _Step(torch.neg, shape)


def _logarithm(node: Any, number: int, shape: torch.Size) -> _Step:
    return _Step(torch.log, shape)


def _softmax(node: Any, number: int, shape: torch.Size) -> _Step | None:
    dim = _signed(node._saved_dim) % len(shape)
    function = torch.log_softmax if node.name().startswith("Log") else torch.softmax
    return None if dim == 0 else _Step(lambda tensor: function(tensor, dim), shape)


def _view(node: Any, number: int, shape: torch.Size) -> _Step | None:
    before = _size_before(node)
    if not before or not shape or before[0] != shape[0]:
        return None  # the rows are no examples any more
    return _Step(lambda tensor: tensor.reshape(len(tensor), *shape[1:]), before)


def _unsqueeze(node: Any, number: int, shape: torch.Size) -> _Step | None:
    dim = _signed(node._saved_dim) % len(shape)
    before = torch.Size(size for place, size in enumerate(shape) if place != dim)
    return None if dim == 0 else _Step(lambda tensor: tensor.unsqueeze(dim), before)


def _slice(node: Any, number: int, shape: torch.Size) -> _Step | None:
    before = _size_before(node)
    if before is None:
        return None
    dim = _signed(node._saved_dim) % len(before)
    chosen = slice(_signed(node._saved_start), min(_signed(node._saved_end), before[dim]), node._saved_step)
    return _choice(dim, chosen, before)


def _split(node: Any, number: int, shape: torch.Size) -> _Step | None:
    before = _size_before(node)
    if before is None:
        return None
    dim = _signed(node._saved_dim) % len(before)
    size = getattr(node, "_saved_split_size", None)
    start = sum(node._saved_split_sizes[:number]) if size is None else number * size
    return _choice(dim, slice(start, start + shape[dim]), before)


def _select(node: Any, number: int, shape: torch.Size) -> _Step | None:
    before = _size_before(node)
    if before is None:
        return None
    dim, index = _signed(node._saved_dim) % len(before), _signed(node._saved_index)
    return None if dim == 0 else _choice(dim, index, before)


def _index(node: Any, number: int, shape: torch.Size) -> _Step | None:
    before, indices = _size_before(node), node._saved_indices
    dims = [dim for dim, index in enumerate(indices) if index is not None]
    return _choice(dims[0], indices[dims[0]], before) if before is not None and len(dims) == 1 else None


def _index_select(node: Any, number: int, shape: torch.Size) -> _Step | None:
    before = _size_before(node)
    return None if before is None else _choice(_signed(node._saved_dim) % len(before), node._saved_index, before)


def _choice(dim: int, chosen: Any, before: torch.Size) -> _Step:
    key = (slice(None),) * dim + (chosen,)
    return _Step(lambda tensor: tensor[key], before, chooses_rows=dim == 0)


def _size_before(node: Any) -> torch.Size | None:
    size = getattr(node, "_saved_self_sym_sizes", getattr(node, "_saved_self_sizes", None))
    return None if size is None else torch.Size(size)


def _signed(number: int) -> int:
    """Undo the conversion to 64 unsigned bits in which autograd shows a negative number."""
    return number - 2**64 if number >= 2**63 else number


_MAKERS: dict[str, Callable[[Any, int, torch.Size], _Step | None]] = {
    "MulBackward": _scale,
    "DivBackward": _scale,
    "NegBackward": _negate,
    "LogBackward": _logarithm,
    "LogSoftmaxBackward": _softmax,
    "SoftmaxBackward": _softmax,
    "ViewBackward": _view,
    "UnsafeViewBackward": _view,
    "ReshapeAliasBackward": _view,
    "SqueezeBackward": _view,
    "UnsqueezeBackward": _unsqueeze,
    "SliceBackward": _slice,
    "SplitBackward": _split,
    "SplitWithSizesBackward": _split,
    "SelectBackward": _select,
    "IndexSelectBackward": _index_select,
    "IndexBackward": _index,
}
