"""Changes that a user's fork of DC may hold, made on a copy of its source. Changed seams: seam_mutations.py.

Each takes the folder of the copy and edits it; ``UnfitError`` says that a host has nothing to change there.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path


class UnfitError(Exception):
    """The host's source has not the text that a mutation changes."""


def replace(file: Path, pattern: str, replacement: str, count: int = 1) -> None:
    source = file.read_text()
    changed, n = re.subn(pattern, replacement, source, count=count, flags=re.M)
    if n == 0:
        raise UnfitError(f"{file}: nothing matches {pattern}")
    file.write_text(changed)


def move_into_script(module: str, function: str, script: str) -> Callable[[Path], None]:
    """Define the function in the script itself, and leave the module without it."""

    def mutate(host: Path) -> None:
        source = (host / f"{module}.py").read_text()
        node = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == function)
        text = ast.get_source_segment(source, node)
        script_file = host / script
        code = script_file.read_text()
        code = re.sub(rf"(from {module} import [^\n]*?)\b{function}\b,? ?", r"\1", code)
        code = re.sub(rf"^    {function},\n", "", code, flags=re.M)
        script_file.write_text(
            re.sub(r"^def main\(", f"from {module} import *\n\n{text}\n\n\ndef main(", code, flags=re.M)
        )

    return mutate


def real_loss(replacement: str) -> Callable[[Path], None]:
    """Compute the loss on real data in another way; ``\\1`` is the network's output."""
    return lambda host: replace(
        host / "main.py", r"loss_real = criterion\((.+), lab_real\)", f"loss_real = {replacement}"
    )


GUARDED = {
    "functional cross_entropy": real_loss(r"torch.nn.functional.cross_entropy(\1, lab_real)"),
    "functional cross_entropy by keywords": real_loss(
        r"torch.nn.functional.cross_entropy(input=\1, target=lab_real, label_smoothing=0.1)"
    ),
    "a criterion made in place": real_loss(r"nn.CrossEntropyLoss(label_smoothing=0.1)(\1, lab_real)"),
    "loss on a scaled output": real_loss(r"criterion(\1 / 2, lab_real)"),
    "loss by nll_loss of log_softmax": real_loss(r"torch.nn.functional.nll_loss(\1.log_softmax(1), lab_real)"),
    "epoch defined in main.py": move_into_script("utils", "epoch", "main.py"),
}
"""Mutations of DC that are guarded exactly."""

REFUSED_DURING = {
    "loss on something computed from the output in an unknown way": (
        real_loss(r"criterion(\1 + 1, lab_real)"),
        2,
        "computed from it by AddBackward0",
    ),
    "unsupported criterion": (real_loss(r"nn.MultiMarginLoss()(\1, lab_real)"), 2, "found MultiMarginLoss"),
    "unreduced criterion": (
        real_loss(r"nn.CrossEntropyLoss(reduction='none')(\1, lab_real).mean()"),
        2,
        "reduction='none'",
    ),
    "loss written out": (real_loss(r"-(\1).log_softmax(1).gather(1, lab_real[:, None]).mean()"), 3, "none of the"),
    "every second batch only": (
        real_loss(r"criterion(\1, lab_real) if c % 2 else (\1).logsumexp(1).mean()"),
        3,
        "main.main|expected",
    ),
    "network in eval mode": (
        real_loss(r"(net.eval(), criterion(\1, lab_real), net.train())[1]"),
        3,
        "network in eval mode",
    ),
    "one loss call too many": (
        real_loss(r"criterion(\1, lab_real) + 0 * criterion(\1, lab_real)"),
        3,
        "one more at main.py",
    ),
    "arguments under another name": (
        lambda host: replace(host / "main.py", r"\bargs\b", "options", count=0),
        2,
        "main.main",
    ),
}
"""Mutations of DC that a run stops on, with its exit code and words of its message."""
