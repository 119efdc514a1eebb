"""Text to tokens."""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from jaxtyping import Bool, Int
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
        OptionError: A word is no policy, or no side.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> fl.to_tokens(spec, ["John gave", "John"], padding_side="left").shape
        torch.Size([2, 3])
    """
    return encode(
        spec, text, bos=bos, padding_side=padding_side, truncate=truncate
    ).tokens


@attrs.frozen(kw_only=True, eq=False)
class Encoded:
    """Text as token ids, and which of them are not padding.

    Attributes:
        tokens: One row for each text.
        mask: True at real tokens; None where nothing is padded.
    """

    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"] | None

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a HuggingFace model takes."""
        masked = {} if self.mask is None else {"attention_mask": self.mask.long()}
        return {"input_ids": self.tokens, **masked}


def encode(
    spec: ModelSpec,
    text: str | Sequence[str],
    *,
    bos: BosPolicy | None = None,
    padding_side: PaddingSide = "right",
    truncate: bool = False,
) -> Encoded:
    """Turn text into token ids and a mask, which no pad token can make wrong.

    Args and errors are those of `to_tokens`.
    """
    texts: tuple[Any, ...] = (text,) if isinstance(text, str) else tuple(text)
    if not texts:
        raise InputError(
            problem="no text was given",
            expected="one string or more",
            advice="Pass some text",
        )
    wrong = next((one for one in texts if not isinstance(one, str)), None)
    if wrong is not None:
        raise InputError(
            problem=f"a {type(wrong).__name__} was given for a text",
            expected="strings only",
            advice="Pass token ids as one tensor `[batch, pos]`",
        )
    policy = spec.bos if bos is None else bos
    limit = spec.n_ctx if truncate else None
    rows = [ids_of(spec, one, policy)[:limit] for one in texts]
    filled, real = padded(spec, rows, padding_side)
    tokens = torch.tensor(filled, dtype=torch.long, device=spec.device)
    if real is None:
        return Encoded(tokens=tokens, mask=None)
    return Encoded(tokens=tokens, mask=torch.tensor(real, device=spec.device))


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
