"""The tables of encoders and decoders, and of their decoders alone."""

from typing import Any, Final

import torch
from attrs import evolve

from funlens.adapters._families_common import (
    BANDED,
    PRE_NORM,
    SANDWICH,
    causal,
    with_attention,
)
from funlens.adapters._families_encoders import BERT_BLOCK
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Mlp,
    Stack,
)

_CROSS: Final = Attention(path=("encoder_attn", "cross_attention"), has_rotary=False)
_BART_BLOCK: Final = Block(
    attention=(Attention(path="self_attn", has_rotary=False),),
    cross=(_CROSS,),
    mid=("out", "self_attn_layer_norm"),
    cross_mid="encoder_attn_layer_norm",
    mlp=(Mlp(),),
    stream_norm=True,
)
_BART_PRE_NORM: Final = evolve(
    _BART_BLOCK,
    ln1="self_attn_layer_norm",
    mid=None,
    cross_mid="",
    ln2=("final_layer_norm", "ff_layer_norm", "ffn_layer_norm"),
    stream_norm=False,
)
_DECODER: Final = Stack(
    blocks=("decoder.layers", "text_decoder.layers", "layers"),
    block=_BART_BLOCK,
    embed=("decoder.embed_tokens", "text_decoder.embed_tokens", "embed_tokens"),
    pos_embed=(
        "decoder.embed_positions",
        "text_decoder.embed_positions",
        "embed_positions",
    ),
    ln_final="",
)
_ENCODER: Final = Stack(
    blocks=("encoder.layers", "text_encoder.layers"),
    block=_BART_BLOCK,
    embed=("encoder.embed_tokens", "text_encoder.embed_tokens"),
    pos_embed=("encoder.embed_positions", "text_encoder.embed_positions"),
    ln_final="",
)
_PRE_NORM_DECODER: Final = evolve(
    _DECODER,
    block=_BART_PRE_NORM,
    ln_final=("decoder.layer_norm", "text_decoder.layer_norm", "layer_norm"),
)
_PRE_NORM_ENCODER: Final = evolve(
    _ENCODER,
    block=_BART_PRE_NORM,
    ln_final=("encoder.layer_norm", "text_encoder.layer_norm"),
)
_BART: Final = Architecture(
    model_types=("bart", "mvp", "plbart"),
    main=_DECODER,
    others={"encoder": _ENCODER},
    shifts=True,
)
_MBART: Final = Architecture(
    model_types=("mbart",),
    main=_PRE_NORM_DECODER,
    others={"encoder": _PRE_NORM_ENCODER},
    shifts=True,
)
_M2M: Final = evolve(
    _MBART,
    model_types=("m2m_100",),
    main=evolve(_PRE_NORM_DECODER, counts_tokens=True),
    others={"encoder": evolve(_PRE_NORM_ENCODER, counts_tokens=True)},
    shifts=False,
)
_WITH_FFN: Final = evolve(_BART_PRE_NORM, mlp=(Experts(path="ffn"), Mlp(path="ffn")))
# Its experts read the mask that eager attention adds.
_NLLB: Final = evolve(
    with_attention(_WITH_FFN, asks_by_name=True),
    cross=(evolve(_CROSS, asks_by_name=True),),
)
_BIG_BIRD: Final = Attention(path="self_attn.self", asks_by_name=True, has_rotary=False)

_ROUTED: Final = dict.fromkeys(
    ("Vmap", "Grad", "Jvp"), "each run of its routers sets the weights' own dtype anew"
)


def _casts(module: Any) -> str:
    """Tell whether a run would change the dtype of the routers' own weights."""
    wanted = getattr(torch, module.config.router_dtype)
    routers = [part for part in module.modules() if hasattr(part, "expert_capacity")]
    if all(router.classifier.weight.dtype == wanted for router in routers):
        return ""
    return (
        f"its first run casts the routers' weights to {wanted}, and they are yours. "
        "Run it once before you hand it over"
    )


def _draws(module: Any) -> str:
    """Tell whether routers cast weights, or draw from the global generator."""
    policy = module.config.second_expert_policy
    if policy == "all":
        return _casts(module)
    return f"its routers draw random numbers: `second_expert_policy` is {policy!r}"


_BARTS: Final = (
    _BART,
    evolve(_BART, model_types=("blenderbot-small", "marian"), shifts=False),
    Architecture(model_types=("trocr",), main=_DECODER),
    _MBART,
    evolve(_MBART, model_types=("blenderbot", "pegasus"), shifts=False),
    Architecture(model_types=("whisper", "biogpt", "xglm"), main=_PRE_NORM_DECODER),
    _M2M,
    evolve(
        _M2M,
        model_types=("seamless_m4t", "seamless_m4t_v2"),
        main=evolve(_M2M.main, block=_WITH_FFN),
        others={"encoder": evolve(_M2M.others["encoder"], block=_WITH_FFN)},
    ),
    evolve(
        _M2M,
        model_types=("nllb-moe",),
        main=evolve(_M2M.main, block=_NLLB),
        others={"encoder": evolve(_M2M.others["encoder"], block=_NLLB)},
        mixes_rows="its experts take so many tokens of all rows",
        no_func=_ROUTED,
        refusal=_draws,
    ),
    Architecture(
        model_types=("bigbird_pegasus",),
        main=evolve(
            _DECODER,
            block=evolve(
                _BART_PRE_NORM,
                attention=(evolve(_BIG_BIRD, path="self_attn"),),
                cross=(evolve(_CROSS, asks_by_name=True),),
            ),
            ln_final="decoder.layernorm_embedding",
        ),
        others={
            "encoder": evolve(
                _ENCODER,
                block=evolve(
                    _BART_PRE_NORM,
                    attention=(
                        evolve(
                            _BIG_BIRD,
                            o="/self_attn.output",
                            added="/self_attn.output",
                        ),
                    ),
                ),
                ln_final="encoder.layernorm_embedding",
            )
        },
        shifts=True,
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
        mlp=(
            Experts(path=f"layer.{last}.mlp"),
            Mlp(path=(f"layer.{last}.DenseReluDense", f"layer.{last}.mlp")),
        ),
    )


_T5: Final = Architecture(
    model_types=("mt5", "t5", "umt5"),
    biased_masks=True,
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

_SWITCH: Final = evolve(
    _T5, model_types=("switch_transformers",), no_func=_ROUTED, refusal=_casts
)

_LOCAL: Final = Attention(
    path="layer.0.LocalSelfAttention", has_rotary=False, hidden=BANDED
)
_TRANSIENT: Final = evolve(
    _LOCAL, path="layer.0.TransientGlobalSelfAttention", again=True
)
_LONG_T5: Final = evolve(
    _T5,
    model_types=("longt5",),
    others={
        "encoder": evolve(
            _T5.others["encoder"], block=evolve(_t5_block(last=1), attention=(_LOCAL,))
        )
    },
)
_LONG_T5_GLOBAL: Final = evolve(
    _LONG_T5,
    when={"encoder_attention_type": "transient-global"},
    others={
        "encoder": evolve(
            _T5.others["encoder"],
            block=evolve(_t5_block(last=1), attention=(_TRANSIENT,)),
        )
    },
    unpadded="its global tokens stand for blocks of columns",
)
_LED: Final = evolve(
    _BART,
    model_types=("led",),
    others={
        "encoder": evolve(
            _ENCODER,
            block=evolve(
                _BART_BLOCK,
                attention=(
                    Attention(
                        path="self_attn.longformer_self_attn",
                        o="/self_attn.output",
                        added="/self_attn.output",
                        has_rotary=False,
                        layout="pbd",
                        changed_in_place=True,
                        hidden=BANDED,
                    ),
                ),
            ),
            overhangs=True,
        )
    },
)
_PEGASUS_X: Final = evolve(
    _MBART,
    model_types=("pegasus_x",),
    others={
        "encoder": evolve(
            _PRE_NORM_ENCODER,
            block=Block(
                unsummed="global tokens go through the same modules beside the text"
            ),
            overhangs=True,
        )
    },
    shifts=False,
    unpadded="its encoder attends within blocks of columns",
)
_FSMT: Final = evolve(
    _BART,
    model_types=("fsmt",),
    main=evolve(
        _DECODER,
        embed_multiplier="sqrt(d_model) if scale_embedding",
        counts_tokens=True,
        layout="pbd",
    ),
    unembed="decoder.output_projection",
    uncached="it leaves the causal mask out",
    others={
        "encoder": evolve(
            _ENCODER,
            embed_multiplier="sqrt(d_model) if scale_embedding",
            counts_tokens=True,
            layout="pbd",
        )
    },
)

_T5_GEMMA: Final = evolve(
    SANDWICH,
    ln1="pre_self_attn_layernorm",
    ln1_post="post_self_attn_layernorm",
    cross=(
        Attention(
            path="cross_attn", added="/post_cross_attn_layernorm", has_rotary=False
        ),
    ),
)
_T5_GEMMAS: Final = (
    Architecture(
        model_types=("t5gemma",),
        main=Stack(
            blocks="decoder.layers",
            block=_T5_GEMMA,
            embed="decoder.embed_tokens",
            embed_multiplier="sqrt(hidden_size) if hidden_size",
            ln_final="decoder.norm",
            config="decoder",
        ),
        others={
            "encoder": Stack(
                blocks="encoder.layers",
                block=_T5_GEMMA,
                embed="encoder.embed_tokens",
                embed_multiplier="sqrt(hidden_size) if hidden_size",
                ln_final="encoder.norm",
                config="encoder",
            )
        },
        shifts=True,
    ),
)

_T5_GEMMA2: Final = Architecture(
    model_types=("t5gemma2",),
    main=Stack(
        blocks="decoder.layers",
        block=evolve(with_attention(_T5_GEMMA, merged=True), cross=()),
        embed="decoder.embed_tokens",
        ln_final="decoder.norm",
        config="decoder",
    ),
    others={
        "encoder": Stack(
            blocks="encoder.text_model.layers",
            block=_T5_GEMMA,
            embed="encoder.text_model.embed_tokens",
            ln_final="encoder.text_model.norm",
            config="encoder.text_config",
        )
    },
)

# Decoders that hear; without sound they run on text alone.
_HEARING: Final = (
    causal(
        "audioflamingo3",
        "glmasr",
        "musicflamingo",
        "qwen2_audio",
        "qwen3_asr",
        "vibevoice_asr",
        "voxtral",
    ),
    Architecture(
        model_types=("voxtral_realtime",),
        unpadded="its encoder hears the padding too",
        main=Stack(block=PRE_NORM, embed_changes=True),
    ),
)

_PAIR: Final = Architecture(
    model_types=("encoder-decoder",),
    main=Stack(
        blocks=("decoder.bert.encoder.layer", "decoder.roberta.encoder.layer"),
        block=BERT_BLOCK,
        embed=(
            "decoder.bert.embeddings.word_embeddings",
            "decoder.roberta.embeddings.word_embeddings",
        ),
        pos_embed=(
            "decoder.bert.embeddings.position_embeddings",
            "decoder.roberta.embeddings.position_embeddings",
        ),
        ln_final="",
        config="decoder",
    ),
    others={
        "encoder": Stack(
            blocks="encoder.encoder.layer",
            block=BERT_BLOCK,
            embed="encoder.embeddings.word_embeddings",
            pos_embed="encoder.embeddings.position_embeddings",
            ln_final="",
            config="encoder",
        )
    },
)

SEQ2SEQ: Final[tuple[Architecture, ...]] = (
    *_BARTS,
    _T5,
    _SWITCH,
    _LONG_T5_GLOBAL,
    _LONG_T5,
    _LED,
    _PEGASUS_X,
    _FSMT,
    *_T5_GEMMAS,
    _T5_GEMMA2,
    _PAIR,
    *_HEARING,
)
"""Tables of encoders and decoders."""
