"""Small folders of finished benchmarks, written with the package's own writers."""

import json

import numpy as np
import torch

from guard_plugin.attacks import builtin_registry, parse_eps
from guard_plugin.evaluation.records import Cost, Record, RecordFolder
from guard_plugin.evaluation.results import (
    SCHEMA,
    accuracy_entry,
    attack_columns,
    sets_of,
    unit_of,
    versions,
    worst_case_members,
    worst_cases,
)

EXAMPLES = 100
GONE = {"kind": "distilled", "path": "gone.pt", "sha256": "0" * 64, "adapter": "dc", "ipc": 1.0}


def flags(*shares, examples=EXAMPLES):
    """Per student, right on the first so many examples."""
    return np.stack([np.arange(examples) < round(share * examples) for share in shares])


def shaken(share, seed, students=3, examples=EXAMPLES):
    """Per student, right on examples drawn at random."""
    return np.random.default_rng(seed).random((students, examples)) < share


def attacks_at(*eps, names=("fgsm", "pgd10")):
    registry = builtin_registry()
    return [
        registry[name[:4].rstrip("0123456789")].from_spec(name.lstrip("fgsmpd"), eps=parse_eps(one), seed=0)
        for one in eps
        for name in names
    ]


def write_benchmark(folder, correct, *, sets=None, attacks=None, ledger=None, subject=None, flagged=None, **protocol):
    """Write the folder.

    Args:
        correct: Column -> flags of shape (students, examples), without worst cases.
        sets: The distilled set of each student; each has its own by default. Unless ``subject`` is given.
        attacks: In the order of their columns; FGSM and PGD at 8/255 by default.
        flagged: What results.json holds under "flags".
        protocol: Over what is there by default.
    """
    attacks = attacks_at("8/255") if attacks is None else attacks
    columns = attack_columns(attacks)
    assert list(correct) == ["clean", *columns]
    students, examples = correct["clean"].shape
    subject = subject or {**GONE, "set_of_student": list(range(students) if sets is None else sets)}
    sample = sets_of(subject, students), unit_of(subject)
    protocol = {
        "dataset": "digits",
        "split": "test",
        "n_examples": examples,
        "data_sha256": "d" * 64,
        "arch": "MLP",
        "normalization": {"name": "per channel", "mean": [0.3], "std": [0.4]},
        "recipe": {"name": "dc", "epochs": 3, "learning_rate": 0.01, "learning_rate_source": "recipe"},
        "seeds": students,
        "preset": None,
        "attacks": [attack.settings() for attack in attacks],
        **protocol,
    }
    for student in range(students):
        kept = RecordFolder(folder / "records" / f"student-{student}", examples)
        for column, outcomes in correct.items():
            kept.put(column, Record(outcomes[student], Cost(1.0, 10, 5)))
    (folder / "fingerprint.json").write_text(json.dumps({**protocol, "distilled_sha256": ["e" * 64]}))
    summarised = {**correct, **worst_cases(correct, columns)}
    results = {
        "schema": SCHEMA,
        "subject": subject,
        "protocol": protocol,
        "accuracy": {column: accuracy_entry(outcomes, *sample) for column, outcomes in summarised.items()},
        "worst_cases": worst_case_members(columns),
        "flags": flagged or [],
        "cost": {
            "seconds": {column: float(1 + i) for i, column in enumerate(correct)},
            "forwards": dict.fromkeys(correct, 10 * examples),
            "backwards": dict.fromkeys(correct, 5 * examples),
        },
        "ledger": ledger,
        "versions": versions(torch.device("cpu")),
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder
