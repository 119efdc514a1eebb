"""The tables: how each family spells what every transformer has."""

from typing import Final

from attrs import evolve

from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Fused,
    Mlp,
    Stack,
    StateSpace,
)

_SELF: Final = "self_attn"
_ATTENTION: Final = Attention(
    path=_SELF,
    q="self_attn.q_proj",
    k="self_attn.k_proj",
    v="self_attn.v_proj",
    o="self_attn.o_proj",
)
_GATED: Final = Mlp(
    path="mlp", gate="mlp.gate_proj", up="mlp.up_proj", down="mlp.down_proj"
)
_PRE_NORM: Final = Block(
    ln1="input_layernorm",
    attention=_ATTENTION,
    ln2="post_attention_layernorm",
    mlp=(_GATED,),
)
_STACK: Final = Stack(
    blocks="model.layers",
    block=_PRE_NORM,
    embed="model.embed_tokens",
    ln_final="model.norm",
)
_LLAMA: Final = Architecture(
    model_types=("llama", "mistral", "qwen2", "qwen3", "gemma", "smollm3"),
    main=_STACK,
)


def _like_llama(*model_types: str, block: Block, norm: str = "rms") -> Architecture:
    kind = "layer" if norm == "layer" else "rms"
    main = evolve(_STACK, block=block)
    return Architecture(model_types=model_types, main=main, norm=kind)


_MIXTURE: Final = Experts(
    path="mlp",
    router="mlp.gate",
    stacked="mlp.experts",
    shared=Mlp(
        path="mlp.shared_expert",
        gate="mlp.shared_expert.gate_proj",
        up="mlp.shared_expert.up_proj",
        down="mlp.shared_expert.down_proj",
    ),
    shared_gate="mlp.shared_expert_gate",
)
_LLAMAS: Final = (
    _LLAMA,
    _like_llama(
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        block=evolve(_PRE_NORM, mlp=(_MIXTURE, _GATED)),
    ),
    _like_llama(
        "gpt_oss",
        block=evolve(
            _PRE_NORM,
            attention=evolve(_ATTENTION, sink=True),
            mlp=(
                evolve(
                    _MIXTURE, router="mlp.router", input_first=True, interleaved=True
                ),
            ),
        ),
    ),
    _like_llama(
        "gemma2",
        "gemma3_text",
        block=evolve(
            _PRE_NORM,
            ln1_post="post_attention_layernorm",
            ln2="pre_feedforward_layernorm",
            ln2_post="post_feedforward_layernorm",
        ),
    ),
    _like_llama(
        "olmo2",
        block=evolve(
            _PRE_NORM,
            ln1="",
            ln1_post="post_attention_layernorm",
            ln2="",
            mid=("in", "mlp"),
            ln2_post="post_feedforward_layernorm",
        ),
    ),
    _like_llama(
        "olmo",
        block=evolve(_PRE_NORM, attention=evolve(_ATTENTION, changed_in_place=True)),
        norm="layer",
    ),
    _like_llama(
        "phi3",
        block=evolve(
            _PRE_NORM,
            attention=Attention(
                path=_SELF,
                fused=Fused(path="self_attn.qkv_proj"),
                o="self_attn.o_proj",
            ),
            mlp=(Mlp(path="mlp", gate_up="mlp.gate_up_proj", down="mlp.down_proj"),),
        ),
    ),
    _like_llama("cohere", block=evolve(_PRE_NORM, ln2="", parallel=True), norm="layer"),
    _like_llama(
        "starcoder2",
        block=evolve(
            _PRE_NORM, mlp=(Mlp(path="mlp", up="mlp.c_fc", down="mlp.c_proj"),)
        ),
        norm="layer",
    ),
    Architecture(
        model_types=("granite",),
        main=evolve(
            _STACK,
            block=evolve(_PRE_NORM, multiplier="residual_multiplier"),
            embed_multiplier="embedding_multiplier",
        ),
    ),
    Architecture(
        model_types=("stablelm",),
        when={"use_parallel_residual": True},
        main=evolve(_STACK, block=evolve(_PRE_NORM, ln2="", parallel=True)),
        norm="layer",
    ),
    _like_llama("stablelm", block=_PRE_NORM, norm="layer"),
    Architecture(
        model_types=("phi",),
        main=evolve(
            _STACK,
            block=Block(
                ln1="input_layernorm",
                attention=evolve(_ATTENTION, o="self_attn.dense"),
                mlp=(Mlp(path="mlp", up="mlp.fc1", down="mlp.fc2"),),
                parallel=True,
            ),
            ln_final="model.final_layernorm",
        ),
        norm="layer",
    ),
)

_GPT2: Final = Architecture(
    model_types=("gpt2",),
    main=Stack(
        blocks="transformer.h",
        block=Block(
            ln1="ln_1",
            attention=Attention(
                path="attn",
                fused=Fused(path="attn.c_attn"),
                o="attn.c_proj",
                has_rotary=False,
            ),
            ln2="ln_2",
            mlp=(Mlp(path="mlp", up="mlp.c_fc", down="mlp.c_proj"),),
        ),
        embed="transformer.wte",
        pos_embed="transformer.wpe",
        ln_final="transformer.ln_f",
    ),
    norm="layer",
)

_NEOX_BLOCK: Final = Block(
    ln1="input_layernorm",
    attention=Attention(
        path="attention",
        fused=Fused(path="attention.query_key_value", by_group=True),
        o="attention.dense",
    ),
    ln2="post_attention_layernorm",
    mlp=(Mlp(path="mlp", up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h"),),
)
_NEOX: Final = Architecture(
    model_types=("gpt_neox",),
    when={"use_parallel_residual": False},
    main=Stack(
        blocks="gpt_neox.layers",
        block=_NEOX_BLOCK,
        embed="gpt_neox.embed_in",
        ln_final="gpt_neox.final_layer_norm",
    ),
    norm="layer",
)
_NEOX_PARALLEL: Final = evolve(
    _NEOX, when={}, main=evolve(_NEOX.main, block=evolve(_NEOX_BLOCK, parallel=True))
)

_GPTJ: Final = Architecture(
    model_types=("gptj",),
    main=Stack(
        blocks="transformer.h",
        block=Block(
            ln1="ln_1",
            attention=Attention(
                path="attn",
                q="attn.q_proj",
                k="attn.k_proj",
                v="attn.v_proj",
                o="attn.out_proj",
                has_interface=False,
            ),
            mlp=(Mlp(path="mlp", up="mlp.fc_in", down="mlp.fc_out"),),
            parallel=True,
            extras=1,
        ),
        embed="transformer.wte",
        ln_final="transformer.ln_f",
    ),
    norm="layer",
)

_GPT_NEO: Final = evolve(
    _GPT2,
    model_types=("gpt_neo",),
    main=evolve(
        _GPT2.main,
        block=evolve(
            _GPT2.main.block,
            extras=1,
            attention=Attention(
                path="attn",
                q="attn.attention.q_proj",
                k="attn.attention.k_proj",
                v="attn.attention.v_proj",
                o="attn.attention.out_proj",
                has_rotary=False,
                has_interface=False,
            ),
        ),
    ),
)

_OPT: Final = Architecture(
    model_types=("opt",),
    when={"do_layer_norm_before": True},
    main=Stack(
        blocks="model.decoder.layers",
        block=Block(
            ln1="self_attn_layer_norm",
            attention=evolve(_ATTENTION, o="self_attn.out_proj", has_rotary=False),
            ln2="final_layer_norm",
            mlp=(Mlp(up="fc1", down="fc2"),),
        ),
        embed=("model.decoder.project_in", "model.decoder.embed_tokens"),
        pos_embed="model.decoder.embed_positions",
        ln_final="model.decoder.final_layer_norm",
    ),
    norm="layer",
)
_OPT_POST_NORM: Final = evolve(
    _OPT,
    when={},
    main=evolve(
        _OPT.main,
        block=evolve(
            _OPT.main.block,
            ln1="",
            ln2="",
            mid=("out", "self_attn_layer_norm"),
            stream_norm=True,
        ),
    ),
)

_BLOOM: Final = Architecture(
    model_types=("bloom",),
    when={"apply_residual_connection_post_layernorm": False},
    main=Stack(
        blocks="transformer.h",
        block=Block(
            ln1="input_layernorm",
            attention=Attention(
                path="self_attention",
                fused=Fused(path="self_attention.query_key_value", by_group=True),
                o="self_attention.dense",
                added="self_attention.dense",
                has_rotary=False,
                has_interface=False,
            ),
            extras=1,
            mid=("out", "self_attention"),
            ln2="post_attention_layernorm",
            mlp=(
                Mlp(
                    path="mlp",
                    up="mlp.dense_h_to_4h",
                    down="mlp.dense_4h_to_h",
                    added="mlp.dense_4h_to_h",
                ),
            ),
        ),
        embed=(
            "transformer.word_embeddings_layernorm",
            "transformer.word_embeddings",
        ),
        ln_final="transformer.ln_f",
    ),
    norm="layer",
)

_FALCON: Final = Architecture(
    model_types=("falcon",),
    when={"new_decoder_architecture": False, "parallel_attn": False},
    main=Stack(
        blocks="transformer.h",
        block=Block(
            ln1="input_layernorm",
            attention=Attention(
                path="self_attention",
                fused=Fused(path="self_attention.query_key_value", by_group=True),
                o="self_attention.dense",
                has_interface=False,
            ),
            extras=1,
            ln2="post_attention_layernorm",
            mlp=(
                Mlp(
                    path="mlp",
                    up="mlp.dense_h_to_4h",
                    down="mlp.dense_4h_to_h",
                    changed_in_place=True,
                ),
            ),
        ),
        embed="transformer.word_embeddings",
        ln_final="transformer.ln_f",
    ),
    norm="layer",
)
_FALCON_PARALLEL: Final = evolve(
    _FALCON,
    when={"new_decoder_architecture": False},
    main=evolve(_FALCON.main, block=evolve(_FALCON.main.block, ln2="", parallel=True)),
)
_FALCON_NEW: Final = evolve(
    _FALCON_PARALLEL,
    when={},
    main=evolve(
        _FALCON_PARALLEL.main,
        block=evolve(
            _FALCON_PARALLEL.main.block,
            ln1="ln_attn",
            attention=Attention(
                path="self_attention",
                fused=Fused(path="self_attention.query_key_value", by_group=True),
                o="self_attention.dense",
                has_interface=False,
                repeats_keys=True,
            ),
            ln2="ln_mlp",
        ),
    ),
)

_MPT: Final = Architecture(
    model_types=("mpt",),
    main=Stack(
        blocks="transformer.blocks",
        block=Block(
            ln1="norm_1",
            attention=Attention(
                path="attn",
                fused=Fused(path="attn.Wqkv"),
                o="attn.out_proj",
                has_rotary=False,
                has_interface=False,
            ),
            extras=1,
            ln2="norm_2",
            mlp=(
                Mlp(
                    path="ffn",
                    up="ffn.up_proj",
                    down="ffn.down_proj",
                    added="ffn.down_proj",
                ),
            ),
        ),
        embed="transformer.wte",
        ln_final="transformer.norm_f",
    ),
    norm="layer",
)

_BERT: Final = Architecture(
    model_types=("bert",),
    main=Stack(
        blocks="bert.encoder.layer",
        block=Block(
            attention=Attention(
                path="attention.self",
                q="attention.self.query",
                k="attention.self.key",
                v="attention.self.value",
                o="attention.output.dense",
                added="attention.output.dense",
                has_rotary=False,
            ),
            mid=("out", "attention.output"),
            mlp=(
                Mlp(
                    path="intermediate",
                    up="intermediate.dense",
                    down="output.dense",
                    added="output.dense",
                ),
            ),
            stream_norm=True,
        ),
        embed="bert.embeddings.word_embeddings",
        pos_embed="bert.embeddings.position_embeddings",
    ),
    unembed="cls.predictions.decoder",
    norm="layer",
    is_causal=False,
)


def _t5_attention(at: int, name: str) -> Attention:
    path = f"layer.{at}.{name}"
    return Attention(
        path=path,
        q=f"{path}.q",
        k=f"{path}.k",
        v=f"{path}.v",
        o=f"{path}.o",
        has_rotary=False,
    )


def _t5_stack(name: str, *, last: int) -> Stack:
    dense = f"layer.{last}.DenseReluDense"
    return Stack(
        blocks=f"{name}.block",
        block=Block(
            ln1="layer.0.layer_norm",
            attention=_t5_attention(0, "SelfAttention"),
            ln_cross="layer.1.layer_norm" if last == 2 else "",  # noqa: PLR2004 -- self, cross, dense
            cross=_t5_attention(1, "EncDecAttention") if last == 2 else None,  # noqa: PLR2004 -- self, cross, dense
            can_skip=False,
            mid=("in", f"layer.{last}"),
            ln2=f"layer.{last}.layer_norm",
            mlp=(
                Mlp(
                    path=dense,
                    gate=f"{dense}.wi_0",
                    up=f"{dense}.wi_1",
                    down=f"{dense}.wo",
                ),
                Mlp(path=dense, up=f"{dense}.wi", down=f"{dense}.wo"),
            ),
        ),
        embed=f"{name}.embed_tokens",
        ln_final=f"{name}.final_layer_norm",
    )


_T5: Final = Architecture(
    model_types=("t5",),
    main=_t5_stack("decoder", last=2),
    encoder=_t5_stack("encoder", last=1),
    sizes={"d_head": "d_kv", "n_layers": "num_decoder_layers"},
)

_MAMBA: Final = Architecture(
    model_types=("mamba",),
    main=Stack(
        blocks="backbone.layers",
        block=Block(
            ln1="norm",
            mixer=StateSpace(
                path="mixer",
                projection="mixer.in_proj",
                parameters="mixer.x_proj",
                o="mixer.out_proj",
            ),
        ),
        embed="backbone.embeddings",
        ln_final="backbone.norm_f",
    ),
)

ARCHITECTURES: Final[tuple[Architecture, ...]] = (
    *_LLAMAS,
    _GPT2,
    _NEOX,
    _NEOX_PARALLEL,
    _GPTJ,
    _GPT_NEO,
    _OPT,
    _OPT_POST_NORM,
    _BLOOM,
    _FALCON,
    _FALCON_PARALLEL,
    _FALCON_NEW,
    _MPT,
    _BERT,
    _T5,
    _MAMBA,
)
"""Every table; of several for one model type, the first whose `when` holds counts."""
