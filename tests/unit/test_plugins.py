"""Plugins that contradict each other, or us, are refused by name."""

import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint

import pytest

from guard_plugin import hookimpl
from guard_plugin.errors import PluginError, UnusableInput
from guard_plugin.hosts import Adapter
from guard_plugin.penalties import Curvature
from guard_plugin.plugins import Plugins
from guard_plugin.versions import entry_points_of
from tests.conftest import write_distribution


class AdapterPlugin:
    def __init__(self, name: str) -> None:
        self.adapter = Adapter(name=name, host="someone/host", profiles=())

    @hookimpl
    def register_adapters(self):
        return [self.adapter]


def test_the_bundled_adapter_comes_through_the_entry_points():
    plugins = Plugins()
    assert plugins.adapters["dc"].distribution.startswith("guard-plugin ")
    assert plugins.penalties["curvature"].value is Curvature
    assert {"fgsm", "pgd"} <= set(plugins.attacks)
    assert "dc" not in Plugins(found=[]).adapters


def test_of_several_copies_of_a_distribution_the_one_that_python_imports_counts(monkeypatch, tmp_path):
    ours = "[console_scripts]\nsome = some:main\n[group]\nplugin = some.module\n"
    write_distribution(tmp_path / "new", "Some-Dist", ours, "2.0")
    write_distribution(tmp_path / "old", "Some-Dist", ours, "1.0")
    write_distribution(tmp_path / "without", "Some-Dist", "[console_scripts]\ngroup = some:main\n", "3.0")
    new, old, without = (str(tmp_path / name) for name in ("new", "old", "without"))
    monkeypatch.setattr("sys.path", [new, old])
    assert list(entry_points_of("group")) == [(EntryPoint("plugin", "some.module", "group"), "Some-Dist 2.0")]
    monkeypatch.setattr("sys.path", [without, new, old])
    assert list(entry_points_of("group")) == []


def test_two_plugins_of_one_name_are_refused_naming_both():
    plugins = Plugins(found=[])
    plugins.register(AdapterPlugin("mine"), "one", "first-dist 1.0")
    plugins.register(AdapterPlugin("mine"), "two", "second-dist 2.0")
    with pytest.raises(PluginError, match=r"adapter 'mine' is registered by both (first|second).* and (first|second)"):
        _ = plugins.adapters


def test_a_misspelt_hook_is_refused_naming_hook_and_plugin():
    class Misspelt:
        @hookimpl
        def register_adapter(self):
            return []

    with pytest.raises(PluginError, match="plugin 'bad' of some-dist 1.0: .*'register_adapter' .*'register_adapters'"):
        Plugins(found=[]).register(Misspelt(), "bad", "some-dist 1.0")


def test_a_hook_with_a_wrong_argument_is_refused():
    class Wrong:
        @hookimpl
        def is_real_data(self, calls):
            return True

    with pytest.raises(PluginError, match="(?s)plugin 'bad' of some-dist 1.0: .*calls"):
        Plugins(found=[]).register(Wrong(), "bad", "some-dist 1.0")


def test_a_plugin_registered_twice_is_refused():
    plugins, plugin = Plugins(found=[]), AdapterPlugin("mine")
    plugins.register(plugin, "one", "first-dist 1.0")
    with pytest.raises(PluginError, match="registered twice"):
        plugins.register(plugin, "two", "second-dist 2.0")


@pytest.mark.parametrize("registered", [None, [object()], [type("NoName", (), {})]])
def test_a_hook_that_returns_something_else_is_refused_by_name(registered):
    class Bad:
        @hookimpl
        def register_penalties(self):
            return registered

    plugins = Plugins(found=[])
    plugins.register(Bad(), "bad", "some-dist 1.0")
    with pytest.raises(PluginError, match="some-dist 1.0"):
        _ = plugins.penalties


def raising(error: BaseException, hook: str = "run_ended", **options) -> Plugins:
    """Return plugins of which one raises an error in a hook."""

    def fails(self):
        raise error

    def fails_around(self):
        yield
        raise error

    plugins, function = Plugins(found=[]), fails_around if options else fails
    function.__name__ = hook
    plugins.register(type("Plugin", (), {hook: hookimpl(function, **options)})(), "bad", "some-dist 1.0")
    return plugins


@pytest.mark.parametrize("options", [{}, {"hookwrapper": True}], ids=["plain", "around"])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(0)], ids=repr)
def test_whatever_a_hook_raises_is_the_plugins_failure(error, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pluggy's own, of an error in such a wrapper
        with pytest.raises(
            PluginError, match=f"hook run_ended of some-dist 1.0 failed: {type(error).__name__}"
        ) as told:
            raising(error, **options).hook.run_ended(ledger=None)
    assert told.value.__cause__ is error


@pytest.mark.parametrize("error", [UnusableInput("expected more"), KeyboardInterrupt()], ids=repr)
def test_our_own_errors_and_interrupts_pass_through_a_hook(error):
    with pytest.raises(type(error)) as told:
        raising(error).hook.run_ended(ledger=None)
    assert told.value is error


def test_a_hook_that_registers_cannot_end_the_process():
    with pytest.raises(PluginError, match="hook register_adapters of some-dist 1.0 failed: SystemExit: 0; repair"):
        _ = raising(SystemExit(0), "register_adapters").adapters


def test_a_plugin_that_cannot_be_imported_is_refused_by_name(monkeypatch, tmp_path):
    broken = EntryPoint(name="broken", value="no_such_module", group="guard_plugin")
    with pytest.raises(
        PluginError, match="plugin 'broken' of .* cannot be imported from no_such_module: ModuleNotFound"
    ):
        Plugins(found=[(broken, "some-dist 1.0")])
    (tmp_path / "ends_the_process.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    ends = EntryPoint(name="ends", value="ends_the_process", group="guard_plugin")
    with pytest.raises(
        PluginError, match="plugin 'ends' of .* cannot be imported from ends_the_process: SystemExit: 0"
    ):
        Plugins(found=[(ends, "some-dist 1.0")])


PLUGGY_1_0 = ["PluginManager", "PluginValidationError", "HookCallError", "HookspecMarker", "HookimplMarker"]


def test_the_first_pluggy_that_is_allowed_has_all_that_is_imported():
    code = (
        f"import pluggy\n"
        f"for name in set(pluggy.__all__) - set({PLUGGY_1_0}) - {{'__version__'}}: delattr(pluggy, name)\n"
        "import guard_plugin.distilled\n"
        "from guard_plugin.plugins import installed_plugins\n"
        "assert 'dc' in installed_plugins().adapters\n"
        "guard_plugin.wrap, guard_plugin.attach, guard_plugin.benchmark\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
