"""The tokenizer: the repository's own, or another."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from funlens.adapters._load_errors import called
from funlens.adapters._load_request import Request, elsewhere

_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)


def tokenizer_for(asked: Any, request: Request) -> Any:
    """Load the tokenizer that was asked for, or the repository's if it has one."""
    from transformers import AutoTokenizer

    if asked is None:
        if not _has_tokenizer(request):
            return None
    elif isinstance(asked, str | Path):
        request = elsewhere(request, str(asked))
    else:
        return asked
    auto: Any = AutoTokenizer
    return called(
        request, partial(auto.from_pretrained, request.source, **request.code)
    )


def _has_tokenizer(request: Request) -> bool:
    from transformers.utils import hub

    find = cast("Callable[..., str | None]", hub.cached_file)
    return any(
        called(
            request,
            partial(
                find,
                request.source,
                file,
                _raise_exceptions_for_missing_entries=False,
                **request.hub,
            ),
        )
        for file in _TOKENIZER_FILES
    )
