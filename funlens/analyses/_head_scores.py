"""Which heads do induction, and which look at the previous or the same token."""

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from funlens.data import ActivationCache, ModelSpec, Site
from funlens.errors import InputError, OptionError

Role: TypeAlias = Literal["induction", "previous token", "duplicate token"]
"""What a head is scored for.

`induction` is attention from a token to the one after its earlier occurrence,
`previous token` to the position before, `duplicate token` to the earlier occurrence.
"""


def repeated_tokens(
    spec: ModelSpec, *, length: int, batch: int, seed: int
) -> Int[Tensor, "batch pos"]:
    """Draw random tokens and write each row twice.

    Args:
        spec: A model; its tokenizer's special tokens are not drawn.
        length: Tokens before the repeat.
        batch: Rows.
        seed: Fixes the tokens; the global generator is not touched.

    Returns:
        Rows of `2 * length` tokens, one more where the tokenizer has a
        beginning-of-sequence token: it comes first.

    Raises:
        OptionError: `length` or `batch` is below 1, or the row exceeds the context.

    Examples:
        >>> import funlens as fl
        >>> from funlens.analyses import repeated_tokens
        >>> spec = fl.load("builtin:tiny")
        >>> repeated_tokens(spec, length=8, batch=2, seed=0).shape
        torch.Size([2, 17])
    """
    if min(length, batch) < 1:
        raise OptionError("length" if length < 1 else "batch", "it is below 1")
    bos: int | None = getattr(spec.tokenizer, "bos_token_id", None)
    n_pos = 2 * length + (bos is not None)
    if spec.n_ctx is not None and n_pos > spec.n_ctx:
        problem = f"{length} makes rows of {n_pos} tokens; the context is {spec.n_ctx}"
        raise OptionError("length", problem)
    special: list[int] = getattr(spec.tokenizer, "all_special_ids", [])
    size = spec.d_vocab if spec.tokenizer is None else len(spec.tokenizer)
    drawn = [one for one in range(min(size, spec.d_vocab)) if one not in set(special)]
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, length)
    once = torch.tensor(drawn)[torch.randint(len(drawn), shape, generator=generator)]
    front = torch.full((batch, 0 if bos is None else 1), bos or 0)
    return torch.cat([front, once, once], dim=1).to(spec.device)


def head_scores(
    spec: ModelSpec, cache: ActivationCache, *, role: Role
) -> Float[Tensor, "layer head"]:
    """Score every head for a role, from its patterns on repeated tokens.

    The score is the mean attention along one diagonal of the pattern, over rows and
    all of its queries, as TransformerLens computes it: for tokens repeated after
    `length`, `length - 1` back for induction, `length` back for duplicate tokens, and
    one back for previous tokens.

    Args:
        spec: The model.
        cache: A run on `repeated_tokens` that keeps `pattern` in all layers.
        role: What to score.

    Returns:
        Mean attention probabilities in 0..1; NaN in layers without attention.

    Raises:
        SiteNotCachedError: A layer's pattern is not in the cache.
        InputError: The rows are too short to hold a repeat.

    Examples:
        >>> import funlens as fl
        >>> from funlens.analyses import head_scores, repeated_tokens
        >>> spec = fl.load("builtin:tiny")
        >>> tokens = repeated_tokens(spec, length=20, batch=4, seed=0)
        >>> cache = fl.run_with_cache(spec, tokens, capture=[fl.pattern]).cache
        >>> int(head_scores(spec, cache, role="induction").argmax())  # layer 3 of 4
        14
    """
    has = {info.site for info in spec.sites}
    rows: list[Tensor] = []
    for layer in range(spec.n_layers):
        site = Site(part="pattern", layer=layer)
        if site in has:
            rows.append(_along_diagonal(cache[site], role))
        else:
            rows.append(torch.full((spec.n_heads,), torch.nan, device=spec.device))
    return torch.stack(rows)


def _along_diagonal(
    pattern: Float[Tensor, "batch head query key"], role: Role
) -> Float[Tensor, " head"]:
    length = pattern.shape[-1] // 2  # with or without a first token
    if length < 2:  # noqa: PLR2004 -- shorter repeats make the roles the same
        raise InputError(
            f"the pattern has {pattern.shape[-1]} keys",
            "repeats of two tokens or more",
            "Run the model on `repeated_tokens`",
        )
    back = {
        "induction": length - 1,
        "previous token": 1,
        "duplicate token": length,
    }
    stripe = pattern.diagonal(offset=-back[role], dim1=-2, dim2=-1)
    return stripe.float().mean(dim=(0, -1))
