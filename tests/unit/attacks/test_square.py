import dataclasses

import numpy as np
import pytest
import torch
from pyautoattack.square import SquareAttack
from scipy.stats import ks_2samp
from torch import nn
from torch.nn import functional as F

from guard_plugin.attacks import Square, builtin_registry, parse_attacks, parse_eps
from guard_plugin.attacks import square as square_module
from guard_plugin.attacks.balls import distance
from guard_plugin.attacks.randomness import philox4x32, words_per_example
from guard_plugin.attacks.square import L2Moves, LinfMoves, share_at
from guard_plugin.errors import UnusableInput

THEIR_NORMS = {"linf": "Linf", "l2": "L2"}
EPS = {"linf": parse_eps("20/255"), "l2": parse_eps("1.0")}


class InColour(nn.Module):
    """A network for digits, on 16x16 images in colour."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, pixels):
        return self.network(F.avg_pool2d(pixels.mean(1, keepdim=True), 2))


@pytest.fixture(scope="module")
def digits(digits_test, mlp):
    """Digits that the network gets right, as they are, and large and in colour."""
    pixels, labels = digits_test.pixels[:64], digits_test.labels[:64]
    right = mlp(pixels).argmax(1) == labels
    pixels, labels = pixels[right][:40], labels[right][:40]
    large = F.interpolate(pixels, scale_factor=2).repeat(1, 3, 1, 1)
    return {"grey": (mlp, pixels, labels), "colour": (InColour(mlp).eval(), large, labels)}


def attack(norm, queries=200, seed=0):
    return Square(EPS[norm], norm=norm, queries=queries, seed=seed)


def theirs(model, norm, queries):
    square = SquareAttack(model, norm=THEIR_NORMS[norm], n_queries=queries, eps=EPS[norm].value, resc_schedule=False)
    square.device = "cpu"
    return square


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_has_the_known_answers_of_random123(counter, key, words):
    drawn = philox4x32(tuple(torch.tensor([word]) for word in counter), tuple(key))
    assert " ".join(f"{word:08x}" for word in drawn[0].tolist()) == words


def test_words_belong_to_seed_example_time_and_place():
    indices = torch.tensor([0, 1, 7, 2**40])
    words = words_per_example(6, seed=2**40 + 3, indices=indices, times=range(50))
    assert words.shape == (4, 50, 6) and len(words.unique()) == words.numel()
    assert words.min() >= 0 and words.max() < 2**32
    some = words_per_example(6, seed=2**40 + 3, indices=indices[2:], times=range(31, 33))
    assert torch.equal(some, words[2:, 31:33])
    for other in (3, 2**40 + 4):
        assert not (words_per_example(6, seed=other, indices=indices, times=range(50)) == words).any()


def test_the_sides_of_the_squares_are_those_of_autoattack():
    square = theirs(None, "linf", 5000)
    assert all(share_at(query, 0.8) == square.p_selection(query) for query in range(10001))
    linf, l2 = (moves((3, 32, 32), 0.1, 0.8) for moves in (LinfMoves, L2Moves))
    queries = (0, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)
    assert [linf.side(query) for query in queries] == [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    assert [l2.side(query) for query in queries] == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("images", ["grey", "colour"])
def test_with_the_same_draws_it_takes_the_steps_of_autoattack(digits, images, norm, monkeypatch):
    """Theirs draws from torch.rand what we draw from the example's words, in the same order."""
    model, pixels, labels = digits[images]
    moves = (LinfMoves if norm == "linf" else L2Moves)(tuple(pixels.shape[1:]), EPS[norm].value, 0.8)
    ours = attack(norm, 120, seed=4)(model, pixels[:8], labels[:8], indices=torch.arange(8))
    assert (model(ours).argmax(1) == labels[:8]).any()
    for index in range(8):
        indices = torch.tensor([index])
        start = words_per_example(moves.words_to_start, seed=4, indices=indices, times=range(1))
        rest = words_per_example(moves.words_per_query, seed=4, indices=indices, times=range(1, 121))
        words = iter(torch.cat([start.flatten(), rest.flatten()]).tolist())

        def rand(shape, words=words):
            drawn = [(next(words) >> 8) / 2**24 for _ in range(int(np.prod(shape)))]
            return torch.tensor(drawn).view(*shape)

        monkeypatch.setattr(torch, "rand", rand)
        square = theirs(model, norm, 120)
        square.init_hyperparam(pixels[:1])
        _, expected = square.attack_single_run(pixels[index : index + 1], labels[index : index + 1])
        torch.testing.assert_close(ours[index : index + 1], expected, rtol=0, atol=2e-5)


def _queries_when_fooled(survivors, limit):
    """From the number of examples at each query to the number of queries of each example."""
    left = [*survivors, *[0] * (limit + 1 - len(survivors)), 0]
    return [query + 1 for query in range(limit + 1) for _ in range(left[query] - left[query + 1])]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_queries_until_fooled_are_distributed_as_in_autoattack(digits, norm, monkeypatch):
    """Robust examples count with the most queries there are: the test sees the robust accuracy too."""
    model, pixels, labels = digits["colour"]
    limit, seeds = 100, 6
    survivors = []
    after = square_module._Active.after

    def counted(self, images, logits):
        survivors.append(int(self.live.sum()))
        return after(self, images, logits)

    monkeypatch.setattr(square_module._Active, "after", counted)
    many, indices = pixels.repeat(seeds, 1, 1, 1), torch.arange(40 * seeds)
    adversarial = attack(norm, limit)(model, many, labels.repeat(seeds), indices=indices)
    ours = _queries_when_fooled(survivors, limit)
    expected, robust = [], 0
    for seed in range(seeds):
        torch.manual_seed(seed)
        for rows in torch.arange(40).split(8):
            square = theirs(model, norm, limit)
            square.init_hyperparam(pixels)
            counts, theirs_adversarial = square.attack_single_run(pixels[rows], labels[rows])
            expected += counts.tolist()
            robust += (model(theirs_adversarial).argmax(1) == labels[rows]).sum().item()
    assert len(ours) == len(expected) == 40 * seeds
    assert ks_2samp(ours, expected).pvalue > 0.05
    share = robust / (40 * seeds)
    assert 0.1 < share < 0.9
    noise = (share * (1 - share) / (40 * seeds) * 2) ** 0.5
    found = (model(adversarial).argmax(1) == labels.repeat(seeds)).float().mean().item()
    assert abs(found - share) < 2.5 * noise


def test_the_linf_start_is_vertical_stripes():
    moves = LinfMoves((3, 8, 16), 0.1, 0.8)
    words = words_per_example(moves.words_to_start, seed=0, indices=torch.arange(200), times=range(1))[:, 0]
    delta = moves.start(torch.full((200, 3, 8, 16), 0.5), words) - 0.5
    assert (delta == delta[:, :, :1]).all()
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, 0.1))
    up = (delta[:, :, 0] > 0).double()
    assert abs(up.mean() - 0.5) < 0.02  # 4 standard deviations
    assert (up.mean(0) - 0.5).abs().max() < 0.15 and (up.mean((1, 2)) - 0.5).abs().max() < 0.3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_example_does_not_depend_on_the_others(digits, norm):
    model, pixels, labels = digits["colour"]
    square, indices = attack(norm, 60), torch.arange(40)
    together = square(model, pixels, labels, indices=indices)
    fooled = model(together).argmax(1) != labels
    assert fooled.any() and not fooled.all()
    order = torch.randperm(40)
    shuffled = square(model, pixels[order], labels[order], indices=indices[order], batch_size=16)
    assert torch.equal(shuffled, together[order])
    parts = [square(model, pixels[r], labels[r], indices=indices[r]) for r in indices.split([1, 7, 32])]
    assert torch.equal(torch.cat(parts), together)
    assert not torch.equal(square(model, pixels, labels, indices=indices + 1), together)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fewer_queries_are_the_beginning_of_more(digits, norm):
    model, pixels, labels = digits["grey"]
    few, more = (attack(norm, n)(model, pixels, labels, indices=torch.arange(40)) for n in (30, 300))
    fooled, fooled_later = (model(images).argmax(1) != labels for images in (few, more))
    assert fooled.any() and (fooled_later & ~fooled).any()
    assert torch.equal(few[fooled], more[fooled])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 5, 7), (3, 12, 9), (3, 32, 32)])
def test_every_shape_of_image_stays_in_the_ball_and_moves_to_its_border(norm, shape):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 3)).eval()
    pixels = torch.rand(24, *shape)
    pixels[:8] = pixels[:8].round()
    labels = model(pixels).argmax(1)
    eps = parse_eps("0.05")
    adversarial = Square(eps, norm=norm, queries=80)(model, pixels, labels, indices=torch.arange(24))
    far = distance(norm, adversarial, pixels)
    assert far.max() <= 0.05 + 1e-6 and far[8:].min() > 0.03
    assert adversarial.min() >= 0 and adversarial.max() <= 1


def test_a_tie_is_not_a_success():
    """Where class 1 ties with class 0, the model still chooses 0; AutoAttack's search stops there."""

    class Corner(nn.Module):
        def forward(self, pixels):
            second = (pixels[:, 0, 0, 0] - 0.5).clamp_min(0)
            return torch.stack([torch.zeros_like(second), second], dim=1)

    pixels, labels = torch.full((32, 1, 8, 8), 0.5), torch.zeros(32, dtype=torch.int64)
    adversarial = Square(EPS["linf"], queries=100)(Corner().eval(), pixels, labels, indices=torch.arange(32))
    assert (Corner()(adversarial).argmax(1) == 1).all()


def test_no_random_stream_is_touched(digits):
    model, pixels, labels = digits["grey"]
    streams = torch.get_rng_state(), np.random.get_state()[1].copy()
    attack("l2", 5)(model, pixels, labels, indices=torch.arange(40))
    assert torch.equal(torch.get_rng_state(), streams[0])
    np.testing.assert_array_equal(np.random.get_state()[1], streams[1])


def test_no_gradient_is_needed(digits):
    model, pixels, labels = digits["grey"]

    class Rounded(nn.Module):
        def forward(self, images):
            return (model(images.detach()) * 1000).round() / 1000

    adversarial = attack("linf", 50)(Rounded().eval(), pixels, labels, indices=torch.arange(40))
    assert (model(adversarial).argmax(1) != labels).any()


def test_names():
    found = parse_attacks("square,square1000-l2,square5000-linf", builtin_registry(), [EPS["linf"]])
    assert [(a.name, a.queries, a.norm) for a in found] == [
        ("square", 5000, "linf"),
        ("square1000-l2", 1000, "l2"),
        ("square", 5000, "linf"),
    ]


@pytest.mark.parametrize(
    ("name", "message"), [("squarex", "number of"), ("square0", "queries >= 1"), ("square-rms", "rms")]
)
def test_unusable_names_are_refused(name, message):
    with pytest.raises(UnusableInput, match=message):
        parse_attacks(name, builtin_registry(), [EPS["linf"]])


def test_unusable_shares_are_refused():
    with pytest.raises(UnusableInput, match="p_init"):
        dataclasses.replace(attack("linf"), p_init=0.0)
