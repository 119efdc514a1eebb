"""Padding: rows are filled here, and real tokens told from filling."""

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from funlens.adapters._tokenizer import tokenizer_of
from funlens.data import ModelSpec
from funlens.errors import OptionError, TokenizerError, nearest

PaddingSide: TypeAlias = Literal["left", "right"]
Item = TypeVar("Item")

_SIDES: Final[tuple[str, ...]] = get_args(PaddingSide)


def padding_mask(
    spec: ModelSpec, tokens: Int[Tensor, "batch pos"]
) -> Bool[Tensor, "batch pos"] | None:
    """Tell real tokens from padding.

    Padding is a run of pad tokens at either end of a row. Where the pad token is also
    the tokenizer's first or last special token, or there is none and the
    end-of-sequence token is used for it, such a run may be content. Then the longest
    row counts as without padding: as many of them as every row has are content. A
    single row then has no padding.

    Args:
        spec: A model; without a tokenizer nothing counts as padding.
        tokens: Token ids.

    Returns:
        True at real tokens; None where nothing is padded.
    """
    tokenizer = spec.tokenizer
    pad = None if tokenizer is None else _pad_id(tokenizer)
    if pad is None or not tokens.numel():
        return None
    is_pad = tokens == pad
    leading = is_pad.long().cumprod(dim=1)
    trailing = is_pad.flip(1).long().cumprod(dim=1)
    if pad in _end_ids(tokenizer):
        leading = _beyond_shared(leading, tokens.shape[1])
        trailing = _beyond_shared(trailing, tokens.shape[1])
    padded = leading.bool() | trailing.flip(1).bool()
    return ~padded if bool(padded.any()) else None


def padded(
    spec: ModelSpec, rows: Sequence[list[int]], side: PaddingSide
) -> tuple[list[list[int]], list[list[bool]] | None]:
    """Fill rows up to one length, and say what is real where any was filled."""
    if side not in _SIDES:
        near = nearest(str(side), _SIDES)
        raise OptionError("padding_side", f"{side!r} is no side", near)
    width = max(len(row) for row in rows)
    if all(len(row) == width for row in rows):
        return list(rows), None
    pad = _pad_id(tokenizer_of(spec))
    if pad is None:
        raise TokenizerError(
            problem="the texts differ in length, and the tokenizer has neither a pad "
            "token nor an end-of-sequence token",
            advice="Pass texts of one length, or pad the ids yourself",
        )
    filled = [_beside(row, [pad] * (width - len(row)), side) for row in rows]
    real = [_beside([True] * len(r), [False] * (width - len(r)), side) for r in rows]
    return filled, real


def _beside(row: list[Item], fill: list[Item], side: PaddingSide) -> list[Item]:
    return fill + row if side == "left" else row + fill


def _beyond_shared(
    run: Int[Tensor, "batch pos"], width: int
) -> Int[Tensor, "batch pos"]:
    """Mark what each row's run is longer than the batch's shortest, ends first."""
    lengths = run.sum(dim=1)
    shared = lengths.min()
    column = torch.arange(width, device=run.device)
    return (column[None] < (lengths - shared)[:, None]).long()


def _end_ids(tokenizer: Any) -> frozenset[int]:
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return frozenset(one for one in ids if one is not None)


def _pad_id(tokenizer: Any) -> int | None:
    pad: int | None = tokenizer.pad_token_id
    if pad is not None:
        return pad
    eos: int | None = tokenizer.eos_token_id
    return eos
