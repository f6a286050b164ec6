"""Where a batch's values come from: a data set, or images that the script learns."""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data.dataloader import _BaseDataLoaderIter

from guard_plugin.injection.calls.lineage import Lineage
from guard_plugin.injection.patching import patch

__all__ = ["CHANGED_BY_GRADIENTS", "Sources"]

CHANGED_BY_GRADIENTS = "images changed by gradients, without an optimizer"
"""What batches are called that may be learned, or adversarial examples of real images."""

# Of the images that are learned, which are few; more values than these are some other tensor.
_MOST_VALUES = 50_000_000


class Sources:
    """Watches, from creation until :meth:`remove`, what data loaders yield, and what is computed from learned tensors.

    A copy of learned images, as evaluations train on, requires no grad. It is known by what it was computed from (torch
    2.0), and by its values: its rows are theirs.

    Args:
        host_frame: Returns the innermost frame of the host's, from a frame outwards.
    """

    def __init__(self, host_frame: Callable[[FrameType | None], FrameType | None]) -> None:
        self._host_frame = host_frame
        self._learned: list[weakref.ref[Tensor]] = []
        self._optimized: dict[int, weakref.ref[Tensor]] = {}
        self._fetched: dict[int, tuple[Any, str, bool]] = {}
        self._lineage = Lineage(self.is_optimized)
        self._undo = ExitStack()
        self._undo.enter_context(self._lineage)
        patch(self._undo, torch.optim.Optimizer, "add_param_group", self._add_param_group)
        patch(self._undo, _BaseDataLoaderIter, "__next__", self._fetch)

    def remove(self) -> None:
        """Watch no longer."""
        self._undo.close()
        self._fetched.clear()

    def _add_param_group(self, plain: Callable[..., None], optimizer: Any, *args: Any, **kwargs: Any) -> None:
        plain(optimizer, *args, **kwargs)  # which an optimizer's __init__ calls, too
        for tensor in optimizer.param_groups[-1]["params"]:
            self._optimized[id(tensor)] = weakref.ref(tensor)
            self.note_learned(tensor)

    def _fetch(self, plain: Callable[[Any], Any], iterator: Any) -> Any:
        data = plain(iterator)
        self._note_fetched(iterator, data)
        return data

    def note_learned(self, tensor: Tensor) -> None:
        """Remember a tensor that may hold learned images."""
        if tensor.dim() > 1 and not any(known() is tensor for known in self._learned):
            self._learned = [known for known in self._learned if known() is not None]
            self._learned.append(weakref.ref(tensor))

    def is_optimized(self, tensor: Tensor) -> bool:
        """Tell whether an optimizer was given a tensor, all of which is learned then."""
        known = self._optimized.get(id(tensor))
        return known is not None and known() is tensor

    def of(self, batch: Tensor, frame: FrameType | None) -> tuple[str, bool]:
        """Say where the values of a batch come from, and whether it requires no grad and they are learned images.

        ``frame`` is the one that the network was called from.
        """
        if batch.requires_grad:
            return "a leaf that requires grad" if batch.is_leaf else "computed from what requires grad", False
        data = self._lineage.perturbed(batch)
        if data is not None:
            what, learned = self._without_gradients(data, frame)
            return f"{what}, perturbed", learned
        if self._lineage.changed_by_gradients(batch) and not self._holds_learned(batch):
            return CHANGED_BY_GRADIENTS, True
        return self._without_gradients(batch, frame)

    def _without_gradients(self, batch: Tensor, frame: FrameType | None) -> tuple[str, bool]:
        if self._lineage.is_learned(batch) or self._holds_learned(batch):
            return "a copy of learned images", True
        frame = self._host_frame(frame)
        while frame is not None:
            code, what, learned = self._fetched.get(id(frame), (None, "", False))
            if code is frame.f_code:
                return what, learned
            frame = self._host_frame(frame.f_back)
        return "a tensor on which nothing is learned", False

    def _note_fetched(self, iterator: Any, data: Any) -> None:
        found = getattr(iterator, "_dataset", None)
        # In a worker's process nobody watched: what the data set holds tells.
        held = _tensors(list(getattr(found, "__dict__", {}).values()))
        learned = any(map(self._lineage.is_learned, (*_tensors(data), *held)))
        learned = learned or any(self._holds_learned(one) for one in _tensors(data))
        dataset = type(found).__name__
        what = f"learned images, by a DataLoader over {dataset}" if learned else f"a DataLoader over {dataset}"
        frame = self._host_frame(sys._getframe(1))
        while frame is not None:
            self._fetched[id(frame)] = (frame.f_code, what, learned)
            # What a generator of the host's fetches, it hands on.
            is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR
            frame = self._host_frame(frame.f_back) if is_generator else None

    def _holds_learned(self, batch: Tensor) -> bool:
        rows: set[bytes] | None = None
        for reference in self._learned:
            learned = reference()
            if learned is None or learned.shape[1:] != batch.shape[1:] or learned.numel() > _MOST_VALUES:
                continue
            rows = set(_rows(batch)) if rows is None else rows
            if rows.issubset(_rows(learned)):  # all of them: the images may begin as real ones
                return True
        return False


def _rows(tensor: Tensor) -> Iterator[bytes]:
    values = tensor.detach().to("cpu", torch.float32).reshape(len(tensor), -1).contiguous().numpy()
    return (row.tobytes() for row in values)


def _tensors(data: Any) -> Iterator[Tensor]:
    if isinstance(data, Tensor) and data.dim() > 1:
        yield data
    elif isinstance(data, (tuple, list)):
        for one in data:
            yield from _tensors(one)
    elif isinstance(data, dict):
        yield from _tensors(list(data.values()))
