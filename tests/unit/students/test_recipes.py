import dataclasses
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from guard_plugin.errors import UnusableInput
from guard_plugin.evaluation import RECIPES, train_student
from guard_plugin.networks import build_network
from guard_plugin.students import recipe_named
from guard_plugin.students.augmentation import augment
from guard_plugin.versions import strict_zip

NETWORK = partial(build_network, "MLP", channels=1, num_classes=10, im_size=(8, 8))


def by_hand(distilled, epochs, drop_after, batch_size, seed, rate=0.01, strategy=None):
    """Stochastic gradient descent written out: velocity, weight decay, one drop that starts the velocity anew."""
    torch.manual_seed(seed)
    network = NETWORK()
    weights = list(network.parameters())
    velocity, drop = [torch.zeros_like(w) for w in weights], rate / 10
    for epoch in range(epochs):
        order = torch.randperm(len(distilled.images))
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            images = distilled.images[batch]
            images = augment(images, strategy) if strategy else images
            loss = F.cross_entropy(network(images), distilled.labels[batch])
            for w, v, g in strict_zip(weights, velocity, torch.autograd.grad(loss, weights)):
                v.mul_(0.9).add_(g + 5e-4 * w.detach())
                w.data -= rate * v
        if epoch == drop_after:
            rate, velocity = drop, [torch.zeros_like(w) for w in weights]
    return weights


@pytest.mark.parametrize("soft", [False, True])
def test_dc_recipe_equals_plain_loop(distilled, soft):
    if soft:
        distilled = dataclasses.replace(distilled, labels=F.one_hot(distilled.labels, 10) * 0.9 + 0.01)
    recipe = dataclasses.replace(RECIPES["dc"], epochs=9, batch_size=32)
    student = train_student(distilled, NETWORK, recipe, seed=3)
    with torch.random.fork_rng():
        # The host with --epoch_eval_train 8: epochs 0 to 8, the drop after epoch 8 // 2 + 1.
        expected = by_hand(distilled, epochs=9, drop_after=5, batch_size=32, seed=3)
    for ours, theirs in strict_zip(student.parameters(), expected):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-4, atol=1e-6)


def test_dc_recipe_has_the_hosts_defaults():
    assert RECIPES["dc"].describe() == {
        "name": "dc",
        "epochs": 301,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "batch_size": 256,
        "decay": 0.1,
        "augmentation": None,
        "learning_rate_from_set": False,
        "decay_after": 151,
    }


def test_mtt_recipe_has_the_hosts_defaults():
    assert RECIPES["mtt"].describe() == {
        "name": "mtt",
        "epochs": 1001,
        "learning_rate": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "batch_size": 256,
        "decay": 0.1,
        "augmentation": "color_crop_cutout_flip_scale_rotate",
        "learning_rate_from_set": True,
        "decay_after": 501,
    }
    unlearned = {"learning_rate_from_set": False}
    assert RECIPES["dsa"] == dataclasses.replace(RECIPES["mtt"], name="dsa", **unlearned)  # main.py with --method DSA
    assert RECIPES["datm"] == dataclasses.replace(RECIPES["mtt"], name="datm", batch_size=128)


def test_mtt_recipe_equals_plain_loop(distilled):
    """With the set's learning rate, and every batch augmented right before its pass."""
    distilled = dataclasses.replace(distilled, learning_rate=0.02)
    recipe = dataclasses.replace(RECIPES["mtt"], epochs=5, batch_size=32)
    student = train_student(distilled, NETWORK, recipe, seed=3)
    with torch.random.fork_rng():
        expected = by_hand(distilled, 5, 3, batch_size=32, seed=3, rate=0.02, strategy=recipe.augmentation)
    for ours, theirs in strict_zip(student.parameters(), expected):
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("recipe", "rate"), [("mtt", 0.5), ("dc", 0.01)])
def test_a_learned_learning_rate_is_for_recipes_that_take_it(distilled, recipe, rate):
    learned = dataclasses.replace(distilled, learning_rate=0.5)
    assert RECIPES[recipe].for_set(learned).learning_rate == rate
    assert RECIPES[recipe].for_set(distilled) is RECIPES[recipe]
    assert RECIPES[recipe].with_learning_rate(0.7).for_set(learned).learning_rate == 0.7


@pytest.mark.parametrize("recipe", ["dc", "mtt"])
def test_the_seed_decides_everything_and_the_callers_stream_is_left_alone(distilled, recipe):
    recipe = dataclasses.replace(RECIPES[recipe], epochs=2, batch_size=32)

    def weights(seed):
        return torch.cat(
            [p.detach().flatten() for p in train_student(distilled, NETWORK, recipe, seed=seed).parameters()]
        )

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_students_come_back_in_eval_mode(mlp):
    assert not any(module.training for module in mlp.modules())


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(UnusableInput, match="expected one of dc, dsa, mtt, datm"):
        recipe_named("mtt9")


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}])
def test_empty_recipes_are_refused(change):
    with pytest.raises(UnusableInput, match="at least one epoch"):
        dataclasses.replace(RECIPES["dc"], **change)


@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan"), float("inf")])
def test_impossible_learning_rates_are_refused(rate):
    with pytest.raises(UnusableInput, match="finite and > 0"):
        RECIPES["mtt"].with_learning_rate(rate)


def test_values_are_read_by_their_types():
    values = {"epochs": "7", "batch_size": 5, "momentum": "0.5", "augmentation": "none"}
    recipe = RECIPES["mtt"].with_values(values)
    assert recipe == dataclasses.replace(RECIPES["mtt"], epochs=7, batch_size=5, momentum=0.5, augmentation=None)
    assert RECIPES["mtt"].with_values({"augmentation": "flip"}).augmentation == "flip"
    assert RECIPES["sre2l-cifar"].with_values({"decay_all": "False"}).decay_all is False


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": "3"}, "recipe dc has no value 'epoch'"),
        ({"learning_rate": "3"}, "--learning-rate sets the learning rate"),
        ({"name": "mtt"}, "has no value 'name'"),
        ({"epochs": "3.5"}, "expected epochs of type int, got '3.5'"),
        ({"momentum": "much"}, "expected momentum of type float"),
        ({"momentum": "-1"}, "expected a momentum that is finite and >= 0, got -1.0"),
        ({"decay": "nan"}, "expected a decay"),
        ({"batch_size": "0"}, "at least one epoch and one image"),
        ({"augmentation": "blur"}, "got 'blur'"),
    ],
)
def test_unknown_names_and_values_are_refused_with_the_list_of_values(values, words):
    with pytest.raises(UnusableInput) as refused:
        RECIPES["dc"].with_values(values)
    assert words in str(refused.value)
    assert "epochs=301, momentum=0.9, weight_decay=0.0005, batch_size=256, decay=0.1, augmentation=None" in str(
        refused.value
    )


def test_unknown_augmentations_are_refused():
    with pytest.raises(UnusableInput, match="got 'blur'"):
        dataclasses.replace(RECIPES["mtt"], augmentation="crop_blur")
