"""The gains and biases of norms, folded into what reads them."""

import torch
from torch import Tensor

from funlens.adapters import (
    Draft,
    Matrix,
    StreamNorm,
    form_of,
    refusal,
    stream_norms,
)
from funlens.data import ModelSpec
from funlens.engine._inputs import Inputs
from funlens.engine._kept import if_kept


@torch.no_grad()
def fold_layer_norm(spec: ModelSpec, *, inputs: Inputs | None = None) -> ModelSpec:
    """Fold the gains and biases of the stream's norms into the weights behind them.

    Afterwards a norm only normalizes: `ln1_normalized` is the stream divided by its
    scale, and the weights say all of what is read from it. Where norms take the mean
    away, what readers have along the direction of all ones is taken away too, since
    nothing ever comes from there. Norms of heads, and norms behind attention or MLP,
    stay as they are.

    A tied unembedding is parted from the embedding, as only one of the two reads a
    norm. Readers without a bias get one where the norm has one.

    Args:
        spec: The model; it and its tensors stay as they are.
        inputs: What to compare log-probabilities on; a few random tokens if left out.

    Returns:
        A new spec with the same log-probabilities; memory for all weights that read.

    Raises:
        UnsupportedConfigError: It cannot be done here; the error gives the reason.
        LogProbsMovedError: Log-probabilities would not stay the same.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> folded = fl.fold_layer_norm(spec)
        >>> bool((folded.module.get_parameter("model.norm.weight") == 1).all())
        True
    """
    draft = Draft(spec)
    for norm in stream_norms(spec):
        _fold(spec, draft, norm)
    return if_kept(spec, draft.spec(), "fold_layer_norm", inputs)


def _fold(spec: ModelSpec, draft: Draft, norm: StreamNorm) -> None:
    form = form_of(spec, norm.path)
    gain, shift = f"{norm.path}.weight", f"{norm.path}.bias"
    for matrix in norm.readers:
        weight = draft.matrix(matrix)
        _check_fits(spec, draft, norm, weight)
        if draft.has(shift):
            more = draft.read(shift).to(weight.device) @ weight
            _add_to_bias(draft, matrix, more)
        if draft.has(gain):
            factor = (form.offset + draft.read(gain)).to(weight.device)
            weight = factor[:, None] * weight
        if form.centered:
            weight = weight - weight.mean(-2, keepdim=True)
        draft.set_matrix(matrix, weight)
    if draft.has(gain):
        draft.write(gain, torch.full_like(draft.read(gain), 1 - form.offset))
    if draft.has(shift):
        draft.write(shift, torch.zeros_like(draft.read(shift)))


def _add_to_bias(draft: Draft, matrix: Matrix, more: Tensor) -> None:
    bias = draft.bias(matrix)
    draft.set_bias(matrix, more if bias is None else bias + more)


def _check_fits(
    spec: ModelSpec, draft: Draft, norm: StreamNorm, weight: Tensor
) -> None:
    """Refuse where something stands between a norm and what the table says reads it."""
    gain = f"{norm.path}.weight"
    if draft.has(gain) and draft.read(gain).shape[-1:] != weight.shape[-2:-1]:
        raise refusal(
            spec.model_type,
            f"{norm.path} gives {draft.read(gain).shape[-1]} numbers and what reads it "
            f"takes {weight.shape[-2]}",
        )
