"""The law of weights measures what it says, and finds out what breaks it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import funlens as fl
from funlens.adapters import weights_of
from funlens.testing import _laws_weights, tiny_hf_model, tiny_inputs

NAME = "t5"


def harmless(spec: fl.ModelSpec, *, inputs: Any) -> fl.ModelSpec:
    """Process nothing."""
    return spec


def louder(spec: fl.ModelSpec, *, inputs: Any) -> fl.ModelSpec:
    """Double the unembedding, and the embedding that is tied to it."""
    weight = weights_of(spec.module)["lm_head.weight"].detach()
    return fl.with_weights(spec, {"lm_head.weight": 2 * weight})


def broken(spec: fl.ModelSpec, *, inputs: Any) -> fl.ModelSpec:
    """Give a model whose logits are no numbers."""
    weight = weights_of(spec.module)["lm_head.weight"].detach()
    return fl.with_weights(spec, {"lm_head.weight": weight * torch.nan})


def careless(spec: fl.ModelSpec, *, inputs: Any) -> fl.ModelSpec:
    """Write into the owner's weights."""
    with torch.no_grad():
        weights_of(spec.module)["lm_head.weight"].mul_(1.5)
    return spec


def unwilling(spec: fl.ModelSpec, *, inputs: Any) -> fl.ModelSpec:
    """Refuse."""
    raise fl.errors.UnsupportedConfigError("t5", "it is a Tuesday")


def row_of(
    process: Callable[..., fl.ModelSpec], patch: pytest.MonkeyPatch
) -> tuple[dict[str, float], tuple[str, ...]]:
    """What the law says of one processing."""
    patch.setattr(_laws_weights, "PROCESSINGS", {"it": process})
    spec = fl.from_module(tiny_hf_model(NAME))
    found, refused = _laws_weights.processing_moves(spec, tiny_inputs(NAME))
    return dict(found), refused


def test_a_processing_that_keeps_all_moves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both differences are 0, and nothing was refused."""
    assert ({"it": 0.0, "the spec": 0.0}, ()) == row_of(harmless, monkeypatch)


def test_a_processing_that_moves_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights, or none that are numbers."""
    assert row_of(louder, monkeypatch)[0]["it"] > 0.1
    assert float("inf") == row_of(broken, monkeypatch)[0]["it"]


def test_a_processing_that_writes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The spec must be as it was."""
    assert 1.0 == row_of(careless, monkeypatch)[0]["the spec"]


def test_a_refusal_stands_in_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no failure."""
    found, refused = row_of(unwilling, monkeypatch)
    assert {"the spec": 0.0} == found
    assert ("it: it is a Tuesday",) == refused


@pytest.mark.usefixtures("unchecked")
def test_certificates_have_a_row_for_it() -> None:
    """It holds, and says what the family cannot have."""
    spec = fl.from_module(tiny_hf_model("bert"))
    rows = fl.verify(spec, tiny_inputs("bert")).rows
    (row,) = [row for row in rows if "weight processing" in row.law]
    assert row.holds
    assert row.applies
    assert "fold_layer_norm: its norms stand on the stream itself" in row.note
    assert "center_unembed" not in row.note
