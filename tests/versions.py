"""What the tests of one version of torch ask for: see guard_plugin/versions.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from guard_plugin.versions import TORCH, WHY_REFERENCE_ONLY

needs_fast_paths = pytest.mark.skipif(bool(WHY_REFERENCE_ONLY), reason=WHY_REFERENCE_ONLY)


def needs_torch(major: int, minor: int) -> pytest.MarkDecorator:
    """Skip a test where torch is older."""
    return pytest.mark.skipif((major, minor) > TORCH, reason=f"needs torch {major}.{minor}")


def load_own(file: object) -> Any:
    """Load what a test's own host wrote, objects included."""
    return torch.load(file, **({"weights_only": False} if TORCH >= (1, 13) else {}))  # type: ignore[arg-type]
