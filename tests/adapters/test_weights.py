"""Weights do what the model does with them, on every architecture."""

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

NAMES = [recipe.name for recipe in FOUNDATION if recipe.name != "mamba"]
SPARSE = {"mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"}
CLOSE = 1e-4  # float32, sums of 16 to 64 terms of size 1


def close(expected: Tensor, found: Tensor) -> bool:
    """Compare within float32's error."""
    return torch.allclose(expected, found, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_heads_weights_make_queries_keys_and_values(name: str) -> None:
    """The attention's input times `W_Q` plus `b_Q` is `q`; so for keys and values."""
    spec = fl.from_module(tiny_hf_model(name))
    _, cache = fl.run_with_cache(
        spec, tiny_inputs(name), capture=[fl.attn_in, fl.q, fl.k, fl.v]
    )
    triples = (
        (fl.q, fl.W_Q(spec), fl.b_Q(spec)),
        (fl.k, fl.W_K(spec), fl.b_K(spec)),
        (fl.v, fl.W_V(spec), fl.b_V(spec)),
    )
    for part, weight, bias in triples:
        for layer in range(spec.n_layers):
            made = torch.einsum(
                "bpm,hmd->bphd", cache[fl.attn_in(layer)], weight[layer]
            )
            assert close(cache[part(layer)], made + bias[layer]), (part, layer)


@pytest.mark.parametrize("name", NAMES)
def test_output_weights_make_what_attention_projects(name: str) -> None:
    """Each head's `z` times `W_O`, summed, plus `b_O`, is `attn_proj`."""
    spec = fl.from_module(tiny_hf_model(name))
    _, cache = fl.run_with_cache(spec, tiny_inputs(name), capture=[fl.z, fl.attn_proj])
    for layer in range(spec.n_layers):
        made = torch.einsum("bphd,hdm->bpm", cache[fl.z(layer)], fl.W_O(spec)[layer])
        assert close(cache[fl.attn_proj(layer)], made + fl.b_O(spec)[layer])


@pytest.mark.parametrize("name", [n for n in NAMES if n not in SPARSE])
def test_mlp_weights_make_what_the_mlp_projects(name: str) -> None:
    """`mlp_in` gives `mlp_pre`, and `mlp_post` gives `mlp_proj`."""
    spec = fl.from_module(tiny_hf_model(name))
    capture = [fl.mlp_in, fl.mlp_pre, fl.mlp_post, fl.mlp_proj]
    _, cache = fl.run_with_cache(spec, tiny_inputs(name), capture=capture)
    for layer in range(spec.n_layers):
        pre = cache[fl.mlp_in(layer)] @ fl.W_in(spec)[layer] + fl.b_in(spec)[layer]
        proj = cache[fl.mlp_post(layer)] @ fl.W_out(spec)[layer] + fl.b_out(spec)[layer]
        assert close(cache[fl.mlp_pre(layer)], pre)
        assert close(cache[fl.mlp_proj(layer)], proj)


def test_embeddings_have_their_shapes() -> None:
    """Embedding, positions and unembedding are the model's own tensors."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    assert (32, 16) == tuple(fl.W_E(spec).shape)
    assert (16, 32) == tuple(fl.W_U(spec).shape)
    assert 16 == fl.W_pos(spec).shape[1]
    assert fl.W_E(spec).data_ptr() == fl.W_U(spec).data_ptr()


def test_a_gate_that_is_not_there_is_refused() -> None:
    """Asking for a weight that the family lacks says so."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    with pytest.raises(fl.errors.UnsupportedConfigError, match="mlp_gate"):
        fl.W_gate(spec)


def test_weights_of_experts_are_refused() -> None:
    """A mixture of experts says that its weights are not given yet."""
    spec = fl.from_module(tiny_hf_model("qwen2_moe"))
    with pytest.raises(fl.errors.UnsupportedConfigError, match="1 of 2 layers"):
        fl.W_in(spec)
