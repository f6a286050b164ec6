"""Attacks as users write them."""

import pytest

from guard_plugin.attacks import builtin_registry, parse_attacks, parse_eps
from guard_plugin.attacks.names import usual_attacks


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
