"""Files that an earlier step wrote and that ``torch.load`` refuses since torch 2.6, where it reads tensors alone.

Mended, ``torch.load`` goes on reading nothing that runs code, and for the time of the run knows the types that the
host's own steps put into these files: plain data, named one by one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from guard_plugin.files import NUMPY_SCALARS
from guard_plugin.hosts.faults.fault import AS_IT_IS, Fault
from guard_plugin.versions import TORCH, allowed_globals

__all__ = ["arguments_refused", "numbers_refused"]


def _refuses_unknown_types() -> bool:
    return TORCH >= (2, 6)


def _reading_arguments() -> AbstractContextManager[Any]:
    return allowed_globals([argparse.Namespace])


def _reading_numbers() -> AbstractContextManager[Any]:
    return allowed_globals(NUMPY_SCALARS)


def arguments_refused(file: str) -> Fault:
    """Return the fault of a file that reads checkpoints in which a training script left its arguments."""
    harm = "the argparse.Namespace that the training script saves with the weights; mended, it reads this type, too, "
    return _refused(file, "arguments-in-checkpoint", f"{harm}and no other", _reading_arguments)


def numbers_refused(file: str) -> Fault:
    """Return the fault of a file that reads what an earlier step saved numpy's numbers in."""
    harm = "the numpy numbers that the step before saves; mended, it reads them, too, and no other type"
    return _refused(file, "numpy-numbers-in-file", harm, _reading_numbers)


def _refused(file: str, name: str, harm: str, reading: Callable[[], AbstractContextManager[Any]]) -> Fault:
    return Fault(
        name=name,
        file=file,
        pattern=r"\btorch\.load\(",
        repaired=AS_IT_IS,
        harm=f"torch.load refuses, since torch 2.6, {harm}",
        only_if=_refuses_unknown_types,
        meanwhile=reading,
        stops=True,
    )
