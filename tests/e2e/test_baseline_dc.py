"""The gradient-matching baseline in examples/, run as its users run it."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.fork_server import process_environment

DC = Path(__file__).resolve().parents[2] / "examples" / "baselines" / "dc"
QUICK = (
    *("--dataset", "digits", "--model", "ConvNetW32", "--ipc", "2", "--num_exp", "1", "--num_eval", "0"),
    *("--Iteration", "1", "--outer_loop", "2", "--inner_loop", "1", "--batch_real", "8"),
)

pytest.importorskip("sklearn")
pytest.importorskip("torchvision")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def python(fork_server):
    def run(cwd, *command):
        environment = {**process_environment(), "CUDA_VISIBLE_DEVICES": ""}
        return fork_server.run([*map(str, command)], cwd=cwd, environment=environment)

    return run


@pytest.fixture(scope="module")
def run_main(python):
    """Run main.py; later arguments win over the quick ones. Returns the process and the result that it wrote."""

    def run(cwd, *args):
        done = python(cwd, DC / "main.py", *QUICK, "--save_path", "out", *args)
        assert done.returncode == 0, done.stderr
        (result,) = (cwd / "out").glob("res_*.pt")
        with torch.serialization.safe_globals(numpy_scalars()):
            return done, result, torch.load(result, weights_only=True)

    return run


def numpy_scalars():
    import numpy as np

    return [type(np.dtype(np.float64)), np.dtype, np._core.multiarray.scalar]


def folder(tmp_path, name):
    path = tmp_path / name
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def host():
    """The baseline's modules; no other test sees them."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DC.parent))
        patch.syspath_prepend(str(DC))
        names = ("utils", "common.networks", "common.augmentation")
        modules = SimpleNamespace(**{name.split(".")[-1]: importlib.import_module(name) for name in names})
        for name in set(sys.modules) - before:
            if name.split(".")[0] in ("utils", "common"):
                del sys.modules[name]
    return modules


@pytest.fixture(scope="module")
def quick_images(run_main, tmp_path_factory):
    """What the quick settings distil with --seed 3."""
    _, _, content = run_main(tmp_path_factory.mktemp("quick"), "--seed", "3")
    return content["data"][0][0]


def test_seed_decides_every_bit(run_main, tmp_path, quick_images):
    """Nor does an evaluation, which draws random numbers, change what is distilled."""
    _, _, again = run_main(folder(tmp_path, "again"), "--seed", "3", "--num_eval", "1", "--epoch_eval_train", "1")
    assert torch.equal(quick_images, again["data"][0][0])
    _, _, other = run_main(folder(tmp_path, "other"), "--seed", "4")
    assert not torch.equal(quick_images, other["data"][0][0])


def test_files(run_main, tmp_path):
    """Format of the result; evaluations at the first and the last iteration only; experiments differ."""
    done, result, content = run_main(tmp_path, "--num_exp", "2", "--num_eval", "2", "--epoch_eval_train", "1")
    assert result.name == "res_DC_digits_ConvNetW32_2ipc.pt"
    assert set(content) == {"data", "accs_all_exps"}
    assert len(content["data"]) == 2
    for images, labels in content["data"]:
        assert images.shape == (20, 1, 8, 8)
        assert images.dtype == torch.float32
        assert not images.requires_grad
        assert labels.dtype == torch.int64
        assert labels.tolist() == [c for c in range(10) for _ in range(2)]
    assert not torch.equal(content["data"][0][0], content["data"][1][0])
    accs = content["accs_all_exps"]["ConvNetW32"]
    assert len(accs) == 4
    assert all(type(acc).__name__ == "float64" and 0 <= acc <= 1 for acc in accs)
    assert done.stdout.count("evaluation 0") == 2 * 2 * 2
    assert done.stderr == ""  # no progress bar where there is no terminal
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        f"vis_DC_digits_ConvNetW32_2ipc_exp{exp}_iter{it}.png" for exp in (0, 1) for it in (0, 1)
    ]


@pytest.mark.parametrize("name", ["color", "crop", "cutout", "flip", "scale", "rotate"])
def test_each_augmentation_is_siamese_and_differentiable(host, name):
    assert name in host.augmentation.AUGMENTATIONS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.rand(3, 2, 8, 8, requires_grad=True)
        state = torch.get_rng_state()
        outputs = [host.augmentation.diff_augment(x, name, seed) for seed in range(8)]
        assert torch.equal(state, torch.get_rng_state())
        for seed, output in enumerate(outputs):
            assert output.shape == x.shape
            for i in range(3):
                torch.testing.assert_close(host.augmentation.diff_augment(x[i : i + 1], name, seed), output[i : i + 1])
        assert any(not torch.allclose(output, x) for output in outputs)
        assert any(not torch.allclose(output, outputs[0]) for output in outputs)
        outputs[0].square().sum().backward()
        assert x.grad.abs().sum() > 0
        own = host.augmentation.diff_augment(torch.rand(1, 2, 8, 8).repeat(32, 1, 1, 1), name)
        assert any(not torch.allclose(own[0], other) for other in own)


def test_dsa(run_main, tmp_path):
    args = ("--method", "DSA", "--init", "real", "--ipc", "1", "--num_eval", "1", "--epoch_eval_train", "2")
    _, result, content = run_main(tmp_path, *args)
    assert result.name == "res_DSA_digits_ConvNetW32_1ipc.pt"
    assert content["data"][0][0].isfinite().all()


def test_dsa_is_reproducible(run_main, tmp_path):
    first, second = (run_main(folder(tmp_path, name), "--method", "DSA")[2]["data"][0][0] for name in "ab")
    assert torch.equal(first, second)


def test_batch_norm(run_main, tmp_path):
    args = ("--model", "ConvNetBN", "--dis_metric", "mse", "--num_eval", "1", "--epoch_eval_train", "1")
    _, result, content = run_main(tmp_path, *args)
    assert result.name == "res_DC_digits_ConvNetBN_2ipc.pt"
    assert list(content["accs_all_exps"]) == ["ConvNet"]  # evaluated without BatchNorm
    assert content["data"][0][0].isfinite().all()


def test_distances(host):
    syn = (torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([5.0, 5.0]))
    real = (torch.tensor([[0.0, 3.0], [0.0, 1.0]]), torch.tensor([5.0, -5.0]))

    def distance(metric):
        return float(host.utils.match_loss(syn, real, SimpleNamespace(dis_metric=metric)))

    assert distance("ours") == pytest.approx(1, abs=1e-5)  # one row orthogonal, one parallel; the bias is left out
    assert distance("mse") == pytest.approx(1 + 9 + 1 + 100)
    assert distance("cos") == pytest.approx(1 - 2 / (55 * 60) ** 0.5)


def test_networks_at_every_size(host):
    with torch.random.fork_rng(devices=[]):
        for channel, side in ((1, 8), (1, 28), (3, 32)):
            for model in set(host.networks.MODELS) - ({"ConvNetD4"} if side == 8 else set()):
                net = host.networks.build(model, channel, 10, (side, side))
                assert net(torch.rand(2, channel, side, side)).shape == (2, 10)
        net = host.networks.build("ConvNet", 1, 10, (28, 28))
    assert net.features[0].padding == (3, 3)
    assert net.features[4].padding == (1, 1)
    assert net.classifier.in_features == 128 * 4 * 4


def test_real_loss_calls(python, tmp_path):
    """As many as the adapter will count on: num_exp x (Iteration + 1) x outer_loop x classes, each seen from main."""
    script = f"""
import sys; sys.path.insert(0, {str(DC)!r})
import torch, main
from torch import nn
real = syn = 0
held = {{}}
def before(module, inputs):
    global real, syn
    frame = sys._getframe()
    while frame.f_code.co_name != "main":
        if frame.f_code.co_name in ("epoch", "evaluate_synset"):
            return
        frame = frame.f_back
    assert frame.f_locals["num_classes"] == 10 and frame.f_locals["args"].outer_loop == 2
    if isinstance(module, nn.CrossEntropyLoss):
        real, syn = real + (not held["x"].requires_grad), syn + held["x"].requires_grad
    elif type(module).__name__ == "ConvNet":
        assert module.training
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        assert len(norms) == 3 and (not any(m.training for m in norms) or len(inputs[0]) == 160)  # 160: sets statistics
        held["x"] = inputs[0]
nn.modules.module.register_module_forward_pre_hook(before)
main.main()
assert (real, syn) == (80, 80), (real, syn)
"""
    args = (*QUICK, "--model", "ConvNetBN", "--num_exp", "2", "--save_path", "out")
    done = python(tmp_path, "-c", script, *args, "--num_eval", "1", "--epoch_eval_train", "1")
    assert done.returncode == 0, done.stderr


def test_distilled_images_teach(run_main, tmp_path):
    """Students of the distilled images beat students of the noise that they started from."""
    args = ("--model", "ConvNetD1", "--num_eval", "2", "--epoch_eval_train", "100")
    done, _, content = run_main(
        tmp_path, *args, "--ipc", "2", "--Iteration", "25", "--batch_real", "32", "--outer_loop", "2", "--lr_img", "1"
    )
    means = re.findall(r"iteration \d+, 2 ConvNetD1: test acc = ([\d.]+)", done.stdout)
    noise, distilled = map(float, means)
    assert distilled == pytest.approx(sum(content["accs_all_exps"]["ConvNetD1"]) / 2, abs=1e-4)
    assert distilled > noise + 0.3


@pytest.mark.parametrize("dataset", ["MNIST", "CIFAR10"])
def test_missing_data(python, tmp_path, dataset):
    done = python(tmp_path, DC / "main.py", *QUICK, "--dataset", dataset, "--data_path", "nowhere")
    assert done.returncode == 1
    assert f"no usable {dataset} in the folder 'nowhere'" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--lr_img", "0"), "--lr_img: 0 is not above 0"),
        (("--lr_img", "nan"), "--lr_img: nan is not above 0"),
        (("--seed", "x"), "--seed: 'x' is not a valid int"),
        (("--dsa_strategy", "flip_melt"), "unknown augmentation 'melt'"),
    ],
)
def test_bad_arguments(python, tmp_path, args, message):
    done = python(tmp_path, DC / "main.py", *QUICK, *args)
    assert done.returncode == 2
    assert message in done.stderr


def test_loops_follow_from_ipc(python, tmp_path, host):
    papers = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    assert {ipc: host.utils.get_loops(ipc) for ipc in papers} == papers
    done = python(tmp_path, DC / "main.py", "--dataset", "digits", "--ipc", "3")
    assert done.returncode == 2
    assert "no outer and inner loops for ipc 3" in done.stderr


def test_network_too_deep_for_the_images(python, tmp_path):
    done = python(tmp_path, DC / "main.py", *QUICK, "--model", "ConvNetD4")
    assert done.returncode == 1
    assert "too many for images of 8x8" in done.stderr
