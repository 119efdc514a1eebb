"""The tables of encoders and decoders, and of their decoders alone."""

from typing import Final

from attrs import evolve

from funlens.adapters._families_common import SANDWICH
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
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
_WITH_FFN: Final = evolve(_BART_PRE_NORM, mlp=(Mlp(path="ffn"),))
_BIG_BIRD: Final = Attention(path="self_attn", asks_by_name=True, has_rotary=False)

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
        main=evolve(_M2M.main, block=_WITH_FFN),
        others={"encoder": evolve(_M2M.others["encoder"], block=_WITH_FFN)},
        mixes_rows="its experts take so many tokens of all rows",
    ),
    Architecture(
        model_types=("bigbird_pegasus",),
        main=evolve(
            _DECODER,
            block=evolve(_BART_PRE_NORM, attention=(_BIG_BIRD,)),
            ln_final="decoder.layernorm_embedding",
        ),
        others={
            "encoder": evolve(
                _ENCODER,
                block=_BART_PRE_NORM,
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
        mlp=(Mlp(path=f"layer.{last}.DenseReluDense"),),
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
            ln_final="decoder.norm",
            config="decoder",
        ),
        others={
            "encoder": Stack(
                blocks="encoder.layers",
                block=_T5_GEMMA,
                embed="encoder.embed_tokens",
                ln_final="encoder.norm",
                config="encoder",
            )
        },
        shifts=True,
    ),
)

SEQ2SEQ: Final[tuple[Architecture, ...]] = (*_BARTS, _T5, *_T5_GEMMAS)
"""Tables of encoders and decoders."""
