"""Biases of values, folded into the biases of attention's output."""

from collections.abc import Mapping
from typing import Final

import attrs
import torch

from funlens.adapters import (
    Draft,
    Machinery,
    processed,
    refusal,
)
from funlens.data import ModelSpec, Site
from funlens.engine._inputs import Inputs
from funlens.engine._kept import if_kept

_MIXED: Final[Mapping[str, str]] = {"v": "z", "cross_v": "cross_z"}
"""Values, and what the pattern makes of them."""


@torch.no_grad()
def fold_value_biases(spec: ModelSpec, *, inputs: Inputs | None = None) -> ModelSpec:
    """Fold the biases of values into the output biases of attention.

    Each row of a pattern sums to 1, so a value's bias arrives at every position whole:
    `b_O + sum over heads of b_V @ W_O` says the same, and `b_V` becomes 0. An output
    projection without a bias gets one.

    Args:
        spec: The model; it and its tensors stay as they are.
        inputs: What to compare log-probabilities on; a few random tokens if left out.

    Returns:
        A new spec with the same log-probabilities; the spec itself where values have no
        biases.

    Raises:
        UnsupportedConfigError: It cannot be done here, as with attention sinks, where
            rows sum to less than 1; the error gives the reason.
        LogProbsMovedError: Log-probabilities would not stay the same.
    """
    draft = Draft(spec)
    values = [
        site
        for part in _MIXED
        for site in processed(spec, part)
        if draft.heads_bias(site) is not None
    ]
    if not values:
        return spec
    for site in values:
        _check_rows(spec, site)
        _fold(draft, site)
    return if_kept(spec, draft.spec(), "fold_value_biases", inputs)


def _check_rows(spec: ModelSpec, site: Site) -> None:
    """Refuse where what arrives of a value's bias is not the bias."""
    machinery: Machinery = spec.engine
    prefix = site.part.removesuffix("v")
    pattern = machinery.taps.get(attrs.evolve(site, part=f"{prefix}pattern"))
    mixed = machinery.taps.get(attrs.evolve(site, part=_MIXED[site.part]))
    if pattern is None or mixed is None:
        problem = f"its table hides what becomes of {site}"
    elif pattern.note:
        problem = f"rows of its pattern sum to less than 1: {pattern.note}"
    elif mixed.note:
        problem = f"the biases of its values do not arrive as they are: {mixed.note}"
    else:
        return
    raise refusal(spec.model_type, problem)


def _fold(draft: Draft, site: Site) -> None:
    mixed = attrs.evolve(site, part=_MIXED[site.part])
    bias, outputs = draft.heads_bias(site), draft.heads(mixed)
    if bias is None:  # sites without one were left out
        raise AssertionError(site)
    each = bias.repeat_interleave(outputs.shape[0] // bias.shape[0], dim=0)
    more = torch.einsum("hd,hdm->m", each, outputs)
    projection = draft.projection(mixed)
    before = draft.bias(projection)
    draft.set_bias(projection, more if before is None else before + more)
    draft.set_heads_bias(site, torch.zeros_like(bias))
