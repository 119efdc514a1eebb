"""Processed weights mean the same, or the processing is refused with the reason."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import peft
import pytest
import torch
from attrs import evolve
from toolz import pipe
from torch import Tensor, nn

import funlens as fl
from funlens.adapters import (
    Draft,
    bare_readers,
    described,
    form_of,
    matrix_at,
    stream_norms,
    stream_writers,
    weights_of,
)
from funlens.engine import KEPT
from funlens.errors import (
    InputError,
    LogProbsMovedError,
    SpecError,
    UnsupportedConfigError,
)
from funlens.testing import CAUSAL, FOUNDATION, tiny_hf_model, tiny_inputs

Processing = Callable[..., fl.ModelSpec]

NAMES: Final = [recipe.name for recipe in FOUNDATION]
A_FEW: Final = (
    *("gpt2", "llama", "gemma2", "qwen2_moe", "gpt_oss", "falcon", "bloom"),
    *("opt-post_norm", "bert", "t5", "mamba"),
)
every_family: Final = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in A_FEW else pytest.mark.architectures)
        for name in NAMES
    ],
)
PROCESSINGS: Final[dict[str, Processing]] = {
    "fold_layer_norm": fl.fold_layer_norm,
    "center_writing_weights": fl.center_writing_weights,
    "center_unembed": fl.center_unembed,
    "fold_value_biases": fl.fold_value_biases,
    "refactor_factored_attention": fl.refactor_factored_attention,
}
POST_NORM: Final = ("opt-post_norm", "bert")
LAYER_NORM: Final = (
    *("gpt2", "gpt_neox", "gpt_neox-sequential", "gptj", "gpt_neo", "opt", "falcon"),
    *("falcon-multi_query", "falcon-alibi", "mpt", "phi", "phi-qk_norm", "olmo"),
    *("stablelm", "stablelm-parallel", "starcoder2", "cohere", "cohere-qk_norm"),
)
NOT_ROTARY: Final = (
    *("gpt2", "gpt_neo", "opt", "opt-post_norm", "bloom", "mpt", "bert"),
    *("t5", "t5-gated"),
)
# What can have each processing; on the others it is refused.
POSSIBLE: Final[dict[str, set[str]]] = {
    "fold_layer_norm": set(NAMES) - {*POST_NORM},
    "center_writing_weights": {*LAYER_NORM},
    "center_unembed": set(NAMES) - {"gemma2"},
    "fold_value_biases": set(NAMES) - {"gpt_oss"},
    "refactor_factored_attention": {*NOT_ROTARY},
}
REASONS: Final = {
    ("fold_layer_norm", "bert"): "stand on the stream itself",
    ("center_writing_weights", "llama"): "does not take the mean away",
    ("center_writing_weights", "bloom"): "LayerNorm, which is no linear map",
    ("center_unembed", "gemma2"): "capped",
    ("fold_value_biases", "gpt_oss"): "an attention sink",
    ("refactor_factored_attention", "llama"): "positions rotate",
    ("refactor_factored_attention", "mamba"): "no attention",
}
# Measured at most 1e-6: families that compute norms or attention in float32 whatever
# the dtype reach that, the others 1e-14; 2e-6 in float32 and 0.1 in bfloat16.
TOLERANCE: Final = {torch.float64: 3e-6, torch.float32: 2e-5, torch.bfloat16: 1.5e-1}
CLOSE: Final = 1e-5  # float32, sums of 16 to 64 terms of size 1


def built(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A tiny model of a dtype; HuggingFace's grouped experts have no float64."""
    module: Any = tiny_hf_model(name).to(dtype)
    if dtype == torch.float64:
        module.config._experts_implementation = "eager"
    return module


@torch.no_grad()
def log_probs(module: nn.Module, name: str) -> Tensor:
    """HuggingFace's own."""
    logits = module(**tiny_inputs(name)).logits
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def moved(expected: Tensor, spec: fl.ModelSpec, name: str) -> float:
    """By how much a spec's log-probabilities differ from those expected."""
    logits = fl.run(spec, tiny_inputs(name))
    wide = torch.promote_types(logits.dtype, torch.float32)
    return float((logits.to(wide).log_softmax(-1) - expected).abs().max())


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str
)
@every_family
def test_log_probabilities_are_those_of_an_untouched_module(
    name: str, dtype: torch.dtype
) -> None:
    """Each processing alone, or it is one that the family cannot have."""
    expected = log_probs(built(name, dtype), name)
    spec = fl.from_module(built(name, dtype))
    for word, process in PROCESSINGS.items():
        if name in POSSIBLE[word]:
            assert moved(expected, process(spec), name) <= TOLERANCE[dtype], word
        else:
            with pytest.raises(UnsupportedConfigError):
                process(spec)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@every_family
def test_processings_follow_each_other(name: str, dtype: torch.dtype) -> None:
    """All that a family can have, one after the other, in a pipe."""
    expected = log_probs(built(name, dtype), name)
    spec = fl.from_module(built(name, dtype))
    possible = [PROCESSINGS[word] for word in PROCESSINGS if name in POSSIBLE[word]]
    processed = pipe(spec, *possible)
    assert moved(expected, processed, name) <= TOLERANCE[dtype]
    assert moved(expected, pipe(processed, *possible), name) <= 2 * TOLERANCE[dtype]


@pytest.mark.parametrize(("word", "name"), REASONS)
def test_a_refusal_gives_the_reason(word: str, name: str) -> None:
    """The error says what stands in the way."""
    with pytest.raises(UnsupportedConfigError, match=REASONS[word, name]):
        PROCESSINGS[word](fl.from_module(built(name)))


@every_family
def test_the_model_is_as_it_was(name: str) -> None:
    """No bit, version, tie or flag of the owner's module or of the spec changes."""
    module = built(name)
    spec = fl.from_module(module)
    held = weights_of(module)
    before = {n: (id(w), w._version, w.detach().clone()) for n, w in held.items()}
    logits = fl.run(spec, tiny_inputs(name))
    for word in PROCESSINGS:
        if name in POSSIBLE[word]:
            PROCESSINGS[word](spec)
    for key, weight in weights_of(module).items():
        ident, version, bits = before[key]
        assert (ident, version) == (id(weight), weight._version)
        assert torch.equal(bits, weight)
    assert {n: id(w) for n, w in weights_of(spec.module).items()} == {
        n: ident for n, (ident, _, _) in before.items()
    }
    assert torch.equal(logits, fl.run(spec, tiny_inputs(name)))


@pytest.mark.parametrize("name", sorted(POSSIBLE["fold_layer_norm"]))
def test_folded_norms_only_normalize(name: str) -> None:
    """Gains are 1 and biases 0, and layer norms' readers have no part along ones."""
    folded = fl.fold_layer_norm(fl.from_module(built(name)))
    _, cache = fl.run_with_cache(folded, tiny_inputs(name))
    for site, value in cache.items():
        if site.part in {"ln1_normalized", "ln2_normalized", "ln_final_normalized"}:
            size = value.square().mean(-1)
            torch.testing.assert_close(size, torch.ones_like(size), atol=1e-3, rtol=0)
    draft = Draft(folded)
    for norm in stream_norms(folded):
        form = form_of(folded, norm.path)
        for leaf, expected in (("weight", 1 - form.offset), ("bias", 0.0)):
            if draft.has(f"{norm.path}.{leaf}"):
                assert bool((draft.read(f"{norm.path}.{leaf}") == expected).all())
        for matrix in norm.readers if form.centered else ():
            assert draft.matrix(matrix).mean(-2).abs().max() < CLOSE


# Norms behind what writes, of the embedding, and of queries and keys.
LEFT: Final[dict[str, tuple[str, ...]]] = {
    "bloom": ("word_embeddings_layernorm",),
    "cohere-qk_norm": ("q_norm",),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm", "q_norm"),
}


@pytest.mark.parametrize("name", sorted(POSSIBLE["fold_layer_norm"]))
def test_no_norm_of_the_stream_is_forgotten(name: str) -> None:
    """Every module that is called a norm, and is as wide as the stream, was folded."""
    spec = fl.from_module(built(name))
    folded = {norm.path for norm in stream_norms(spec)}
    wide = {
        path
        for path, module in spec.module.named_modules()
        if "norm" in type(module).__name__.lower()
        and [*map(torch.numel, module.parameters())][:1] in ([spec.d_model], [])
        and not path.endswith(LEFT.get(name, ()))
    }
    assert wide == folded


@pytest.mark.parametrize("name", LAYER_NORM)
def test_a_centered_stream_has_no_mean(name: str) -> None:
    """Everything that is added to the stream has mean 0, so the stream has."""
    centered = fl.center_writing_weights(fl.from_module(built(name)))
    _, cache = fl.run_with_cache(centered, tiny_inputs(name))
    parts = {"embed", "pos_embed", "resid_pre", "resid_mid", "resid_post"}
    seen = [value for site, value in cache.items() if site.part in parts]
    assert len(seen) > 4
    assert max(float(value.mean(-1).abs().max()) for value in seen) < CLOSE


@pytest.mark.parametrize("name", ["gpt2", "cohere", "t5", "bert"])
def test_centered_logits_have_no_mean(name: str) -> None:
    """Over the vocabulary, at each position."""
    centered = fl.center_unembed(fl.from_module(built(name)))
    assert fl.run(centered, tiny_inputs(name)).mean(-1).abs().max() < CLOSE


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "phi", "gpt_neox", "bert"])
def test_value_biases_stand_in_the_output_bias(name: str) -> None:
    """`b_V` is 0 and `b_O` holds what it added, also where there was no `b_O`."""
    spec = fl.from_module(built(name))
    folded = fl.fold_value_biases(spec)
    assert bool(fl.b_V(spec).any())
    assert not fl.b_V(folded).any()
    groups = spec.n_heads // spec.n_kv_heads
    each = fl.b_V(spec).repeat_interleave(groups, dim=1)
    expected = fl.b_O(spec) + torch.einsum("lhd,lhdm->lm", each, fl.W_O(spec))
    torch.testing.assert_close(fl.b_O(folded), expected, atol=CLOSE, rtol=0)
    assert torch.equal(fl.W_V(spec), fl.W_V(folded))


def test_without_value_biases_nothing_is_made() -> None:
    """The spec itself comes back."""
    spec = fl.from_module(built("llama"))
    assert spec is fl.fold_value_biases(spec)


@pytest.mark.parametrize("name", NOT_ROTARY)
def test_refactored_heads_are_orthogonal_and_the_same(name: str) -> None:
    """QK and OV stay; queries and keys get orthogonal columns, values orthonormal."""
    spec = fl.from_module(built(name, torch.float64))
    made = fl.refactor_factored_attention(spec)
    for circuit in (fl.QK, fl.OV):
        torch.testing.assert_close(circuit(made).AB, circuit(spec).AB)
    queries = torch.cat([fl.W_Q(made), fl.b_Q(made)[..., None, :]], dim=-2)
    keys = torch.cat([fl.W_K(made), fl.b_K(made)[..., None, :]], dim=-2)
    for gram in (queries.mT @ queries, keys.mT @ keys):
        sizes = gram.diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close(gram, torch.diag_embed(sizes))
        assert bool((sizes.diff(dim=-1) <= 1e-9).all())
    torch.testing.assert_close(queries.mT @ queries, keys.mT @ keys)
    values = fl.W_V(made).mT @ fl.W_V(made)
    torch.testing.assert_close(values, torch.eye(4).double().expand_as(values))
    assert not fl.b_V(made).any()


def test_heads_that_share_keys_are_refactored_together() -> None:
    """A table that denies rotation: found out, but at position 0, where there is none.

    There two queries for each key can be refactored, and QK and OV stay.
    """
    module = built("starcoder2", torch.float64)
    arch = fl.from_module(module).engine.arch
    (attention,) = arch.main.block.attention
    block = evolve(arch.main.block, attention=(evolve(attention, has_rotary=False),))
    claimed = evolve(arch, main=evolve(arch.main, block=block))
    spec = fl.from_module(module, adapter=claimed)
    with pytest.raises(LogProbsMovedError, match="refactor_factored_attention"):
        fl.refactor_factored_attention(spec)
    first = torch.tensor([[5], [6]])
    made = fl.refactor_factored_attention(spec, inputs=first)
    assert spec.n_kv_heads < spec.n_heads
    for circuit in (fl.QK, fl.OV):
        torch.testing.assert_close(circuit(made).AB, circuit(spec).AB)


@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma", "mpt"])
def test_embeddings_part_from_the_unembedding_when_they_must(name: str) -> None:
    """Values stay in `W_E`; value biases part nothing."""
    spec = fl.from_module(built(name))
    assert fl.W_E(spec).data_ptr() == fl.W_U(spec).data_ptr()
    folded = fl.fold_layer_norm(spec)
    assert torch.equal(fl.W_E(spec), fl.W_E(folded))
    assert fl.W_E(spec).data_ptr() == fl.W_E(folded).data_ptr()
    assert not torch.equal(fl.W_U(spec), fl.W_U(folded))
    kept = fl.fold_value_biases(spec)
    assert fl.W_E(kept).data_ptr() == fl.W_U(kept).data_ptr()


def changed_block(name: str, **words: Any) -> fl.ModelSpec:
    """A model whose table says something else about its blocks."""
    module = built(name)
    arch = fl.from_module(module).engine.arch
    block = evolve(arch.main.block, **words)
    main = evolve(arch.main, block=block)
    return fl.from_module(module, adapter=evolve(arch, main=main))


def test_a_reader_that_was_forgotten_is_named() -> None:
    """A table without the shared expert."""
    mixture, dense = fl.from_module(built("qwen2_moe")).engine.arch.main.block.mlp
    forgetful = evolve(mixture, shared="")
    spec = changed_block("qwen2_moe", mlp=(forgetful, dense))
    with pytest.raises(UnsupportedConfigError, match=r"shared_expert\.gate_proj does"):
        fl.fold_layer_norm(spec)


def test_a_table_that_is_wrong_is_found_out() -> None:
    """Its MLP reads another norm: log-probabilities would move, and do not."""
    spec = changed_block("gpt2", ln2="", parallel=True)
    with pytest.raises(LogProbsMovedError) as caught:
        fl.fold_layer_norm(spec)
    error = caught.value
    assert ("fold_layer_norm", "gpt2") == (error.function, error.model_type)
    assert error.moved > 10 * error.tolerance
    assert "position" in error.where


# What stands in the way of folding norms, in families beside the foundation.
UNTOLD: Final = {
    "deepseek_v3": r"self_attn\.q_a_proj does",
    "qwen3_next": r"linear_attn\.in_proj_ba does",
    "gemma4_text": r"per_layer_input_gate does",
    "mbart": r"encoder_attn\.k_proj does",
    "hunyuan_v1_moe": "HunYuanMoEV1Gate, which is no linear map",
    "jetmoe": "experts of layer 0",
    "zaya": r"v_proj_current does",
    "gpt2-base": "no logits",
}


@pytest.mark.parametrize("name", UNTOLD)
def test_what_a_table_does_not_tell_is_named(name: str) -> None:
    """A reader that nobody knows is refused before log-probabilities move."""
    with pytest.raises(UnsupportedConfigError, match=UNTOLD[name]):
        fl.fold_layer_norm(fl.from_module(built(name)))


@pytest.mark.parametrize("name", ["megatron-bert", "ctrl"])
def test_what_else_writes_to_the_stream_is_found_out(name: str) -> None:
    """Embeddings of token types, or fixed positions: no site tells of them."""
    with pytest.raises(UnsupportedConfigError, match="writes to the stream before"):
        fl.center_writing_weights(fl.from_module(built(name)))


def test_heads_that_are_more_than_their_weights_are_refused() -> None:
    """A gate multiplies what is mixed, number by number."""
    (attention,) = fl.from_module(built("gpt2")).engine.arch.main.block.attention
    gated = (evolve(attention, changes="a gate multiplies the mixed heads"),)
    spec = changed_block("gpt2", attention=gated)
    for process in (fl.fold_value_biases, fl.refactor_factored_attention):
        with pytest.raises(UnsupportedConfigError, match="a gate multiplies"):
            process(spec)
    gone = (evolve(attention, hidden={"k": "it is", "z": "a secret"}),)
    spec = changed_block("gpt2", attention=gone)
    with pytest.raises(UnsupportedConfigError, match=r"hides what becomes of v\.0"):
        fl.fold_value_biases(spec)
    with pytest.raises(UnsupportedConfigError, match=r"no k\.0 to be rewritten"):
        fl.refactor_factored_attention(spec)


REFUSED: Final = ("rwkv-rescaled", "reformer")  # these have no spec

EVERY_CAUSAL: Final = [
    row.name
    for row in CAUSAL
    if row.model_type in described() and row.name not in REFUSED
]


@pytest.mark.architectures
@pytest.mark.parametrize("name", EVERY_CAUSAL)
def test_every_other_family_keeps_or_refuses(name: str) -> None:
    """Nothing else comes out than the same log-probabilities, or an error of ours."""
    expected = log_probs(built(name), name)
    spec = fl.from_module(built(name))
    for word, process in PROCESSINGS.items():
        try:
            found = process(spec, inputs=tiny_inputs(name))
        except SpecError:
            continue
        tolerance = KEPT[torch.float32] * max(1.0, float(expected.abs().max()))
        assert moved(expected, found, name) <= tolerance, word


def test_sinks_that_were_not_told_are_found_out() -> None:
    """A table that forgets the sinks: value biases cannot be folded all the same."""
    (attention,) = fl.from_module(built("gpt_oss")).engine.arch.main.block.attention
    spec = changed_block("gpt_oss", attention=(evolve(attention, sink=""),))
    with pytest.raises(LogProbsMovedError, match="fold_value_biases"):
        fl.fold_value_biases(spec)


def test_clamped_values_keep_their_biases() -> None:
    """What arrives of a bias behind which values are clamped is not the bias."""
    module: Any = built("olmo")
    projection = module.model.layers[0].self_attn.v_proj
    projection.bias = nn.Parameter(torch.ones(projection.out_features))
    with pytest.raises(UnsupportedConfigError, match="change in place"):
        fl.fold_value_biases(fl.from_module(module))


def test_what_reads_a_norm_must_be_described() -> None:
    """A table without the MLP leaves a norm whose readers nobody knows."""
    with pytest.raises(UnsupportedConfigError, match="what reads the norm"):
        fl.fold_layer_norm(changed_block("gpt2", mlp=()))
    (attention,) = fl.from_module(built("gpt2")).engine.arch.main.block.attention
    blind = (evolve(attention, o="missing"),)
    with pytest.raises(UnsupportedConfigError, match="what reads the norm"):
        fl.fold_layer_norm(changed_block("gpt2", attention=blind))


def test_what_reads_the_stream_bare_is_refused() -> None:
    """A table that names no norm before attention: its mean may be read."""
    with pytest.raises(UnsupportedConfigError, match="without a norm"):
        fl.center_writing_weights(changed_block("gpt2", ln1=""))
    arch = fl.from_module(built("gpt2")).engine.arch
    open_end = evolve(arch, main=evolve(arch.main, ln_final=""))
    spec = fl.from_module(built("gpt2"), adapter=open_end)
    with pytest.raises(UnsupportedConfigError, match="what comes after"):
        fl.center_writing_weights(spec)


def test_a_norm_behind_what_writes_is_refused() -> None:
    """Its output is not the matrix's, and cannot be centered there."""
    spec = changed_block("gpt2", ln1_post="ln_1")
    with pytest.raises(UnsupportedConfigError, match="stands between"):
        stream_writers(spec)


@pytest.mark.parametrize("name", NAMES)
def test_writers_are_as_wide_as_the_stream(name: str) -> None:
    """Matrices of every layer, experts and shared ones included."""
    spec = fl.from_module(built(name))
    if name in {"bloom", "gemma2", "gemma3_text", "olmo2"}:
        with pytest.raises(UnsupportedConfigError, match="norm"):
            stream_writers(spec)
        return
    draft, writers = Draft(spec), stream_writers(spec)
    assert {spec.d_model} == {draft.matrix(w.matrix).shape[-1] for w in writers}
    added = {"attn_out", "cross_out", "mlp_out", "ssm_out", "embed", "pos_embed"}
    added |= {"shared_out", "dense_out"}
    expected = {info.site for info in spec.sites if info.site.part in added}
    assert expected == {writer.site for writer in writers}


def test_experts_write_to_the_stream() -> None:
    """All of them, in one tensor, and the shared one beside."""
    spec = fl.from_module(built("qwen2_moe"))
    found = {writer.site: writer.matrix.weight for writer in stream_writers(spec)}
    mlp = "model.layers.1.mlp"
    assert f"{mlp}.experts.down_proj" == found[fl.mlp_out(1)]
    assert f"{mlp}.shared_expert.down_proj.weight" == found[fl.shared_out(1)]


def test_quantized_experts_are_refused() -> None:
    """Their numbers are not weights."""
    module: Any = built("mixtral")
    experts = module.model.layers[1].mlp.experts
    packed = torch.zeros(4, 64, 16, dtype=torch.int8)
    experts.gate_up_proj = nn.Parameter(packed, requires_grad=False)
    with pytest.raises(UnsupportedConfigError, match="no plain gate_up_proj"):
        fl.fold_layer_norm(fl.from_module(module))


def test_cross_attention_without_a_norm_is_a_bare_reader() -> None:
    """It is named by its site."""
    assert () == bare_readers(fl.from_module(built("t5")))
    bare = bare_readers(changed_block("t5", ln_cross=""))
    assert ("cross_q.0", "cross_q.1", "cross_q.2") == bare


class Odd(nn.Module):
    """A norm of no known kind."""

    def __init__(self, *, more: float, twice: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(16))
        self.bias = nn.Parameter(torch.ones(16))
        self.more, self.factor = more, 1 + twice

    def forward(self, entered: Tensor) -> Tensor:
        """Use another gain than the weight, or another bias than the bias."""
        normalized = nn.functional.layer_norm(entered, (16,))
        return normalized * (self.weight + self.more) + self.factor * self.bias


@pytest.mark.parametrize(("more", "twice"), [(0.5, False), (0.0, True)])
def test_a_norm_of_another_kind_is_refused(more: float, *, twice: bool) -> None:
    """What it does is found by asking it, not by its name."""
    module: Any = built("gpt2")
    module.transformer.h[0].ln_1 = Odd(more=more, twice=twice)
    with pytest.raises(UnsupportedConfigError, match="neither a layer norm"):
        fl.fold_layer_norm(fl.from_module(module))


def test_what_comes_between_norm_and_unembedding_is_refused() -> None:
    """A projection to another width stands there."""
    module: Any = built("gpt2")
    module.lm_head = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 32))
    arch = evolve(fl.from_module(built("gpt2")).engine.arch, unembed="lm_head.1")
    with pytest.raises(UnsupportedConfigError, match="gives 16 numbers"):
        fl.fold_layer_norm(fl.from_module(module, adapter=arch))


def test_a_bias_is_given_to_linear_maps_only() -> None:
    """A router's own class would never look at one."""
    spec = fl.from_module(built("mixtral"))
    draft = Draft(spec)
    router, experts = stream_norms(spec)[1].readers
    for matrix in (router, experts):
        with pytest.raises(UnsupportedConfigError, match="takes none"):
            draft.set_bias(matrix, torch.zeros(4))


@pytest.mark.filterwarnings("ignore")
def test_adapted_models_are_merged_first() -> None:
    """Weights with low-rank adapters beside them are not the ones that act."""
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    model: Any = peft.get_peft_model(tiny_hf_model("llama"), config)
    with pytest.raises(UnsupportedConfigError, match="carries adapters"):
        fl.fold_layer_norm(fl.from_module(model.eval()))
    merged = fl.from_module(model.merge_and_unload())
    assert fl.fold_layer_norm(merged)


def test_weights_that_are_not_in_memory_are_refused() -> None:
    """Offloaded ones, say."""
    module: Any = built("llama")
    module.lm_head.weight = nn.Parameter(torch.empty(32, 16, device="meta"))
    for process in (fl.fold_layer_norm, fl.center_writing_weights, fl.center_unembed):
        with pytest.raises(UnsupportedConfigError, match=r"head\.weight is not in mem"):
            process(fl.from_module(module))


def test_weights_that_are_no_numbers_are_refused() -> None:
    """NaN is never within tolerance."""
    module: Any = built("llama")
    with torch.no_grad():
        module.lm_head.weight[3, 3] = torch.nan
    with pytest.raises(LogProbsMovedError):
        fl.center_unembed(fl.from_module(module))


def test_the_caller_says_what_to_compare_on() -> None:
    """Needed where there is no vocabulary to draw from."""
    spec = evolve(fl.from_module(built("llama")), d_vocab=0)
    with pytest.raises(InputError, match="no vocabulary"):
        fl.fold_layer_norm(spec)
    assert fl.fold_layer_norm(spec, inputs=tiny_inputs("llama"))


def test_a_matrix_is_a_linear_map_or_an_embedding() -> None:
    """Other modules are refused, and so is a quantized weight."""
    module: Any = built("gpt2")
    with pytest.raises(UnsupportedConfigError, match="LayerNorm"):
        matrix_at(module, "transformer.ln_f")
    module.lm_head.weight = nn.Parameter(
        torch.zeros(32, 16, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(UnsupportedConfigError, match="plain weight"):
        matrix_at(module, "lm_head")


@pytest.mark.parametrize("name", ["gpt2", "gptj", "qwen2_moe", "gemma2", "t5"])
def test_a_processed_spec_is_a_spec_like_any_other(name: str) -> None:
    """Params, functional calls, copies, and another description."""
    folded = fl.fold_layer_norm(fl.from_module(built(name)))
    inputs = tiny_inputs(name)
    logits = fl.run(folded, inputs)
    params = {n: p.detach() for n, p in folded.module.named_parameters()}
    assert torch.equal(logits, fl.run(folded, inputs, params=params))
    called = torch.func.functional_call(folded.module, params, (), inputs)
    assert torch.equal(logits, called.logits)
    again = fl.from_module(copy.deepcopy(folded.module))
    assert torch.equal(logits, fl.run(again, inputs))
    assert fl.sites(again) == fl.sites(folded)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["gpt2", "gptj", "gemma2"])
def test_the_laws_hold_on_processed_specs(name: str) -> None:
    """Also where biases were added, and gains stored as what is added to 1."""
    folded = fl.fold_layer_norm(fl.from_module(built(name)))
    rows = fl.verify(folded, tiny_inputs(name)).rows
    assert [] == [row for row in rows if not row.holds]


@pytest.mark.parametrize("name", ["llama", "gemma", "gpt_oss"])
def test_a_processed_model_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    """Where no bias was added, HuggingFace's own format holds it, untied."""
    folded = fl.fold_layer_norm(fl.from_module(built(name)))
    module: Any = folded.module
    module.save_pretrained(tmp_path)
    loaded = type(built(name)).from_pretrained(tmp_path).eval()
    expected = log_probs(loaded, name)
    assert moved(expected, folded, name) <= TOLERANCE[torch.float32]


def test_half_precision_is_rounded_once() -> None:
    """Folding in bfloat16 is folding in float32, rounded."""
    half = fl.from_module(built("llama", torch.bfloat16))
    single = fl.from_module(copy.deepcopy(half.module).float())
    expected = weights_of(fl.fold_layer_norm(single).module)
    for name, weight in weights_of(fl.fold_layer_norm(half).module).items():
        assert torch.equal(expected[name].bfloat16(), weight)


def test_every_dtype_has_its_tolerance() -> None:
    """From the narrowest to the widest it shrinks."""
    dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
    tolerances = [KEPT[dtype] for dtype in dtypes]
    assert sorted(tolerances, reverse=True) == tolerances
