"""Toy transformers: options, seeds, training, saving, and HuggingFace's families."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import grad, jvp, vmap
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import funlens as fl
from funlens.errors import InputError, LoadError, OptionError

CLOSE: Final = 1e-5  # float32: the same sums in another order
EXACT: Final = 1e-10  # float64: the same
TOKENS: Final = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2, 8, 1]])
SMALL: Final = fl.ToyConfig(d_model=16, d_vocab=11, n_ctx=16)


def parts_of(spec: fl.ModelSpec) -> set[str]:
    """The parts that a model declares."""
    return {info.site.part for info in fl.sites(spec)}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("n_layers", {"n_layers": 0}),
        ("n_layers", {"n_layers": 1.5}),
        ("d_model", {"d_model": -8}),
        ("n_heads", {"n_heads": 5}),
        ("n_heads", {"n_heads": True}),
        ("n_kv_heads", {"n_kv_heads": 3}),
        ("d_head", {"d_head": 0}),
        ("d_head", {"d_head": 5, "positions": "rotary"}),
        ("d_head", {"d_model": 12, "positions": "rotary"}),
        ("d_mlp", {"d_mlp": -1}),
        ("d_vocab", {"d_vocab": 0}),
        ("d_out", {"d_out": 0}),
        ("n_ctx", {"n_ctx": 0}),
        ("norm", {"norm": "batch"}),
        ("positions", {"positions": "alibi"}),
        ("activation", {"activation": "tanh"}),
        ("is_gated", {"d_mlp": 0, "is_gated": True}),
        ("is_parallel", {"d_mlp": 0, "is_parallel": True}),
        ("is_tied", {"d_out": 7, "is_tied": True}),
        ("attn_softcap", {"attn_softcap": 0.0}),
        ("logit_softcap", {"logit_softcap": -2.0}),
    ],
)
def test_an_impossible_option_is_named(option: str, given: dict[str, Any]) -> None:
    """What cannot be built is refused, by the option's name."""
    with pytest.raises(OptionError) as caught:
        fl.ToyConfig(**given)
    assert option == caught.value.option


def test_what_a_toy_lacks_is_no_site() -> None:
    """Without norms and MLPs there is nothing about them; each layer has the rest."""
    bare = parts_of(fl.toy(attrs.evolve(SMALL, norm="none", d_mlp=0)))
    assert not {part for part in bare if part.startswith(("ln", "mlp"))}
    assert "resid_mid" not in bare
    assert {"pos_embed", "pattern", "z", "resid_post"} <= bare
    assert "rot_q" not in bare


def test_what_a_toy_has_is_a_site() -> None:
    """Gates, rotation, norms and the stream between attention and MLP are met."""
    config = attrs.evolve(SMALL, positions="rotary", is_gated=True)
    full = parts_of(fl.toy(config))
    wanted = {"mlp_gate", "rot_q", "rot_k", "ln1_scale", "ln_final_scale", "resid_mid"}
    assert wanted <= full
    assert "pos_embed" not in full


def test_parallel_blocks_have_no_middle() -> None:
    """Attention and MLP read the same stream, and the spec says so."""
    spec = fl.toy(attrs.evolve(SMALL, is_parallel=True))
    assert spec.is_parallel
    assert "resid_mid" not in parts_of(spec)


def test_sizes_are_the_options() -> None:
    """The spec tells what was asked for."""
    config = attrs.evolve(SMALL, n_layers=3, n_kv_heads=2, d_head=6, d_mlp=5, d_out=4)
    spec = fl.toy(config)
    shape = (spec.n_layers, spec.n_heads, spec.n_kv_heads, spec.d_head, spec.d_mlp)
    assert (3, 4, 2, 6, 5) == shape
    assert (16, 11, 16) == (spec.d_model, spec.d_vocab, spec.n_ctx)
    assert (2, 7, 4) == tuple(fl.run(spec, TOKENS).shape)


def test_a_seed_fixes_every_bit() -> None:
    """The same seed gives the same weights, another seed others."""
    first, again, other = (fl.toy_module(SMALL, seed=seed) for seed in (3, 3, 4))
    ours, theirs = first.state_dict(), again.state_dict()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert not ours["embed.weight"].equal(other.state_dict()["embed.weight"])


def test_the_global_generator_is_not_touched() -> None:
    """Its state is the same before and after."""
    before = torch.get_rng_state()
    fl.toy(SMALL)
    assert before.equal(torch.get_rng_state())


def test_sums_start_at_the_size_of_their_terms() -> None:
    """A new toy's stream and logits are neither 0 nor large."""
    spec = fl.toy(fl.ToyConfig(d_model=128, norm="none", d_mlp=0))
    logits, cache = fl.run_with_cache(spec, TOKENS, capture=[fl.z(0)])
    assert 0.02 < float(cache[fl.z(0)].std()) < 1
    assert 0.02 < float(logits.std()) < 2


def copied(module: nn.Module, given: dict[str, Tensor], **names: str) -> nn.Module:
    """Give a toy the weights of another model, its names translated by their parts."""
    words = dict(sorted(names.items(), key=lambda pair: -len(pair[0])))
    state = {}
    for name, value in given.items():
        for theirs, ours in words.items():
            name = name.replace(theirs.replace("__", "."), ours)  # noqa: PLW2901 -- step by step
        state[name] = value
    module.load_state_dict(state)
    return module


def jittered(module: nn.Module) -> dict[str, Tensor]:
    """Draw every weight of a model, biases and gains as well."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise + (parameter.ndim == 1))
    module.eval()
    return dict(module.named_parameters())


def assert_same(expected: nn.Module, module: nn.Module) -> None:
    """The spec of one gives the logits of the other."""
    theirs: Any = expected
    with torch.no_grad():
        logits = theirs(TOKENS).logits
    spec = fl.from_module(module)
    torch.testing.assert_close(logits, fl.run(spec, TOKENS), atol=CLOSE, rtol=CLOSE)


def test_a_toy_can_be_a_llama() -> None:
    """RMS norm, rotary positions, grouped queries and gates are Llama's."""
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16,
            rms_norm_eps=1e-5,
        )
    )  # fmt: skip
    weights = jittered(llama)
    config = attrs.evolve(
        SMALL, norm="rms", positions="rotary", n_kv_heads=2, d_mlp=24,
        activation="silu", is_gated=True, has_bias=False,
    )  # fmt: skip
    toy = copied(
        fl.toy_module(config), weights,
        model__layers="blocks", model__embed_tokens="embed", model__norm="ln_final",
        lm_head="unembed", self_attn="attn", _proj="", input_layernorm="ln1",
        post_attention_layernorm="ln2",
    )  # fmt: skip
    assert_same(llama, toy)


def test_a_toy_can_be_a_gpt2() -> None:
    """Layer norm, learned positions, biases and tied embeddings are GPT-2's."""
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=11, n_embd=16, n_layer=2, n_head=4, n_positions=16,
            activation_function="gelu", tie_word_embeddings=True,
        )
    )  # fmt: skip
    weights: dict[str, Tensor] = {}
    for name, value in jittered(gpt2).items():
        matrix = value.mT if ".c_" in name and value.ndim == 2 else value
        if "c_attn" in name:
            for word, part in zip("qkv", matrix.chunk(3), strict=True):
                weights[name.replace("c_attn", word)] = part
        else:
            weights[name] = matrix
    weights["unembed.weight"] = weights["transformer.wte.weight"]
    toy = copied(
        fl.toy_module(attrs.evolve(SMALL, is_tied=True)), weights,
        transformer__h="blocks", transformer__wte="embed", transformer__wpe="pos_embed",
        transformer__ln_f="ln_final", ln_1="ln1", ln_2="ln2", attn__c_proj="attn.o",
        mlp__c_fc="mlp.up", mlp__c_proj="mlp.down",
    )  # fmt: skip
    assert_same(gpt2, toy)


def test_a_toy_can_be_a_neox() -> None:
    """Parallel blocks with two norms are GPT-NeoX's."""
    neox = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=16,
            rope_parameters={
                "rope_type": "default", "rope_theta": 10_000.0,
                "partial_rotary_factor": 1.0,
            },
        )
    )  # fmt: skip
    weights: dict[str, Tensor] = {}
    for name, value in jittered(neox).items():
        if "query_key_value" in name:
            heads = value.unflatten(0, (4, 3, 4))
            for at, word in enumerate("qkv"):
                part = heads[:, at].flatten(0, 1)
                weights[name.replace("query_key_value", word)] = part
        else:
            weights[name] = value
    config = attrs.evolve(SMALL, positions="rotary", d_mlp=24, is_parallel=True)
    toy = copied(
        fl.toy_module(config), weights,
        gpt_neox__layers="blocks", gpt_neox__embed_in="embed",
        gpt_neox__final_layer_norm="ln_final", embed_out="unembed", lm_head="unembed",
        input_layernorm="ln1", post_attention_layernorm="ln2",
        attention__dense="attn.o", attention="attn", mlp__dense_h_to_4h="mlp.up",
        mlp__dense_4h_to_h="mlp.down",
    )  # fmt: skip
    assert_same(neox, toy)


def test_caps_bend_scores_and_logits() -> None:
    """Both are `cap * tanh(raw / cap)`, the scores before the mask."""
    config = attrs.evolve(
        SMALL, attn_softcap=0.5, logit_softcap=0.7, is_causal=False, positions="none"
    )
    spec = fl.toy(config)
    logits, cache = fl.run_with_cache(spec, TOKENS)
    raw = torch.einsum("bqhd,bkhd->bhqk", cache[fl.q(0)], cache[fl.k(0)]) / 2
    scores = 0.5 * torch.tanh(raw / 0.5)
    torch.testing.assert_close(scores, cache[fl.attn_scores(0)], atol=CLOSE, rtol=0)
    unembedded = cache["ln_final_normalized"] @ fl.W_U(spec)
    expected = 0.7 * torch.tanh(unembedded / 0.7)
    torch.testing.assert_close(expected, logits, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("is_causal", [True, False])
def test_later_tokens_are_seen_where_the_config_says_so(is_causal: bool) -> None:
    """The last token moves the first logits of a bidirectional toy only."""
    spec = fl.toy(attrs.evolve(SMALL, is_causal=is_causal))
    other = TOKENS.clone()
    other[:, -1] = 10
    first, second = (fl.run(spec, tokens)[:, 0] for tokens in (TOKENS, other))
    assert is_causal == torch.equal(first, second)


def test_tied_embeddings_are_one_tensor() -> None:
    """Unembedding and embedding share their values, in the spec as well."""
    module: Any = fl.toy_module(attrs.evolve(SMALL, is_tied=True))
    assert module.unembed.weight is module.embed.weight
    spec = fl.from_module(module)
    assert fl.W_U(spec).data_ptr() == fl.W_E(spec).data_ptr()


def test_training_is_seen_by_the_spec() -> None:
    """A few steps of Adam lower the loss, and a spec made before sees them."""
    config = fl.ToyConfig(
        n_layers=1, n_heads=2, d_mlp=0, d_vocab=8, n_ctx=8, norm="none"
    )
    module: Any = fl.toy_module(config)
    spec = fl.from_module(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-2)

    def loss_on(seed: int) -> Tensor:
        tokens = fl.repeated_tokens(spec, length=4, batch=32, seed=seed)
        predicted = module(tokens).logits[:, 4:-1].flatten(0, 1)
        return F.cross_entropy(predicted, tokens[:, 5:].flatten())

    held_out = fl.repeated_tokens(spec, length=4, batch=32, seed=1000)
    before = float(fl.loss_per_token(spec, held_out)[:, 4:].mean())
    for seed in range(40):
        optimizer.zero_grad()
        loss_on(seed).backward()
        optimizer.step()
    after = float(fl.loss_per_token(spec, held_out)[:, 4:].mean())
    assert before > 1.8  # chance is ln 8 = 2.1 nats
    assert after < 0.3


@pytest.mark.parametrize("positions", ["learned", "rotary", "none"])
def test_cached_generation_equals_plain_runs(positions: Any) -> None:
    """Greedy tokens with keys and values kept are those of whole forwards."""
    spec = fl.toy(attrs.evolve(SMALL, positions=positions, n_kv_heads=2))
    prompt, expected = TOKENS[:, :3], TOKENS[:, :3]
    for _ in range(6):
        last = fl.run(spec, expected)[:, -1].argmax(-1)
        expected = torch.cat([expected, last[:, None]], dim=1)
    made = fl.generate(spec, prompt, max_new_tokens=6, do_sample=False)
    assert torch.equal(expected, made)


def test_bidirectional_toys_do_not_generate() -> None:
    """What saw the future has no next token."""
    spec = fl.toy(attrs.evolve(SMALL, is_causal=False))
    with pytest.raises(InputError, match="does not generate"):
        fl.generate(spec, TOKENS)


@pytest.mark.parametrize("is_tied", [False, True])
def test_a_saved_toy_loads(is_tied: bool, tmp_path: Path) -> None:
    """`save_pretrained` and `fl.load` give the same logits."""
    config = attrs.evolve(SMALL, is_tied=is_tied, norm="rms", logit_softcap=3.0)
    module: Any = fl.toy_module(config, seed=2)
    module.save_pretrained(tmp_path)
    loaded = fl.load(tmp_path, device="cpu")
    expected = fl.run(fl.from_module(module), TOKENS)
    assert torch.equal(expected, fl.run(loaded, TOKENS))
    assert fl.sites(fl.from_module(module)) == fl.sites(loaded)


def test_a_fresh_process_loads_a_toy(tmp_path: Path) -> None:
    """Nothing needs to be imported first."""
    module: Any = fl.toy_module(SMALL)
    module.save_pretrained(tmp_path)
    program = "import sys, funlens as fl\n"
    program += "print(fl.load(sys.argv[1], device='cpu').model_type)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        check=True,
        text=True,
    )
    assert "funlens_toy" == done.stdout.strip()


def test_caps_on_scores_refuse_sdpa(tmp_path: Path) -> None:
    """SDPA would leave the cap out without a word."""
    module: Any = fl.toy_module(attrs.evolve(SMALL, attn_softcap=2.0))
    module.save_pretrained(tmp_path)
    assert "eager" == fl.load(tmp_path, device="cpu").engine.attention
    with pytest.raises(LoadError):
        fl.load(tmp_path, device="cpu", attn_implementation="sdpa")


def test_a_toy_pickles() -> None:
    """Its classes are found by name."""
    module: Any = fl.toy_module(SMALL)
    again: Any = pickle.loads(pickle.dumps(module))  # noqa: S301 -- our own bytes
    assert torch.equal(module(TOKENS).logits, again(TOKENS).logits)


def test_a_toy_answers_as_huggingface_models_do() -> None:
    """A plain tuple, the last positions only, and embeddings in place of tokens."""
    module: Any = fl.toy_module(SMALL)
    whole = module(TOKENS).logits
    assert torch.equal(whole, module(TOKENS, return_dict=False)[0])
    last = module(TOKENS, logits_to_keep=2).logits
    torch.testing.assert_close(whole[:, -2:], last, atol=CLOSE, rtol=0)
    chosen = module(TOKENS, logits_to_keep=torch.tensor([0, 3])).logits
    torch.testing.assert_close(whole[:, [0, 3]], chosen, atol=CLOSE, rtol=0)
    embedded = module.get_input_embeddings()(TOKENS)
    assert torch.equal(whole, module(inputs_embeds=embedded).logits)
    assert 11 == module.get_output_embeddings().out_features


def test_kept_keys_and_values_continue_a_run() -> None:
    """Two forwards, the second with what the first kept, are one."""
    module: Any = fl.toy_module(attrs.evolve(SMALL, positions="rotary"))
    first = module(TOKENS[:, :4], use_cache=True)
    rest = module(TOKENS[:, 4:], past_key_values=first.past_key_values)
    both = torch.cat([first.logits, rest.logits], dim=1)
    torch.testing.assert_close(module(TOKENS).logits, both, atol=CLOSE, rtol=0)


ROTATED: Final = attrs.evolve(
    SMALL, norm="rms", positions="rotary", n_kv_heads=2, attn_softcap=2.0, is_gated=True
)


@pytest.mark.parametrize("config", [SMALL, ROTATED], ids=["learned", "rotary"])
def test_transforms_agree(config: fl.ToyConfig) -> None:
    """Mapped is looped, and derivatives are the finite difference, in float64."""
    spec = fl.from_module(fl.toy_module(config).double())
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 16, generator=generator, dtype=torch.float64)

    def metric(vector: Tensor) -> Tensor:
        edit = fl.Add(fl.resid_pre(1, pos=-1), vector)
        return fl.run(spec, TOKENS, [edit])[:, -1, :5].logsumexp(-1).sum()

    looped = torch.stack([metric(vector) for vector in vectors])
    torch.testing.assert_close(looped, vmap(metric)(vectors), atol=EXACT, rtol=0)
    at, along, _ = vectors
    difference = (metric(at + 1e-5 * along) - metric(at - 1e-5 * along)) / 2e-5
    slope = grad(metric)(at) @ along
    # a central difference errs by the third derivative times 1e-10, and by rounding
    torch.testing.assert_close(difference, slope, atol=1e-8, rtol=0)
    _, forward = jvp(metric, (at,), (along,))
    torch.testing.assert_close(slope, forward, atol=EXACT, rtol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("config", [SMALL, ROTATED], ids=["learned", "rotary"])
def test_a_compiled_run_is_one_graph(config: fl.ToyConfig) -> None:
    """The same numbers, without a break."""
    spec = fl.toy(config)
    expected = fl.run(spec, TOKENS)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda given: fl.run(spec, given), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(expected, compiled(TOKENS), atol=CLOSE, rtol=0)
