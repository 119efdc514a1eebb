"""What recurrences read, rebuilt from their weights on values."""

import pytest
import torch

import funlens as fl
from funlens.errors import SiteNotCachedError, SiteNotFoundError
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
    "minimax",
    "nemotron_h",
    "olmo_hybrid",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
    "qwen4_exp_text",
    "recurrent_gemma",
    "rwkv",
    "xlstm",
    "zamba2",
)


@pytest.mark.parametrize("name", RECURRENT)
def test_weights_on_values_rebuild_what_is_read(name: str) -> None:
    """On every family, in every layer, `ssm_y` is the weights times `ssm_v`."""
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


def test_a_layer_that_attends_has_none() -> None:
    """The error names the nearest layers that recur."""
    spec = fl.from_module(tiny_hf_model("jamba"))
    cache = fl.run_with_cache(spec, tiny_inputs("jamba")).cache
    with pytest.raises(SiteNotFoundError, match=r"ssm_v\.0"):
        fl.effective_attention(spec, cache, 1)


def test_what_makes_the_weights_must_be_kept() -> None:
    """A cache without the decay says so."""
    spec = fl.from_module(tiny_hf_model("mamba2"))
    inputs = tiny_inputs("mamba2")
    cache = fl.run_with_cache(spec, inputs, capture=[fl.ssm_q, fl.ssm_decay]).cache
    with pytest.raises(SiteNotCachedError, match=r"ssm_k\.0"):
        fl.effective_attention(spec, cache, 0)


def test_short_convolutions_have_no_values() -> None:
    """Of a mixer that only convolves, nothing is read."""
    spec = fl.from_module(tiny_hf_model("lfm2"))
    cache = fl.run_with_cache(spec, tiny_inputs("lfm2")).cache
    with pytest.raises(SiteNotFoundError):
        fl.effective_attention(spec, cache, 0)
