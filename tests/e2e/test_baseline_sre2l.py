"""The squeeze-recover-relabel-validate baselines in examples/ (SRe2L, CDA): plain, without guard."""

import importlib
import importlib.util
import math
import re
import shutil
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from guard_plugin.versions import strict_zip
from tests.fork_server import process_environment

BASELINES = Path(__file__).resolve().parents[2] / "examples" / "baselines"
SRE2L, CDA = BASELINES / "sre2l", BASELINES / "cda"
MODEL = "ConvNetBN16-32"
SQUEEZE = ("--dataset", "digits", "--model", MODEL, "--epochs", "3", "--batch-size", "32")
RECOVER = ("--iteration", "100", "--ipc-end", "2", "--jitter", "1")
VIEWS = ("--epochs", "3", "--batch-size", "8")
VALIDATE = ("--dataset", "digits", "--model", MODEL, "--split", "val", *VIEWS)

pytest.importorskip("sklearn")
transforms = pytest.importorskip("torchvision.transforms")
Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def python(fork_server):
    """A script as its users run it."""

    def run(cwd, *command):
        environment = {**process_environment(), "CUDA_VISIBLE_DEVICES": ""}
        done = fork_server.run([*map(str, command)], cwd=cwd, environment=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # no progress bar where there is no terminal
        return done.stdout

    return run


@pytest.fixture(scope="module")
def host():
    """The baselines' modules; no other test sees them."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BASELINES))
        patch.syspath_prepend(str(SRE2L))
        patch.setattr(torch.cuda, "is_available", lambda: False)
        names = ("squeeze", "recover", "relabel", "validate", "utils")
        modules = {name: importlib.import_module(name) for name in names}
        shared = ("bn_networks", "checkpoints", "data", "recovery", "splits")
        modules |= {name: importlib.import_module(f"common.{name}") for name in shared}
        spec = importlib.util.spec_from_file_location("cda_recover", CDA / "recover.py")
        modules["cda"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(modules["cda"])
        for name in set(sys.modules) - before:
            if name.split(".")[0] in (*names, "common"):
                del sys.modules[name]
        yield SimpleNamespace(**modules)


@pytest.fixture(scope="module")
def whole(python, tmp_path_factory):
    """The folder in which the four scripts ran, one after the other, and what they said."""
    folder = tmp_path_factory.mktemp("whole")
    said = [
        python(folder, SRE2L / "squeeze.py", *SQUEEZE, "--output-dir", "teacher"),
        python(folder, SRE2L / "recover.py", *RECOVER, "--arch-path", "teacher/checkpoint.pth", "--exp-name", "set"),
        python(folder, SRE2L / "relabel.py", *VIEWS, "--teacher", "teacher/checkpoint.pth", "--data", "syn_data/set"),
        python(folder, SRE2L / "validate.py", *VALIDATE, "--train-dir", "syn_data/set", "--fkd-path", "fkd"),
    ]
    return SimpleNamespace(folder=folder, said=said)


@pytest.fixture
def given(whole):
    """Arguments that lead to what `whole` wrote."""
    teacher, images, fkd = (whole.folder / name for name in ("teacher/checkpoint.pth", "syn_data/set", "fkd"))
    return SimpleNamespace(
        recover=(*RECOVER, "--arch-path", str(teacher)),
        relabel=(*VIEWS, "--teacher", str(teacher), "--data", str(images)),
        validate=(*VALIDATE, "--train-dir", str(images), "--fkd-path", str(fkd)),
        online=(*VALIDATE, "--train-dir", str(images), "--teacher", str(teacher)),
        teacher=teacher,
        images=images,
        fkd=fkd,
    )


def run(script, *args):
    """A script's main, in this process."""
    parser = script.get_args_parser() if hasattr(script, "get_args_parser") else script.recover_parser("")
    script.main(parser.parse_args(args))


def weights(path):
    return torch.load(path, weights_only=True)["model"]


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def contents(folder):
    """The bytes of all files, by their place in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_checkpoints(host, whole):
    for said, name, epoch in ((whole.said[0], "teacher", 2), (whole.said[3], "save_student", 2)):
        content = torch.load(whole.folder / name / "checkpoint.pth", weights_only=True)
        assert list(content) == ["model", "arch", "dataset", "epoch", "acc"]
        assert (content["arch"], content["dataset"], content["epoch"]) == (MODEL, "digits", epoch)
        assert f"acc = {content['acc']:.4f}" in said
    trained = host.checkpoints.load_checkpoint(str(whole.folder / "teacher" / "checkpoint.pth"), "cpu")
    assert not trained.model.training
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())
    (images, labels), _ = host.splits.get_splits("digits", "", "val")
    with torch.no_grad():
        assert (trained.model(images).argmax(1) == labels).double().mean() > 0.85


@pytest.mark.parametrize(("name", "split"), [("teacher", "test"), ("save_student", "val")])
def test_accuracies_are_those_on_the_split(host, whole, name, split):
    path = whole.folder / name / "checkpoint.pth"
    model = host.checkpoints.load_checkpoint(str(path), "cpu").model
    _, (images, labels) = host.splits.get_splits("digits", "", split)
    with torch.no_grad():
        accuracy = (model(images).argmax(1) == labels).double().mean().item()
    assert torch.load(path, weights_only=True)["acc"] == pytest.approx(accuracy)


def test_recovered_files(host, whole, given):
    """In the place of the class that the teacher, most of all, sees in them."""
    folder = whole.folder / "syn_data" / "set"
    expected = {f"new{c:03d}/class{c:03d}_id{i:03d}.jpg" for c in range(10) for i in range(2)}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.jpg")} == expected
    for path in folder.rglob("*.jpg"):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "L", (8, 8))
    teacher = host.checkpoints.load_checkpoint(str(given.teacher), "cpu")
    images = host.utils.read_folder(str(folder), teacher.info)
    as_they_are = host.utils.View(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 20), torch.zeros(20).bool())
    seen = teacher.model(host.utils.render(images, as_they_are, teacher.info, "cpu")).argmax(1)
    assert (seen == torch.arange(10).repeat_interleave(2)).float().mean() > 0.6


def test_colour_images_are_written_as_seen(host, tmp_path):
    info = host.data.DATASETS["CIFAR10"]
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    pixels = torch.linspace(0.2, 0.8, 32).view(1, 1, 1, 32).expand(1, 3, 32, 32) * torch.tensor([1, 0.5, 0.9]).view(
        1, 3, 1, 1
    )
    host.recovery.write_images(tmp_path, (pixels - mean) / std, info, [(7, 12)])
    with Image.open(tmp_path / "new007" / "class007_id012.jpg") as image:
        assert (image.mode, image.size) == ("RGB", (32, 32))
        read = transforms.functional.to_tensor(image)
    assert (read - pixels[0]).abs().mean() < 0.02


def test_soft_label_files(whole):
    sizes = {0: 8, 1: 8, 2: 4}
    expected = {f"epoch_{e}/batch_{b}.tar" for e in range(3) for b in sizes}
    assert {str(path.relative_to(whole.folder / "fkd")) for path in (whole.folder / "fkd").rglob("*.tar")} == expected
    for name in expected:
        coords, flip, index, lam, bbox, logits = torch.load(whole.folder / "fkd" / name, weights_only=True)
        size = sizes[int(name[-5])]
        assert (coords.shape, coords.dtype) == ((size, 4), torch.float32)
        assert (flip.shape, flip.dtype) == ((size,), torch.bool)
        assert sorted(index.tolist()) == list(range(size))
        assert type(lam) is float
        assert 0 <= lam <= 1
        assert [type(value) for value in bbox] == [int] * 4
        assert (logits.shape, logits.dtype) == ((size, 10), torch.float16)


def batches_by_torch(n, epochs):
    """The order of the images, by a loader such as the published code's."""
    generator = torch.Generator().manual_seed(42)
    sampler = torch.utils.data.RandomSampler(range(n), generator=generator)
    loader = torch.utils.data.DataLoader(range(n), batch_size=8, sampler=sampler)
    return [[chosen.tolist() for chosen in loader] for _ in range(epochs)]


def test_replay(host, whole, given):
    """What the files say, replayed as the published code would, is what the teacher saw and what the student sees."""
    args = host.validate.get_args_parser().parse_args(given.validate)
    labelled = host.validate.prepare_labels(args, 20, "cpu")
    teacher = host.checkpoints.load_checkpoint(str(given.teacher), "cpu")
    pictures = host.utils.read_folder(str(given.images), teacher.info)
    files = sorted(given.images.rglob("*.jpg"))
    normalise = transforms.Normalize(teacher.info.mean, teacher.info.std)
    flips = 0
    for epoch, batches in enumerate(batches_by_torch(20, 3)):
        for batch, chosen in enumerate(batches):
            path = given.fkd / f"epoch_{epoch}" / f"batch_{batch}.tar"
            coords, flip, index, _, (x1, y1, x2, y2), stored = torch.load(path, weights_only=True)
            seen = []
            for number, share, mirrored in strict_zip(chosen, coords, flip):
                with Image.open(files[number]) as image:
                    box = (share.double() * 8).tolist()
                    view = transforms.functional.resized_crop(image, *box, [8, 8])
                view = transforms.functional.hflip(view) if mirrored else view
                seen.append(normalise(transforms.functional.to_tensor(view)))
                flips += int(mirrored)
            seen = torch.stack(seen)
            seen[:, :, x1:x2, y1:y2] = seen[index, :, x1:x2, y1:y2]
            with torch.no_grad():
                torch.testing.assert_close(teacher.model(seen), stored.float(), rtol=2e-3, atol=2e-3)
            images, logits = labelled(epoch, batch, [pictures[number] for number in chosen])
            assert torch.equal(images, seen)
            assert torch.equal(logits, stored.float())
    assert 0 < flips < 60


def test_student_sees_the_images_in_the_order_of_the_labels(host, given, monkeypatch):
    """An order that is another in each epoch, and starts anew with each run."""
    pictures = [image.tobytes() for image in host.utils.read_folder(str(given.images), host.data.DATASETS["digits"])]
    order, files = [], []

    def render(images, *rest):
        order.append([pictures.index(image.tobytes()) for image in images])
        return host.utils.render(images, *rest)

    def load(path, size):
        files.append((path.parent.name, path.name, size))
        return host.utils.load_fkd(path, size)

    monkeypatch.setattr(host.validate, "render", render)
    monkeypatch.setattr(host.validate, "load_fkd", load)
    run(host.validate, *given.validate)
    assert order == [chosen for batches in batches_by_torch(20, 3) for chosen in batches]
    assert files[-9:] == [(f"epoch_{e}", f"batch_{b}.tar", n) for e in range(3) for b, n in enumerate((8, 8, 4))]
    assert list(host.utils.epoch_batches(20, 8, 43)) != batches_by_torch(20, 1)[0]


def test_rendering_keeps_to_whole_pixels(host):
    """Shares of 28 pixels are not exact in the files' float32."""
    info = host.data.DATASETS["FashionMNIST"]
    image = Image.effect_noise((28, 28), 90)
    pixels = (transforms.functional.to_tensor(image) - info.mean[0]) / info.std[0]
    for top in range(14):
        shares = torch.tensor([[top / 28, (13 - top) / 28, 14 / 28, 14 / 28]])
        seen = host.utils.render([image], host.utils.View(shares, torch.tensor([False])), info, "cpu")
        crop = image.crop((13 - top, top, 27 - top, top + 14)).resize((28, 28), Image.Resampling.BILINEAR)
        expected = (transforms.functional.to_tensor(crop) - info.mean[0]) / info.std[0]
        torch.testing.assert_close(seen[0], expected)
    whole = host.utils.View(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([False]))
    torch.testing.assert_close(host.utils.render([image], whole, info, "cpu")[0], pixels)


def test_views(host):
    images = [Image.new("L", (28, 28)) for _ in range(400)]
    args = SimpleNamespace(min_scale_crops=0.5, mix_type="cutmix", cutmix=1.0)
    view = host.utils.draw_view(images, args)
    top, left, height, width = view.coords.T
    assert ((top >= 0) & (left >= 0) & (top + height <= 1 + 1e-6) & (left + width <= 1 + 1e-6)).all()
    assert (height * width > 0.45).all()
    assert (height * width).min() < 0.6
    assert len(view.coords.unique(dim=0)) > 300
    assert 100 < int(view.flip.sum()) < 300
    plain = host.utils.draw_view(images, SimpleNamespace(min_scale_crops=0.5, mix_type="none"))
    assert (plain.mix_index, plain.mix_lam, plain.mix_bbox) == (None, None, None)


def test_cutmix_box(host):
    assert all(
        (box[0] == box[2]) and (box[1] == box[3]) for box in [host.utils.cutmix_box(28, 28, 1.0) for _ in range(9)]
    )
    boxes = torch.tensor([host.utils.cutmix_box(20, 40, 0.75) for _ in range(500)])
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (int(heights.max()), int(widths.max())) == (10, 20)  # a quarter of the image
    assert (heights >= 5).all()
    assert (boxes >= 0).all()
    assert (boxes[:, 2].max(), boxes[:, 3].max()) == (20, 40)
    assert (boxes[:, 0].min(), boxes[:, 1].min()) == (0, 0)


def test_statistics_against_a_direct_computation(host):
    info = host.data.DATASETS["digits"]
    model = host.bn_networks.create_model(MODEL, info).eval()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(5, 1, 8, 8)
    statistics = host.recovery.FeatureStatistics(model)
    model(torch.randn(5, 1, 8, 8))  # only the last pass counts
    model(x)
    expected = 0.0
    for layer, norm, weight in ((0, norms[0], 7.0), (4, norms[1], 1.0)):
        channels = model.features[: layer + 1](x).transpose(0, 1).flatten(1)
        mean = channels.mean(dim=1)
        var = (channels - mean[:, None]).square().mean(dim=1)
        distance = (mean - norm.running_mean).square().sum().sqrt() + (var - norm.running_var).square().sum().sqrt()
        expected += weight * distance.item()
    assert statistics.loss(7.0).item() == pytest.approx(expected, rel=1e-5)
    statistics.close()
    assert not any(norm._forward_pre_hooks for norm in norms)


def test_augmentation_is_differentiable_and_shared_by_the_batch(host):
    x = torch.rand(1, 2, 8, 8).repeat(3, 1, 1, 1).requires_grad_(True)
    outputs = [host.recovery.augment(x, 0.3, 2) for _ in range(30)]
    for output in outputs:
        torch.testing.assert_close(output[0], output[2])
    assert len({round(output.sum().item(), 3) for output in outputs}) > 20
    (gradient,) = torch.autograd.grad(outputs[0].square().sum(), x)
    assert gradient.abs().sum() > 0
    shifts = {
        (mirrored, down, right): (x.flip(3) if mirrored else x).roll((down, right), (2, 3))
        for mirrored, down, right in product((False, True), range(3), range(3))
    }
    whole = [host.recovery.augment(x, 1.0, 2) for _ in range(200)]
    assert {key for output in whole for key, shift in shifts.items() if torch.equal(output, shift)} == set(shifts)
    assert all(any(torch.equal(output, shift) for shift in shifts.values()) for output in whole)


def test_recovering_lowers_the_loss(host, given):
    """Both parts of it; the images are inside the pixels' range, and the teacher is as it was."""
    teacher = host.checkpoints.load_checkpoint(str(given.teacher), "cpu")
    before = {key: value.clone() for key, value in teacher.model.state_dict().items()}
    targets = torch.arange(10).repeat(2)

    def synthesised(weight):
        arguments = (*given.recover, "--iteration", "150", "--r-bn", weight)
        args = host.recover.recover_parser("").parse_args(arguments)
        return host.recovery.synthesise(teacher.model, targets, teacher.info, lambda iteration: 0.5, args)

    def losses(images):
        statistics = host.recovery.FeatureStatistics(teacher.model)
        with torch.no_grad():
            output = teacher.model(images)
        statistics.close()
        return F.cross_entropy(output, targets).item(), statistics.loss(10.0).item()

    torch.manual_seed(0)
    images, without = synthesised("0.2"), synthesised("0")
    (noise_classes, noise_statistics), (classes, statistics) = losses(torch.randn(20, 1, 8, 8)), losses(images)
    assert classes < noise_classes / 2
    assert statistics < noise_statistics / 1.2
    assert statistics < losses(without)[1] / 1.1
    assert (teacher.model(images).argmax(1) == targets).float().mean() > 0.8
    black, white = host.recovery.pixel_bounds(teacher.info, "cpu")
    assert ((images >= black) & (images <= white)).all()
    assert same(before, teacher.model.state_dict())
    assert not teacher.model.training


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("step", [1, 1, 1, 1, 0.2, 0.2]),
        ("linear", [1, 0.8, 0.6, 0.4, 0.2, 0.2]),
        ("cosine", [1, 0.2 + 0.4 * (1 + math.sqrt(0.5)), 0.6, 0.2 + 0.4 * (1 - math.sqrt(0.5)), 0.2, 0.2]),
    ],
)
def test_curriculum(host, monkeypatch, mode, values):
    """The least scale at quarters of the milestone, which is at half of the iterations."""
    seen = []
    monkeypatch.setattr(host.cda, "recover", lambda args, min_scale: seen.append(min_scale))
    args = ("--arch-path", "x", "--iteration", "80", "--min-scale-crops", "0.2", "--easy2hard-mode", mode)
    run(host.cda, *args, "--milestone", "0.5")
    run(host.cda, *args, "--milestone", "0")
    half, none = seen
    assert [half(iteration) for iteration in (0, 10, 20, 30, 40, 79)] == pytest.approx(values)
    assert half(39) > 0.2
    assert {none(iteration) for iteration in (0, 79)} == {0.2}


def test_recover_scripts_differ_in_the_crops_only(host, given, tmp_path, monkeypatch):
    """One value for every iteration in SRe2L; CDA with no curriculum left is SRe2L."""
    scales = []
    synthesise = host.recovery.synthesise

    def spy(model, targets, info, min_scale, args):
        scales.append([min_scale(iteration) for iteration in range(args.iteration)])
        return synthesise(model, targets, info, min_scale, args)

    monkeypatch.setattr(host.recovery, "synthesise", spy)
    for name, script, extra in (("a", host.recover, ()), ("b", host.cda, ("--milestone", "0")), ("c", host.cda, ())):
        run(script, *given.recover, "--iteration", "5", "--syn-data-path", str(tmp_path), "--exp-name", name, *extra)
    assert scales[0] == scales[1] == [0.5] * 5
    assert scales[2][0] == 1
    assert scales[2] == sorted(scales[2], reverse=True)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_cda_as_a_script(python, whole, given, tmp_path):
    python(tmp_path, CDA / "recover.py", *given.recover, "--iteration", "2", "--exp-name", "c")
    assert len(contents(tmp_path / "syn_data" / "c")) == 20


def test_seed_decides_every_image(host, given, whole, tmp_path):
    """Whatever process it was drawn in, and however the numbers were shared among runs."""

    def recovered(name, *args):
        run(host.recover, *given.recover, "--syn-data-path", str(tmp_path), "--exp-name", name, *args)
        return contents(tmp_path / name)

    torch.manual_seed(99)
    assert recovered("again") == contents(given.images)
    assert recovered("other", "--seed", "1") != contents(given.images)
    quick = ("--batch-size", "10", "--iteration", "3")
    together = recovered("together", *quick)
    recovered("apart", *quick, "--ipc-end", "1")
    assert recovered("apart", *quick, "--ipc-start", "1") == together


def test_seed_decides_every_weight_and_label(host, given, whole, tmp_path):
    torch.manual_seed(99)
    run(host.squeeze, *SQUEEZE, "--output-dir", "again", "--split", "val")  # evaluation draws nothing
    assert same(weights("again/checkpoint.pth"), weights(given.teacher))
    run(host.squeeze, *SQUEEZE, "--epochs", "1", "--seed", "1", "--output-dir", "other")
    assert not same(weights("other/checkpoint.pth"), weights(given.teacher))

    run(host.relabel, *given.relabel, "--fkd-path", "fkd-again")
    run(host.relabel, *given.relabel, "--fkd-path", "fkd-other", "--seed", "1")
    first, again, other = ([file_content(root) for root in roots] for roots in strict_zip(*files_of(given.fkd)))
    assert first == again
    assert first != other

    run(host.validate, *given.validate, "--output-dir", "student")
    assert same(weights("student/checkpoint.pth"), weights(whole.folder / "save_student" / "checkpoint.pth"))
    students = []
    for name, seed in (("one", "0"), ("two", "0"), ("three", "1")):
        run(host.validate, *given.online, "--output-dir", name, "--seed", seed)
        students.append(weights(f"{name}/checkpoint.pth"))
    assert same(students[0], students[1])
    assert not same(students[0], students[2])


def files_of(fkd):
    """Each file of soft labels, and the same of two other runs."""
    names = sorted(path.relative_to(fkd) for path in fkd.rglob("*.tar"))
    return [(fkd / name, Path("fkd-again") / name, Path("fkd-other") / name) for name in names]


def file_content(path):
    return [v.tolist() if isinstance(v, torch.Tensor) else v for v in torch.load(path, weights_only=True)]


def test_guardable_loss_calls(host, monkeypatch):
    """In training, epochs x len(data_loader) losses on the network's own output, under train_one_epoch and main."""
    calls = {"train": 0, "evaluate": 0}

    def before(module, inputs):
        if not isinstance(module, torch.nn.CrossEntropyLoss):
            return
        frame = sys._getframe()
        while frame.f_code.co_name not in ("train_one_epoch", "evaluate"):
            frame = frame.f_back
        training = frame.f_code.co_name == "train_one_epoch"
        calls["train" if training else "evaluate"] += 1
        assert frame.f_locals["model"].training is training
        assert inputs[0] is frame.f_locals["output"]
        assert inputs[0].requires_grad is training
        assert inputs[0].is_inference() is not training
        main = frame.f_back.f_locals
        calls["expected"] = main["args"].epochs * len(main["data_loader"])

    hook = torch.nn.modules.module.register_module_forward_pre_hook(before)
    try:
        run(host.squeeze, *SQUEEZE, "--epochs", "2", "--n-train", "100")
    finally:
        hook.remove()
    assert calls == {"train": 8, "evaluate": 2, "expected": 8}


def test_label_smoothing_counts(host):
    losses = []
    for smoothing in ("0", "0.5"):
        run(host.squeeze, *SQUEEZE, "--epochs", "1", "--label-smoothing", smoothing, "--output-dir", smoothing)
        losses.append(weights(f"{smoothing}/checkpoint.pth"))
    assert not same(*losses)


def test_learning_rates_fall_along_a_cosine(host, given):
    rates = []
    hook = register_optimizer_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        run(host.squeeze, *SQUEEZE, "--lr", "0.04", "--n-train", "40")
        run(host.validate, *given.validate, "--adamw-lr", "0.04")
        run(host.recover, *given.recover, "--lr", "0.04", "--iteration", "3")
    finally:
        hook.remove()
    falling = [0.04, 0.03, 0.01]  # (1 + cos 0) / 2, (1 + cos 60 degrees) / 2, (1 + cos 120 degrees) / 2
    assert rates == pytest.approx([rate for n in (2, 3, 1) for rate in falling for _ in range(n)])


def test_splits(host):
    """Training images do not depend on what is evaluated, and the validation images are not among them."""
    (all_images, _), test = host.data.get_dataset("digits", "")
    (train, labels), val = host.splits.get_splits("digits", "", "val")
    (again, _), held_out = host.splits.get_splits("digits", "", "test")
    assert torch.equal(train, again)
    assert torch.equal(train, all_images[:900])
    assert torch.equal(val[0], all_images[900:])
    assert torch.equal(held_out[0], test[0])
    assert len(labels) == 900
    (few, few_labels), _ = host.splits.get_splits("digits", "", "val", 5)
    assert torch.equal(few, all_images[:5])
    assert len(few_labels) == 5


def test_distillation_loss(host):
    output, logits = torch.randn(3, 4), torch.randn(3, 4)
    p, q = (logits / 20).softmax(1), (output / 20).softmax(1)
    expected = (p * (p / q).log()).sum() / 3
    torch.testing.assert_close(host.utils.distillation_loss(output, logits, 20.0), expected, rtol=1e-3, atol=1e-7)


def test_recovered_images_teach(host, given, capsys):
    """Students of the recovered images, labelled on the way or from files, do far better than chance (0.1)."""
    longer = ("--epochs", "80", "--adamw-lr", "0.005")
    run(host.validate, *given.online, *longer)
    run(host.relabel, *given.relabel, *longer[:2], "--fkd-path", "labels")
    run(host.validate, *given.validate, *longer, "--fkd-path", "labels")
    online, offline = (
        float(acc) for acc in re.findall(r"student of 20 images: val acc = ([\d.]+)", capsys.readouterr().out)
    )
    assert online > 0.6
    assert offline > 0.6


def test_networks_at_every_size(host):
    for name in host.bn_networks.BN_MODELS:
        for channel, side in ((1, 8), (1, 28), (3, 32)):
            info = host.data.DatasetInfo(channel, (side, side), 10, (), ())
            model = host.bn_networks.create_model(name, info)
            assert model(torch.rand(2, channel, side, side)).shape == (2, 10)
            assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    model = host.bn_networks.create_model("ConvNetBN32-64-128", host.data.DATASETS["FashionMNIST"])
    assert [module.out_channels for module in model.features if isinstance(module, torch.nn.Conv2d)] == [32, 64, 128]
    assert model.classifier.in_features == 128 * 4 * 4
    with pytest.raises(ValueError, match="2 blocks are too many for images of 2x2"):
        host.bn_networks.create_model(MODEL, host.data.DatasetInfo(1, (2, 2), 10, (), ()))


def failure(capsys, script, *args):
    """The last line that a script ends with, which is not a traceback."""
    with pytest.raises(SystemExit) as stopped:
        run(script, *args)
    if stopped.value.code == 2:
        return capsys.readouterr().err.splitlines()[-1]
    assert len(str(stopped.value.code).splitlines()) == 1
    return stopped.value.code


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--lr", "0"), "--lr: 0 is not above 0"),
        (("--label-smoothing", "1.5"), "--label-smoothing: 1.5 is not at most 1"),
        (("--model", "ConvNet"), "invalid choice: 'ConvNet'"),
        (("--n-train", "901"), "digits has 900 images to train on (the last 100 validate), fewer than 901"),
        (("--dataset", "MNIST", "--data-path", "nowhere"), "squeeze.py: no usable MNIST in the folder 'nowhere'"),
        (("--lr", "1e30"), "squeeze.py: the loss is not finite in epoch 0; lower --lr"),
    ],
)
def test_bad_squeeze(host, capsys, args, message):
    assert message in failure(capsys, host.squeeze, *SQUEEZE, *args)
    assert not list(Path.cwd().rglob("*.pth"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--ipc-start", "2"), "recover.py: --ipc-start 2 is not below --ipc-end 2"),
        (("--min-scale-crops", "1.1"), "--min-scale-crops: 1.1 is not at most 1"),
        (("--min-scale-crops", "0"), "--min-scale-crops: 0 is not above 0"),
        (("--milestone", "1.1"), "--milestone: 1.1 is not at most 1"),
        (("--arch-path", "nowhere"), "recover.py: no usable checkpoint 'nowhere': "),
    ],
)
def test_bad_recover(host, given, capsys, args, message):
    assert message in failure(capsys, host.cda, *given.recover, *args)
    assert list(Path.cwd().iterdir()) == []


def test_bad_checkpoints(host, given, capsys):
    content = torch.load(given.teacher, weights_only=True)
    files = {
        "text": None,
        "object": SimpleNamespace(),
        "bare": content["model"],
        "arch": {**content, "arch": "ConvNet"},
        "other": {**content, "arch": "ConvNetBN32-64-128"},
    }
    for name, value in files.items():
        Path(name).write_text("no checkpoint") if value is None else torch.save(value, name)
    said = {name: failure(capsys, host.recover, *given.recover, "--arch-path", name) for name in files}
    assert all(text.startswith(f"recover.py: no usable checkpoint '{name}': ") for name, text in said.items())
    assert "Weights only" in said["object"]
    assert "it does not hold model, arch" in said["bare"]
    assert "unknown network 'ConvNet'" in said["arch"]
    assert "not the weights of ConvNetBN32-64-128" in said["other"]
    assert not Path("syn_data").exists()


def test_bad_images(host, given, capsys, tmp_path):
    def said(data):
        return failure(capsys, host.relabel, *given.relabel, "--data", str(data))

    assert "relabel.py: no usable images in 'nowhere'" in said("nowhere")
    for c in range(10):
        (tmp_path / "set" / f"new{c:03d}").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "set" / f"new{c:03d}" / "a.jpg")
    Image.new("L", (8, 9)).save(tmp_path / "set" / "new003" / "b.jpg")
    assert "b.jpg is not of 8x8 pixels" in said(tmp_path / "set")
    (tmp_path / "set" / "new003" / "b.jpg").write_bytes(b"no picture")
    assert "no usable images in" in said(tmp_path / "set")
    (tmp_path / "set" / "new003").rename(tmp_path / "set" / "new013")
    (tmp_path / "set" / "new013" / "b.jpg").unlink()
    assert "holds other folders than new000 to new009" in said(tmp_path / "set")
    assert not Path("fkd").exists()


def test_old_labels_are_not_mixed_with_new_ones(host, given, capsys):
    said = failure(capsys, host.relabel, *given.relabel, "--fkd-path", str(given.fkd))
    assert "is not empty" in said


def test_bad_labels(host, given, capsys, tmp_path):
    def said(*args):
        return failure(capsys, host.validate, *given.validate, *args)

    assert "has no soft labels for 4 epochs: --epochs" in said("--epochs", "4")
    assert "is about 8 images, not 16: other images, or another --batch-size" in said("--batch-size", "16")
    assert "is about 8 images, not 4: other images, or another --batch-size" in said("--batch-size", "4")
    assert "not allowed with argument" in said("--teacher", str(given.teacher))
    for value, message in ((SimpleNamespace(), "Weights only load failed"), ([1, 2], "not the six values of a batch")):
        (tmp_path / "fkd" / "epoch_0").mkdir(parents=True, exist_ok=True)
        torch.save(value, tmp_path / "fkd" / "epoch_0" / "batch_0.tar")
        assert message in said("--fkd-path", str(tmp_path / "fkd"), "--epochs", "1")
    shutil.copytree(given.fkd, "more")
    shutil.copy("more/epoch_0/batch_0.tar", "more/epoch_0/batch_3.tar")
    assert "has more than 3 batches: other images, or another --batch-size" in said("--fkd-path", "more")
    args = host.validate.get_args_parser().parse_args((*given.online, "--dataset", "MNIST"))
    with pytest.raises(host.utils.InputError, match="the teacher knows digits, not MNIST: --dataset"):
        host.validate.prepare_labels(args, 20, "cpu")
    assert not Path("save_student").exists()
