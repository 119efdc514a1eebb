"""QK and OV are what heads do to the stream."""

from typing import Any, Final

import pytest
import torch

import funlens as fl
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

CLOSE: Final = 1e-4  # float32, sums of 16 to 64 terms of size 1
NAMES: Final = [recipe.name for recipe in FOUNDATION if recipe.name != "mamba"]


@pytest.mark.parametrize("name", NAMES)
def test_qk_gives_the_products_of_queries_and_keys(name: str) -> None:
    """The input of attention on both sides of QK is q times k, without biases."""
    spec = fl.from_module(tiny_hf_model(name))
    capture = [fl.attn_in(1), fl.q(1), fl.k(1)]
    cache = fl.run_with_cache(spec, tiny_inputs(name), capture=capture).cache
    entered, queries, keys = (cache[site] for site in capture)
    queries, keys = queries - fl.b_Q(spec, 1), keys - fl.b_K(spec, 1)
    keys = keys.repeat_interleave(spec.n_heads // spec.n_kv_heads, dim=2)
    expected = torch.einsum("bqhd,bkhd->bhqk", queries, keys)
    circuit = fl.QK(spec, 1)
    assert (spec.n_heads, spec.d_model, spec.d_model) == circuit.shape
    found = torch.einsum("bqm,hmn,bkn->bhqk", entered, circuit.AB, entered)
    torch.testing.assert_close(found, expected, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_ov_gives_what_each_value_adds(name: str) -> None:
    """The input of attention times OV is v, without bias, times `W_O`."""
    spec = fl.from_module(tiny_hf_model(name))
    capture = [fl.attn_in(1), fl.v(1)]
    cache = fl.run_with_cache(spec, tiny_inputs(name), capture=capture).cache
    values = cache[fl.v(1)] - fl.b_V(spec, 1)
    values = values.repeat_interleave(spec.n_heads // spec.n_kv_heads, dim=2)
    expected = torch.einsum("bphd,hdm->bphm", values, fl.W_O(spec, 1))
    found = torch.einsum("bpm,hmn->bphn", cache[fl.attn_in(1)], fl.OV(spec, 1).AB)
    torch.testing.assert_close(found, expected, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("circuit", [fl.QK, fl.OV])
def test_all_layers_are_the_layers_stacked(circuit: Any) -> None:
    """Without `layer` a new first axis holds them in order."""
    spec = fl.from_module(tiny_hf_model("llama"))
    whole = circuit(spec)
    assert (2, 4, 16, 16) == whole.shape
    assert 4 == whole.A.shape[-1]
    for layer in range(2):
        assert torch.equal(circuit(spec, layer).AB, whole[layer].AB)


def test_an_encoder_has_circuits_of_its_own() -> None:
    """`stack` chooses."""
    spec = fl.from_module(tiny_hf_model("t5"))
    encoder = fl.QK(spec, stack="encoder")
    assert 2 == encoder.shape[0]
    assert not torch.equal(encoder[0].A, fl.QK(spec, 0).A)


def test_a_model_without_attention_has_none() -> None:
    """The error says what is missing."""
    spec = fl.from_module(tiny_hf_model("mamba"))
    with pytest.raises(fl.errors.UnsupportedConfigError, match="no q"):
        fl.QK(spec)
