import json

import pytest

from guard_plugin.attacks import FGSM, PGD, builtin_registry, parse_attacks, parse_eps, parse_radii
from guard_plugin.attacks.registry import usual_attacks
from guard_plugin.errors import UnusableInput

EPS = parse_eps("1/255")


@pytest.mark.parametrize(
    ("text", "value"), [("1/255", 1 / 255), (" 8/255 ", 8 / 255), ("0.03", 0.03), ("1e-3", 1e-3), (0.5, 0.5), ("1", 1)]
)
def test_eps_keeps_its_text(text, value):
    eps = parse_eps(text)
    assert eps.value == value
    assert eps.text == str(text).strip()


@pytest.mark.parametrize("text", ["abc", "", "0", "0/255", "-1/255", "1/0", "1/2/3", "nan", "inf", 0, -0.1])
def test_unusable_eps_is_refused(text):
    with pytest.raises(UnusableInput, match="eps"):
        parse_eps(text)


def test_names_become_attacks():
    assert parse_attacks("fgsm, pgd100", builtin_registry(), [EPS], 4) == [FGSM(EPS, 4), PGD(EPS, 4, steps=100)]
    assert [a.name for a in parse_attacks("quick", builtin_registry(), [EPS])] == ["fgsm", "pgd10"]


def test_the_longest_family_wins():
    class Other(FGSM):
        family = "pgdx"

    (attack,) = parse_attacks("pgdx", {**builtin_registry(), "pgdx": Other}, [EPS])
    assert type(attack) is Other


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fgsm,deepfool", "unknown attack 'deepfool'.*fgsm, mim, .*pgd.*quick"),
        ("pgd", "number of steps"),
        ("pgd0", "steps >= 1"),
        ("pgd1x", "number of steps"),
        ("fgsm2", "no parameters"),
        ("pgd20-l0-targeted", r"'pgd20-l0-targeted': expected a norm of pgd \(linf, l2, rms\), got l0"),
        (" , ", "comma list"),
        ("fgsm,fgsm", "different"),
    ],
)
def test_unusable_lists_are_refused(spec, message):
    with pytest.raises(UnusableInput, match=message):
        parse_attacks(spec, builtin_registry(), [EPS])


def test_settings_hold_every_parameter():
    settings = json.loads(json.dumps(PGD(EPS, 3, steps=100).settings()))
    assert settings == {
        "name": "pgd100",
        "norm": "linf",
        "eps": "1/255",
        "eps_value": 1 / 255,
        "seed": 3,
        "targeted": False,
        "transfer": False,
        "steps": 100,
        "relative_alpha": 0.25,
        "random_start": True,
        "decay": None,
        "success": "any",
        "coupled": None,
        "class": "guard_plugin.evaluation.attacks.pgd.PGD",
    }


def test_a_name_may_have_a_norm_a_target_a_source_and_a_radius_of_its_own():
    found = parse_attacks(
        "pgd10,pgd10-l2@0.5,mim20-rms-targeted-transfer", builtin_registry(), [EPS, parse_eps("8/255")]
    )
    assert [(a.name, a.norm, a.eps.text, a.targeted, a.transfer) for a in found] == [
        ("pgd10", "linf", "1/255", False, False),
        ("mim20-rms-targeted-transfer", "rms", "1/255", True, True),
        ("pgd10", "linf", "8/255", False, False),
        ("mim20-rms-targeted-transfer", "rms", "8/255", True, True),
        ("pgd10-l2", "l2", "0.5", False, False),
    ]


@pytest.mark.parametrize("name", ["fgsm-l2", "pgd10-l2-targeted", "square100-l2", "cw-l2", "autoattack-l2"])
def test_an_l2_radius_may_be_larger_than_a_pixel(name):
    (attack,) = parse_attacks(name, builtin_registry(), [parse_eps("3.0")])
    assert (attack.name, attack.norm, attack.eps.value) == (name, "l2", 3.0)
    with pytest.raises(UnusableInput, match="expected 0 < eps <= 1 in norm linf"):
        parse_attacks("pgd10", builtin_registry(), [parse_eps("3.0")])


def test_radii_come_from_the_user_or_else_from_the_preset():
    assert [eps.text for eps in parse_radii("quick", ["1/255", 0.5])] == ["1/255", "0.5"]
    for eps in (None, []):
        with pytest.raises(UnusableInput, match=r"expected eps for papr: .* only a preset .*quick, paper"):
            parse_radii("papr", eps)
    for eps in ("1/255", 1 / 255):
        assert [one.value for one in parse_radii("quick", eps)] == [1 / 255]


def test_attacks_with_radii_of_their_own_need_no_other():
    assert parse_radii("fgsm@8/255,pgd10@1/255", None) == []
    assert [a.eps.text for a in parse_attacks("fgsm@8/255,pgd10@1/255", builtin_registry(), [])] == ["8/255", "1/255"]
    with pytest.raises(UnusableInput, match="leave eps out"):
        parse_radii("fgsm@8/255", ["1/255"])


def test_a_preset_may_stand_in_a_list():
    found = parse_attacks("quick,mim20", builtin_registry(), [EPS])
    assert [attack.name for attack in found] == ["fgsm", "pgd10", "mim20"]


@pytest.mark.parametrize(
    ("written", "usual"),
    [
        ("PGD-20", "pgd20"),
        ("pgd-20, FGSM", "pgd20,fgsm"),
        ("PGD20-L2-Targeted@0.5", "pgd20-l2-targeted@0.5"),
        ("PGD_100", "pgd100"),
        ("Paper", "paper"),
        ("Guard-Official", "guard-official"),
        ("AutoAttack", "autoattack"),
        ("APGD-CE,Apgd-T", "apgd-ce,apgd-t"),
        ("square-500", "square500"),
        ("Official-PGD", "official-pgd"),
        ("deepfool", "deepfool"),
        ("Tool-K", "Tool-K"),
        ("tool-K", "Tool-k"),
    ],
)
def test_case_and_the_hyphen_before_a_number_do_not_matter(written, usual):
    assert usual_attacks(written, [*builtin_registry(), "Tool"]) == usual


def test_names_that_are_usual_stay():
    names = "fgsm,pgd100,mim20,cw,square,apgd-ce,apgd-t,fab-t,pgd10-l2-targeted-transfer,pgd5@1/255,quick,robustbench"
    assert usual_attacks(names, builtin_registry()) == names


def test_what_comes_out_is_read():
    read = parse_attacks(usual_attacks("MIM-20,Square-500", builtin_registry()), builtin_registry(), [parse_eps(0.1)])
    assert [attack.name for attack in read] == ["mim20", "square500"]
