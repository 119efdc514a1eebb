"""The mean over the vocabulary, taken away from the unembedding."""

from typing import Final

import torch

from funlens.adapters import (
    Draft,
    Machinery,
    matrix_at,
    refusal,
)
from funlens.data import ModelSpec
from funlens.engine._inputs import Inputs
from funlens.engine._kept import if_kept

_CAPS: Final = ("final_logit_softcapping", "logits_soft_cap")
"""Config fields of what bounds the logits."""


@torch.no_grad()
def center_unembed(spec: ModelSpec, *, inputs: Inputs | None = None) -> ModelSpec:
    """Take the mean over the vocabulary away from the unembedding and its bias.

    Logits then have mean 0 at each position, up to the model's scale. Probabilities do
    not see the difference. A tied unembedding is parted from the embedding, which stays
    as it is.

    Args:
        spec: The model; it and its tensors stay as they are.
        inputs: What to compare log-probabilities on; a few random tokens if left out.

    Returns:
        A new spec with the same log-probabilities; memory for one unembedding.

    Raises:
        UnsupportedConfigError: Logits are capped, so that what is taken away would be
            seen; or the model has no unembedding.
        LogProbsMovedError: Log-probabilities would not stay the same.

    Examples:
        >>> import torch
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> logits = fl.run(fl.center_unembed(spec), "The cat")
        >>> torch.allclose(logits.mean(-1), torch.zeros(1), atol=1e-5)
        True
    """
    machinery: Machinery = spec.engine
    if not machinery.unembed:
        raise refusal(spec.model_type, "it has no unembedding")
    if any(getattr(machinery.config, name, None) for name in _CAPS):
        raise refusal(
            spec.model_type,
            "its logits are capped, which makes their mean matter",
        )
    draft = Draft(spec)
    matrix = matrix_at(machinery.module, machinery.unembed)
    weight, bias = draft.matrix(matrix), draft.bias(matrix)
    draft.set_matrix(matrix, weight - weight.mean(-1, keepdim=True))
    if bias is not None:
        draft.set_bias(matrix, bias - bias.mean())
    return if_kept(spec, draft.spec(), "center_unembed", inputs)
