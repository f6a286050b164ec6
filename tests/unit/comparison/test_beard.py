import pytest

from guard_plugin.comparison import compare, read_benchmark
from guard_plugin.comparison.beard import beard_scores
from guard_plugin.versions import strict_zip
from tests.unit.comparison.folders import attacks_at, flags, write_benchmark


def scores(tmp_path, clean, fgsm, pgd):
    correct = {"clean": flags(clean), "fgsm": flags(fgsm), "pgd10": flags(pgd)}
    pair = [read_benchmark(write_benchmark(tmp_path / name, correct)) for name in ("a", "b")]
    return beard_scores(compare(pair))["a"]


def test_beards_figures_by_hand(tmp_path):
    """Clean 90 %, attacks 50 % and 30 %, in 1, 2 and 3 seconds."""
    (one,) = scores(tmp_path, 0.9, 0.5, 0.3)
    assert one.rr == pytest.approx(100 * (1 - (90 - 40) / (90 - 30)))
    assert one.ae == pytest.approx(100 * (2.5 - 1) / (3 - 1))
    assert one.crei == pytest.approx((one.rr + one.ae) / 2)
    assert one.attacks == 2 and one.ball == "eps 8/255 (Linf)"


def test_they_are_not_defined_where_no_attack_does_anything(tmp_path):
    (one,) = scores(tmp_path, 0.9, 0.9, 0.9)
    assert one.rr is None and one.crei is None and one.ae == pytest.approx(75)


def test_they_are_per_ball(tmp_path):
    columns = ["clean", "fgsm@4/255", "pgd10@4/255", "fgsm@8/255", "pgd10@8/255"]
    shares = dict(strict_zip(columns, (0.9, 0.8, 0.6, 0.5, 0.1)))
    attacks = attacks_at("4/255", "8/255")
    pair = [
        read_benchmark(
            write_benchmark(tmp_path / name, {c: flags(share) for c, share in shares.items()}, attacks=attacks)
        )
        for name in ("a", "b")
    ]
    weak, strong = beard_scores(compare(pair))["b"]
    assert weak.rr == pytest.approx(100 / 3) and strong.rr == pytest.approx(100 * (1 - 0.6 / 0.8))
