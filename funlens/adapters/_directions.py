"""The unembedding's direction of a token."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from funlens.adapters._encoding import to_single_token
from funlens.adapters._matrices import acting_weight
from funlens.adapters._tree import find
from funlens.data import ModelSpec
from funlens.errors import InputError, UnsupportedConfigError


def tokens_to_directions(
    spec: ModelSpec, tokens: str | int | Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch d_model"]:
    """Look up the unembedding's direction of each token.

    Args:
        spec: A model with an unembedding.
        tokens: Token ids of any shape, one id, or a text that is one token.

    Returns:
        A column of `W_U` for each token: adding it to the stream after the final norm
        raises that token's logit. One id gives one vector.

    Raises:
        TokenizerError: The text is not one token, or there is no tokenizer.
        InputError: An id is outside the vocabulary, or no integer.
        UnsupportedConfigError: The model has no unembedding.
    """
    weight = _unembedding(spec)
    ids = _as_ids(spec, tokens).to(weight.device)
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise InputError(f"the tokens are {ids.dtype}", "integers", "Pass token ids")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < weight.shape[0]:
        raise InputError(
            problem=f"token ids reach from {int(ids.min())} to {int(ids.max())}",
            expected=f"ids in 0..{weight.shape[0] - 1}",
            advice="Make them with this model's tokenizer",
        )
    return weight[ids]


def _as_ids(spec: ModelSpec, tokens: str | int | Tensor) -> Tensor:
    if isinstance(tokens, Tensor):
        return tokens
    one = to_single_token(spec, tokens) if isinstance(tokens, str) else int(tokens)
    return torch.tensor(one)


def _unembedding(spec: ModelSpec) -> Tensor:
    path: str = spec.engine.unembed
    found = find(spec.module, path) if path else None
    if found is None:
        raise UnsupportedConfigError(
            spec.model_type,
            "it has no unembedding",
            "Use a model with a language head.",
        )
    return acting_weight(found)
