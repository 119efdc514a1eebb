"""One recipe: which tiny HuggingFace model to build, as data."""

from collections.abc import Mapping
from typing import Literal

import attrs

from funlens.testing._recipes_drawing import Drawing

Task = Literal[
    "causal-lm",
    "masked-lm",
    "seq2seq-lm",
    "base",
    "token-classification",
    "sequence-classification",
    "image-text",
    "speech",
    "ctc",
    "image-classifier",
    "audio-classifier",
]


def _sorted_pairs(overrides: Mapping[str, object]) -> tuple[tuple[str, object], ...]:
    """Order overrides by name."""
    return tuple(sorted(overrides.items()))


@attrs.frozen(kw_only=True)
class Recipe:
    """What to build for one architecture, or for one variant of it.

    Args:
        name: The model type, with `-variant` behind it where there are several.
        model_type: The `model_type` of the HuggingFace configuration.
        task: Which head the model has.
        config: Settings on top of the shared tiny ones, sorted by name. A dotted name
            reaches into a nested setting; tuples become lists.
        config_type: The `model_type` of the configuration it is built from, where that
            is a part of the family's whole one.
        extra: Keyword arguments of the forward that are more than plain token ids.
        note: Anything surprising about it.
        inputs: How to draw each keyword argument of the forward; empty where token
            ids are enough.
    """

    name: str
    model_type: str
    task: Task = "causal-lm"
    config: tuple[tuple[str, object], ...] = ()
    config_type: str = ""
    extra: tuple[str, ...] = ()
    note: str = ""
    inputs: tuple[tuple[str, Drawing], ...] = ()


def recipe(
    model_type: str,
    *,
    variant: str = "",
    task: Task = "causal-lm",
    config_type: str = "",
    extra: tuple[str, ...] = (),
    note: str = "",
    inputs: Mapping[str, Drawing] | None = None,
    nested: Mapping[str, object] | None = None,
    **config: object,
) -> Recipe:
    """Write one row of the table.

    Args:
        model_type: The `model_type` of the HuggingFace configuration.
        variant: What to append to the name; empty for the family's usual form.
        task: Which head the model has.
        config_type: As in `Recipe`.
        extra: As in `Recipe`.
        note: Anything surprising about it.
        inputs: How to draw each keyword argument, in this order; only token ids if
            left out.
        nested: Overrides whose dotted names are no Python identifiers.
        **config: Overrides of plain settings.

    Returns:
        The recipe.
    """
    return Recipe(
        name=f"{model_type}-{variant}" if variant else model_type,
        model_type=model_type,
        task=task,
        config=_sorted_pairs({**config, **(nested or {})}),
        config_type=config_type,
        extra=extra,
        note=note,
        inputs=tuple((inputs or {}).items()),
    )
