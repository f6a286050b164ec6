"""The device that computes."""

import pytest
import torch

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation.distributed import usable_device


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch, "zeros", lambda *_, device: torch.ones(1, device="cpu" if device.type == "cuda" else "?")
    )
    assert usable_device("auto") == torch.device("cuda")


def test_a_gpu_that_does_not_work_is_not_replaced_silently(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: pytest.fail("no GPU") if device.type == "cpu" else 1 / 0)
    with pytest.raises(UnusableInput, match="cannot compute on device 'cuda': .*--device cpu always works"):
        usable_device("auto")
