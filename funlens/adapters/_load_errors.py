"""HuggingFace's errors in our words."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, TypeVar

from funlens.adapters._load_request import Request
from funlens.adapters._retry import (
    RETRY_VARIABLE,
    answer_with,
    causes,
    is_rate_limited,
    retrying,
)
from funlens.errors import FunlensError, GatedModelError, LoadError

_UNAUTHORIZED: Final = 401

Result = TypeVar("Result")


def called(request: Request, function: Callable[[], Result]) -> Result:
    """Call transformers: again after HTTP 429, and with its errors made ours."""
    with translated(request):
        return retrying(function)


@contextmanager
def translated(request: Request) -> Generator[None]:
    """Raise our errors in place of HuggingFace's."""
    try:
        yield
    except FunlensError:
        raise
    except Exception as error:
        raise _load_error(request, error) from error


def _load_error(request: Request, error: Exception) -> LoadError:
    """Say in our words what went wrong."""
    name = request.name
    if _is_a(error, "GatedRepoError"):
        return GatedModelError(
            name,
            "its authors ask for an agreement first",
            f"Agree at https://huggingface.co/{request.source}, and set HF_TOKEN to a "
            "token of the account that agreed",
        )
    if is_rate_limited(error):
        advice = f"Wait, set {RETRY_VARIABLE}=1 to retry, or set HF_TOKEN"
        return LoadError(name, "the hub was asked too often (HTTP 429)", advice)
    for kind, problem, advice in _REASONS:
        if _is_a(error, kind):
            return LoadError(name, problem, advice)
    if answer_with(_UNAUTHORIZED, error) is not None:
        advice = "Check HF_TOKEN or `token=`; a public model needs none"
        return LoadError(name, "the hub does not know this token (HTTP 401)", advice)
    for words, problem, advice in _SAYINGS:
        if words in str(error):
            return LoadError(name, problem, advice)
    first = str(error).strip().partition("\n")[0].rstrip(". ")
    return LoadError(
        name,
        f"{type(error).__name__}: {first}",
        "The error above this one, from transformers, tells more",
    )


def _is_a(error: BaseException, kind: str) -> bool:
    """Tell whether an error, or what caused it, is of a class with this name."""
    return any(
        kind in {base.__name__ for base in type(cause).__mro__}
        for cause in causes(error)
    )


_REASONS: Final = (
    (
        "RevisionNotFoundError",
        "the repository has no such revision",
        "Look at its branches and tags on the model page",
    ),
    (
        "RepositoryNotFoundError",
        "the hub has no such repository, or it is private",
        "Check the spelling, or set HF_TOKEN for a private one",
    ),
    (
        "LocalEntryNotFoundError",
        "it is not in the local cache, and the hub cannot be reached",
        "Check the name and the connection, or give a local folder",
    ),
    (
        "OfflineModeIsEnabled",
        "HF_HUB_OFFLINE is set, and it is not in the local cache",
        "Unset HF_HUB_OFFLINE, or give a local folder",
    ),
    (
        "ConnectError",
        "the hub cannot be reached",
        "Check the connection, or give a local folder",
    ),
    (
        "FileNotFoundError",
        "one of its files is missing",
        "Copy or download all of them again",
    ),
    (
        "SafetensorError",
        "its weights file is damaged or truncated",
        "Copy or download it again (`force_download=True`)",
    ),
    (
        "JSONDecodeError",
        "one of its JSON files is not valid JSON",
        "Copy or download it again (`force_download=True`)",
    ),
    (
        "StrictDataclassError",
        "its config.json has a field of a wrong type or value",
        "Correct the config; the error above this one names the field",
    ),
    (
        "HFValidationError",
        "it is neither a folder nor a hub id",
        "Write a hub id such as `openai-community/gpt2`",
    ),
)
"""Names of others' error classes, with what to say; the first that fits counts."""


_SAYINGS: Final = (
    (
        "model.safetensors",
        "it holds no safetensors weights, and nothing is loaded by pickle",
        "Convert it with `save_pretrained`, or use `load_weights=False`",
    ),
    (
        "ignore_mismatched_sizes",
        "weights in the checkpoint have other shapes than the config says",
        "Use the config that belongs to the checkpoint",
    ),
    (
        "trust_remote_code",
        "it wants to run code from its repository",
        "Read that code, and pass `trust_remote_code=True` if you trust it",
    ),
    (
        "not a valid JSON file",
        "its config.json is not valid JSON",
        "Copy or download it again",
    ),
    (
        "backend tokenizer",
        "its tokenizer cannot be built",
        "Install sentencepiece or tiktoken, or pass `tokenizer=`",
    ),
)
"""Words in others' messages, where a class does not tell."""
