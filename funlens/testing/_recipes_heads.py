"""Models with another head or none, derived from the recipes of language models."""

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from funlens.testing._recipes_record import Recipe, Task

_LABELS: Final = (("num_labels", 3),)

# What a head needs besides what its recipe says.
_SETTINGS: Final[Mapping[Task, tuple[tuple[str, object], ...]]] = {
    "base": (),
    "token-classification": _LABELS,
    "sequence-classification": _LABELS,
}

_MAPPINGS: Final[Mapping[Task, str]] = {
    "base": "MODEL_MAPPING_NAMES",
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}

# What token ids alone do not run, and why.
LEFT_OUT: Final[Mapping[tuple[str, Task], str]] = {
    ("perceiver", "base"): "reads embedded bytes, not token ids",
    ("whisper", "base"): "hears: its encoder reads sound",
}


def variants_of(found: Recipe) -> tuple[Recipe, ...]:
    """Derive the recipes of a model without a head, and with a classifier's.

    Args:
        found: The recipe of a language model.

    Returns:
        One recipe for each of "base", "token-classification" and
        "sequence-classification" that transformers has for its type of model.

    Examples:
        >>> from funlens.testing import FOUNDATION, variants_of
        >>> [row.name for row in variants_of(FOUNDATION[0])]
        ['gpt2-base', 'gpt2-token-classification', 'gpt2-sequence-classification']
    """
    from transformers.models.auto import modeling_auto  # here: as in `config_of`

    return tuple(
        attrs.evolve(
            found,
            name=f"{found.name}-{task}",
            task=task,
            config=tuple(sorted(found.config + _SETTINGS[task])),
        )
        for task, names in _MAPPINGS.items()
        if found.model_type in getattr(modeling_auto, names)
        and (found.model_type, task) not in LEFT_OUT
    )


def heads_of(rows: Iterable[Recipe]) -> tuple[Recipe, ...]:
    """Derive the recipes of all rows, one kind of row for each type of model.

    A base model is the whole encoder-decoder where there is one, and sees both ways
    where a masked model does, whichever row it comes from.
    """
    table = tuple(rows)
    fullest = {
        row.model_type: row.task
        for task in ("causal-lm", "masked-lm", "seq2seq-lm")
        for row in table
        if row.task == task
    }
    return tuple(
        variant
        for row in table
        if fullest.get(row.model_type) == row.task
        for variant in variants_of(row)
    )
