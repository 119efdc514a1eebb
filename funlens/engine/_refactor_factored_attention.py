"""Heads rewritten with orthogonal queries, keys and values."""

from collections.abc import Sequence
from typing import Final

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor

from funlens.adapters import (
    Draft,
    Machinery,
    processed,
    refusal,
)
from funlens.data import FactoredMatrix, ModelSpec, Site
from funlens.engine._fold_value_biases import fold_value_biases
from funlens.engine._inputs import Inputs
from funlens.engine._kept import if_kept

_QUARTETS: Final = (
    ("q", "k", "v", "z"),
    ("cross_q", "cross_k", "cross_v", "cross_z"),
)


@torch.no_grad()
def refactor_factored_attention(
    spec: ModelSpec, *, inputs: Inputs | None = None
) -> ModelSpec:
    """Rewrite each head's weights so that its dimensions mean something.

    A head is its QK and its OV, which many weights give. Here queries and keys, with
    their biases, get orthogonal columns, each as long in one as in the other, the most
    important first; the columns of `W_V` become orthonormal, and the rows of `W_O`
    orthogonal. Heads that share keys and values are rewritten together. Biases of
    values are folded before, as `fold_value_biases` does.

    Args:
        spec: The model; it and its tensors stay as they are.
        inputs: What to compare log-probabilities on; a few random tokens if left out.

    Returns:
        A new spec with the same log-probabilities; memory for attention's weights.

    Raises:
        UnsupportedConfigError: It cannot be done here, as where positions rotate
            queries and keys, which ties each to a dimension; the error gives the
            reason.
        LogProbsMovedError: Log-probabilities would not stay the same.
    """
    machinery: Machinery = spec.engine
    parts = {site.part for site in machinery.taps}
    if "q" not in parts or "rot_q" in parts:
        raise refusal(
            spec.model_type,
            "positions rotate its queries and keys, dimension by dimension"
            if "q" in parts
            else "it has no attention with heads of its own",
        )
    every = [
        [attrs.evolve(site, part=part) for part in quartet]
        for quartet in _QUARTETS
        for site in processed(spec, quartet[0])
    ]
    for heads in every:
        _check_heads(spec, heads)
    draft = Draft(fold_value_biases(spec, inputs=inputs))
    for heads in every:
        _refactor(draft, *heads)
    return if_kept(spec, draft.spec(), "refactor_factored_attention", inputs)


def _check_heads(spec: ModelSpec, heads: Sequence[Site]) -> None:
    """Refuse heads that are not the product of their weights."""
    machinery: Machinery = spec.engine
    absent = [site for site in heads if site not in machinery.taps]
    if absent:
        raise refusal(spec.model_type, f"its heads have no {absent[0]} to be rewritten")
    note = machinery.taps[heads[-1]].note
    if note:
        raise refusal(spec.model_type, f"its heads are more than QK and OV: {note}")


def _refactor(draft: Draft, query: Site, key: Site, value: Site, mixed: Site) -> None:
    queries, keys = _with_bias(draft, query), _with_bias(draft, key)
    shared, (rows, d_head) = keys.shape[0], queries.shape[-2:]
    left, right = (
        FactoredMatrix(queries.reshape(shared, -1, d_head), keys.mT).make_even().pair
    )
    _put(draft, query, _widened(left, d_head).reshape(-1, rows, d_head))
    _put(draft, key, _widened(right.mT, d_head))
    values, outputs = draft.heads(value), draft.heads(mixed)
    d_head, d_model = outputs.shape[-2:]
    groups = outputs.reshape(shared, -1, d_head, d_model).transpose(1, 2)
    left, sizes, right = FactoredMatrix(values, groups.flatten(-2)).svd()
    draft.set_heads(value, _widened(left, d_head))
    rows_of_heads = _widened((sizes[..., None] * right).mT, d_head).mT
    apart = rows_of_heads.reshape(shared, d_head, -1, d_model).transpose(1, 2)
    draft.set_heads(mixed, apart.reshape(-1, d_head, d_model))


def _with_bias(draft: Draft, site: Site) -> Tensor:
    """Give a site's weights with the bias, if there is one, as a last row."""
    bias, weight = draft.heads_bias(site), draft.heads(site)
    return weight if bias is None else torch.cat([weight, bias[:, None]], dim=1)


def _put(draft: Draft, site: Site, value: Tensor) -> None:
    """Put back what `_with_bias` gave."""
    if draft.heads_bias(site) is None:
        draft.set_heads(site, value)
    else:
        draft.set_heads(site, value[:, :-1])
        draft.set_heads_bias(site, value[:, -1])


def _widened(columns: Tensor, width: int) -> Tensor:
    """Add columns of zeros, where the rank is smaller than the head."""
    return F.pad(columns, (0, width - columns.shape[-1]))
