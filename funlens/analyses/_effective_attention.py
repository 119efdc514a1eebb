"""How much of each earlier value a recurrence reads at each position."""

from jaxtyping import Float
from torch import Tensor

from funlens.adapters import value_weights
from funlens.data import ActivationCache, ModelSpec


def effective_attention(
    spec: ModelSpec, cache: ActivationCache, layer: int
) -> Float[Tensor, "batch head query key"]:
    """Write a layer's recurrence as attention: weights on the values of each position.

    What a linear recurrence reads is a weighted sum of the values written so far, so
    that `ssm_y == effective_attention @ ssm_v` for each head. For Mamba the weights
    are those of Ali et al., "The Hidden Attention of Mamba Models" (2024), with each
    channel of Mamba 1 a head of its own; for gated delta nets they contain what later
    writes take away. Weights are no probabilities, except RWKV's: they can be negative,
    and rows do not sum to 1. RG-LRU's are what is left of each input.

    Args:
        spec: The model.
        cache: A run that keeps `ssm_q`, `ssm_k`, `ssm_decay` and `ssm_beta` of the
            layer, as far as it has them, from the first position on.
        layer: A layer that recurs.

    Returns:
        The weight of each key's value in what each query reads. Memory: heads times
        positions squared; Mamba 1 has as many heads as channels.

    Raises:
        SiteNotFoundError: The layer has no recurrence that reads values.
        SiteNotCachedError: The cache does not hold what it needs.

    Examples:
        >>> import torch
        >>> import funlens as fl
        >>> from funlens.testing import tiny_hf_model, tiny_inputs
        >>> spec = fl.from_module(tiny_hf_model("mamba2"))
        >>> cache = fl.run_with_cache(spec, tiny_inputs("mamba2")).cache
        >>> weights = fl.effective_attention(spec, cache, layer=0)
        >>> read = torch.einsum("bhqk,bkhd->bqhd", weights, cache[fl.ssm_v(0)])
        >>> torch.allclose(read, cache[fl.ssm_y(0)], atol=1e-5)
        True
    """
    return value_weights(spec, cache, layer)
