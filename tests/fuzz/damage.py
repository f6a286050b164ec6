"""Ways to damage a file: its bytes, or what a JSON, torch or numpy file holds."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["damage"]


def damage(file: Path, rng: random.Random) -> str:
    """Damage a file in one or two random ways; return what was done, in words."""
    inside = {".json": _change_json, ".pt": _change_torch, ".pth": _change_torch, ".npz": _change_npz}
    ways = [_change_bytes, inside[file.suffix], inside[file.suffix]]
    return " and ".join(rng.choice(ways)(file, rng) for _ in range(rng.choice([1, 1, 2])))


def _change_bytes(file: Path, rng: random.Random) -> str:
    data = bytearray(file.read_bytes())
    way = rng.choice(["flip", "truncate", "cut", "repeat", "zeros", "empty", "text", "prefix"])
    at, length = rng.randrange(len(data) or 1), rng.randint(1, 64)
    if way == "flip":
        for _ in range(rng.choice([1, 1, 8, 64])):
            if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif way == "truncate":
        del data[at:]
    elif way == "cut":
        del data[at : at + length]
    elif way == "repeat":
        data[at:at] = data[at : at + length]
    elif way == "zeros":
        data[at : at + length] = bytes(length)
    else:
        data = bytearray({"empty": b"", "text": b"no such thing\n", "prefix": b"\x80\x02" + bytes(data)}[way])
    file.write_bytes(data)
    return f"bytes: {way} at {at}"


def _change_json(file: Path, rng: random.Random) -> str:
    try:
        content = json.loads(file.read_text())
    except (ValueError, RecursionError):  # by the first damage of two
        return _change_bytes(file, rng)
    holder = {"": content}
    words = _replace(holder, rng, _hostile_json)
    text = json.dumps(holder[""])
    file.write_text(text.replace('"DEEP"', "[" * 20000 + "]" * 20000).replace('"HUGE"', "1" + "0" * 5000))
    return f"JSON: {words}"


def _hostile_json(rng: random.Random) -> Any:
    values = [
        None,
        True,
        -1,
        0,
        1e308,
        float("nan"),
        float("inf"),
        10**30,
        "DEEP",
        "HUGE",
        "\ud800",
        "\x1b[2J\x1b]0;t\x07",
    ]
    return rng.choice([*values, "", "x" * 10**5, [], {}, [[]], {"": {}}, [None] * 3, "../../../etc/passwd", "<script>"])


def _change_torch(file: Path, rng: random.Random) -> str:
    try:
        content = torch.load(file, weights_only=False)
    except Exception:  # noqa: BLE001  (it is damaged already)
        return _change_bytes(file, rng)
    holder = {"": content}
    words = _replace(holder, rng, _hostile_tensor)
    try:
        torch.save(holder[""], file, _use_new_zipfile_serialization=rng.random() < 0.8)
    except Exception:  # noqa: BLE001  (torch does not write every hostile thing)
        return _change_bytes(file, rng)
    return f"torch: {words}"


def _hostile_tensor(rng: random.Random) -> Any:
    makers: list[Callable[[], Any]] = [
        lambda: torch.zeros(1).expand(10**12),
        lambda: torch.zeros(1).expand(10**5, 3, 10**4, 10**4),
        lambda: torch.zeros(2, 2, device="meta"),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.rand(3, 3), 0.1, 0, torch.quint8),
        lambda: torch.zeros(3, dtype=torch.complex64),
        lambda: torch.full((4, 1, 8, 8), float("nan")),
        lambda: torch.full((4, 1, 8, 8), 1e38),
        lambda: torch.tensor(3),
        lambda: torch.zeros(0, 1, 8, 8),
        lambda: torch.zeros(4, 0, 8, 8),
        lambda: torch.full((4,), -(2**63)),
        lambda: torch.full((4,), 2**62),
        lambda: torch.zeros(4, 1, 8, 8, dtype=torch.bfloat16),
        lambda: torch.zeros(4, 1, 8, 8, dtype=torch.bool),
        lambda: torch.zeros(4, 1, 8, 8, requires_grad=True),
        lambda: torch.nn.Linear(2, 2),
        lambda: b"bytes",
        lambda: 10**30,
        lambda: float("nan"),
        lambda: {(1, 2): torch.zeros(1)},
    ]
    return rng.choice([*makers, lambda: _hostile_json(rng)])()


def _change_npz(file: Path, rng: random.Random) -> str:
    try:
        with np.load(file) as opened:
            arrays = dict(opened)
    except Exception:  # noqa: BLE001  (it is damaged already)
        return _change_bytes(file, rng)
    name = rng.choice(sorted(arrays) or ["images"])
    if rng.random() < 0.3:  # a header that promises more than there is
        header = {"descr": rng.choice(["<f4", "|O", "<U9", "|V7"]), "fortran_order": False, "shape": (10**9, 10**3)}
        begin = io.BytesIO()
        np.lib.format.write_array_header_1_0(begin, header)
        with zipfile.ZipFile(file, "w") as opened:
            for key in arrays:
                opened.writestr(f"{key}.npy", begin.getvalue() + bytes(100))
        return f"numpy: every array promises {header['shape']} of {header['descr']}"
    hostile = [
        np.array(3),
        np.zeros((0, 8, 8)),
        np.full((20, 8, 8), np.nan),
        np.full((20, 8, 8), 1e300),
        np.zeros(20, "c8"),
    ]
    hostile += [np.array(["a"] * 20), np.array([None] * 20), np.zeros(20, "M8[s]"), np.full(20, -5), np.full(20, 2**62)]
    hostile += [np.zeros((20, 8, 8), "f2"), np.zeros((20, 8, 8), ">f4"), np.zeros((20, 8), "u1"), np.zeros(20, "V4")]
    if rng.random() < 0.2:
        del arrays[name]
    else:
        arrays[name] = rng.choice(hostile)
    np.savez(file, **arrays)
    return f"numpy: {name} is {arrays[name].dtype} {arrays[name].shape}" if name in arrays else f"numpy: without {name}"


def _replace(holder: Any, rng: random.Random, hostile: Callable[[random.Random], Any]) -> str:
    """Replace, delete or wrap a random value in a container of containers."""
    place, key, path = holder, "", ""
    while True:
        value = place[key]
        keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
        if not keys or rng.random() < 0.2:
            break
        place, key = value, rng.choice(keys)
        path += f"/{key}"
    way = rng.choice(["replace", "replace", "replace", "delete", "wrap"])
    if way == "delete" and place is not holder:
        del place[key]
    elif way == "wrap":
        place[key] = rng.choice([[place[key]], {"a": place[key]}, (place[key],)])
    else:
        place[key] = hostile(rng)
        way = f"{place[key]!r:.40} as"
    return f"{way} {path[:80] or 'all'}"
