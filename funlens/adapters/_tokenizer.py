"""The tokenizer of a spec. It belongs to its owner: nothing is set on it."""

from itertools import dropwhile
from typing import Any, Final, get_args

from funlens.data import BosPolicy, ModelSpec
from funlens.errors import InputError, OptionError, TokenizerError, nearest

_POLICIES: Final[tuple[str, ...]] = get_args(BosPolicy)


def tokenizer_in(given: Any) -> Any:
    """Take the tokenizer out of what a caller gave: it, a processor, or nothing.

    Raises:
        InputError: It is none of them.
    """
    found = getattr(given, "tokenizer", given)
    if given is None or (callable(found) and hasattr(found, "decode")):
        return found
    if hasattr(given, "model_input_names"):  # an image processor, which knows no text
        return None
    raise InputError(
        f"{given!r} is no tokenizer",
        "a HuggingFace tokenizer or processor",
        "Load one with `AutoTokenizer.from_pretrained`, or give `funlens.load` a name",
    )


def check_bos(policy: BosPolicy) -> None:
    """Refuse a word that is no policy.

    Raises:
        OptionError: It is none.
    """
    if policy not in _POLICIES:
        problem = f"{policy!r} is no policy"
        raise OptionError("bos", problem, nearest(str(policy), _POLICIES))


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


def ids_of(spec: ModelSpec, text: str, policy: BosPolicy) -> list[int]:
    """Tokenize one text under a policy."""
    check_bos(policy)
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


def plain_ids(spec: ModelSpec, text: str) -> list[int]:
    """Tokenize without any special token that the text does not spell."""
    tokenizer = tokenizer_of(spec)
    encoded = tokenizer(text, add_special_tokens=False, verbose=False)
    ids: list[int] = list(encoded["input_ids"])
    return ids
