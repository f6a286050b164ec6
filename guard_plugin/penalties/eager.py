"""Passes that torch.compile has no part in: what it compiled cannot be differentiated twice."""

import sys
from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["eager"]


def eager() -> AbstractContextManager[object]:
    """Run compiled modules and functions as they were written."""
    # Importing it takes a second, and where nobody has, nothing was compiled.
    compiler_is_loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if compiler_is_loaded else nullcontext()
