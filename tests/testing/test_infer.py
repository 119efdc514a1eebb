"""Models that no table is about."""

from typing import Final

import pytest

import funlens as fl
from funlens.testing import _infer, tiny_hf_model, tiny_inputs

QUICK: Final = ("llama",)
# Their tables are hidden; what is told apart from the table is said behind.
HIDDEN: Final = (
    *QUICK,
    "bert",
    "gpt2",
    "bamba",
    "biogpt",
    "cohere",
    "gemma2",
    "gpt_neox",
    "gpt_oss",
    "gptj",
    "granite",
    "mamba",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3_moe",
    "smollm3",
    "stablelm",
    "starcoder2",
)


def inferred(name: str, monkeypatch: pytest.MonkeyPatch) -> fl.ModelSpec:
    """Infer a tiny model while the tables that are about it alone are hidden."""
    module = tiny_hf_model(name)
    own = module.config.model_type
    left = tuple(t for t in _infer.ARCHITECTURES if t.model_types != (own,))
    monkeypatch.setattr(_infer, "ARCHITECTURES", left)
    return fl.infer(module, inputs=tiny_inputs(name))


def places(spec: fl.ModelSpec) -> set[tuple[str, str, str]]:
    """Where each site is met."""
    taps = spec.engine.taps.values()
    return {(str(tap.site), tap.path, tap.side) for tap in taps}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.architectures)
        for name in HIDDEN
    ],
)
def test_hidden_family_is_found_again(
    name: str, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    """The sites are those of the table, at the same modules."""
    expected = fl.from_module(tiny_hf_model(name))
    found = inferred(name, monkeypatch)
    assert found.inferred
    assert places(expected) == places(found)
    assert expected.is_causal == found.is_causal


def test_told_sites_are_not_called_inferred() -> None:
    """A table's spec says so."""
    assert not fl.from_module(tiny_hf_model("llama")).inferred


def test_what_cannot_be_told_is_said() -> None:
    """A model without a list of blocks is refused with what was missing."""
    module = tiny_hf_model("xlm")
    with pytest.raises(fl.errors.NotInferredError, match="no list of blocks") as caught:
        fl.infer(module, inputs=tiny_inputs("xlm"))
    assert "xlm" == caught.value.model_type
