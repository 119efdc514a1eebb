"""The tokenizer of a spec. It belongs to its owner: nothing is set on it."""

from itertools import dropwhile
from typing import Any

from funlens.data import BosPolicy, ModelSpec
from funlens.errors import TokenizerError


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
