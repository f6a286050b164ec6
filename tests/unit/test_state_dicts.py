"""The weights in a checkpoint, as tools save them."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from guard_plugin.state_dicts import find_state_dict


@pytest.fixture
def network():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def in_place(network):
    network[0] = torch.compile(network[0])
    return network


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: network,
        nn.DataParallel,
        lambda network: nn.DataParallel(nn.DataParallel(network)),
        torch.compile,
        lambda network: nn.DataParallel(torch.compile(network)),
        lambda network: torch.compile(nn.DataParallel(network)),
        in_place,
        AveragedModel,
        lambda network: AveragedModel(nn.DataParallel(network), use_buffers=True),
        lambda network: nn.DataParallel(AveragedModel(network)),
    ],
    ids=["bare", "DP", "DP2", "compile", "DP of compile", "compile of DP", "part", "SWA", "SWA of DP", "DP of SWA"],
)
def test_what_tools_put_before_the_names_is_taken_away(network, wrap):
    expected = {name: value.clone() for name, value in network.state_dict().items()}
    found = find_state_dict(wrap(network).state_dict())
    assert found.tensors.keys() == expected.keys() and found.key is None
    assert all(torch.equal(found.tensors[name], value) for name, value in expected.items())


ONE, TWO, THREE = ({"weight": torch.full((1,), float(value))} for value in (1, 2, 3))


@pytest.mark.parametrize(
    ("content", "key", "others"),
    [
        (ONE, None, ()),
        ({"model": ONE}, "model", ()),
        ({"model_state_dict": ONE, "optimizer_state_dict": {"state": {}, "param_groups": []}}, "model_state_dict", ()),
        ({"epoch": 3, "ema": ONE}, "ema", ()),
        ({"model_ema": TWO, "model": ONE, "epoch": 3}, "model", ("model_ema",)),
        ({"state_dict": ONE, "state_dict_ema": TWO}, "state_dict", ("state_dict_ema",)),
        ({"swa": TWO, "network": ONE, "ema": THREE}, "network", ("swa", "ema")),
    ],
)
def test_of_several_state_dicts_the_one_that_was_trained_is_taken(content, key, others):
    found = find_state_dict(content)
    assert found.tensors["weight"].item() == 1 and (found.key, found.others) == (key, others)


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, {"student": ONE, "teacher": TWO}, {"model": {}}, [ONE], None, {1: torch.ones(1)}]
)
def test_nothing_is_guessed(content):
    assert find_state_dict(content) is None


@pytest.mark.parametrize("name", ["n_averaged", "module.", "_orig_mod."])
def test_odd_names_end(name):
    assert len(find_state_dict({name: torch.ones(1)}).tensors) == 1
