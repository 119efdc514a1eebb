"""Text to tokens."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from funlens.adapters._decoding import to_string
from funlens.adapters._padding import PaddingSide, padded
from funlens.adapters._tokenizer import ids_of, plain_ids
from funlens.data import BosPolicy, ModelSpec
from funlens.errors import InputError, TokenizerError


def to_tokens(
    spec: ModelSpec,
    text: str | Sequence[str],
    *,
    bos: BosPolicy | None = None,
    padding_side: PaddingSide = "right",
    truncate: bool = False,
) -> Int[Tensor, "batch pos"]:
    """Turn text into token ids, one row for each string.

    Args:
        spec: A model with a tokenizer.
        text: One string, or several.
        bos: Who decides about a beginning-of-sequence token: `"tokenizer"` leaves it
            to the tokenizer, `"always"` gives each row exactly one in front,
            `"never"` none, also where the text spells it. The spec's policy if left
            out.
        padding_side: Where shorter rows are filled, with the pad token, or with the
            end-of-sequence token where the tokenizer has no pad token.
        truncate: Whether rows are cut at `spec.n_ctx`.

    Returns:
        Token ids on the spec's device.

    Raises:
        TokenizerError: There is no tokenizer, or it has no token that is needed.
        InputError: There is no text.
    """
    texts = (text,) if isinstance(text, str) else tuple(text)
    if not texts:
        raise InputError(
            problem="no text was given",
            expected="one string or more",
            advice="Pass some text",
        )
    policy = spec.bos if bos is None else bos
    limit = spec.n_ctx if truncate else None
    rows = [ids_of(spec, one, policy)[:limit] for one in texts]
    filled = padded(spec, rows, padding_side)
    return torch.tensor(filled, dtype=torch.long, device=spec.device)


def to_single_token(spec: ModelSpec, text: str) -> int:
    """Find the id of a text that is one token.

    Args:
        spec: A model with a tokenizer.
        text: The text with its leading space, if it has one: `" Mary"`.

    Raises:
        TokenizerError: There is no tokenizer, or the text is not one token.
    """
    ids = plain_ids(spec, text)
    if len(ids) != 1:
        pieces = [to_string(spec, [one]) for one in ids]
        raise TokenizerError(
            problem=f"{text!r} is {len(ids)} tokens: {pieces}",
            advice="Expected one; many words are one token only with a leading space",
        )
    return ids[0]
