"""Losses inside functions that torch.compile compiled: no call in there is seen, only what comes out."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from guard_plugin.versions import is_compiling

__all__ = ["watch_compiled_functions"]


def watch_compiled_functions(
    returned: Callable[[str, Tensor], None], paused: Callable[[], AbstractContextManager[None]]
) -> Callable[[], None]:
    """Show each scalar that a compiled function returns, with the function's name, until the result is called.

    ``torch.compile`` is replaced for that time: functions that were compiled before stay unseen. What such a function
    calls passes unseen (``paused``), as it depends on the compiler whether it calls anything at all.
    """
    plain = getattr(torch, "compile", None)
    if plain is None:
        return lambda: None
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

    @functools.wraps(plain)
    def compile(model: Any = None, *args: Any, **kwargs: Any) -> Any:
        if model is None:
            return lambda function: compile(function, *args, **kwargs)
        compiled = plain(model, *args, **kwargs)
        return compiled if isinstance(model, nn.Module) or not watching else _watched(compiled)

    torch.compile = compile

    def remove() -> None:
        watching.clear()
        torch.compile = plain

    return remove
