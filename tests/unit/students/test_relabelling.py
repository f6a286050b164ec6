"""Students of the recipe "sre2l", against the host's own steps written out."""

import dataclasses
import math
from functools import partial

import pytest
import scipy.stats
import torch
from torch.nn import functional as F

from guard_plugin.distilled import DistilledSet, FkdLabels, Mix, View
from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import RECIPES, benchmark_distilled, train_student
from guard_plugin.networks import build_network
from guard_plugin.spaces import Normalization
from guard_plugin.students import EightBitImages, StoredLabels, TeacherLabels, ViewDrawing, draw_view
from guard_plugin.students.relabelling import distillation_loss
from guard_plugin.students.soft_labels import _least_hits
from guard_plugin.versions import strict_zip

NETWORK = partial(build_network, "ConvNetBN16-32", channels=1, num_classes=10, im_size=(8, 8))
# So strong a decay shows in few steps which weights it is for.
SHORT = dataclasses.replace(RECIPES["sre2l"], epochs=4, batch_size=32, min_scale=0.5, weight_decay=5.0)


@pytest.fixture(scope="module")
def eight_bit(distilled):
    """Real digits in 8 bits."""
    levels = (distilled.pixels() * 255).round() / 255
    return dataclasses.replace(distilled, images=distilled.normalization.to_input(levels), recipe="sre2l")


@pytest.fixture(scope="module")
def teacher(eight_bit, tmp_path_factory):
    recipe = dataclasses.replace(RECIPES["dc"], epochs=20, batch_size=20)
    network = train_student(eight_bit, NETWORK, recipe, seed=9)
    file = tmp_path_factory.mktemp("teacher") / "checkpoint.pth"
    torch.save({"model": network.state_dict(), "epoch": 3}, file)
    return file, network


@pytest.fixture
def stored(eight_bit, teacher, tmp_path):
    return write_fkd(tmp_path / "fkd", eight_bit, teacher[1])


def write_fkd(folder, eight_bit, network, epochs=4, batch=32, seed=42):
    """As the host's relabel does it, in the order of its seed."""
    images = EightBitImages(eight_bit)
    sampler = torch.utils.data.RandomSampler(range(len(images)), generator=torch.Generator().manual_seed(seed))
    for epoch in range(epochs):
        place = folder / f"epoch_{epoch}"
        place.mkdir(parents=True)
        for number, indices in enumerate(torch.utils.data.BatchSampler(sampler, batch, drop_last=False)):
            view = draw_view(len(indices), images.size, ViewDrawing(0.5))
            with torch.no_grad():
                logits = network(images.views(torch.tensor(indices), view)).half()
            parts = [view.crops, view.flips, view.mix.order, view.mix.own, list(view.mix.box), logits]
            torch.save(parts, place / f"batch_{number}.tar")
    return folder


def by_hand(batches, epochs, temperature, seed):
    """train_KD.py's loop: its groups (utils.get_parameters), its schedule (LambdaLR, --cos), its loss."""
    torch.manual_seed(seed)
    network = NETWORK().train()
    matrices = [p for name, p in network.named_parameters() if name.find("weight") >= 0 and len(p.size()) > 1]
    others = [p for name, p in network.named_parameters() if not (name.find("weight") >= 0 and len(p.size()) > 1)]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.001, weight_decay=5.0)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1.0 + math.cos(math.pi * step / epochs)))
    divergence = torch.nn.KLDivLoss(reduction="batchmean")
    for epoch in range(epochs):
        for images, labels in batches(epoch):
            output = network(images)
            if temperature is None:
                loss = -(labels * F.log_softmax(output, dim=1)).sum(1).mean()
            else:
                student = F.log_softmax(output / temperature, dim=1)
                loss = divergence(student, F.softmax(labels / temperature, dim=1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        cosine.step()
    return network.eval()


def assert_same(ours, theirs):
    for (name, mine), other in strict_zip(ours.state_dict().items(), theirs.state_dict().values()):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5, msg=name)


def drawn(eight_bit):
    for indices in torch.randperm(len(eight_bit)).split(32):
        yield indices, draw_view(len(indices), (8, 8), ViewDrawing(0.5))


def test_students_of_a_teacher_equal_plain_loop(eight_bit, teacher):
    file, network = teacher
    student = train_student(eight_bit, NETWORK, SHORT.with_labels(TeacherLabels(file, "x", NETWORK)), seed=3)
    images = EightBitImages(eight_bit)

    def batches(_):
        for indices, view in drawn(images):
            seen = images.views(indices, view)
            with torch.no_grad():
                labels = network(seen)
            yield seen, labels

    with torch.random.fork_rng():
        assert_same(student, by_hand(batches, 4, 20.0, seed=3))


def test_students_of_stored_labels_equal_plain_loop(eight_bit, stored):
    longer = dataclasses.replace(SHORT, epochs=300, batch_size=128)
    recipe = longer.with_labels(StoredLabels(FkdLabels(stored)))
    student = train_student(eight_bit, NETWORK, recipe, seed=3)
    images, epochs = EightBitImages(eight_bit), [list(epoch) for epoch in FkdLabels(stored).batches()]

    def batches(epoch):
        return [(images.views(batch.indices, batch.view), batch.logits) for batch in epochs[epoch]]

    with torch.random.fork_rng():
        assert_same(student, by_hand(batches, 4, 20.0, seed=3))


@pytest.fixture
def published(eight_bit, teacher):
    """A student of a shortened recipe of the teacher's, and the images and labels that the host would give it."""

    def student(name, **values):
        recipe = RECIPES[name].with_values({"batch_size": 32, **values})
        return train_student(eight_bit, NETWORK, recipe.with_labels(TeacherLabels(teacher[0], "x", NETWORK)), seed=3)

    return student


def hosts_loop(network, optimizer, schedule, loss_of, batches, epochs):
    for _ in range(epochs):
        for seen, logits in batches():
            loss = loss_of(network(seen), logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return network.eval()


def test_students_of_the_cifar_script_equal_its_loop(eight_bit, teacher, published):
    """relabel_cifar.py: one AdamW group, CosineAnnealingLR, mixup, a teacher that was never put into eval()."""
    student = published("sre2l-cifar", epochs=4, weight_decay=5.0)
    images, their_teacher = EightBitImages(eight_bit), NETWORK().train()
    their_teacher.load_state_dict(teacher[1].state_dict())
    drawing = ViewDrawing(0.08, shift=4, mix="mixup", mix_alpha=0.8)

    def batches():
        for indices in torch.randperm(len(images)).split(32):
            seen = images.views(indices, draw_view(len(indices), (8, 8), drawing))
            yield seen, their_teacher(seen).detach()

    def loss_of(outputs, soft_label):
        divergence = torch.nn.KLDivLoss(reduction="batchmean")
        return divergence(F.log_softmax(outputs / 30, dim=1), F.softmax(soft_label / 30, dim=1))

    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = NETWORK().train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.001, weight_decay=5.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
        assert_same(student, hosts_loop(network, optimizer, schedule, loss_of, batches, 4))


def test_students_of_the_tiny_imagenet_script_equal_its_loop(eight_bit, teacher, published):
    """train_kd.py: SGD, a linear warm-up before the cosine, no mixture, the divergence times T^2."""
    student = published("sre2l-tiny", epochs=8)
    images = EightBitImages(eight_bit)

    def batches():
        for indices in torch.randperm(len(images)).split(32):
            seen = images.views(indices, draw_view(len(indices), (8, 8), ViewDrawing(0.08, mix="none")))
            yield seen, teacher[1](seen).detach()

    def loss_of(output, teacher_output):
        criterion = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)
        return criterion(F.log_softmax(output / 20, dim=1), F.log_softmax(teacher_output / 20, dim=1)) * 20**2

    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = NETWORK().train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-4)
        rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=5)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3, eta_min=0.0)
        schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[5])
        assert_same(student, hosts_loop(network, optimizer, schedule, loss_of, batches, 8))


def test_students_of_classes_equal_plain_loop(eight_bit):
    student = train_student(eight_bit, NETWORK, SHORT, seed=3)
    images = EightBitImages(eight_bit)

    def batches(_):
        for indices, view in drawn(images):
            top, left, bottom, right = view.mix.box
            share = (bottom - top) * (right - left) / 64
            classes = F.one_hot(eight_bit.labels[indices], 10).float()
            yield images.views(indices, view), (1 - share) * classes + share * classes[view.mix.order]

    with torch.random.fork_rng():
        assert_same(student, by_hand(batches, 4, None, seed=3))


@pytest.mark.parametrize("temperature", [1.0, 20.0])
def test_the_divergence_is_torchs(temperature):
    output, logits = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    ours = distillation_loss(output, logits, temperature)
    student, teacher = (torch.log_softmax(x.double() / temperature, 1) for x in (output, logits))
    # Divided by the batch, and not multiplied by the temperature's square: train_FKD.py and train_KD.py.
    assert ours.item() == pytest.approx(((teacher.exp() * (teacher - student)).sum() / 5).item(), rel=1e-4)
    torch.testing.assert_close(
        ours, F.kl_div(student.float(), teacher.float(), reduction="batchmean", log_target=True), rtol=1e-4, atol=1e-7
    )


def test_the_published_settings():
    assert RECIPES["sre2l"].describe() == {
        "name": "sre2l",
        "epochs": 300,
        "learning_rate": 0.001,
        "weight_decay": 0.01,
        "batch_size": 128,
        "temperature": 1.0,
        "min_scale": 0.08,
        "labels": {"source": "classes of the images"},
        "learning_rate_from_set": False,
        "optimizer": "AdamW",
        "schedule": "cosine",
        "mix": "cutmix",
    }


@pytest.mark.parametrize(
    ("name", "published"),
    [
        (
            "sre2l-cifar",
            {
                "epochs": 400,
                "learning_rate": 0.001,
                "weight_decay": 0.01,
                "batch_size": 128,
                "temperature": 30.0,
                "shift": 4,
                "mix": "mixup",
                "mix_alpha": 0.8,
                "decay_all": True,
                "teacher_training": True,
                "optimizer": "AdamW",
            },
        ),
        (
            "sre2l-tiny",
            {
                "epochs": 100,
                "learning_rate": 0.2,
                "weight_decay": 1e-4,
                "batch_size": 256,
                "temperature": 20.0,
                "min_scale": 0.08,
                "mix": "none",
                "decay_all": True,
                "squared_temperature": True,
                "optimizer": "SGD",
                "momentum": 0.9,
                "warmup_epochs": 5,
            },
        ),
    ],
)
def test_the_published_settings_for_small_images(teacher, name, published):
    described = RECIPES[name].with_labels(TeacherLabels(teacher[0], "x", NETWORK)).describe()
    others = {"name": name, "labels": {"source": "teacher", "arch": "x"}}
    assert described == {**published, **others, "learning_rate_from_set": False, "schedule": "cosine"}


def test_what_has_no_effect_is_not_described(teacher, stored):
    cifar = RECIPES["sre2l-cifar"]
    assert "teacher_training" not in cifar.describe() and "squared_temperature" not in RECIPES["sre2l-tiny"].describe()
    replayed = cifar.with_labels(StoredLabels(FkdLabels(stored))).describe()
    assert not {"shift", "mix", "mix_alpha", "min_scale", "teacher_training"} & set(replayed)


def test_what_a_source_of_labels_changes(teacher, stored):
    online = RECIPES["sre2l"].with_labels(TeacherLabels(teacher[0], "ConvNetBN16-32", NETWORK)).describe()
    assert (online["temperature"], online["labels"]) == (20.0, {"source": "teacher", "arch": "ConvNetBN16-32"})
    replayed = RECIPES["sre2l"].with_labels(StoredLabels(FkdLabels(stored))).describe()
    assert (replayed["epochs"], replayed["batch_size"], replayed["labels"]) == (4, 32, {"source": "fkd"})
    assert not {"min_scale", "mix"} & set(replayed)


@pytest.mark.parametrize("source", ["classes", "teacher", "fkd"])
def test_the_seed_decides_everything_and_the_callers_stream_is_left_alone(eight_bit, teacher, stored, source):
    recipe = {
        "classes": SHORT,
        "teacher": SHORT.with_labels(TeacherLabels(teacher[0], "x", NETWORK)),
        "fkd": SHORT.with_labels(StoredLabels(FkdLabels(stored))),
    }[source]

    def weights(seed):
        student = train_student(eight_bit, NETWORK, recipe, seed=seed)
        return torch.cat([p.detach().flatten() for p in student.parameters()])

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_a_teacher_is_read_without_a_random_draw_and_left_as_it_was(eight_bit, teacher):
    state = torch.get_rng_state()
    source = TeacherLabels(teacher[0], "x", NETWORK)
    assert torch.equal(torch.get_rng_state(), state)
    train_student(eight_bit, NETWORK, SHORT.with_labels(source), seed=0)
    assert_same(source._teacher, teacher[1])
    assert not any(parameter.requires_grad for parameter in source._teacher.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"temperature": math.inf},
        {"min_scale": 1.1},
        {"mix": "cutmixup"},
        {"optimizer": "Adam"},
        {"mix_alpha": 0.0},
        {"weight_decay": -1.0},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(UnusableInput, match="expected a"):
        dataclasses.replace(RECIPES["sre2l"], **change)


def test_another_network_is_no_teacher(teacher):
    other = partial(build_network, "ConvNetBN16-32", channels=1, num_classes=7, im_size=(8, 8))
    with pytest.raises(UnusableInput, match="classifier.weight.*--teacher-arch"):
        TeacherLabels(teacher[0], "ConvNetBN16-32", other)


def test_a_teacher_of_other_classes_is_refused(eight_bit, teacher):
    shifted = dataclasses.replace(eight_bit, labels=(eight_bit.labels + 1) % 10)
    recipe = SHORT.with_labels(TeacherLabels(teacher[0], "x", NETWORK))
    recipe.check(eight_bit)
    with pytest.raises(UnusableInput, match=r"more often than chance .* the teacher .*checkpoint.pth"):
        recipe.check(shifted)


@pytest.mark.parametrize(
    ("classes", "per_class", "least"),
    [(2, 1, 2), (2, 2, 3), (2, 4, 8), (2, 5, 9), (3, 1, 2), (3, 2, 5), (3, 3, 7), (10, 1, 4), (10, 10, 18), (1, 3, 3)],
)
def test_as_many_classes_must_be_named_as_chance_does_not(classes, per_class, least):
    """Where even all are named by chance more often than once in 50 times, it is enough to be above its mean."""
    n = classes * per_class
    assert _least_hits(n, classes) == least
    by_chance = [float(scipy.stats.binom.sf(hits - 1, n, 1 / classes)) for hits in range(n + 1)]
    beyond = 1 / 50
    if by_chance[n] <= beyond:
        assert by_chance[least] <= beyond < by_chance[least - 1]


def test_many_images_and_classes_are_compared_with_chance():
    for n, classes in ((50_000, 1000), (3, 100_000)):
        least = _least_hits(n, classes)
        assert scipy.stats.binom.sf(least - 1, n, 1 / classes) <= 1 / 50
        assert least == 1 or scipy.stats.binom.sf(least - 2, n, 1 / classes) > 1 / 50


@pytest.mark.parametrize(("classes", "per_class"), [(2, 1), (2, 4), (3, 1), (4, 1)])
def test_a_perfect_teacher_of_few_classes_is_taken_and_one_that_mixes_them_up_is_not(tmp_path, classes, per_class):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(classes, classes, bias=False))
    torch.nn.init.eye_(network[1].weight)
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    labels = torch.arange(classes).repeat(per_class)
    images = torch.eye(classes)[labels].view(-1, 1, 1, classes)
    few = DistilledSet(images, labels, classes, Normalization.identity(1))
    source = TeacherLabels(tmp_path / "teacher.pt", "x", lambda: network)
    source.check(few)
    with pytest.raises(UnusableInput, match=rf"the {len(labels)} images\), but the teacher .* those of 0"):
        source.check(dataclasses.replace(few, labels=(labels + 1) % classes))


def test_a_teacher_in_training_mode_needs_more_than_one_value_to_normalise_by(tmp_path):
    """In evaluation, or in batches of two, it takes the same images."""
    layers = [torch.nn.Flatten(), torch.nn.Linear(10, 10, bias=False), torch.nn.BatchNorm1d(10)]
    network = torch.nn.Sequential(*layers)
    torch.nn.init.eye_(network[1].weight)
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    eye = DistilledSet(torch.eye(10).view(10, 1, 1, 10), torch.arange(10), 10, Normalization.identity(1))
    labels = TeacherLabels(tmp_path / "teacher.pt", "x", lambda: network)
    cifar, imagenet = (RECIPES[name].with_labels(labels) for name in ("sre2l-cifar", "sre2l"))
    for recipe, batch_size in ((cifar, 2), (cifar, 128), (imagenet, 3)):
        recipe.with_values({"batch_size": batch_size}).check(eye)
    with pytest.raises(UnusableInput, match="the teacher, in training mode, .* single image .*--set batch_size=4 "):
        cifar.with_values({"batch_size": 3}).check(eye)


@pytest.mark.parametrize(("seed", "batch"), [(42, 32), (41, 32), (42, 20)])
def test_labels_stored_in_another_order_are_refused(eight_bit, teacher, tmp_path, seed, batch):
    recipe = SHORT.with_labels(StoredLabels(FkdLabels(write_fkd(tmp_path, eight_bit, teacher[1], 1, batch, seed))))
    if seed == 42:
        recipe.check(eight_bit)
    else:
        with pytest.raises(UnusableInput, match="--fkd-seed is 42"):
            recipe.check(eight_bit)


def test_labels_of_fewer_images_are_refused(eight_bit, stored):
    recipe = SHORT.with_labels(StoredLabels(FkdLabels(stored)))
    fewer = dataclasses.replace(eight_bit, images=eight_bit.images[:90], labels=eight_bit.labels[:90])
    with pytest.raises(UnusableInput, match="90 images and 10 classes, as distilled, got 100 and 10"):
        recipe.check(fewer)


def test_a_mixture_counts_for_the_class_of_which_most_is_seen(eight_bit, teacher, tmp_path):
    """Labels of views that show nothing but the other image name its class."""
    images, network = EightBitImages(eight_bit), teacher[1]
    (tmp_path / "epoch_0").mkdir()
    order = torch.arange(99, -1, -1)
    mix = View(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 100), torch.zeros(100).bool(), Mix(order, 0.0, (0, 0, 8, 8)))
    (indices,) = torch.utils.data.BatchSampler(
        torch.utils.data.RandomSampler(range(100), generator=torch.Generator().manual_seed(42)), 100, drop_last=False
    )
    with torch.no_grad():
        logits = network(images.views(torch.tensor(indices), mix))
    torch.save([mix.crops, mix.flips, order, 0.0, [0, 0, 8, 8], logits], tmp_path / "epoch_0" / "batch_0.tar")
    SHORT.with_labels(StoredLabels(FkdLabels(tmp_path))).check(eight_bit)


@pytest.fixture
def measure(eight_bit, tmp_path):
    def measure(out="out", sets=None, **options):
        defaults = {"dataset": "digits", "arch": "ConvNetBN16-32", "attacks": "fgsm", "eps": ["16/255"], "seeds": 1}
        return benchmark_distilled(
            sets or [eight_bit],
            out=tmp_path / out,
            subject={},
            n_examples=100,
            **({"recipe": SHORT} | defaults | options),
        )

    return measure


def test_results_tell_the_labels(measure, teacher, stored, tmp_path):
    results = measure("a", teacher=teacher[0]).results
    assert results["protocol"]["recipe"]["labels"] == {"source": "teacher", "arch": "ConvNetBN16-32"}
    assert results["subject"]["soft_labels"].keys() == {"path", "sha256"}
    results = measure("b", fkd=stored).results
    assert results["subject"]["soft_labels"] == {"path": str(stored), "sha256": FkdLabels(stored).sha256()}
    assert "soft_labels" not in measure("c").results["subject"]
    other = tmp_path / "other.pth"
    torch.save({"model": teacher[1].state_dict(), "epoch": 4}, other)
    with pytest.raises(UnusableInput, match="labels_sha256"):
        measure("a", teacher=other)


def test_the_recipe_is_that_of_the_hosts_script_for_the_data(measure, eight_bit, stored):
    """The adapter names a recipe for a data set; soft labels were stored by another script."""
    recovered = dataclasses.replace(eight_bit, images=eight_bit.pixels(), recipes={"digits": "sre2l-tiny"})
    recovered = dataclasses.replace(recovered, input_spaces={"digits": eight_bit.normalization})
    found = {
        out: measure(out, sets=[recovered], recipe_values={"epochs": 2}, **options).results["protocol"]["recipe"]
        for out, options in (("a", {"recipe": None}), ("b", {"recipe": None, "fkd": stored}), ("c", {"recipe": "dc"}))
    }
    assert {out: recipe["name"] for out, recipe in found.items()} == {"a": "sre2l-tiny", "b": "sre2l", "c": "dc"}
    assert found["a"]["set"] == found["b"]["set"] == {"epochs": 2} and found["b"]["batch_size"] == 32


@pytest.mark.parametrize("values", [{"epochs": 5}, {"batch_size": 20}])
def test_stored_labels_are_of_so_many_epochs_and_of_their_batches(measure, stored, values):
    with pytest.raises(UnusableInput, match="at most 4 epochs in batches of 32"):
        measure(recipe="sre2l", fkd=stored, recipe_values=values)


@pytest.mark.parametrize(
    ("values", "idle"),
    [
        ({"temperature": "5"}, "temperature=5"),
        ({"epochs": 2, "momentum": 0.5}, "momentum=0.5"),
        ({"shift": "4", "min_scale": "0.5"}, "min_scale=0.5"),
        ({"squared_temperature": "true"}, "squared_temperature=true"),
    ],
)
def test_a_value_that_changes_nothing_is_refused(measure, tmp_path, values, idle):
    with pytest.raises(UnusableInput, match=f"expected values of recipe sre2l that take effect, got {idle}, which"):
        measure(recipe="sre2l", recipe_values=values)
    assert not (tmp_path / "out").exists()


def test_a_value_that_takes_effect_beside_another_is_not_refused(measure):
    values = {"epochs": 1, "optimizer": "SGD", "momentum": 0.5}
    recipe = measure(recipe="sre2l", recipe_values=values).results["protocol"]["recipe"]
    assert recipe["set"] == values and recipe["momentum"] == 0.5


def test_each_of_several_sets_may_have_a_teacher_of_its_own(measure, eight_bit, teacher, stored, tmp_path):
    """The second student learns from the second teacher, as it does alone; one teacher may serve all sets."""
    other, weights = tmp_path / "other.pth", teacher[1].state_dict()
    torch.save({name: weight * 2 if name.endswith("bias") else weight for name, weight in weights.items()}, other)
    sets = [eight_bit, dataclasses.replace(eight_bit, images=eight_bit.images.flip(0), labels=eight_bit.labels.flip(0))]
    results = measure("each", sets=sets, seeds=2, teacher=[teacher[0], other]).results
    assert [one["path"] for one in results["subject"]["soft_labels"]] == [str(teacher[0]), str(other)]
    measure("one", sets=sets, seeds=2, teacher=teacher[0])
    students = [torch.load(tmp_path / out / "students" / f"student-{k}.pt") for out in ("each", "one") for k in (0, 1)]
    same = [all(torch.equal(a[name], b[name]) for name in a) for a, b in strict_zip(students[:2], students[2:])]
    assert same == [True, False]
    for options, got in (({"teacher": [other] * 3}, "3 for 2"), ({"fkd": stored}, "1 for 2")):
        with pytest.raises(UnusableInput, match=f"as often as there are distilled sets, in their order; got {got}"):
            measure("refused", sets=sets, **options)
    with pytest.raises(UnusableInput, match="got both"):
        measure("refused", sets=sets, teacher=[teacher[0], other], fkd=[stored, stored])


def test_labels_that_cannot_be_used_are_refused_before_training(measure, teacher, stored, distilled, monkeypatch):
    monkeypatch.setattr("guard_plugin.evaluation.distilled_benchmark.train_student", lambda *_, **__: pytest.fail())
    for options, words in (
        ({"teacher": teacher[0], "fkd": stored}, "got both"),
        ({"teacher": teacher[0], "recipe": "dc"}, "SRe2L family .*, got recipe dc"),
        ({"teacher": teacher[0], "teacher_arch": "ConvNetBN"}, "--teacher-arch"),
        ({"teacher": teacher[0], "teacher_arch": "VGG"}, "unknown architecture 'VGG'"),
        ({"sets": [distilled]}, "expected 8-bit images"),
    ):
        with pytest.raises(UnusableInput, match=words):
            measure(**options)
