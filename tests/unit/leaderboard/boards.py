"""Folders and files of finished benchmarks, as entries of a leaderboard."""

import json
import shutil

import numpy as np

from tests.unit.comparison.folders import GONE, attacks_at, write_benchmark

LEDGER = {
    "adapter": "dc",
    "script": "main.py",
    "outcome": "complete",
    "penalty": {"name": "curvature", "form": "gradient", "h": 0.5, "strength": 100.0},
    "loss_calls": {"seen": 30, "guarded": 20, "expected": 20},
    "host": {"commit": "8d00cba1234"},
    "summary": "dc main.py: 30 loss calls seen, 20 of 20 expected guarded",
}


def outcomes(share, seed, students=6, examples=200):
    """Per student, right on examples drawn at random."""
    return np.random.default_rng(seed).random((students, examples)) < share


def folder(path, robust=0.4, *, seed=0, sets=(0, 1, 2, 0, 1, 2), eps=("8/255",), names=("fgsm", "pgd10"), **options):
    """Write a benchmark of distilled images; its accuracy under the last attack is near ``robust``."""
    clean = outcomes(0.9, seed, len(sets))
    correct = {"clean": clean}
    for radius in eps:
        for name, share in zip(names, (robust + 0.1, robust)):
            column = f"{name}@{radius}" if len(eps) > 1 else name
            correct[column] = clean & outcomes(share / 0.9, len(correct) + 10 * seed, len(sets))
    subject = {**GONE, "sha256": f"{seed:064x}", "set_of_student": list(sets), **options.pop("subject", {})}
    return write_benchmark(path, correct, attacks=attacks_at(*eps, names=names), subject=subject, **options)


def alone(path, *given, **options):
    """Write a benchmark, and keep its results.json alone, at the path."""
    made = folder(path.with_name(f"{path.name}-made"), *given, **options)
    (made / "results.json").rename(path)
    shutil.rmtree(made)
    return path


def edit(file, change):
    """Change what a results.json holds."""
    results = json.loads(file.read_text())
    change(results)
    file.write_text(json.dumps(results))
    return file
