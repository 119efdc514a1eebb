"""The tokenizer: the repository's own, or another."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from funlens.adapters._load_errors import called
from funlens.adapters._load_request import Request

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
    """Load the tokenizer, if the repository has one."""
    from transformers import AutoTokenizer

    if asked is not None and not isinstance(asked, str | Path):
        return asked
    if asked is None and not _has_tokenizer(request):
        return None
    words = (
        request.code if asked is None else {"trust_remote_code": request.trusts_code}
    )
    source = request.source if asked is None else str(asked)
    auto: Any = AutoTokenizer
    return called(request, partial(auto.from_pretrained, source, **words))


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
