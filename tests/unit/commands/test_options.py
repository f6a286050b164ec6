import click
import pytest
from click.testing import CliRunner

from guard_plugin.cli import cli
from guard_plugin.commands.options import Command, assigned
from guard_plugin.errors import UnusableInput

OPTIONS = [
    (command, parameter.opts[-1])
    for command in cli.commands.values()
    for parameter in command.params
    if isinstance(parameter, click.Option) and not parameter.is_flag
]


def run(*arguments):
    return CliRunner().invoke(cli, [*arguments], catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_text_is_no_value_of_any_option(command, option, empty):
    with pytest.raises(UnusableInput, match=f"expected a value for {option}, got an empty text"):
        run(command.name, option, empty)


@pytest.mark.parametrize(
    ("words", "name"),
    [(("compare", "x", ""), "DIR"), (("doctor", "dc", ""), "HOST"), (("run", "dc", ""), "SCRIPT")],
)
def test_an_empty_text_is_no_argument(words, name):
    with pytest.raises(UnusableInput, match=rf"expected a value for .*{name}.* not set\? Give the value"):
        run(*words)


def test_a_value_that_is_repeated_is_looked_at_each_time():
    with pytest.raises(UnusableInput, match="--set, got an empty text.*, or leave --set out"):
        run("benchmark", "--out", "out", "--set", "epochs=3", "--set", "")


def test_the_hosts_script_may_take_empty_words():
    found = []

    @click.command(cls=Command)
    @click.argument("script")
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def ours(script, arguments):
        found.extend([script, *arguments])

    CliRunner().invoke(ours, ["main.py", "", "x"], catch_exceptions=False)
    assert found == ["main.py", "", "x"]
    for name in ("run", "observe"):
        (words,) = (one for one in cli.commands[name].params if one.name == "arguments")
        assert words.type is click.UNPROCESSED


def test_assignments_are_taken_apart():
    assert assigned(["eps=8/255", "note=a=b"], taken=["h"]) == {"eps": "8/255", "note": "a=b"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["eps"], "expected --set NAME=VALUE, .* got 'eps'"),
        (["=3"], "got '=3'"),
        (["eps="], "got 'eps='"),
        (["h_ramp=3"], "h_ramp has an option of its own, --h-ramp"),
        (["eps=1", "eps=2"], "--set eps is given twice, as 1 and as 2"),
    ],
)
def test_what_is_no_assignment_is_refused(texts, message):
    with pytest.raises(UnusableInput, match=message):
        assigned(texts, taken=["h_ramp"])
