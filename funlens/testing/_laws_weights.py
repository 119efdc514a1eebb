"""The law of weights: what processing moves."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from funlens.data import ModelSpec
from funlens.engine import (
    KEPT,
    center_unembed,
    center_writing_weights,
    fold_layer_norm,
    fold_value_biases,
    refactor_factored_attention,
    run,
)
from funlens.errors import SpecError, UnsupportedConfigError
from funlens.testing._subject import LawResult, Subject, worst

PROCESSINGS: Final[Mapping[str, Callable[..., ModelSpec]]] = {
    "fold_layer_norm": fold_layer_norm,
    "center_writing_weights": center_writing_weights,
    "center_unembed": center_unembed,
    "fold_value_biases": fold_value_biases,
    "refactor_factored_attention": refactor_factored_attention,
}


@torch.no_grad()
def processing(subject: Subject) -> LawResult:
    law = "weight processing keeps log-probabilities, and the spec as it was"
    found, refused = processing_moves(subject.spec, subject.inputs)
    result = worst(law, found, KEPT[subject.spec.dtype])
    return attrs.evolve(result, note="; ".join(filter(None, (result.note, *refused))))


def processing_moves(
    spec: ModelSpec, inputs: Mapping[str, Any]
) -> tuple[Mapping[str, float], tuple[str, ...]]:
    """Process a model's weights in every way that it can have.

    Args:
        spec: The model.
        inputs: What to compare log-probabilities on.

    Returns:
        By how much each processing moved them, relative to the largest where that is
        above 1, and whether the spec changed; and the reason of each that was refused.
    """
    module = spec.module
    before = [(id(held), held._version) for held in module.parameters()]  # noqa: SLF001 -- torch has no public name for it
    logits = run(spec, inputs)
    expected = _log_probs(logits)
    size = max(1.0, float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max()))
    found: dict[str, float] = {}
    refused: list[str] = []
    for name, process in PROCESSINGS.items():
        try:
            processed = process(spec, inputs=inputs)
        except SpecError as error:
            short = isinstance(error, UnsupportedConfigError)
            refused.append(f"{name}: {error.problem if short else error}")
            continue
        found[name] = _largest(expected, _log_probs(run(processed, inputs))) / size
    after = [(id(held), held._version) for held in module.parameters()]  # noqa: SLF001 -- as above
    same = before == after and torch.equal(logits, run(spec, inputs))
    return {**found, "the spec": 0.0 if same else 1.0}, tuple(refused)


def _log_probs(logits: Tensor) -> Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(wide).log_softmax(-1)


def _largest(expected: Tensor, found: Tensor) -> float:
    """Give the largest difference; infinite where one of them is no number."""
    moved = torch.where(expected == found, 0.0, (expected - found).abs())
    return float(moved.nan_to_num(torch.inf).max())
