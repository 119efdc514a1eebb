"""Text to tokens and back, padding, and corpora.

The tokenizer belongs to its owner: nothing is set on it. Rows are padded here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import torch
from jaxtyping import Bool, Float, Int
from toolz import partition_all
from torch import Tensor

from funlens.adapters._tree import find
from funlens.data import BosPolicy, ModelSpec
from funlens.errors import (
    InputError,
    OptionError,
    TokenizerError,
    UnsupportedConfigError,
)

PaddingSide: TypeAlias = Literal["left", "right"]
Corpus: TypeAlias = Iterable[str] | Iterable[Mapping[str, Any]] | Path

_TEXT: Final = "text"
_GROUP: Final = 256  # texts that the tokenizer gets at once


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
    rows = [_ids(spec, one, policy)[:limit] for one in texts]
    filled = _padded(spec, rows, padding_side)
    return torch.tensor(filled, dtype=torch.long, device=spec.device)


def to_string(spec: ModelSpec, tokens: Int[Tensor, " pos"] | Sequence[int]) -> str:
    """Decode one row, special tokens included.

    Raises:
        TokenizerError: There is no tokenizer.
    """
    tokenizer = tokenizer_of(spec)
    decoded: str = tokenizer.decode(
        _listed(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
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
    """
    policy = spec.bos if bos is None else bos
    ids = _ids(spec, text, policy) if isinstance(text, str) else _listed(text)
    return tuple(to_string(spec, [one]) for one in ids)


def to_single_token(spec: ModelSpec, text: str) -> int:
    """Find the id of a text that is one token.

    Args:
        spec: A model with a tokenizer.
        text: The text with its leading space, if it has one: `" Mary"`.

    Raises:
        TokenizerError: There is no tokenizer, or the text is not one token.
    """
    ids = _plain_ids(spec, text)
    if len(ids) != 1:
        pieces = [to_string(spec, [one]) for one in ids]
        raise TokenizerError(
            problem=f"{text!r} is {len(ids)} tokens: {pieces}",
            advice="Expected one; many words are one token only with a leading space",
        )
    return ids[0]


def token_position(
    spec: ModelSpec,
    token: str | int,
    tokens: str | Int[Tensor, " pos"] | Int[Tensor, "1 pos"],
    *,
    which: Literal["first", "last"] = "first",
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
    """
    wanted = to_single_token(spec, token) if isinstance(token, str) else int(token)
    policy = spec.bos if bos is None else bos
    row = (
        _ids(spec, tokens, policy)
        if isinstance(tokens, str)
        else _listed(tokens.reshape(-1))
    )
    places = [at for at, one in enumerate(row) if one == wanted]
    if not places:
        raise TokenizerError(
            problem=f"{token!r} (id {wanted}) is not among these {len(row)} tokens",
            advice="Look at them with `funlens.to_str_tokens(spec, tokens)`",
        )
    return places[0] if which == "first" else places[-1]


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
        InputError: An id is outside the vocabulary.
        UnsupportedConfigError: The model has no unembedding.
    """
    weight = _unembedding(spec)
    ids = _as_ids(spec, tokens).to(weight.device)
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < weight.shape[0]:
        raise InputError(
            problem=f"token ids reach from {int(ids.min())} to {int(ids.max())}",
            expected=f"ids in 0..{weight.shape[0] - 1}",
            advice="Make them with this model's tokenizer",
        )
    return weight[ids]


def tokenize_and_concatenate(
    spec: ModelSpec,
    texts: Corpus,
    *,
    n_ctx: int | None = None,
    bos: BosPolicy | None = None,
    column: str = _TEXT,
) -> Int[Tensor, "batch pos"]:
    """Pack a corpus into rows without padding.

    The texts are joined with the end-of-sequence token between them and cut into
    equal rows; what does not fill a last row is left out.

    Args:
        spec: A model with a tokenizer.
        texts: Strings, a HuggingFace dataset, or the path of a text file, which is
            one text.
        n_ctx: Length of a row, the beginning-of-sequence token included; the model's
            own if left out.
        bos: As in `to_tokens`, for each row: `"tokenizer"` means a
            beginning-of-sequence token where the tokenizer puts one.
        column: Field of a dataset that holds the text.

    Returns:
        Token ids on the CPU, however long the corpus is.

    Raises:
        TokenizerError: There is no tokenizer, or it lacks a token that is needed.
        OptionError: `n_ctx` is unknown or too small, or there is no such column.
        InputError: The corpus does not fill one row.
    """
    policy = spec.bos if bos is None else bos
    front = _front(spec, policy)
    length = _row_length(spec, n_ctx, len(front))
    stream = _stream(spec, texts, column)
    rows: list[Tensor] = []
    while len(row := list(islice(stream, length))) == length:
        rows.append(torch.tensor(front + row))
    if not rows:
        raise InputError(
            problem=f"the corpus does not fill one row of {length + len(front)} tokens",
            expected="a corpus longer than `n_ctx`",
            advice="Pass more text or a smaller `n_ctx`",
        )
    return torch.stack(rows)


def apply_chat_template(
    spec: ModelSpec,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
) -> Int[Tensor, "batch pos"]:
    """Turn a conversation into token ids, with the tokenizer's chat template.

    The template writes the special tokens; no policy about them is applied.

    Args:
        spec: A model whose tokenizer has a chat template.
        messages: Records with `role` and `content`, oldest first.
        add_generation_prompt: Whether the assistant's turn is opened at the end.

    Returns:
        One row of ids on the spec's device.

    Raises:
        TokenizerError: There is no tokenizer, or it has no chat template.
    """
    tokenizer = tokenizer_of(spec)
    if not getattr(tokenizer, "chat_template", None):
        raise TokenizerError(
            problem=f"the tokenizer of {spec.name} has no chat template",
            advice="Use an instruction-tuned model, or write the prompt as plain text",
        )
    written: str = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
    )
    ids = _plain_ids(spec, written)
    return torch.tensor([ids], dtype=torch.long, device=spec.device)


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


def tokenizer_of(spec: ModelSpec) -> Any:
    """Give the spec's tokenizer.

    Raises:
        TokenizerError: It has none.
    """
    if spec.tokenizer is None:
        raise TokenizerError(
            problem=f"{spec.name} has no tokenizer, so text cannot be used",
            advice="Pass token ids, or give `load` or `from_module` a tokenizer",
        )
    return spec.tokenizer


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


def _padded(
    spec: ModelSpec, rows: Sequence[list[int]], side: PaddingSide
) -> list[list[int]]:
    width = max(len(row) for row in rows)
    if all(len(row) == width for row in rows):
        return list(rows)
    pad = _pad_id(tokenizer_of(spec))
    if pad is None:
        raise TokenizerError(
            problem="the texts differ in length, and the tokenizer has neither a pad "
            "token nor an end-of-sequence token",
            advice="Pass texts of one length, or pad the ids yourself",
        )
    fills = [[pad] * (width - len(row)) for row in rows]
    pairs = zip(rows, fills, strict=True)
    if side == "left":
        return [fill + row for row, fill in pairs]
    return [row + fill for row, fill in pairs]


def _ids(spec: ModelSpec, text: str, policy: BosPolicy) -> list[int]:
    """Tokenize one text under a policy."""
    tokenizer = tokenizer_of(spec)
    ids: list[int] = list(tokenizer(text, verbose=False)["input_ids"])
    if policy == "tokenizer":
        return ids
    bos: int | None = tokenizer.bos_token_id
    rest = ids if bos is None else list(dropwhile(bos.__eq__, ids))
    if policy == "never":
        return rest
    if bos is None:
        raise TokenizerError(
            problem="the tokenizer has no beginning-of-sequence token",
            advice='Use `bos="tokenizer"` or `bos="never"`',
        )
    return [bos, *rest]


def _plain_ids(spec: ModelSpec, text: str) -> list[int]:
    """Tokenize without any special token that the text does not spell."""
    tokenizer = tokenizer_of(spec)
    encoded = tokenizer(text, add_special_tokens=False, verbose=False)
    ids: list[int] = list(encoded["input_ids"])
    return ids


def _front(spec: ModelSpec, policy: BosPolicy) -> list[int]:
    """Say what stands before each packed row."""
    first = _ids(spec, "", policy)[:1]
    return first if first == [tokenizer_of(spec).bos_token_id] else []


def _row_length(spec: ModelSpec, n_ctx: int | None, front: int) -> int:
    wanted = spec.n_ctx if n_ctx is None else n_ctx
    if wanted is None:
        problem = "this model has no longest input; give a length"
        raise OptionError(option="n_ctx", problem=problem)
    if wanted <= front:
        problem = f"{wanted} tokens leave no room for text"
        raise OptionError(option="n_ctx", problem=problem)
    return wanted - front


def _stream(spec: ModelSpec, texts: Corpus, column: str) -> Iterator[int]:
    """Yield the corpus's tokens, with an end-of-sequence token between texts."""
    tokenizer = tokenizer_of(spec)
    eos: int | None = tokenizer.eos_token_id
    separator: list[int] = []
    for group in partition_all(_GROUP, _texts(texts, column)):
        encoded = tokenizer(list(group), add_special_tokens=False, verbose=False)
        for ids in encoded["input_ids"]:
            yield from separator
            yield from ids
            separator = [] if eos is None else [eos]


def _texts(texts: Corpus, column: str) -> Iterator[str]:
    if isinstance(texts, str):
        raise InputError(
            problem="a single string was given as a corpus",
            expected="several strings, a dataset, or a `pathlib.Path`",
            advice="Wrap it: `[text]` for text, `Path(text)` for a file",
        )
    if isinstance(texts, Path):
        yield texts.read_text(encoding="utf-8")
        return
    for row in texts:
        yield row if isinstance(row, str) else _field(row, column)


def _field(row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        problem = f"the dataset has no {column!r}"
        raise OptionError(option="column", problem=problem, near=tuple(row))
    return str(row[column])


def _listed(tokens: Tensor | Sequence[int]) -> list[int]:
    if isinstance(tokens, Tensor):
        return cast("list[int]", tokens.tolist())
    return list(tokens)


def _as_ids(spec: ModelSpec, tokens: str | int | Tensor) -> Tensor:
    if isinstance(tokens, Tensor):
        return tokens
    one = to_single_token(spec, tokens) if isinstance(tokens, str) else int(tokens)
    return torch.tensor(one)


def _unembedding(spec: ModelSpec) -> Tensor:
    path: str = spec.engine.unembed
    found = find(spec.module, path) if path else None
    weight = getattr(found, "weight", None)
    if not isinstance(weight, Tensor):
        raise UnsupportedConfigError(
            spec.model_type,
            "it has no unembedding",
            "Use a model with a language head.",
        )
    return weight
