"""What a model gives: which field of its output it is, and what its head makes."""

import re
from typing import Any, Final, Literal, TypeAlias

from torch import Tensor, nn

Head: TypeAlias = Literal["words", "tokens", "sequences", "none"]
"""Logits of words, of labels for each token, of labels for each row, or no logits."""

_FIELDS: Final = ("logits", "last_hidden_state")
_OF_TOKENS: Final = ("TokenClassification", "FrameClassification")
_HAS_HEAD: Final = re.compile(r"For[A-Z]")


def head_of(module: Any, *, unembed: str) -> Head:
    """Tell what a model's head makes.

    Args:
        module: The model.
        unembed: Path of what maps its stream to logits of words; empty without one.
    """
    name = type(module).__name__
    if name.endswith(_OF_TOKENS):
        return "tokens"
    if name.endswith("Classification"):
        return "sequences"
    is_body = module.base_model is module or name.endswith("Model")
    is_body = is_body and not _HAS_HEAD.search(name)
    return "words" if unembed or not is_body else "none"


def output_of(raw: Any, index: int = 0) -> Tensor:
    """Give the tensor that a module's output is about.

    Args:
        raw: What its forward returned.
        index: Which of several, where they have no names.
    """
    return raw if isinstance(raw, Tensor) else raw[_place(raw, index)]


def with_output(raw: Any, new: Tensor, index: int = 0) -> Any:
    """Put another tensor in that place, without touching what it came in."""
    if isinstance(raw, Tensor):
        return new
    place = _place(raw, index)
    if isinstance(place, str):
        return type(raw)(**{**raw, place: new})
    return type(raw)([*raw[:place], new, *raw[place + 1 :]])


def _place(raw: Any, index: int) -> int | str:
    """Find the name of an output's tensor, or its place in a tuple."""
    if isinstance(raw, tuple | list):
        return index
    return next((name for name in _FIELDS if name in raw), next(iter(raw)))


def labels_of(module: nn.Module) -> int:
    """Give how many labels a classifier knows."""
    config: Any = module.config
    return int(getattr(config, "num_labels", 0))
