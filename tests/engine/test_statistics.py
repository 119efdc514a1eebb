"""Statistics against closed forms, lists of all flips, and worked examples."""

from itertools import product
from math import sqrt
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.engine import _statistics

WIDE: Final = torch.float64


def normal(*shape: int, seed: int, mean: float = 0.0) -> Tensor:
    """Independent normal numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=WIDE) + mean


# bootstrap


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    """400 samples of 60 normal numbers: 95% within three standard errors, or so."""
    low, high = fl.bootstrap_interval(normal(400, 60, seed=0, mean=1.0), seed=1)
    share = ((low < 1.0) & (high > 1.0)).double().mean()
    assert 0.95 == pytest.approx(float(share), abs=3 * sqrt(0.95 * 0.05 / 400))


@pytest.mark.parametrize(("confidence", "z"), [(0.68, 0.9945), (0.95, 1.9600)])
def test_bootstrap_is_normal_for_many_examples(confidence: float, z: float) -> None:
    """Its bounds are the mean and z standard errors, with n in the divisor."""
    rows = normal(2000, seed=3)
    low, high = fl.bootstrap_interval(
        rows, confidence=confidence, n_bootstrap=20_000, seed=0
    )
    error = float(rows.std(correction=0)) / sqrt(2000)
    assert z == pytest.approx(float(rows.mean() - low) / error, abs=0.06)
    assert z == pytest.approx(float(high - rows.mean()) / error, abs=0.06)


def test_bootstrap_of_two_examples_is_known() -> None:
    """Means are 0, 1/2 or 1, with chances 1/4, 1/2 and 1/4."""
    rows = torch.tensor([0.0, 1.0])
    half = fl.bootstrap_interval(rows, confidence=0.4, seed=0)
    assert [0.5, 0.5] == half.tolist()
    most = fl.bootstrap_interval(rows, confidence=0.9, seed=0)
    assert [0.0, 1.0] == most.tolist()


def test_bootstrap_shifts_and_scales_with_its_rows() -> None:
    """The same examples are drawn for all cells."""
    rows = normal(20, seed=5)
    cells = torch.stack([rows, 3 * rows - 2])
    low, high = fl.bootstrap_interval(cells, seed=2)
    torch.testing.assert_close(3 * low[0] - 2, low[1])
    torch.testing.assert_close(3 * high[0] - 2, high[1])


def test_many_cells_are_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """And give the same numbers."""
    rows = normal(3, 4, 8, seed=5)
    interval = fl.bootstrap_interval(rows, n_bootstrap=50, seed=2)
    p_values = fl.sign_flip_test(rows, seed=2)
    monkeypatch.setattr(_statistics, "_AT_ONCE", 120)
    assert (2, 3, 4) == tuple(interval.shape)
    again = fl.bootstrap_interval(rows, n_bootstrap=50, seed=2)
    torch.testing.assert_close(interval, again)
    assert torch.equal(p_values, fl.sign_flip_test(rows, seed=2))


# sign flips


def by_hand(change: Tensor) -> float:
    """The share of all flips whose mean is as far from 0."""
    every = list(product([-1.0, 1.0], repeat=len(change)))
    sums = [
        abs(sum(s * float(c) for s, c in zip(signs, change, strict=True)))
        for signs in every
    ]
    found = abs(float(change.sum()))
    return sum(one >= found - 1e-9 for one in sums) / len(every)


@pytest.mark.parametrize("n_examples", [2, 5, 8])
def test_sign_flips_are_all_flips_where_they_are_few(n_examples: int) -> None:
    """Against a loop over them."""
    change = normal(6, n_examples, seed=n_examples, mean=0.5)
    expected = [by_hand(row) for row in change]
    assert expected == pytest.approx(fl.sign_flip_test(change, seed=0).tolist())


def test_sign_flips_of_one_sign_are_known() -> None:
    """Only two of all flips are as far out: p = 2 / 2^n."""
    change = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.7])
    assert 2 / 2**7 == float(fl.sign_flip_test(change, seed=0))


def test_no_change_at_all_is_no_find() -> None:
    """Every flip is as far out."""
    assert 1.0 == float(fl.sign_flip_test(torch.zeros(5), seed=0))


def test_drawn_flips_are_near_all_flips() -> None:
    """Within three standard errors of what is drawn, and never 0."""
    change = normal(5, 12, seed=9, mean=0.3)
    exact = fl.sign_flip_test(change, seed=0)
    drawn = fl.sign_flip_test(change, n_permutations=4000, seed=0)
    slack = 3 * (exact * (1 - exact) / 4000).sqrt() + 1 / 4000
    assert bool(((exact - drawn).abs() <= slack).all())
    certain = fl.sign_flip_test(torch.ones(40), n_permutations=99, seed=0)
    assert 0.01 == float(certain)


def test_values_of_no_effect_are_even() -> None:
    """Of 500 samples without an effect, as many are below a level as it says."""
    p_values = fl.sign_flip_test(normal(500, 10, seed=4), seed=0)
    for level in (0.05, 0.2, 0.5):
        share = float((p_values <= level).double().mean())
        assert level == pytest.approx(share, abs=3 * sqrt(level * (1 - level) / 500))


def test_cells_with_nan_are_nan() -> None:
    """They were not run."""
    rows = normal(2, 6, seed=0)
    rows[1] = torch.nan
    assert [False, True] == fl.sign_flip_test(rows, seed=0).isnan().tolist()
    interval = fl.bootstrap_interval(rows, seed=0)
    assert [[False, True]] * 2 == interval.isnan().tolist()


# corrections


def test_holm_is_the_worked_example() -> None:
    """Sorted, times how many are left, and never falling."""
    p_values = torch.tensor([0.01, 0.04, 0.03, 0.005], dtype=WIDE)
    expected = torch.tensor([0.03, 0.06, 0.06, 0.02], dtype=WIDE)
    torch.testing.assert_close(fl.corrected_p_values(p_values), expected)


def test_benjamini_hochberg_is_the_worked_example() -> None:
    """Sorted, times how many over the rank, and never rising from the end."""
    p_values = torch.tensor([0.01, 0.04, 0.03, 0.005], dtype=WIDE)
    expected = torch.tensor([0.02, 0.04, 0.04, 0.02], dtype=WIDE)
    found = fl.corrected_p_values(p_values, method="benjamini-hochberg")
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", ["holm", "benjamini-hochberg"])
def test_corrections_keep_shape_order_and_holes(method: Any) -> None:
    """Values are at most 1, never below what they were, and NaN counts for nothing."""
    generator = torch.Generator().manual_seed(0)
    p_values = torch.rand(3, 5, generator=generator)
    found = fl.corrected_p_values(p_values, method=method)
    assert p_values.shape == found.shape
    assert bool((found >= p_values).all())
    assert 1.0 >= float(found.max())
    order = p_values.flatten().argsort()
    assert bool((found.flatten()[order].diff() >= 0).all())
    holes = torch.cat([p_values.flatten(), torch.tensor([torch.nan] * 9)])
    again = fl.corrected_p_values(holes, method=method)
    torch.testing.assert_close(again[:15], found.flatten())
    assert bool(again[15:].isnan().all())


def test_correction_of_nothing_is_nothing() -> None:
    """All cells may be holes."""
    holes = torch.full((2,), torch.nan)
    assert bool(fl.corrected_p_values(holes).isnan().all())
    alone = torch.tensor([0.2])
    assert torch.equal(alone, fl.corrected_p_values(alone))


# seeds and faults


def test_draws_are_fixed_by_the_seed_alone() -> None:
    """A number, or a generator that goes on; the global generator stays."""
    rows = normal(30, seed=0)
    before = torch.get_rng_state()
    one, two, other = (fl.bootstrap_interval(rows, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    generator = torch.Generator().manual_seed(1)
    assert torch.equal(one, fl.bootstrap_interval(rows, seed=generator))
    assert not torch.equal(one, fl.bootstrap_interval(rows, seed=generator))
    flips = [fl.sign_flip_test(rows, n_permutations=99, seed=at) for at in (1, 1)]
    assert torch.equal(*flips)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "kind", "fragment"),
    [
        (lambda: fl.bootstrap_interval(torch.ones(1), seed=0), "InputError", "1 ex"),
        (lambda: fl.sign_flip_test(torch.ones(3, 1), seed=0), "InputError", "1 ex"),
        (
            lambda: fl.bootstrap_interval(torch.ones(3), confidence=95, seed=0),
            "OptionError",
            "between 0 and 1",
        ),
        (
            lambda: fl.bootstrap_interval(torch.ones(3), n_bootstrap=0, seed=0),
            "OptionError",
            "n_bootstrap",
        ),
        (
            lambda: fl.sign_flip_test(torch.ones(3), n_permutations=1.5, seed=0),  # pyright: ignore[reportArgumentType] (a fault)
            "OptionError",
            "n_permutations",
        ),
        (
            lambda: fl.sign_flip_test(torch.ones(3), seed=True),
            "OptionError",
            "seed",
        ),
        (
            lambda: fl.corrected_p_values(torch.tensor([1.5])),
            "InputError",
            "probabilities",
        ),
        (
            lambda: fl.corrected_p_values(torch.tensor([0.5]), method="bonferoni"),  # pyright: ignore[reportArgumentType] (a fault)
            "OptionError",
            "no correction",
        ),
    ],
)
def test_faults_are_told(call: Any, kind: str, fragment: str, unchecked: None) -> None:
    """With what was wrong and what was expected."""
    with pytest.raises(getattr(errors, kind), match=fragment):
        call()
