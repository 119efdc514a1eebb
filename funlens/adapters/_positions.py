"""Where a token stands."""

from typing import Final, Literal, TypeAlias, get_args

from jaxtyping import Int
from torch import Tensor

from funlens.adapters._decoding import listed
from funlens.adapters._encoding import to_single_token
from funlens.adapters._tokenizer import ids_of
from funlens.data import BosPolicy, ModelSpec
from funlens.errors import OptionError, TokenizerError

Which: TypeAlias = Literal["first", "last"]

_WHICH: Final[tuple[str, ...]] = get_args(Which)


def token_position(
    spec: ModelSpec,
    token: str | int,
    tokens: str | Int[Tensor, " pos"] | Int[Tensor, "1 pos"],
    *,
    which: Which = "first",
    bos: BosPolicy | None = None,
) -> int:
    """Find where a token stands in one row.

    Args:
        spec: A model; its tokenizer is needed only for text.
        token: Its id, or a text that is one token.
        tokens: The row, as ids or as text.
        which: Which of several.
        bos: As in `to_tokens`; only a string is affected.

    Returns:
        The position, counted from the row's first column, which may be padding.

    Raises:
        TokenizerError: There is no tokenizer, the text is not one token, or the row
            does not hold it.
        InputError: The tokens are not one row.
        OptionError: `which` is neither word.
    """
    wanted = to_single_token(spec, token) if isinstance(token, str) else int(token)
    policy = spec.bos if bos is None else bos
    if which not in _WHICH:
        raise OptionError("which", f"{which!r} is neither", _WHICH)
    if isinstance(tokens, str):
        row = ids_of(spec, tokens, policy)
    else:
        is_only_row = tokens.ndim > 1 and tokens.shape[0] == 1
        row = listed(tokens[0] if is_only_row else tokens)
    places = [at for at, one in enumerate(row) if one == wanted]
    if not places:
        raise TokenizerError(
            problem=f"{token!r} (id {wanted}) is not among these {len(row)} tokens",
            advice="Look at them with `funlens.to_str_tokens(spec, tokens)`",
        )
    return places[0] if which == "first" else places[-1]
