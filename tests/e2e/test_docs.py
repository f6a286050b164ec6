"""What the documentation shows works as it says."""

import json
import os
import re
import shlex

import torch

from guard_plugin.networks import build_network
from tests.conftest import ROOT, write_distribution

WANDB = """
import contextlib, json
class Run:
    def __init__(self, *told):
        self.told = told
    def log(self, values):
        open("logged.json", "w").write(json.dumps([*self.told, values]))
@contextlib.contextmanager
def init(project, name, config):
    yield Run(project, name, config["arch"])
"""


def code_blocks(text: str) -> dict[str, str]:
    return dict(re.findall(r"<!-- test: (\S+) -->\n```python\n(.*?)```", text, flags=re.S))


def test_the_example_of_writing_an_adapter(guard, tmp_path):
    for name, code in code_blocks((ROOT / "docs" / "writing-an-adapter.md").read_text()).items():
        (tmp_path / name).write_text(code)
    write_distribution(tmp_path, "guard-example", "[guard_plugin]\nexample = guard_example\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    doctor = guard("doctor", "example", tmp_path, **environment)
    assert doctor.returncode == 0 and "train.evaluate" in doctor.stdout, doctor.stderr
    run = guard("run", "example", "train.py", "--epochs", "3", **environment)
    assert run.returncode == 0 and "9 loss calls seen, 6 of 6 expected guarded" in run.stderr, run.stderr


def test_the_plugin_that_logs_results(guard, tmp_path):
    """With a wandb that writes what it is given."""
    logger = code_blocks((ROOT / "docs" / "writing-an-adapter.md").read_text())["guard_log.py"]
    (tmp_path / "guard_log.py").write_text(logger)
    (tmp_path / "wandb.py").write_text(WANDB)
    write_distribution(tmp_path, "guard-log", "[guard_plugin]\nlog = guard_log\n")
    network = build_network("MLP", channels=1, num_classes=10, im_size=(8, 8))
    torch.save(network.state_dict(), tmp_path / "mlp.pt")
    options = "--checkpoint mlp.pt --arch MLP --dataset digits --n-examples 20 --attacks fgsm --eps 8/255 --out named"
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    done = guard("benchmark", *shlex.split(options), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    accuracy = json.loads((tmp_path / "named" / "results.json").read_text())["accuracy"]
    logged = json.loads((tmp_path / "logged.json").read_text())
    assert logged == ["guard", "named", "MLP", {column: entry["mean"] for column, entry in accuracy.items()}]


def test_the_same_host_without_an_adapter(guard, tmp_path):
    text = (ROOT / "docs" / "writing-an-adapter.md").read_text()
    (tmp_path / "train.py").write_text(code_blocks(text)["train.py"])
    (command,) = re.findall(r"^    guard (run .* auto .*)$", text, flags=re.M)
    run = guard(*shlex.split(command))
    assert run.returncode == 0 and "6 loss calls seen, 4 of 4 expected guarded" in run.stderr, run.stderr


def test_observing_the_same_host_gives_the_command(guard, tmp_path):
    text = (ROOT / "docs" / "writing-an-adapter.md").read_text()
    (tmp_path / "train.py").write_text(code_blocks(text)["train.py"])
    (command,) = re.findall(r"^    guard run .* (auto .*)$", text, flags=re.M)
    assert command in guard("observe", "train.py").stderr


def test_links_between_documents_lead_somewhere():
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("adapters/*.md")]
    assert len(documents) >= 6
    for document in documents:
        for link in re.findall(r"\]\(([^)#:\s]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document}: {link}"


def test_links_to_a_heading_lead_to_one():
    found = 0
    for document in ROOT.glob("docs/*.md"):
        text = document.read_text()
        headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        links = set(re.findall(r"\]\(#([^)]+)\)", text))
        assert links <= anchors, document
        found += len(links)
    assert found >= 4


def test_the_readme_has_the_two_commands_on_its_first_screen():
    first_screen = (ROOT / "README.md").read_text().splitlines()[:40]
    commands = [line.strip() for line in first_screen if line.startswith("    python3 -m venv ")]
    assert len(commands) == 2
    assert commands[0].endswith("guard demo") and "-m pytest" in commands[1]
