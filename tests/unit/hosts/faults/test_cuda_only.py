"""Scripts that ask for CUDA by name take the CPU where there is none, and only there."""

import pytest
import torch

from guard_plugin.hosts.faults import Repairs, cuda_only, find_faults

# What stands in hosts' scripts, and what stands there for a machine without CUDA.
MENDED = {
    "net = DataParallel(net).cuda()": "net = DataParallel(net)",
    "x, y = x.cuda(), y.cuda().float()": "x, y = x, y.float()",
    "x = y[a : b].to('cuda')": 'x = y[a : b].to("cpu")',
    'x = y.to("cuda:1")': 'x = y.to("cpu")',
    'x = randn((2, 3), n=1, device="cuda", dtype=kind)': 'x = randn((2, 3), n=1, device="cpu", dtype=kind)',
    "x = tensor(1, device='cuda:0')": 'x = tensor(1, device="cpu")',
    'device = torch.device("cuda:0")': 'device = torch.device("cpu")',
    'raise Exception("need gpu to train!")': "pass",
    'add_argument("--device", default="cuda", type=str)': 'add_argument("--device", default="cpu", type=str)',
    "torch.cuda.set_device(args.gpu)": "pass",
    'args.dist_backend = "nccl"': 'args.dist_backend = "gloo"',
    "net = DDP(net, device_ids=[args.gpu])": "net = DDP(net, device_ids=None)",
    "x = y.to(rank)": "x = y",
}

# What is right on any machine.
RIGHT = [
    'device = "cuda" if torch.cuda.is_available() else "cpu"',
    "args.device = 'cuda' if torch.cuda.is_available() else 'cpu'",
    'if device == "cuda":',
    "torch.cuda.empty_cache()",
    "with torch.cuda.amp.autocast(enabled=scaler is not None):",
    'print("using CPU, this will be slow")',
    "net = net.cuda(args.gpu)",
    "x = y.to(device)",
    "# x = y.cuda()",
]


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def mended(tmp_path, source: str) -> str:
    (tmp_path / "script.py").write_text(source)
    repairs = Repairs(find_faults(cuda_only("script.py"), tmp_path))
    repairs.remove()
    source = repairs.source(tmp_path / "script.py")
    return source if isinstance(source, str) else source.decode()


@pytest.mark.parametrize(("published", "expected"), MENDED.items(), ids=list(MENDED))
def test_what_asks_for_cuda_takes_the_cpu(without, tmp_path, published, expected):
    assert mended(tmp_path, f"{published}\n") == f"{expected}\n"


@pytest.mark.parametrize("line", RIGHT)
def test_what_is_right_stays(without, tmp_path, line):
    assert mended(tmp_path, f"{line}\n") == f"{line}\n"


def test_all_lines_of_a_file_are_one_fault(without, tmp_path):
    (tmp_path / "script.py").write_text("\n".join([*MENDED, *RIGHT]))
    (tmp_path / "other.py").write_text("x = 1\n")
    (found,) = find_faults(cuda_only("other.py", "script.py", "missing.py"), tmp_path)
    assert found.lines == tuple(range(1, len(MENDED) + 1))
    assert "not for results" in found.describe() and found.to_json(repaired=True)["stops"]


def test_with_cuda_nothing_acts(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (tmp_path / "script.py").write_text("\n".join(MENDED))
    assert find_faults(cuda_only("script.py"), tmp_path) == []


def test_a_mended_script_computes_what_it_would_with_cuda(without, tmp_path):
    source = """
import torch
if not torch.cuda.is_available():
    raise Exception("need gpu to train!")
net = torch.nn.DataParallel(torch.nn.Linear(2, 1)).cuda()
x = torch.ones((3, 2), device="cuda", dtype=torch.float)
loss = net(x.to(torch.device("cuda:0"))).sum().cuda()
loss.backward()
gradient = next(net.parameters()).grad.to('cuda')
"""
    namespace: dict = {}
    exec(mended(tmp_path, source), namespace)
    assert namespace["gradient"].tolist() == [[3.0, 3.0]]
