"""Tokens to text."""

from collections.abc import Sequence
from typing import cast

from jaxtyping import Int
from torch import Tensor

from funlens.adapters._tokenizer import ids_of, tokenizer_of
from funlens.data import BosPolicy, ModelSpec
from funlens.errors import InputError


def to_string(spec: ModelSpec, tokens: Int[Tensor, " pos"] | Sequence[int]) -> str:
    """Decode one row, special tokens included.

    Raises:
        TokenizerError: There is no tokenizer.
        InputError: The tokens are not one row.
    """
    tokenizer = tokenizer_of(spec)
    decoded: str = tokenizer.decode(
        listed(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return decoded


def to_strings(spec: ModelSpec, tokens: Int[Tensor, "batch pos"]) -> tuple[str, ...]:
    """Decode every row, special tokens and padding included.

    Raises:
        TokenizerError: There is no tokenizer.
    """
    return tuple(to_string(spec, row) for row in tokens)


def to_str_tokens(
    spec: ModelSpec,
    text: str | Int[Tensor, " pos"] | Sequence[int],
    *,
    bos: BosPolicy | None = None,
) -> tuple[str, ...]:
    """Write each token of one row as text.

    Args:
        spec: A model with a tokenizer.
        text: A string, or the ids of one row.
        bos: As in `to_tokens`; only a string is affected.

    Raises:
        TokenizerError: There is no tokenizer.
        InputError: The tokens are not one row.

    Examples:
        >>> import funlens as fl
        >>> fl.to_str_tokens(fl.load("builtin:tiny"), "John gave")
        ('<bos>', 'John', ' gave')
    """
    policy = spec.bos if bos is None else bos
    ids = ids_of(spec, text, policy) if isinstance(text, str) else listed(text)
    return tuple(to_string(spec, [one]) for one in ids)


def listed(tokens: Tensor | Sequence[int]) -> list[int]:
    """List the ids of one row.

    Raises:
        InputError: There is no row, or more than one.
    """
    if not isinstance(tokens, Tensor):
        return list(tokens)
    if tokens.ndim != 1:
        raise InputError(
            f"tokens of shape {tuple(tokens.shape)} were given for one row",
            "the ids of one row, `[pos]`",
            "Take one with `tokens[0]`, or use `funlens.to_strings` for all",
        )
    return cast("list[int]", tokens.tolist())
