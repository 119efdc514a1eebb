"""The tables: how each family spells what is not in the common spelling."""

from typing import Final

from attrs import evolve

from funlens.adapters._families_audio import AUDIO
from funlens.adapters._families_barts import BARTS
from funlens.adapters._families_berts import BERTS
from funlens.adapters._families_common import (
    AFTER_NORM,
    GRANITE,
    GRANITE_STACK,
    PARALLEL,
    PRE_NORM,
    SANDWICH,
    SELF,
    causal,
    with_attention,
)
from funlens.adapters._families_encoders import ENCODERS
from funlens.adapters._families_images import IMAGE_TEXTS
from funlens.adapters._families_layouts import LAYOUTS
from funlens.adapters._families_rare import RARE
from funlens.adapters._families_recurrent import RECURRENT
from funlens.adapters._families_seq2seq import SEQ2SEQ
from funlens.adapters._families_speech import SPEECH
from funlens.adapters._families_streams import STREAMS
from funlens.adapters._families_vision import VISION
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Fused,
    Mlp,
    Stack,
)
from funlens.adapters._toy_tables import TOYS

_GLM4: Final = evolve(
    PRE_NORM, ln1_post="post_self_attn_layernorm", ln2_post="post_mlp_layernorm"
)


_GATED: Final = "a gate multiplies the mixed heads"
_SUB_NORM: Final = "a norm stands between the mixed heads and the output projection"

_LLAMAS: Final = (
    causal(
        "apertus",
        "arcee",
        "aria_text",
        "cwm",
        "dots1",
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
    causal("gemma2", "gemma3", "gemma3_text", block=SANDWICH),
    causal("exaone4", "flex_olmo", "olmo2", "olmo3", block=AFTER_NORM),
    causal("glm4", "kolibri1", block=_GLM4),
    causal("cohere", "cohere2", "cohere2_moe", "cohere_compass_text", block=PARALLEL),
    causal("flint", "gpt_oss", block=with_attention(PRE_NORM, sink="sinks")),
    causal(
        "mimo_v2_flash",
        block=with_attention(PRE_NORM, sink="sinks", changes="the values are scaled"),
    ),
    causal("olmo", block=with_attention(PRE_NORM, changed_in_place=True)),
    causal("laguna", block=with_attention(PRE_NORM, changes=_GATED)),
    causal("bitnet", block=with_attention(PRE_NORM, changes=_SUB_NORM)),
    causal(
        "diffllama",
        block=with_attention(
            PRE_NORM, changes="two patterns are subtracted from each other"
        ),
    ),
    causal(
        "phi3",
        "phi4_multimodal",
        block=with_attention(PRE_NORM, fused=Fused(path="qkv_proj")),
    ),
    Architecture(
        model_types=("granite", "granitemoe", "granitemoeshared"),
        main=GRANITE_STACK,
    ),
    Architecture(
        model_types=("granite_swa", "granitemoe_swa"),
        main=Stack(
            block=with_attention(
                GRANITE, changes="a learned sink scales the mixed heads"
            ),
            embed_multiplier="embedding_multiplier",
        ),
    ),
    Architecture(
        model_types=("nanochat",),
        # its last norm also stands before the first block: one module, two places
        main=Stack(block=PRE_NORM, ln_final=""),
    ),
    Architecture(
        model_types=("stablelm",),
        when={"use_parallel_residual": True},
        main=Stack(block=PARALLEL),
    ),
    causal("stablelm"),
    causal("phi", block=PARALLEL),
    causal(
        "persimmon",
        "fuyu",
        block=with_attention(
            PRE_NORM, fused=Fused(path="query_key_value", by_group=True)
        ),
    ),
    causal(
        "afmoe",
        block=with_attention(
            evolve(
                PRE_NORM,
                ln1_post="post_attention_layernorm",
                ln2="pre_mlp_layernorm",
                ln2_post="post_mlp_layernorm",
            ),
            changes=_GATED,
        ),
    ),
    causal(
        "beam",
        block=evolve(
            with_attention(SANDWICH, changes=_GATED),
            unsummed="the stream itself is rescaled",
        ),
    ),
    causal(
        "hyperclovax",
        block=evolve(
            PRE_NORM,
            ln1_post="post_norm1",
            ln2_post="post_norm2",
            multiplier="residual_multiplier",
        ),
    ),
)

_LATENT: Final = evolve(
    SELF, kv="kv_b_proj", q_latent="q_a_layernorm", kv_latent="kv_a_layernorm"
)
_SPARSE_LATENT: Final = evolve(
    PRE_NORM,
    attention=(evolve(_LATENT, asks_by_name=True, has_rotary=False),),
)
_DEEPSEEK: Final = (
    causal(
        "axk1",
        "deepseek_v2",
        "deepseek_v3",
        "glm4_moe_lite",
        "youtu",
        block=evolve(PRE_NORM, attention=(_LATENT,)),
    ),
    Architecture(
        model_types=("minicpm3",),
        main=Stack(
            block=evolve(
                PRE_NORM,
                attention=(_LATENT,),
                multiplier="scale_depth / sqrt(num_hidden_layers)",
            ),
        ),
    ),
    Architecture(
        model_types=("deepseek_v32",),
        main=Stack(block=_SPARSE_LATENT),
        sees_padding="its indexer chooses padded positions too",
    ),
    # its layers share what an indexer chose
    causal("glm_moe_dsa", block=evolve(_SPARSE_LATENT, can_skip=False)),
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
_IMAGE_GPT: Final = evolve(
    _GPT2,
    model_types=("imagegpt",),
    row_padding="its classifier reads the mean of all columns",
)
_GPT_NEO: Final = Architecture(
    model_types=("gpt_neo",),
    main=Stack(
        block=evolve(
            _GPT2_BLOCK,
            attention=(
                Attention(path="attn.attention", added="/attn", has_rotary=False),
            ),
        ),
        pos_embed="wpe",
    ),
)
_GPTJ: Final = Architecture(
    model_types=("gptj",),
    main=Stack(block=evolve(_GPT2_BLOCK, attention=(SELF,), ln2="", parallel=True)),
)

_BY_GROUP: Final = evolve(SELF, fused=Fused(path="query_key_value", by_group=True))
_NEOX_BLOCK: Final = evolve(PRE_NORM, attention=(_BY_GROUP,), mlp=(Mlp(path="mlp"),))
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
    attention=(evolve(SELF, has_rotary=False),),
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

_FALCON_ALIBI: Final = tuple(
    evolve(
        table,
        when={**table.when, "alibi": True},
        no_func={
            "Jvp": "forward mode needs eager attention, which with ALiBi gives other "
            "scores here than SDPA"
        },
    )
    for table in _FALCON
)

_MPT: Final = Architecture(
    model_types=("mpt",),
    main=Stack(
        block=Block(
            ln1="norm_1",
            attention=(evolve(SELF, fused=Fused(path="Wqkv"), has_rotary=False),),
            ln2="norm_2",
            mlp=(Mlp(path="ffn", added="down_proj"),),
        ),
    ),
)

ARCHITECTURES: Final[tuple[Architecture, ...]] = (
    *IMAGE_TEXTS,
    *_LLAMAS,
    *_DEEPSEEK,
    _GPT2,
    _IMAGE_GPT,
    _GPT_NEO,
    _GPTJ,
    *_NEOX,
    *_OPT,
    _BLOOM,
    *_FALCON_ALIBI,
    *_FALCON,
    _MPT,
    *BERTS,
    *ENCODERS,
    *BARTS,
    *SEQ2SEQ,
    *RECURRENT,
    *RARE,
    *STREAMS,
    *LAYOUTS,
    *VISION,
    *AUDIO,
    *SPEECH,
    *TOYS,
)
"""Every table; of several for one model type, the first whose `when` holds counts."""
