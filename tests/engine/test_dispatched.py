"""Modules that accelerate has dispatched."""

import torch
from accelerate import dispatch_model

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs


def test_every_law_holds_on_a_dispatched_module(unchecked: None) -> None:
    """With accelerate's hooks on each module, the laws hold, and the owner's runs."""
    inputs, untouched = tiny_inputs("llama"), tiny_hf_model("llama")
    module = dispatch_model(
        tiny_hf_model("llama"), device_map={"": "cpu"}, force_hooks=True
    )
    certificate = fl.verify(fl.from_module(module), inputs, untouched=untouched)
    assert [] == [row for row in certificate.rows if not row.holds]
    with torch.no_grad():
        expected, found = untouched(**inputs).logits, module(**inputs).logits
    assert torch.equal(expected, found)
