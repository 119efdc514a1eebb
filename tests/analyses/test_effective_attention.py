"""What recurrences read, rebuilt from their weights on values."""

import pytest
import torch

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

RECURRENT = (
    "bailing_hybrid",
    "bamba",
    "falcon_h1",
    "falcon_mamba",
    "granitemoehybrid",
    "jamba",
    "kimi_linear",
    "mamba",
    "mamba2",
    "nemotron_h",
    "olmo_hybrid",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
    "qwen4_exp_text",
    "zamba2",
)


@pytest.mark.parametrize("name", RECURRENT)
def test_weights_on_values_rebuild_what_is_read(name: str) -> None:
    """On every family `ssm_y` is the weights times `ssm_v`, in every layer that recurs."""
    spec = fl.from_module(tiny_hf_model(name))
    cache = fl.run_with_cache(spec, tiny_inputs(name)).cache
    layers = [site.layer for site in cache if site.part == "ssm_y"]
    assert layers
    for layer in layers:
        assert layer is not None
        weights = fl.effective_attention(spec, cache, layer)
        read = torch.einsum("bhqk,bkhd->bqhd", weights, cache[fl.ssm_v(layer)].float())
        expected = cache[fl.ssm_y(layer)].float()
        size = expected.abs().max()
        assert float(size) > 0
        assert float((expected - read).abs().max()) < 1e-4 * float(size)
        assert torch.equal(weights, weights.tril())
