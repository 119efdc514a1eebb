"""The tables: how each family spells what is not in the common spelling."""

from typing import Final

from attrs import evolve

from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Fused,
    Mixer,
    Mlp,
    Stack,
)
from funlens.adapters._toy_tables import TOYS

_LN1: Final = ("input_layernorm", "attention_layernorm", "attn_norm", "operator_norm")
_LN2: Final = (
    "post_attention_layernorm",
    "pre_ff_layernorm",
    "feedforward_layernorm",
    "mlp_norm",
    "ffn_norm",
    "pre_feedforward_layernorm",
)
_MLPS: Final = ("mlp", "feed_forward", "block_sparse_moe")
_SELF: Final = Attention(path=("self_attn", "attn", "attention"))
_PRE_NORM: Final = Block(
    ln1=_LN1,
    attention=(_SELF,),
    ln2=_LN2,
    mlp=(Experts(path=_MLPS), Mlp(path=_MLPS)),
)
_SANDWICH: Final = evolve(
    _PRE_NORM,
    ln1_post="post_attention_layernorm",
    ln2="pre_feedforward_layernorm",
    ln2_post="post_feedforward_layernorm",
)
_AFTER_NORM: Final = evolve(_SANDWICH, ln1="", ln2="", mid=("in", "mlp"))
_PARALLEL: Final = evolve(_PRE_NORM, ln2="", parallel=True)


def _causal(*model_types: str, block: Block = _PRE_NORM) -> Architecture:
    return Architecture(model_types=model_types, main=Stack(block=block))


_GRANITE: Final = evolve(
    _PRE_NORM,
    multiplier="residual_multiplier",
    beside=(Mlp(path="shared_mlp"),),
)
_GLM4: Final = evolve(
    _PRE_NORM, ln1_post="post_self_attn_layernorm", ln2_post="post_mlp_layernorm"
)


def _with(block: Block, **words: object) -> Block:
    """Give a block whose every attention has other words."""
    changed = tuple(evolve(attention, **words) for attention in block.attention)
    return evolve(block, attention=changed)


_GATED: Final = "a gate multiplies the mixed heads"
_SUB_NORM: Final = "a norm stands between the mixed heads and the output projection"

_LLAMAS: Final = (
    _causal(
        "apertus",
        "arcee",
        "aria_text",
        "cwm",
        "dots1",
        "emu3",
        "emu3_text_model",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone_moe",
        "gemma",
        "glm",
        "glm4_moe",
        "got_ocr2",
        "helium",
        "hunyuan_v1_dense",
        "hunyuan_v1_moe",
        "hy_v3",
        "internlm3",
        "iquestcoder",
        "jais2",
        "llama",
        "mellum",
        "minimax_m2",
        "ministral",
        "ministral3",
        "mistral",
        "mixtral",
        "modernbert-decoder",
        "moss_transcribe_diarize",
        "nemotron",
        "olmoe",
        "phimoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "solar_open",
        "starcoder2",
        "vaultgemma",
    ),
    _causal("gemma2", "gemma3", "gemma3_text", block=_SANDWICH),
    _causal("exaone4", "flex_olmo", "olmo2", "olmo3", block=_AFTER_NORM),
    _causal("glm4", "kolibri1", block=_GLM4),
    _causal("cohere", "cohere2", "cohere2_moe", "cohere_compass_text", block=_PARALLEL),
    _causal("flint", "gpt_oss", block=_with(_PRE_NORM, sink="sinks")),
    _causal(
        "mimo_v2_flash",
        block=_with(_PRE_NORM, sink="sinks", changes="the values are scaled"),
    ),
    _causal("olmo", block=_with(_PRE_NORM, changed_in_place=True)),
    _causal("laguna", block=_with(_PRE_NORM, changes=_GATED)),
    _causal("bitnet", block=_with(_PRE_NORM, changes=_SUB_NORM)),
    _causal(
        "diffllama",
        block=_with(_PRE_NORM, changes="two patterns are subtracted from each other"),
    ),
    _causal(
        "phi3", "phi4_multimodal", block=_with(_PRE_NORM, fused=Fused(path="qkv_proj"))
    ),
    Architecture(
        model_types=(
            "granite",
            "granitemoe",
            "granitemoeshared",
        ),
        main=Stack(block=_GRANITE, embed_multiplier="embedding_multiplier"),
    ),
    Architecture(
        model_types=("granite_swa", "granitemoe_swa"),
        main=Stack(
            block=_with(_GRANITE, changes="a learned sink scales the mixed heads"),
            embed_multiplier="embedding_multiplier",
        ),
    ),
    Architecture(
        model_types=("nanochat",),
        # its last norm also stands before the first block: one module, two places
        main=Stack(block=_PRE_NORM, ln_final=""),
    ),
    Architecture(
        model_types=("stablelm",),
        when={"use_parallel_residual": True},
        main=Stack(block=_PARALLEL),
    ),
    _causal("stablelm"),
    _causal("phi", block=_PARALLEL),
    _causal(
        "persimmon",
        "fuyu",
        block=_with(_PRE_NORM, fused=Fused(path="query_key_value", by_group=True)),
    ),
    _causal(
        "afmoe",
        block=_with(
            evolve(
                _PRE_NORM,
                ln1_post="post_attention_layernorm",
                ln2="pre_mlp_layernorm",
                ln2_post="post_mlp_layernorm",
            ),
            changes=_GATED,
        ),
    ),
    _causal(
        "beam",
        block=evolve(
            _with(_SANDWICH, changes=_GATED), unsummed="the stream itself is rescaled"
        ),
    ),
    _causal(
        "hyperclovax",
        block=evolve(
            _PRE_NORM,
            ln1_post="post_norm1",
            ln2_post="post_norm2",
            multiplier="residual_multiplier",
        ),
    ),
)

_LATENT: Final = evolve(
    _SELF, kv="kv_b_proj", q_latent="q_a_layernorm", kv_latent="kv_a_layernorm"
)
_SPARSE_LATENT: Final = evolve(
    _PRE_NORM,
    attention=(evolve(_LATENT, asks_by_name=True, has_rotary=False),),
)
_DEEPSEEK: Final = (
    _causal(
        "axk1",
        "deepseek_v2",
        "deepseek_v3",
        "glm4_moe_lite",
        "youtu",
        block=evolve(_PRE_NORM, attention=(_LATENT,)),
    ),
    Architecture(
        model_types=("minicpm3",),
        main=Stack(
            block=evolve(
                _PRE_NORM,
                attention=(_LATENT,),
                multiplier="scale_depth / sqrt(num_hidden_layers)",
            ),
        ),
    ),
    _causal("deepseek_v32", block=_SPARSE_LATENT),
    # its layers share what an indexer chose
    _causal("glm_moe_dsa", block=evolve(_SPARSE_LATENT, can_skip=False)),
)

_GPT2_BLOCK: Final = Block(
    ln1="ln_1",
    attention=(Attention(path="attn", fused=Fused(path="c_attn"), has_rotary=False),),
    ln2="ln_2",
    mlp=(Mlp(path="mlp"),),
)
_GPT2: Final = Architecture(
    model_types=("gpt2", "gpt-sw3", "gpt_bigcode"),
    main=Stack(block=_GPT2_BLOCK, pos_embed="wpe"),
)
_GPT_NEO: Final = Architecture(
    model_types=("gpt_neo",),
    main=Stack(
        block=evolve(
            _GPT2_BLOCK,
            attention=(
                Attention(path="attn.attention", added="/attn", has_rotary=False),
            ),
            extras=1,
        ),
        pos_embed="wpe",
    ),
)
_GPTJ: Final = Architecture(
    model_types=("gptj",),
    main=Stack(
        block=evolve(_GPT2_BLOCK, attention=(_SELF,), ln2="", parallel=True, extras=1)
    ),
)

_BY_GROUP: Final = evolve(_SELF, fused=Fused(path="query_key_value", by_group=True))
_NEOX_BLOCK: Final = evolve(_PRE_NORM, attention=(_BY_GROUP,), mlp=(Mlp(path="mlp"),))
_NEOX: Final = (
    Architecture(
        model_types=("gpt_neox",),
        when={"use_parallel_residual": False},
        main=Stack(block=_NEOX_BLOCK),
    ),
    Architecture(
        model_types=("gpt_neox",), main=Stack(block=evolve(_NEOX_BLOCK, parallel=True))
    ),
)

_OPT_BLOCK: Final = Block(
    ln1="self_attn_layer_norm",
    attention=(evolve(_SELF, has_rotary=False),),
    ln2="final_layer_norm",
    mlp=(Mlp(),),
)
_OPT_STACK: Final = Stack(
    block=_OPT_BLOCK,
    embed=("decoder.project_in", "decoder.embed_tokens"),
    pos_embed="decoder.embed_positions",
    ln_final="decoder.final_layer_norm",
)
_OPT: Final = (
    Architecture(
        model_types=("opt",), when={"do_layer_norm_before": True}, main=_OPT_STACK
    ),
    Architecture(
        model_types=("opt",),
        main=evolve(
            _OPT_STACK,
            block=evolve(
                _OPT_BLOCK,
                ln1="",
                ln2="",
                mid=("out", "self_attn_layer_norm"),
                stream_norm=True,
            ),
        ),
    ),
)

_BLOOM: Final = Architecture(
    model_types=("bloom",),
    when={"apply_residual_connection_post_layernorm": False},
    main=Stack(
        block=evolve(
            _NEOX_BLOCK,
            attention=(
                Attention(
                    path="self_attention",
                    fused=Fused(path="query_key_value", by_group=True),
                    added="dense",
                    has_rotary=False,
                ),
            ),
            extras=1,
            mid=("out", "self_attention"),
            mlp=(Mlp(path="mlp", added="dense_4h_to_h"),),
        ),
        embed="word_embeddings_layernorm",
    ),
    plain={"BloomGelu": "bloom_gelu_forward"},
)

_FALCON_BLOCK: Final = evolve(
    _NEOX_BLOCK,
    attention=(evolve(_BY_GROUP, path="self_attention"),),
    extras=1,
)
_FALCON_PARALLEL: Final = evolve(_FALCON_BLOCK, ln2="", parallel=True)
_FALCON: Final = (
    Architecture(
        model_types=("falcon",),
        when={"new_decoder_architecture": False, "parallel_attn": False},
        main=Stack(
            block=evolve(_FALCON_BLOCK, mlp=(Mlp(path="mlp", changed_in_place=True),))
        ),
    ),
    Architecture(
        model_types=("falcon",),
        when={"new_decoder_architecture": False},
        main=Stack(
            block=evolve(
                _FALCON_PARALLEL, mlp=(Mlp(path="mlp", changed_in_place=True),)
            )
        ),
    ),
    Architecture(
        model_types=("falcon",),
        main=Stack(
            block=evolve(
                _FALCON_PARALLEL,
                ln1="ln_attn",
                ln2="ln_mlp",
                attention=(
                    evolve(_BY_GROUP, path="self_attention", repeats_keys=True),
                ),
                mlp=(Mlp(path="mlp", changed_in_place=True),),
            )
        ),
    ),
)

_MPT: Final = Architecture(
    model_types=("mpt",),
    main=Stack(
        block=Block(
            ln1="norm_1",
            attention=(evolve(_SELF, fused=Fused(path="Wqkv"), has_rotary=False),),
            extras=1,
            ln2="norm_2",
            mlp=(Mlp(path="ffn", added="down_proj"),),
        ),
    ),
)

_BERT_BLOCK: Final = Block(
    attention=(
        Attention(
            path="attention.self",
            o="/attention.output.dense",
            added="/attention.output.dense",
            has_rotary=False,
        ),
    ),
    mid=("out", "attention.output"),
    mlp=(
        Mlp(
            path="intermediate",
            up="dense",
            down="/output.dense",
            added="/output.dense",
        ),
    ),
    stream_norm=True,
)
_BERT_STACK: Final = Stack(
    block=_BERT_BLOCK,
    pos_embed="embeddings.position_embeddings",
    ln_final="",
)
_BERT_PRE_NORM: Final = evolve(
    _BERT_BLOCK,
    ln1=("attention.ln", "attention.LayerNorm", "attention.self_attn_layer_norm"),
    ln2=("ln", "intermediate.LayerNorm", "LayerNorm"),
    stream_norm=False,
)
_BERTS: Final = (
    Architecture(
        model_types=(
            "bert",
            "bert-generation",
            "big_bird",
            "electra",
            "ernie",
            "rembert",
            "roc_bert",
            "roformer",
        ),
        main=_BERT_STACK,
        is_causal="is_decoder",
    ),
    Architecture(
        model_types=("camembert", "data2vec-text", "roberta", "xlm-roberta", "xmod"),
        main=_BERT_STACK,
        is_causal="is_decoder",
        first_position="pad_token_id",
    ),
    Architecture(
        model_types=("megatron-bert",),
        main=evolve(_BERT_STACK, block=_BERT_PRE_NORM, ln_final="encoder.ln"),
        is_causal="is_decoder",
    ),
    Architecture(
        model_types=("roberta-prelayernorm", "xlm-roberta-xl"),
        main=evolve(
            _BERT_STACK,
            block=_BERT_PRE_NORM,
            ln_final=("LayerNorm", "encoder.LayerNorm"),
        ),
        is_causal="is_decoder",
        first_position="pad_token_id",
    ),
)

_BART_BLOCK: Final = Block(
    attention=(Attention(path="self_attn", has_rotary=False),),
    cross=(Attention(path="encoder_attn", has_rotary=False),),
    mid=("out", "self_attn_layer_norm"),
    mlp=(Mlp(),),
    stream_norm=True,
)
_BART_PRE_NORM: Final = evolve(
    _BART_BLOCK,
    ln1="self_attn_layer_norm",
    mid=None,
    ln2="final_layer_norm",
    stream_norm=False,
)
_DECODER: Final = Stack(
    blocks=("decoder.layers", "layers"),
    block=_BART_BLOCK,
    pos_embed=("decoder.embed_positions", "embed_positions"),
    ln_final="",
)
_BARTS: Final = (
    Architecture(
        model_types=("bart", "blenderbot-small", "marian", "mvp", "plbart", "trocr"),
        main=_DECODER,
    ),
    Architecture(
        model_types=("blenderbot", "mbart", "pegasus", "whisper", "biogpt", "xglm"),
        main=evolve(
            _DECODER,
            block=_BART_PRE_NORM,
            ln_final=("decoder.layer_norm", "layer_norm"),
        ),
    ),
)


def _t5_block(*, last: int) -> Block:
    """A block of a stack whose MLP is its `last` sublayer."""
    return Block(
        ln1="layer.0.layer_norm",
        attention=(Attention(path="layer.0.SelfAttention", has_rotary=False),),
        cross=(Attention(path="layer.1.EncDecAttention", has_rotary=False),),
        can_skip=False,
        mid=("in", f"layer.{last}"),
        ln2=f"layer.{last}.layer_norm",
        mlp=(Mlp(path=f"layer.{last}.DenseReluDense"),),
    )


_T5: Final = Architecture(
    model_types=("t5",),
    main=Stack(
        blocks="decoder.block",
        block=_t5_block(last=2),
        embed="decoder.embed_tokens",
        ln_final="decoder.final_layer_norm",
    ),
    others={
        "encoder": Stack(
            blocks="encoder.block",
            block=_t5_block(last=1),
            embed="encoder.embed_tokens",
            ln_final="encoder.final_layer_norm",
        )
    },
)

_MAMBA: Final = Architecture(
    model_types=("mamba",),
    main=Stack(
        block=Block(
            ln1="norm",
            mixer=(
                Mixer(
                    path="mixer",
                    parts={
                        "ssm_proj": ("out", "in_proj"),
                        "ssm_params": ("out", "x_proj"),
                    },
                ),
            ),
        ),
    ),
)

ARCHITECTURES: Final[tuple[Architecture, ...]] = (
    *_LLAMAS,
    *_DEEPSEEK,
    _GPT2,
    _GPT_NEO,
    _GPTJ,
    *_NEOX,
    *_OPT,
    _BLOOM,
    *_FALCON,
    _MPT,
    *_BERTS,
    *_BARTS,
    _T5,
    _MAMBA,
    *TOYS,
)
"""Every table; of several for one model type, the first whose `when` holds counts."""
