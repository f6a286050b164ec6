"""Losses inside functions that torch.compile compiled: no call in there is seen, only what comes out."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.injection.patching import patch
from guard_plugin.versions import is_compiling

__all__ = ["COMPILE_NETWORK", "watch_compiled_functions"]

COMPILE_NETWORK = "compile the network (torch.compile(network)), and call network and criterion outside"
"""What a user can do about a loss that is computed inside a compiled function."""


def watch_compiled_functions(
    undo: ExitStack, returned: Callable[[str, Tensor], None], paused: Callable[[], AbstractContextManager[None]]
) -> None:
    """Show each scalar that a compiled function returns, with the function's name, until ``undo`` is closed.

    ``torch.compile`` is replaced for that time: functions that were compiled before stay unseen. What such a function
    calls passes unseen (``paused``), as it depends on the compiler whether it calls anything at all.
    """
    if not hasattr(torch, "compile"):
        return
    watching = [True]

    def _watched(compiled: Any) -> Any:
        @functools.wraps(compiled)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if is_compiling() or not watching:
                return compiled(*args, **kwargs)
            with paused():
                result = compiled(*args, **kwargs)
            for one in result if isinstance(result, (tuple, list)) else (result,):
                if isinstance(one, Tensor) and one.dim() == 0 and one.grad_fn is not None:
                    returned(getattr(compiled, "__name__", "a function"), one)
            return result

        return watched

    def compile(plain: Callable[..., Any], model: Any = None, *args: Any, **kwargs: Any) -> Any:
        if model is None:
            return lambda function: compile(plain, function, *args, **kwargs)
        compiled = plain(model, *args, **kwargs)
        return compiled if isinstance(model, nn.Module) or not watching else _watched(compiled)

    patch(undo, torch, "compile", compile)
    undo.callback(watching.clear)
