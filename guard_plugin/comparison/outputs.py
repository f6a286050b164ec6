"""Where pages and drawings may be written: never over an input, nor over a file that is not one of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from guard_plugin.comparison.templates import is_page
from guard_plugin.errors import UnusableInput
from guard_plugin.files import explain_write_errors, refuse_other_file

__all__ = ["check_outputs"]

_OF_A_BENCHMARK = ("results.json", "fingerprint.json", "records", "students", ".lock")
_PNG = b"\x89PNG\r\n\x1a\n"
_FIX = "name another file"


def check_outputs(inputs: Sequence[Path], *, html: Path | None = None, png: Path | None = None) -> None:
    """Refuse outputs that would overwrite something: before anything is read, which may take long.

    A shell puts the first of ``--html sub/*.json`` after the option.

    Args:
        inputs: The folders and files that are read.
        html: Where a page shall be written. There may be an earlier one.
        png: Where a drawing shall be written. There may be a PNG.

    Raises:
        UnusableInput: If one of them is an input, lies among the files of a benchmark that is one, or leads to a file
            of another kind, or if both are one file.
    """
    if html and png and _real(html) == _real(png):
        raise UnusableInput(f"expected --html and --png as two files, got {html} and {png}: {_FIX} for one of them")
    if html:
        _check_output("--html", html, inputs, is_page, "a page of guard compare or guard leaderboard")
    if png:
        _check_output("--png", png, inputs, lambda head: head.startswith(_PNG), "a PNG")


def _check_output(option: str, file: Path, inputs: Sequence[Path], is_ours: Callable[[bytes], bool], kind: str) -> None:
    for given in inputs:
        if _belongs_to(file, given):
            raise UnusableInput(
                f"expected a new file after {option}, but {file} belongs to {given}, which is read: {_FIX}"
            )
    with explain_write_errors(file, "Name another file"):
        refuse_other_file(file, is_ours, expected=f"a new file after {option}, or {kind} to replace", fix=_FIX)


def _belongs_to(file: Path, given: Path) -> bool:
    """Tell whether a file is an input, or would be taken for a part of the benchmark in a folder that is one."""
    real, read = _real(file), _real(given)
    return real == read or (read in real.parents and real.relative_to(read).parts[0] in _OF_A_BENCHMARK)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
