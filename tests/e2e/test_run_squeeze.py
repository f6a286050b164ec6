"""``guard run sre2l`` and ``guard run cda``: the teacher's training is guarded, all later steps run as they are."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from guard_plugin.distilled.markers import origin_of
from tests.conftest import BASELINES, torchrun
from tests.versions import load_own

SQUEEZE = BASELINES / "sre2l" / "squeeze.py"
ARGUMENTS = shlex.split("--dataset digits --model ConvNetBN16-32 --epochs 2 --batch-size 256 --n-train 600")
SETTINGS = ["--strength", "1", "--h", "0.5", "--ledger", "ledger.json"]
CALLS = 2 * 3  # epochs, batches


def ledger(folder: Path) -> dict:
    return json.loads((folder / "ledger.json").read_text())


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load_own(folder / "checkpoint.pth")["model"]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("adapter", ["sre2l", "cda"])
@pytest.mark.parametrize("form", ["gradient", "loss"])
def test_each_training_batch_is_guarded_and_evaluation_is_not(guard, tmp_path, adapter, form):
    options = [*SETTINGS, "--form", form, "--h-ramp", 4]
    done = guard("run", *options, adapter, SQUEEZE, *ARGUMENTS, "--label-smoothing", 0.1, "--output-dir", "out")
    assert done.returncode == 0, done.stderr
    calls = ledger(tmp_path)["loss_calls"]
    assert (calls["guarded"], calls["expected"]) == (CALLS, CALLS)
    assert calls["skipped"] == {"suspended: squeeze.evaluate": 2}
    assert ledger(tmp_path)["penalty"]["h_ramp"] == 4
    assert json.loads((tmp_path / "out" / "checkpoint.pth.guard.json").read_text())["ledger"]["outcome"] == "complete"


def test_strength_zero_is_the_plain_run_with_all_statistics(guard, python, tmp_path):
    python(SQUEEZE, *ARGUMENTS, "--output-dir", "plain", check=True)
    for strength in ("0", "3"):
        options = ["--strength", strength, "--h", "0.5"]
        assert guard("run", *options, "sre2l", SQUEEZE, *ARGUMENTS, "--output-dir", strength).returncode == 0
    plain, zero, three = (saved(tmp_path / folder) for folder in ("plain", "0", "3"))
    assert equal(plain, zero) and not equal(plain, three)
    assert {int(three[name]) for name in three if name.endswith("num_batches_tracked")} == {CALLS}


def test_statistics_see_only_the_hosts_own_forward(guard, python, tmp_path):
    """After one step the weights differ from the plain run's, and every running statistic is the same."""
    one_step = [*ARGUMENTS, "--epochs", "1", "--n-train", "256"]
    python(SQUEEZE, *one_step, "--output-dir", "plain", check=True)
    assert guard("run", *SETTINGS, "sre2l", SQUEEZE, *one_step, "--output-dir", "guarded").returncode == 0
    plain, guarded = saved(tmp_path / "plain"), saved(tmp_path / "guarded")
    statistics = [name for name in plain if "running_" in name or "num_batches" in name]
    assert statistics and all(torch.equal(plain[name], guarded[name]) for name in statistics)
    assert not equal(plain, guarded)


def test_all_later_steps_run_as_they_are(guard, tmp_path):
    squeezed = guard("run", *SETTINGS, "sre2l", SQUEEZE, *ARGUMENTS, "--output-dir", "out")
    assert squeezed.returncode == 0
    teacher, data = "out/checkpoint.pth", ["--dataset", "digits", "--model", "ConvNetBN16-32"]
    recover = ["--arch-path", teacher, "--syn-data-path", ".", "--iteration", 2, "--ipc-end", 1, "--jitter", 1]
    student = [*data, "--train-dir", "syn", "--output-dir", "student", "--epochs", 1]
    for adapter, script, arguments in (
        ("sre2l", "sre2l/recover.py", [*recover, "--exp-name", "syn"]),
        ("cda", "cda/recover.py", [*recover, "--exp-name", "cda"]),
        ("sre2l", "sre2l/relabel.py", ["--teacher", teacher, "--data", "syn", "--fkd-path", "fkd", "--epochs", 1]),
        ("cda", "sre2l/validate.py", [*student, "--teacher", teacher]),
    ):
        done = guard("run", "--ledger", "ledger.json", adapter, BASELINES / script, *arguments)
        assert done.returncode == 0, done.stderr
        assert "nothing to guard here" in done.stderr and ledger(tmp_path)["loss_calls"]["guarded"] == 0
    assert list((tmp_path / "syn").glob("new*/*.jpg")) and list((tmp_path / "student").glob("*.pth"))


# torchvision's reference training in miniature: what its descendants do around the loss.
REFERENCE = """
import argparse, contextlib, copy, os
import torch
import torch.distributed as dist
from torch import nn

def train_one_epoch(model, criterion, optimizer, data_loader, device, epoch, args, model_ema=None, scaler=None):
    model.train()
    for i, (image, target) in enumerate(data_loader):
        last = (i + 1) % args.accumulate == 0
        with contextlib.nullcontext() if last or not args.distributed else model.no_sync():
            with torch.autocast("cpu", dtype=torch.float16, enabled=args.amp):
                output = model(image)
                loss = criterion(output, target) / args.accumulate if args.scaled else criterion(output, target)
            (scaler.scale(loss) if scaler else loss).backward()
        if not last:
            continue
        if scaler:
            scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        print(f"norm {float(norm):.3f}")
        scaler.step(optimizer) if scaler else optimizer.step()
        if scaler:
            scaler.update()
        optimizer.zero_grad()
        if model_ema:
            for old, new in zip(model_ema.parameters(), model.parameters()):
                old.data.lerp_(new.data, 0.1)

def evaluate(model, criterion, data_loader, device, print_freq=100, log_suffix=""):
    model.eval()
    with torch.inference_mode():
        for image, target in data_loader:
            criterion(model(image), target)

def main(args):
    args.distributed = "RANK" in os.environ
    rank = int(os.environ.get("RANK", "0"))
    if args.distributed:
        dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 16, 5))
    model_ema = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(rank)
    data_loader = [
        (torch.randn(4, 3, 6, 6, generator=generator), torch.rand(4, 5, generator=generator).softmax(1))
        for _ in range(4)
    ]
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0) if args.amp else None
    without_ddp = model
    if args.distributed:
        model = nn.parallel.DistributedDataParallel(model)
    if args.test_only:
        return evaluate(model, criterion, data_loader, "cpu")
    for epoch in range(args.start_epoch, args.epochs):
        train_one_epoch(model, criterion, optimizer, data_loader, "cpu", epoch, args, model_ema, scaler)
        evaluate(model, criterion, data_loader, "cpu")
        evaluate(model_ema, criterion, data_loader, "cpu", log_suffix="EMA")
    os.makedirs(args.output_dir, exist_ok=True)
    torch.save({"model": without_ddp.state_dict()}, os.path.join(args.output_dir, f"checkpoint{rank or ''}.pth"))
    if args.distributed:
        dist.barrier()
        dist.destroy_process_group()

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--start-epoch", type=int, default=0)
parser.add_argument("--accumulate", type=int, default=2)
parser.add_argument("--clip", type=float, default=1000.0)
parser.add_argument("--amp", action="store_true")
parser.add_argument("--scaled", action="store_true")
parser.add_argument("--test-only", action="store_true")
parser.add_argument("--output-dir", default="out")
main(parser.parse_args())
"""


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    script = tmp_path / "references" / "classification" / "train.py"
    script.parent.mkdir(parents=True)
    script.write_text(REFERENCE)
    return script


@pytest.mark.parametrize("extra", ["", "--amp", "--scaled --amp", "--epochs 3 --start-epoch 1"])
def test_the_reference_training_is_guarded_with_amp_accumulation_and_soft_targets(guard, reference, tmp_path, extra):
    done = guard("run", *SETTINGS, "sre2l", reference, *shlex.split(extra))
    assert done.returncode == 0, done.stderr
    found = ledger(tmp_path)
    assert found["loss_calls"]["guarded"] == found["loss_calls"]["expected"] == 2 * 4
    assert found["penalty_value"]["nonfinite"] == 0 and found["penalty_value"]["first"] > 0


def test_under_amp_the_penalty_is_that_of_full_precision(guard, reference, tmp_path):
    """What is so small that it would be 0 in float16 is what it is in the plain run, up to BatchNorm's statistics."""
    values = []
    for extra in ([], ["--amp"]):
        done = guard("run", "--strength", "1", "--h", "1e-4", "--ledger", "ledger.json", "sre2l", reference, *extra)
        assert done.returncode == 0, done.stderr
        values.append(ledger(tmp_path)["penalty_value"]["first"])
    assert 0 < values[0] < 1e-10 and values[1] == pytest.approx(values[0], rel=0.05, abs=0)


def test_a_penalty_that_is_not_finite_is_not_hidden_by_the_skipped_step(guard, reference):
    done = guard("run", "--strength", "1e39", "--h", "10", "--form", "loss", "sre2l", reference, "--amp", "--epochs", 6)
    plain = guard("run", "--strength", "0", "sre2l", reference, "--amp", "--epochs", 6)
    assert plain.returncode == 0
    assert done.returncode == 3 and "expected finite penalties" in done.stderr, done.stderr


def test_the_norm_that_the_host_clips_is_that_of_loss_and_penalty(guard, reference):
    """Accumulation adds up gradients, so that strength acts linearly on what is clipped."""
    norms = {}
    for strength in ("0", "1", "2"):
        done = guard("run", "--strength", strength, "--h", "0.5", "--form", "loss", "sre2l", reference, "--epochs", 1)
        norms[strength] = float(done.stdout.split()[1])
    assert norms["0"] != norms["1"] != norms["2"] and norms["2"] < 3 * norms["1"]


def test_the_first_step_of_a_ramp_is_a_part_of_h(guard, reference, tmp_path):
    values = {}
    for h, ramp in (("0.5", "0"), ("0.5", "4"), ("0.125", "0")):
        options = ["--strength", "1", "--h", h, "--h-ramp", ramp, "--form", "loss", "--ledger", "ledger.json"]
        assert guard("run", *options, "sre2l", reference, "--epochs", 1).returncode == 0
        values[h, ramp] = ledger(tmp_path)["penalty_value"]["first"]
    assert values["0.5", "4"] == values["0.125", "0"] != values["0.5", "0"]


def test_a_run_that_only_tests_has_nothing_to_guard(guard, reference):
    done = guard("run", *SETTINGS, "sre2l", reference, "--test-only")
    assert done.returncode == 0 and "nothing to guard here: it only tests a network" in done.stderr


@pytest.mark.parametrize("strength", ["0", "1"])
def test_a_run_that_trains_although_it_only_tests_fails(guard, reference, tmp_path, strength):
    reference.write_text(reference.read_text().replace("return evaluate(model", "evaluate(model"))
    done = guard("run", *SETTINGS, "--strength", strength, "sre2l", reference, "--test-only")
    words = "expected nothing to guard, as with these arguments it only tests a network, found 8 loss calls"
    assert done.returncode == 3 and f"{words} on real data, at classification/train.py:14:" in done.stderr, done.stderr
    assert ledger(tmp_path)["outcome"] == "incomplete"


def test_a_teacher_that_goes_on_from_a_plain_one_is_not_guards(guard, python, reference, tmp_path):
    load = "    if args.resume:\n        model.load_state_dict(torch.load(args.resume)['model'])\n"
    source = reference.read_text().replace("    model_ema = copy", f"{load}    model_ema = copy")
    option = 'parser.add_argument("--resume")\n'
    reference.write_text(source.replace('parser.add_argument("--scaled"', f'{option}parser.add_argument("--scaled"'))
    python(reference, "--output-dir", "plain", check=True)
    resume = ["--start-epoch", 1, "--resume", "plain/checkpoint.pth"]
    done = guard("run", *SETTINGS, "sre2l", reference, *resume)
    assert done.returncode == 0 and "plain/checkpoint.pth is not known to be made under GUARD" in done.stderr
    assert "went on from" in origin_of(tmp_path / "out" / "checkpoint.pth").reason
    assert guard("run", *SETTINGS, "sre2l", reference).returncode == 0
    assert origin_of(tmp_path / "out" / "checkpoint.pth").reason == ""


@pytest.mark.parametrize("form", [pytest.param("gradient", marks=pytest.mark.long), "loss"])
def test_two_processes_guard_alike_and_stay_alike(two_ranks, reference, tmp_path, environment, form):
    guarded = ["-m", "guard_plugin", "run", *SETTINGS, "--form", form, "sre2l", reference]
    done = torchrun(tmp_path, environment, *guarded) if form == "gradient" else two_ranks(*guarded)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("guard: sre2l classification/train.py: ") == 1, "one process speaks for all"
    assert "8 of 8 expected guarded" in done.stderr
    ranks = [torch.load(tmp_path / "out" / f"checkpoint{rank}.pth")["model"] for rank in ("", "1")]
    weights = [name for name in ranks[0] if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in weights)


def test_under_two_processes_strength_zero_is_the_plain_run(two_ranks, reference, tmp_path):
    assert two_ranks(reference, "--output-dir", "plain").returncode == 0
    run = ["-m", "guard_plugin", "run"]
    for strength in ("0", "3"):
        options = ["--strength", strength, "--h", "0.5", "sre2l", reference, "--output-dir", strength]
        assert two_ranks(*run, *options).returncode == 0
    for rank in ("", "1"):
        plain, zero, three = (torch.load(tmp_path / f / f"checkpoint{rank}.pth")["model"] for f in ("plain", "0", "3"))
        assert equal(plain, zero) and not equal(plain, three)


def test_under_two_processes_statistics_see_only_the_hosts_own_forward(two_ranks, reference, tmp_path):
    """One step: each process has the plain run's statistics, its own, although the weights differ."""
    one = ["--epochs", "1", "--accumulate", "4"]
    assert two_ranks(reference, *one, "--output-dir", "plain").returncode == 0
    guarded = ["-m", "guard_plugin", "run", *SETTINGS, "sre2l", reference, *one, "--output-dir", "guarded"]
    assert two_ranks(*guarded).returncode == 0
    for rank in ("", "1"):
        plain, found = (torch.load(tmp_path / f / f"checkpoint{rank}.pth")["model"] for f in ("plain", "guarded"))
        statistics = [name for name in plain if "running_" in name or "num_batches" in name]
        assert all(torch.equal(plain[name], found[name]) for name in statistics)
        assert not equal(plain, found)


# As SRe2L's recover asks for its teacher, and for a verifier after it.
RECOVER = """
import torch, torchvision.models as models, sys
def main(args):
    if args:
        teacher = models.__dict__["resnet18"](pretrained=True)
        torch.save(teacher.state_dict(), "used.pth")
main(sys.argv[1:])
"""


def test_a_teacher_is_given_for_pretrained_weights(guard, tmp_path):
    models = pytest.importorskip("torchvision.models")
    (tmp_path / "recover.py").write_text(RECOVER)
    state = {f"module.{name}": value for name, value in models.resnet18().state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "t.pth")
    options = ["--ledger", "ledger.json", "--teacher", "t.pth"]
    done = guard("run", *options, "sre2l", "recover.py", "ask")
    assert done.returncode == 0, done.stderr
    used = torch.load(tmp_path / "used.pth")
    assert equal({f"module.{k}": v for k, v in used.items()}, state)
    assert ledger(tmp_path)["teacher"]["given_for"] == ["ResNet18_Weights.IMAGENET1K_V1"]
    done = guard("run", *options, "sre2l", "recover.py")
    assert done.returncode == 3 and "what it used is another network" in done.stderr
    torch.save({"state_dict": models.resnet18(num_classes=3).state_dict()}, tmp_path / "t.pth")
    done = guard("run", *options, "sre2l", "recover.py", "ask")
    assert done.returncode == 2 and "expected fc.weight of shape (1000, 512), found (3, 512)" in done.stderr
