"""Every call of a torch module, seen from outside: with the host's own arguments, and with what the host gets back.

torch's global module hooks see less: not the arguments from before a module's own hooks, nor the output after them; and
torch.compile traces them into what it compiles. One attribute, ``torch.nn.Module.__call__``, is replaced instead, while
somebody watches; torch.fx does the same.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any

from torch import nn

from guard_plugin.versions import COMPILER_TRACES_US, is_compiling, set_compiler

__all__ = ["Watcher", "uncompiled", "watch_module_calls"]

Watcher = Callable[..., Any]
"""Called as ``watcher(proceed, module, *args, **kwargs)`` in place of each call of a module.

``proceed(*args, **kwargs)`` makes the call; the caller gets what the watcher returns.
"""

_lock = threading.Lock()
_watchers: tuple[Watcher, ...] = ()
_torch_call: Callable[..., Any] = nn.Module.__call__
_installed = False


def watch_module_calls(watcher: Watcher) -> Callable[[], None]:
    """Show a watcher each call of a module, in any thread, until the function that is returned is called."""
    global _watchers, _torch_call, _installed
    with _lock:
        if not _installed:
            _torch_call = nn.Module.__call__
            functools.update_wrapper(_watched_call, _torch_call)
            nn.Module.__call__ = _watched_call  # type: ignore[method-assign]
            _installed = True
        _watchers = (*_watchers, watcher)
    return functools.partial(_remove, watcher)


def _remove(watcher: Watcher) -> None:
    global _watchers, _installed
    with _lock:
        _watchers = tuple(one for one in _watchers if one is not watcher)
        # Somebody who has replaced the attribute since calls ours, which without watchers is torch's own.
        if not _watchers and nn.Module.__call__ is _watched_call:
            nn.Module.__call__ = _torch_call  # type: ignore[method-assign]
            _installed = False


def _watched_call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
    if is_compiling():  # what torch.compile traces shall hold nothing of ours
        return _torch_call(module, *args, **kwargs)
    if not COMPILER_TRACES_US:
        return _show(_torch_call, module, args, kwargs)
    compiler = set_compiler(None)
    try:
        return _show(functools.partial(_compiled_call, compiler), module, args, kwargs)
    finally:
        set_compiler(compiler)


def _show(call: Callable[..., Any], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    proceed: Callable[..., Any] = functools.partial(call, module)
    for watcher in _watchers:
        proceed = functools.partial(watcher, proceed, module)
    return proceed(*args, **kwargs)


def _compiled_call(compiler: Any, module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
    set_compiler(compiler)
    try:
        return _torch_call(module, *args, **kwargs)
    finally:
        set_compiler(None)


def uncompiled(module: Any) -> Any:
    """Return what ``torch.compile(module)`` was given, and anything else as it is."""
    return module._modules["_orig_mod"] if isinstance(module, nn.Module) and "_orig_mod" in module._modules else module
