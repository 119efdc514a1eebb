"""What a sweep found, as an estimate: how large, how sure, and against what."""

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from funlens.data import Effects
from funlens.engine import (
    Correction,
    Seed,
    corrected_p_values,
    generator_of,
    sign_flip_test,
)
from funlens.engine._statistics import (
    bootstrap_weights,
    check_confidence,
    check_rows,
    percentiles,
)
from funlens.errors import InputError, ShapeError


@attrs.frozen(kw_only=True, eq=False)
class Normalized:
    """Effects as shares: 0 is the baseline, 1 the clean run.

    Attributes:
        values: The mean change over the mean gap, `[*axes]`.
        rows: The same of each example, `[*axes, batch]`; NaN where it has no gap.
        interval: Bootstrap bounds of `values`, `[2, *axes]`.
    """

    values: Tensor = attrs.field(repr=False)
    rows: Tensor = attrs.field(repr=False)
    interval: Tensor = attrs.field(repr=False)


@attrs.frozen(kw_only=True, eq=False)
class Summary:
    """Effects over examples, with how sure they are; NaN where no cell was run.

    Attributes:
        mean: Mean of the metric, `[*axes]`.
        standard_error: Of that mean.
        interval: Bootstrap bounds of the mean, `[2, *axes]`.
        change: Mean change from the baseline, of the same examples.
        change_interval: Bootstrap bounds of the mean change, `[2, *axes]`.
        p_value: Of the change being around 0, by flipping signs of pairs.
        p_corrected: The same, corrected over all cells of a metric.
        normalized: Shares of the gap to the clean run; None without one.
        axes: Names of the axes.
        labels: What stands at each place of an axis.
        n_examples: Over how many examples.
        confidence: Share of resampled means between the bounds.
        correction: How `p_corrected` is corrected.
    """

    mean: Tensor = attrs.field(repr=False)
    standard_error: Tensor = attrs.field(repr=False)
    interval: Tensor = attrs.field(repr=False)
    change: Tensor = attrs.field(repr=False)
    change_interval: Tensor = attrs.field(repr=False)
    p_value: Tensor = attrs.field(repr=False)
    p_corrected: Tensor = attrs.field(repr=False)
    normalized: Normalized | None = attrs.field(repr=False)
    axes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = attrs.field(repr=False)
    n_examples: int
    confidence: float
    correction: Correction


def summarize(
    effects: Effects,
    *,
    clean: Tensor | None = None,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    n_permutations: int = 10_000,
    correction: Correction = "holm",
    seed: Seed,
) -> Summary:
    """Estimate effects over examples, and say how sure they are.

    Examples are taken as drawn independently of each other. Each is compared with its
    own baseline, which is what pairs of prompts are made for.

    Args:
        effects: What a sweep found, over two examples or more.
        clean: The metric of the clean run of each example, as `effects.baseline` has
            it: then effects are also given as shares, where 0 is the baseline (of the
            corrupted run) and 1 the clean run.
        confidence: Share of resampled means between the bounds.
        n_bootstrap: As for `bootstrap_interval`.
        n_permutations: As for `sign_flip_test`.
        correction: As for `corrected_p_values`; over all cells of each metric.
        seed: A number, or a `torch.Generator` on the CPU.

    Returns:
        Estimates in float64 on the axes of the effects.

    Raises:
        InputError: There is one example, or the metric gave one number for all.
        ShapeError: `clean` has another shape than the baseline.
        OptionError: An option is out of range.

    Costs no run; time and memory: cells times `n_bootstrap` and `n_permutations`, some
    of them at once.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> texts = ["Tom had a ball", "Ben saw a dog", "The girl had a hat"]
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, "."))
        >>> effects = fl.zero_ablation(spec, texts, fl.mlp_out, metric=metric)
        >>> fl.summarize(effects, seed=0).p_value.shape
        torch.Size([4])
    """
    rows, baseline = effects.rows.double(), effects.baseline.double()
    _check(effects, clean)
    check_confidence(confidence)
    n_axes = effects.done.ndim
    several = effects.values.ndim > n_axes
    change = rows - _spread(baseline, n_axes)
    generator = generator_of(seed)
    weights = bootstrap_weights(rows.shape[-1], n_bootstrap, generator)
    p_value = sign_flip_test(change, n_permutations=n_permutations, seed=generator)
    families = p_value if several else p_value[None]
    corrected = torch.stack(
        [corrected_p_values(one, method=correction) for one in families]
    )
    gap = None if clean is None else clean.double().cpu() - baseline
    return Summary(
        mean=rows.mean(-1),
        standard_error=rows.std(-1) / rows.shape[-1] ** 0.5,
        interval=percentiles(rows, None, weights, confidence),
        change=change.mean(-1),
        change_interval=percentiles(change, None, weights, confidence),
        p_value=p_value,
        p_corrected=corrected if several else corrected[0],
        normalized=None
        if gap is None
        else _normalized(change, _spread(gap, n_axes), weights, confidence),
        axes=effects.axes,
        labels=effects.labels,
        n_examples=rows.shape[-1],
        confidence=confidence,
        correction=correction,
    )


def _check(effects: Effects, clean: Tensor | None) -> None:
    check_rows(effects.rows)
    rows, baseline = effects.rows, effects.baseline
    same = rows.isnan() | (rows == rows[..., :1])
    if bool(same.all()) and bool((baseline == baseline[..., :1]).all()):
        raise InputError(
            f"the metric gave one number for all {rows.shape[-1]} examples",
            "a number of each",
            "Use a metric that gives `[batch]`, such as `logit_diff`",
        )
    if clean is not None and clean.shape != baseline.shape:
        shape, expected = tuple(clean.shape), tuple(baseline.shape)
        axes = ("metric", "batch")[2 - len(expected) :]
        raise ShapeError("clean", shape, expected, axes)


def _spread(each: Tensor, n_axes: int) -> Tensor:
    """Lay what each example has beside the cells of a sweep."""
    *metrics, n_examples = each.shape
    return each.reshape(*metrics, *[1] * n_axes, n_examples)


def _normalized(
    change: Tensor, gap: Tensor, weights: Tensor, confidence: float
) -> Normalized:
    """Divide by the gap; a gap of 0 has no shares."""
    gap = gap.expand_as(change)
    mean = gap.mean(-1)
    return Normalized(
        values=change.mean(-1) / torch.where(mean == 0, torch.nan, mean),
        rows=change / torch.where(gap == 0, torch.nan, gap),
        interval=percentiles(change, gap, weights, confidence),
    )
