"""Telling commands that start a Python program from others: as lists of words, and as a shell reads them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from guard_plugin.foreign_text import on_one_line

__all__ = ["python_program"]

_LAUNCHERS = {"accelerate", "deepspeed", "torchrun"}
_SHELLS = {"bash", "dash", "ksh", "sh", "zsh"}
_KEYWORDS = {"!", "command", "do", "elif", "else", "eval", "exec", "if", "then", "time", "until", "while", "{"}
_RUNNERS = {"chrt", "conda", "env", "ionice", "mamba", "mpiexec", "mpirun", "nice", "nohup", "numactl", "poetry", "run"}
_RUNNERS |= {"setsid", "srun", "stdbuf", "sudo", "taskset", "timeout", "uv", "xargs"}

_ASSIGNMENT_OR_NUMBER = re.compile(r"[A-Za-z_]\w*=.*|[\d.,:-]+[smhd]?", re.DOTALL)
_ENDS_A_COMMAND = re.compile(r"[;&|()\n]+")


def python_program(command: Any) -> str:
    """Return a command that starts a Python program, in one line; an empty text for any other.

    Args:
        command: What a program is started with: a text, as a shell reads it, or a list of words. Of a shell that is
            given a text (``bash -c``), the text is the command.
    """
    if not isinstance(command, (list, tuple)):
        text = _text(command)
        return on_one_line(text) if _shell_starts_python(text) else ""
    words = [_text(word) for word in command]
    return (on_one_line(_given_to_shell(words)) or " ".join(words)) if _starts_python(words) else ""


def _text(word: Any) -> str:
    return os.fsdecode(word) if isinstance(word, (bytes, os.PathLike)) else str(word)


def _given_to_shell(words: Sequence[str]) -> str:
    """Return the text that the words give a shell to run (``bash -lc TEXT``); an empty one where they are no shell."""
    is_shell = bool(words) and PurePath(words[0]).name in _SHELLS
    given = (text for option, text in zip(words[1:], words[2:]) if re.fullmatch("-[a-z]*c", option))
    return next(given, "") if is_shell else ""


def _shell_starts_python(text: str) -> bool:
    return any(map(_starts_python, _commands(text)))


def _commands(text: str) -> Iterator[list[str]]:
    """Yield the simple commands, word by word, of a text that a shell reads."""
    reader = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    reader.whitespace, reader.whitespace_split, reader.commenters = " \t\r", True, ""
    try:
        words = list(reader)
    except ValueError:  # a quotation that does not end: the shell will say so
        words = text.split()
    command: list[str] = []
    for word in words:
        if _ENDS_A_COMMAND.fullmatch(word):
            yield command
            command = []
        else:
            command.append(word)
    yield command


def _starts_python(words: Sequence[str]) -> bool:
    """Tell whether the program that the words of one command start, or have another one start, is a Python program."""
    after_option = False
    for position, word in enumerate(words):
        name = PurePath(word).name
        if _is_python(name):
            return True
        if name in _SHELLS:
            return _shell_starts_python(_given_to_shell(words[position:]))
        if name in _KEYWORDS | _RUNNERS or _ASSIGNMENT_OR_NUMBER.fullmatch(word):
            after_option = False
        elif word.startswith("-"):
            after_option = True
        elif not after_option:
            return False
        else:  # which may be the option's value
            after_option = False
    return False


def _is_python(name: str) -> bool:
    return name.startswith("python") or name in _LAUNCHERS or name.endswith(".py")
