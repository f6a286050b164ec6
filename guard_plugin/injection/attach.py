"""``guard_plugin.attach``: one line at the top of a script, or a block around a part of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from guard_plugin.errors import UnusableInput
from guard_plugin.injection.attachment import Attachment
from guard_plugin.injection.processes.program import folder_of_module

__all__ = ["attach"]


def attach(adapter: str, *, script: str | os.PathLike[str] | None = None, **options: Any) -> Attachment:
    """Guard the loss calls of this process.

    One line at the top of a script (a ``cross_entropy`` that was imported by its bare name before is not seen)::

        guard_plugin.attach("dc", strength=1.0, h=0.5)

    or around a part of it: ``with guard_plugin.attach("dc") as g: ...``, where ``g.ledger`` is the block's ledger.
    Without a block, the check is made when the process ends, which then exits with the error's code if it fails. In a
    notebook nobody would see that: there the block is needed, around the training, and its cell can be run again.

    Args:
        adapter: The adapter's name, as in ``guard plugins``.
        script: The host's script; by default the program that this process runs.
        **options: The penalty's settings (``strength``, ``h``, ``form``, ``h_ramp``; docs/penalty.md has those of
            others), by default the adapter's recommended ones, and ``penalty``, its name (default "curvature");
            ``memory`` ("normal" or "low") and ``path`` (docs/performance.md) say how it is computed. For
            the adapter "auto" also ``guard`` and ``suspend``, lists of seams such as "utils:epoch", ``real``, a list
            of lines such as "main.py:191", ``made_by``, a list of what makes batches of real data, and ``expect``, the
            number of loss calls to guard.

    Raises:
        GuardError: If adapter, script, seams or settings do not fit, before anything is changed.
    """
    main = sys.modules["__main__"]
    program = getattr(main, "__file__", None)
    if script is None and program is None:
        raise UnusableInput(
            "expected a script to guard, found an interactive session: pass script='main.py', the file whose functions "
            "it calls; for training that is written in the session itself, wrap its criterion: "
            "criterion = guard_plugin.wrap(criterion, model, strength=1.0, h=0.43)"
        )
    path = Path(str(program) if script is None else script).resolve()
    if not path.is_file():
        raise UnusableInput(f"no such script: {path}")
    module = main.__spec__.name if script is None and main.__spec__ is not None else ""
    folder = folder_of_module(module, path) if module else None
    is_session = hasattr(sys, "ps1")  # also IPython's, and a notebook's
    attachment = Attachment(adapter, path, options, folder=folder, arguments=() if is_session else sys.argv[1:])
    if is_session:
        attachment.require_block()
    else:
        attachment.conclude_at_exit()
    return attachment
