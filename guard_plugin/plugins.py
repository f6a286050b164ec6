"""Finding plugins, and refusing those that contradict each other."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, version
from typing import Any

import pluggy

from guard_plugin import builtins, hookspecs
from guard_plugin.errors import GuardError, PluginError, UnusableInput, unknown
from guard_plugin.versions import entry_points_of

__all__ = ["Plugins", "Registered", "installed_plugins", "look_up"]


@dataclass(frozen=True)
class Registered:
    """A name that a plugin registered: what it stands for, and the distribution that it comes from."""

    value: Any
    distribution: str


class Plugins:
    """The plugins of this installation: the core's own, and those under the entry-point group "guard_plugin".

    PluginError is raised where one cannot be imported, implements a hook that does not exist, or registers a name that
    another one registers too; and by each hook that fails, whatever it raised (but for GuardError and Ctrl-C).
    """

    def __init__(self, found: Iterable[tuple[EntryPoint, str]] | None = None) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._distributions: dict[object, str] = {}
        self.register(builtins, "guard-plugin", f"guard-plugin {version('guard-plugin')}")
        for entry_point, distribution in entry_points_of(hookspecs.PROJECT) if found is None else found:
            self._load(entry_point, distribution)

    @property
    def hook(self) -> pluggy.HookRelay:
        """The hooks, to call."""
        return self._manager.hook

    @functools.cached_property
    def adapters(self) -> Mapping[str, Registered]:
        """The adapters by name."""
        return self._by_name("adapter", self.hook.register_adapters)

    @functools.cached_property
    def penalties(self) -> Mapping[str, Registered]:
        """The penalty classes by name."""
        return self._by_name("penalty", self.hook.register_penalties)

    @functools.cached_property
    def attacks(self) -> Mapping[str, Registered]:
        """The attack classes by name."""
        return self._by_name("attack", self.hook.register_attacks, key="family")

    @property
    def attack_classes(self) -> dict[str, Any]:
        """The attack classes alone, by name."""
        return {name: registered.value for name, registered in self.attacks.items()}

    def register(self, plugin: object, name: str, distribution: str) -> None:
        """Register a module or object with functions marked ``@hookimpl``, under its entry point's name.

        PluginError is raised where it is registered already, or implements a hook that does not exist or has other
        arguments. ``distribution`` says where it comes from, for messages and ``guard plugins``.
        """
        try:
            self._manager.register(plugin, name=f"{distribution}: {name}")
            self._distributions[plugin] = distribution
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise PluginError(f"plugin {name!r} of {distribution}: {_explain(plugin, error)}") from error
        except ValueError as error:
            raise PluginError(f"plugin {name!r} of {distribution} is registered twice: {error}") from error
        if plugin is not builtins:
            self._guard_hooks(plugin, distribution)
        for names in ("adapters", "penalties", "attacks"):  # those that were read before lack this plugin's
            self.__dict__.pop(names, None)

    def _guard_hooks(self, plugin: object, distribution: str) -> None:
        """Have what a plugin's hooks raise told as the plugin's failure: it is neither the script's nor its end."""
        for hook in self._manager.get_hookcallers(plugin) or ():
            for implementation in hook.get_hookimpls():
                if implementation.plugin is plugin:
                    guarded = _guarded(implementation.function, hook.name, distribution)
                    implementation.function = guarded  # type: ignore[misc, unused-ignore]

    def _load(self, entry_point: EntryPoint, distribution: str) -> None:
        try:
            plugin = entry_point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() raises no Exception
            raise PluginError(
                f"plugin {entry_point.name!r} of {distribution} cannot be imported from {entry_point.value}: "
                f"{type(error).__name__}: {error}; repair or uninstall it"
            ) from error
        self.register(plugin, entry_point.name, distribution)

    def _by_name(self, kind: str, hook: Any, key: str = "name") -> dict[str, Registered]:
        registered: dict[str, Registered] = {}
        for implementation in hook.get_hookimpls():
            distribution = self._distributions[implementation.plugin]
            try:
                things = list(implementation.function())
            except PluginError:
                raise
            except Exception as error:
                raise _failed(hook.name, distribution, error) from error
            for thing in things:
                name = getattr(thing, key, None)
                if not isinstance(name, str):
                    raise PluginError(f"{distribution} registers as {kind} what has no {key}: {thing!r}")
                if name in registered:
                    raise PluginError(
                        f"{kind} {name!r} is registered by both {registered[name].distribution} and {distribution}: "
                        f"names must be unique; uninstall one of them"
                    )
                registered[name] = Registered(thing, distribution)
        return dict(sorted(registered.items()))


@functools.cache
def installed_plugins() -> Plugins:
    """Return the plugins of this installation; each process loads them once."""
    return Plugins()


def look_up(kind: str, name: str, registered: Mapping[str, Registered]) -> Any:
    """Return what a plugin registered under a name; raise UnusableInput, which lists the names, for an unknown one."""
    if name not in registered:
        raise UnusableInput(unknown(kind, name, list(registered)))
    return registered[name].value


def _failed(hook: str, distribution: str, error: BaseException) -> PluginError:
    return PluginError(f"hook {hook} of {distribution} failed: {type(error).__name__}: {error}; repair or uninstall it")


@dataclass(frozen=True)
class _Telling:
    """Raises PluginError where a hook raises what is not meant for the user.

    No generator, as ``contextlib.contextmanager`` would make one for every loss call.
    """

    hook: str
    distribution: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, (GuardError, KeyboardInterrupt, GeneratorExit)):
            raise _failed(self.hook, self.distribution, error) from error


def _guarded(function: Callable[..., Any], hook: str, distribution: str) -> Callable[..., Any]:
    """Return a hook's function that raises PluginError where the plugin's own raises what is not meant for the user."""
    telling = _Telling(hook, distribution)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with telling:
            return function(*args, **kwargs)

    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        with telling:
            return (yield from function(*args, **kwargs))

    return around if inspect.isgeneratorfunction(function) else called


def _explain(plugin: object, error: pluggy.PluginValidationError) -> str:
    known = [name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction) if not name.startswith("_")]
    marked = [name for name, value in inspect.getmembers(plugin) if hasattr(value, f"{hookspecs.PROJECT}_impl")]
    for name in marked:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f": the hooks are {', '.join(known)}"
            return f"it implements a hook {name!r} that does not exist{hint}"
    return str(error)
