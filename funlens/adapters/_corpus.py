"""Corpora: packed into rows without padding."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import torch
from jaxtyping import Int
from toolz import partition_all
from torch import Tensor

from funlens.adapters._tokenizer import ids_of, tokenizer_of
from funlens.data import BosPolicy, ModelSpec
from funlens.errors import InputError, OptionError

Corpus: TypeAlias = Iterable[str] | Iterable[Mapping[str, Any]] | Path
_TEXT: Final = "text"
_GROUP: Final = 256  # texts that the tokenizer gets at once


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
        InputError: The corpus does not fill one row, is no corpus, or holds something
            else than text.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> fl.tokenize_and_concatenate(spec, ["Mary gave", "John"] * 9, n_ctx=8).shape
        torch.Size([6, 8])
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


def _front(spec: ModelSpec, policy: BosPolicy) -> list[int]:
    """Say what stands before each packed row."""
    first = ids_of(spec, "", policy)[:1]
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
    """Go through the texts of a corpus of any kind."""
    if isinstance(texts, str):
        raise InputError(
            problem="a single string was given as a corpus",
            expected="several strings, a dataset, or a `pathlib.Path`",
            advice="Wrap it: `[text]` for text, `Path(text)` for a file",
        )
    if isinstance(texts, Mapping):
        splits = ", ".join(str(name) for name in cast("Mapping[str, Any]", texts))
        raise InputError(
            problem=f"a mapping of {splits} was given as a corpus",
            expected="one dataset",
            advice="Choose a split, such as `dataset['train']`",
        )
    if isinstance(texts, Path):
        yield _file_text(texts)
        return
    for at, row in enumerate(texts):
        text: Any = _field(row, column) if isinstance(row, Mapping) else row
        if not isinstance(text, str):
            raise InputError(
                problem=f"text {at} of the corpus is a {type(text).__name__}",
                expected="a string",
                advice="Filter the corpus, or name the field with `column=`",
            )
        yield text


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            problem=f"{path} cannot be read: {error}",
            expected="a text file in UTF-8",
            advice="Check the path, or pass the strings themselves",
        ) from error


def _field(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        problem = f"the dataset has no {column!r}"
        raise OptionError(option="column", problem=problem, near=tuple(row))
    return row[column]
