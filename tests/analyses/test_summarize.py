"""Summaries of effects that are known, and of a real sweep."""

from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import tiny_hf_model

ROWS: Final = torch.tensor(
    [
        [[1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 1.0, 1.0]],
        [[5.0, 6.0, 7.0, 8.0], [torch.nan] * 4],
    ]
)
BASELINE: Final = torch.tensor([0.0, 1.0, 1.0, 0.0])


def effects_of(rows: Tensor, baseline: Tensor, **more: Any) -> fl.Effects:
    """Effects by layer and head, made by hand."""
    given: dict[str, Any] = {
        "axes": ("layer", "head"),
        "labels": {"layer": ("0", "1"), "head": ("0", "1")},
        "metric": ("made",),
        "done": ~rows[..., 0].isnan(),
        **more,
    }
    return fl.Effects(values=rows.mean(-1), rows=rows, baseline=baseline, **given)


def test_means_and_errors_are_those_of_the_examples() -> None:
    """The standard error is that of a sample, with n - 1."""
    found = fl.summarize(effects_of(ROWS, BASELINE), seed=0)
    assert 4 == found.n_examples
    assert ("layer", "head") == found.axes
    assert [3.0, 0.5] == found.mean[0].tolist()
    assert 6.5 == float(found.mean[1, 0])
    assert [2.5, 0.0] == found.change[0].tolist()
    deviation = ((4 + 1 + 0 + 9) / 3) ** 0.5
    assert deviation / 2 == pytest.approx(float(found.standard_error[0, 0]))
    assert found.normalized is None


def test_changes_are_tested_in_pairs() -> None:
    """All flips of the differences, cell by cell, and corrected over the cells."""
    found = fl.summarize(effects_of(ROWS, BASELINE), seed=0)
    # changes 1 1 2 6, then 0 -1 0 1, then 5 5 6 8: 2, 16 and 2 of 16 flips as far out
    assert [2 / 16, 1.0] == found.p_value[0].tolist()
    assert 2 / 16 == float(found.p_value[1, 0])
    assert [0.375, 1.0] == found.p_corrected[0].tolist()
    assert 0.375 == float(found.p_corrected[1, 0])
    shared = fl.summarize(
        effects_of(ROWS, BASELINE), correction="benjamini-hochberg", seed=0
    )
    assert [0.1875, 1.0] == shared.p_corrected[0].tolist()


def test_cells_that_were_not_run_are_nan() -> None:
    """In all that is said of them."""
    found = fl.summarize(effects_of(ROWS, BASELINE), clean=BASELINE + 2, seed=0)
    assert found.normalized is not None
    for held in (
        found.mean,
        found.standard_error,
        found.interval[0],
        found.change_interval[1],
        found.p_value,
        found.p_corrected,
        found.normalized.values,
    ):
        assert [[False, False], [False, True]] == held.isnan().tolist()


def test_baseline_is_zero_and_clean_is_one() -> None:
    """For each example, and for the means."""
    clean = torch.tensor([4.0, 2.0, 3.0, 3.0])
    rows = torch.stack([BASELINE, clean])[:, None].expand(2, 2, 4)
    found = fl.summarize(effects_of(rows, BASELINE), clean=clean, seed=0).normalized
    assert found is not None
    expected = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert torch.equal(expected[:, None].expand(2, 2), found.values)
    assert torch.equal(expected[:, None, None].expand(2, 2, 4), found.rows)
    assert torch.equal(expected[:, None].expand(2, 2), found.interval[0])
    assert torch.equal(expected[:, None].expand(2, 2), found.interval[1])


def test_shares_of_the_means_are_no_means_of_shares() -> None:
    """An example with a small gap does not decide."""
    clean = BASELINE + torch.tensor([4.0, 2.0, 1.0, 1.0])
    found = fl.summarize(effects_of(ROWS, BASELINE), clean=clean, seed=0).normalized
    assert found is not None
    assert 2.5 / 2 == float(found.values[0, 0])
    assert [0.25, 0.5, 2.0, 6.0] == found.rows[0, 0].tolist()
    low, high = found.interval[:, 0, 0]
    assert float(low) < 1.25 < float(high)


def test_examples_without_a_gap_have_no_share() -> None:
    """Nor has a mean without one."""
    clean = BASELINE + torch.tensor([0.0, 1.0, -1.0, 0.0])
    found = fl.summarize(effects_of(ROWS, BASELINE), clean=clean, seed=0).normalized
    assert found is not None
    assert [True, False, False, True] == found.rows[0, 0].isnan().tolist()
    assert bool(found.values.isnan().all())


def test_bounds_are_those_of_the_bootstrap() -> None:
    """Of the mean, and of the change of the same examples."""
    found = fl.summarize(effects_of(ROWS, BASELINE), n_bootstrap=500, seed=3)
    expected = fl.bootstrap_interval(ROWS, n_bootstrap=500, seed=3)
    torch.testing.assert_close(found.interval, expected, equal_nan=True)
    expected = fl.bootstrap_interval(ROWS - BASELINE, n_bootstrap=500, seed=3)
    torch.testing.assert_close(found.change_interval, expected, equal_nan=True)


def test_metrics_are_corrected_apart() -> None:
    """Each has cells of its own."""
    rows, baseline = torch.stack([ROWS, 2 * ROWS]), torch.stack([BASELINE] * 2)
    both = effects_of(
        rows,
        baseline,
        axes=("metric", "layer", "head"),
        labels={"metric": ("a", "b"), "layer": ("0", "1"), "head": ("0", "1")},
        metric=("a", "b"),
        done=~ROWS[..., 0].isnan(),
    )
    found = fl.summarize(both, clean=baseline + 2, seed=0)
    one = fl.summarize(effects_of(ROWS, BASELINE), clean=BASELINE + 2, seed=0)
    assert found.normalized is not None
    assert one.normalized is not None
    for several, single in (
        (found.mean, one.mean),
        (found.p_corrected, one.p_corrected),
        (found.change_interval.movedim(1, 0), one.change_interval),
        (found.normalized.rows, one.normalized.rows),
    ):
        torch.testing.assert_close(several[0], single, equal_nan=True)


def test_a_sweep_is_summarized() -> None:
    """Patching the stream of the clean run restores the answer: the share is 1."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    generator = torch.Generator().manual_seed(0)
    clean, corrupted = torch.randint(32, (2, 12, 1), generator=generator).unbind()
    metric = fl.log_prob_of(3)
    run = fl.run_with_cache(spec, clean, capture=[fl.resid_pre])
    effects = fl.patch_resid_pre(spec, corrupted, run.cache, metric=metric)
    found = fl.summarize(effects, clean=metric(run.logits), seed=0)
    assert found.normalized is not None
    expected = torch.ones_like(found.normalized.values)
    torch.testing.assert_close(found.normalized.values, expected, atol=1e-4, rtol=0)
    assert bool((found.p_corrected >= found.p_value).all())


def test_draws_are_fixed_by_the_seed_alone() -> None:
    """And nothing that was given is changed."""
    effects = effects_of(ROWS.clone(), BASELINE.clone())
    versions = effects.rows._version, effects.baseline._version
    before = torch.get_rng_state()
    one, two = (fl.summarize(effects, seed=1) for _ in range(2))
    torch.testing.assert_close(one.interval, two.interval, equal_nan=True)
    assert torch.equal(before, torch.get_rng_state())
    assert versions == (effects.rows._version, effects.baseline._version)


@pytest.mark.parametrize(
    ("rows", "more", "kind", "fragment"),
    [
        (ROWS[..., :1], {}, errors.InputError, "1 examples"),
        (torch.ones(2, 2, 4), {}, errors.InputError, "one number for all 4"),
        (ROWS, {"clean": torch.ones(3)}, errors.ShapeError, "clean"),
        (ROWS, {"confidence": 1.0}, errors.OptionError, "confidence"),
        (ROWS, {"n_bootstrap": 0}, errors.OptionError, "n_bootstrap"),
        (ROWS, {"n_permutations": 0}, errors.OptionError, "n_permutations"),
        (ROWS, {"correction": "none"}, errors.OptionError, "correction"),
        (ROWS, {"seed": "0"}, errors.OptionError, "seed"),
    ],
)
def test_what_cannot_be_summarized_is_refused(
    rows: Tensor, more: Any, kind: Any, fragment: str, unchecked: None
) -> None:
    """With what was wrong and what was expected."""
    is_constant = bool((rows == 1).all())
    baseline = torch.zeros(4) if is_constant else BASELINE[: rows.shape[-1]]
    given: dict[str, Any] = {"seed": 0, **more}
    with pytest.raises(kind, match=fragment):
        fl.summarize(effects_of(rows, baseline), **given)
