"""Weights do what the model does with them, on every architecture."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from torch import Tensor, nn

import funlens as fl
from funlens.adapters import find
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

NAMES: Final = [recipe.name for recipe in FOUNDATION]
WITH_ATTENTION: Final = [name for name in NAMES if name != "mamba"]
TWO_STACKS: Final = ("t5", "t5-gated")
STACKS: Final = [
    *((name, "") for name in WITH_ATTENTION),
    *((name, "encoder") for name in TWO_STACKS),
]
MIXTURES: Final = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")
POSITIONS: Final = (
    *("gpt2", "gpt_neo", "opt", "opt-post_norm", "bert"),
    *("roberta", "bart", "biogpt"),
)
CLOSE: Final = 1e-4  # float32, sums of 16 to 64 terms of size 1
# Two queries stand before each key and value: they have no common stride.
NO_VIEW_OF_Q: Final = {"falcon"}


def close(expected: Tensor, found: Tensor) -> bool:
    """Compare within float32's error."""
    return torch.allclose(expected, found, atol=CLOSE, rtol=CLOSE)


@cache
def ran(name: str) -> tuple[fl.ModelSpec, fl.ActivationCache]:
    """A tiny model, and a run that kept everything."""
    spec = fl.from_module(tiny_hf_model(name))
    return spec, fl.run_with_cache(spec, tiny_inputs(name)).cache


def at(part: str, layer: int, stack: str = "") -> fl.Site:
    """A site of a stack."""
    return fl.Site(part=part, layer=layer, stack=stack)


def layers(spec: fl.ModelSpec, part: str, stack: str = "") -> list[int]:
    """The layers that have a part."""
    sites = (info.site for info in spec.sites)
    return [s.layer for s in sites if (s.part, s.stack) == (part, stack)]


@pytest.mark.parametrize(("name", "stack"), STACKS)
def test_heads_weights_make_queries_keys_and_values(name: str, stack: str) -> None:
    """The attention's input times `W_Q` plus `b_Q` is `q`; so for keys and values.

    This holds before rotation, norms of heads and clamps: sites lie there.
    """
    spec, cache = ran(name)
    triples = (("q", fl.W_Q, fl.b_Q), ("k", fl.W_K, fl.b_K), ("v", fl.W_V, fl.b_V))
    for part, weight, bias in triples:
        assert layers(spec, part, stack)
        for layer in layers(spec, part, stack):
            entered = cache[at("attn_in", layer, stack)]
            made = torch.einsum(
                "bpm,hmd->bphd", entered, weight(spec, layer, stack=stack)
            )
            made = made + bias(spec, layer, stack=stack)
            assert close(cache[at(part, layer, stack)], made), (part, layer)


@pytest.mark.parametrize(("name", "stack"), STACKS)
def test_output_weights_make_what_heads_add(name: str, stack: str) -> None:
    """Each head's `z` times `W_O` is its result; all of them and `b_O`, `attn_proj`."""
    spec, _ = ran(name)
    parts = ("z", "head_result", "attn_proj")
    capture = [at(part, 0, stack) for part in parts]
    cache = fl.run_with_cache(spec, tiny_inputs(name), capture=capture).cache
    z, expected, proj = (cache[site] for site in capture)
    results = torch.einsum("bphd,hdm->bphm", z, fl.W_O(spec, 0, stack=stack))
    assert close(expected, results)
    assert close(proj, results.sum(2) + fl.b_O(spec, 0, stack=stack))


@pytest.mark.parametrize(("name", "stack"), STACKS)
def test_mlp_weights_make_what_the_mlp_projects(name: str, stack: str) -> None:
    """`mlp_in` gives `mlp_pre` and `mlp_gate`, and `mlp_post` gives `mlp_proj`."""
    spec, cache = ran(name)
    triples = (
        ("mlp_in", "mlp_pre", fl.W_in, fl.b_in),
        ("mlp_in", "mlp_gate", fl.W_gate, fl.b_gate),
        ("mlp_post", "mlp_proj", fl.W_out, fl.b_out),
    )
    dense = layers(spec, "mlp_pre", stack)
    routed = layers(spec, "router_logits", stack)
    assert sorted([*dense, *routed]) == layers(spec, "resid_pre", stack)
    for source, part, weight, bias in triples:
        for layer in layers(spec, part, stack):
            made = cache[at(source, layer, stack)] @ weight(spec, layer, stack=stack)
            made = made + bias(spec, layer, stack=stack)
            assert close(cache[at(part, layer, stack)], made), (part, layer)


def chosen(name: str, logits: Tensor) -> Tensor:
    """The experts that each token is sent to, the best first."""
    if name == "gpt_oss":
        return logits.topk(2, dim=-1).indices
    return logits.softmax(-1).topk(2, dim=-1).indices


def gated(name: str, up: Tensor, gate: Tensor) -> Tensor:
    """What an expert does between its projections."""
    if name == "gpt_oss":
        gate, up = gate.clamp(max=7.0), up.clamp(min=-7.0, max=7.0)
        return (up + 1) * gate * torch.sigmoid(1.702 * gate)
    return F.silu(gate) * up


def shared(module: nn.Module, layer: int, entered: Tensor) -> Tensor | float:
    """What HuggingFace's shared expert adds, where there is one."""
    mlp: Any = find(module, f"model.layers.{layer}.mlp")
    if not hasattr(mlp, "shared_expert"):
        return 0.0
    return torch.sigmoid(mlp.shared_expert_gate(entered)) * mlp.shared_expert(entered)


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_weights_make_what_the_mixture_adds(name: str) -> None:
    """Experts weighted by the router, and the shared one, are `mlp_out`."""
    spec, cache = ran(name)
    for layer in layers(spec, "router_logits"):
        entered = cache[fl.mlp_in(layer)]
        pre = torch.einsum("bpm,emf->bpef", entered, fl.W_in(spec, layer))
        gate = torch.einsum("bpm,emf->bpef", entered, fl.W_gate(spec, layer))
        pre, gate = pre + fl.b_in(spec, layer), gate + fl.b_gate(spec, layer)
        hidden = gated(name, pre, gate)
        results = torch.einsum("bpef,efm->bpem", hidden, fl.W_out(spec, layer))
        results = results + fl.b_out(spec, layer)
        experts = chosen(name, cache[fl.router_logits(layer)])
        index = experts[..., None].expand(-1, -1, -1, spec.d_model)
        weights = cache[fl.router_weights(layer)][..., None]
        total = (results.gather(2, index) * weights).sum(2)
        total = total + shared(spec.module, layer, entered)
        assert close(cache[fl.mlp_out(layer)], total), layer


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_are_the_rows_of_tokens(name: str) -> None:
    """`W_E` is what HuggingFace calls the input embedding."""
    module: Any = tiny_hf_model(name)
    spec = fl.from_module(module)
    assert module.get_input_embeddings().weight is fl.W_E(spec)


@pytest.mark.parametrize("name", POSITIONS)
def test_position_embeddings_begin_at_position_0(name: str) -> None:
    """`W_pos` is what is added at the first positions, in order."""
    spec, cache = ran(name)
    added = cache[fl.pos_embed]
    assert close(added, fl.W_pos(spec)[: added.shape[1]].expand_as(added))


def test_both_embeddings_stand_above_each_other() -> None:
    """Tokens first, then positions; refused where they differ in width."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    both = fl.W_E_pos(spec)
    assert torch.equal(both, torch.cat([fl.W_E(spec), fl.W_pos(spec)]))
    narrow = fl.from_module(tiny_hf_model("opt-post_norm"))
    with pytest.raises(fl.errors.UnsupportedConfigError, match="8 wide"):
        fl.W_E_pos(narrow)


@pytest.mark.parametrize("name", NAMES)
def test_unembedding_makes_the_logits(name: str) -> None:
    """What enters it, times `W_U`, plus `b_U`, is what leaves it."""
    module = tiny_hf_model(name)
    spec = fl.from_module(module)
    at_end: Any = find(module, spec.engine.unembed)
    seen: list[tuple[Tensor, Tensor]] = []
    at_end.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    module(**tiny_inputs(name))
    entered, left = seen[0]
    assert close(left, entered @ fl.W_U(spec) + fl.b_U(spec))


VIEWS: Final[dict[str, Callable[..., Tensor]]] = {
    "q": fl.W_Q,
    "k": fl.W_K,
    "v": fl.W_V,
    "attn_proj": fl.W_O,
    "mlp_pre": fl.W_in,
    "mlp_gate": fl.W_gate,
    "mlp_proj": fl.W_out,
}


def storages(module: nn.Module) -> set[int]:
    """Where a module's parameters lie."""
    return {each.untyped_storage().data_ptr() for each in module.parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_one_layers_weights_are_views(name: str) -> None:
    """A layer's weight shares the storage of the owner's own parameter."""
    module = tiny_hf_model(name)
    spec, own = fl.from_module(module), storages(module)
    for part, weight in VIEWS.items():
        for layer in layers(spec, part):
            shared = weight(spec, layer).untyped_storage().data_ptr() in own
            assert shared != (part == "q" and name in NO_VIEW_OF_Q), (part, layer)
    for layer in layers(spec, "router_logits"):
        for weight in (fl.W_in, fl.W_gate, fl.W_out):
            assert weight(spec, layer).untyped_storage().data_ptr() in own
    for weight in (fl.W_E, fl.W_U):
        assert weight(spec).untyped_storage().data_ptr() in own


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_oss"])
def test_all_layers_are_the_layers_stacked(name: str) -> None:
    """Without `layer` a new first axis holds them in order, in a copy."""
    module = tiny_hf_model(name)
    spec, own = fl.from_module(module), storages(module)
    for weight in (fl.W_Q, fl.W_O, fl.b_V, fl.W_in, fl.b_out):
        whole = weight(spec)
        assert spec.n_layers == whole.shape[0]
        assert whole.untyped_storage().data_ptr() not in own
        for layer in range(spec.n_layers):
            assert torch.equal(weight(spec, layer), whole[layer])


def test_shapes_are_transformer_lens_s() -> None:
    """Grouped heads stand once; experts come before the widths."""
    spec = fl.from_module(tiny_hf_model("gpt_oss"))
    expected = {
        "W_Q": (2, 4, 16, 4),
        "W_K": (2, 2, 16, 4),
        "W_V": (2, 2, 16, 4),
        "W_O": (2, 4, 4, 16),
        "b_Q": (2, 4, 4),
        "b_K": (2, 2, 4),
        "b_V": (2, 2, 4),
        "b_O": (2, 16),
        "W_in": (2, 4, 16, 32),
        "W_gate": (2, 4, 16, 32),
        "W_out": (2, 4, 32, 16),
        "b_in": (2, 4, 32),
        "b_gate": (2, 4, 32),
        "b_out": (2, 4, 16),
        "W_E": (32, 16),
        "W_U": (16, 32),
        "b_U": (32,),
    }
    found = {name: tuple(getattr(fl, name)(spec).shape) for name in expected}
    assert expected == found


def test_a_weight_that_is_not_there_is_refused() -> None:
    """Asking for a weight that the family lacks says so."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    with pytest.raises(fl.errors.UnsupportedConfigError, match="mlp_gate"):
        fl.W_gate(spec)
    with pytest.raises(fl.errors.UnsupportedConfigError, match="no q"):
        fl.W_Q(fl.from_module(tiny_hf_model("mamba")))
    with pytest.raises(fl.errors.UnsupportedConfigError, match="no such weight"):
        fl.W_pos(fl.from_module(tiny_hf_model("llama")))


def test_layers_that_differ_are_asked_for_one_by_one() -> None:
    """A dense layer and a mixture have no common shape; the error says what to do."""
    spec = fl.from_module(tiny_hf_model("qwen2_moe"))
    with pytest.raises(fl.errors.UnsupportedConfigError) as caught:
        fl.W_in(spec)
    assert "(16, 32), (4, 16, 8)" in str(caught.value)
    assert "`layer=`" in str(caught.value)
    assert (16, 32) == tuple(fl.W_in(spec, 0).shape)
    assert (4, 16, 8) == tuple(fl.W_in(spec, 1).shape)


def test_layers_on_several_devices_are_asked_for_one_by_one() -> None:
    """No layer is moved to another's device without a word."""
    module: Any = tiny_hf_model("llama")
    module.model.layers[1].to("meta")
    spec = fl.from_module(module)
    with pytest.raises(fl.errors.UnsupportedConfigError, match="cpu, meta"):
        fl.W_Q(spec)
    assert "meta" == fl.W_Q(spec, 1).device.type


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    """Layers count from 0, and negative ones are not wrapped."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    with pytest.raises(fl.errors.OptionError) as caught:
        fl.W_Q(spec, layer)
    assert f"layer {layer} of 2" in str(caught.value)


def test_a_stack_that_is_not_there_is_refused() -> None:
    """Only models with an encoder have that stack."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    with pytest.raises(fl.errors.OptionError, match="encoder"):
        fl.W_Q(spec, stack="encoder")


class Experts(nn.Module):
    """Two experts without a gate, or with quantized weights, as a model's only part."""

    has_gate = False
    is_transposed = False

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        weight = torch.zeros(2, 8, 16, dtype=dtype)
        self.up_proj = nn.Parameter(weight, requires_grad=False)


def with_experts(dtype: torch.dtype) -> fl.ModelSpec:
    """A model whose second layer has other experts."""
    module: Any = tiny_hf_model("mixtral")
    module.model.layers[1].mlp.experts = Experts(dtype)
    return fl.from_module(module)


def test_experts_outside_of_the_interface_are_refused() -> None:
    """Nothing tells how their weights lie, so there is no guess."""
    module: Any = tiny_hf_model("mixtral")
    del module.model.layers[1].mlp.experts.is_transposed
    spec = fl.from_module(module)
    with pytest.raises(fl.errors.UnsupportedConfigError, match="experts of layer 1"):
        fl.W_in(spec)
    with pytest.raises(fl.errors.UnsupportedConfigError, match="experts of layer 1"):
        fl.b_out(spec, 1)
    assert (4, 16, 32) == tuple(fl.W_in(spec, 0).shape)


def test_experts_without_a_gate_have_none() -> None:
    """Their first projection is whole."""
    spec = with_experts(torch.float32)
    assert (2, 16, 8) == tuple(fl.W_in(spec, 1).shape)
    with pytest.raises(fl.errors.UnsupportedConfigError, match="no gate"):
        fl.W_gate(spec, 1)


def test_quantized_experts_are_refused() -> None:
    """Their numbers are not weights."""
    with pytest.raises(fl.errors.UnsupportedConfigError, match="plain up_proj"):
        fl.W_in(with_experts(torch.int8), 1)


def test_heads_made_from_a_latent_have_no_matrix_of_the_stream() -> None:
    """A norm stands between the two projections that make them."""
    spec = fl.from_module(tiny_hf_model("deepseek_v3"))
    for weight in (fl.W_Q, fl.W_V, fl.OV):
        with pytest.raises(fl.errors.UnsupportedConfigError, match="behind a norm"):
            weight(spec, 0)


def test_an_embedding_that_holds_no_weight_is_refused() -> None:
    """A table may name a module that computes its positions."""
    module = tiny_hf_model("gpt2")
    arch = fl.from_module(module).engine.arch
    computed = evolve(arch, main=evolve(arch.main, pos_embed="transformer.drop"))
    with pytest.raises(fl.errors.UnsupportedConfigError, match="no plain weight"):
        fl.W_pos(fl.from_module(module, adapter=computed))
