"""The tables of BART and of what is spelled like it."""

from typing import Final

from attrs import evolve

from funlens.adapters._families_common import (
    BANDED,
    ROUTED,
    draws,
    sparse,
    with_attention,
)
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Mlp,
    Stack,
)

_CROSS: Final = Attention(path=("encoder_attn", "cross_attention"), has_rotary=False)
BART_BLOCK: Final = Block(
    attention=(Attention(path="self_attn", has_rotary=False),),
    cross=(_CROSS,),
    mid=("out", "self_attn_layer_norm"),
    cross_mid="encoder_attn_layer_norm",
    mlp=(Mlp(),),
    stream_norm=True,
)
BART_PRE_NORM: Final = evolve(
    BART_BLOCK,
    ln1="self_attn_layer_norm",
    mid=None,
    cross_mid="",
    ln2=("final_layer_norm", "ff_layer_norm", "ffn_layer_norm"),
    stream_norm=False,
)
_DECODER: Final = Stack(
    blocks=("decoder.layers", "text_decoder.layers", "layers"),
    block=BART_BLOCK,
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
    block=BART_BLOCK,
    embed=("encoder.embed_tokens", "text_encoder.embed_tokens"),
    pos_embed=("encoder.embed_positions", "text_encoder.embed_positions"),
    ln_final="",
)
PRE_NORM_DECODER: Final = evolve(
    _DECODER,
    block=BART_PRE_NORM,
    ln_final=("decoder.layer_norm", "text_decoder.layer_norm", "layer_norm"),
)
_PRE_NORM_ENCODER: Final = evolve(
    _ENCODER,
    block=BART_PRE_NORM,
    ln_final=("encoder.layer_norm", "text_encoder.layer_norm"),
)
_BART: Final = Architecture(
    model_types=("bart", "plbart"),
    main=_DECODER,
    others={"encoder": _ENCODER},
    shifts=True,
)
_MBART: Final = Architecture(
    model_types=("mbart",),
    main=PRE_NORM_DECODER,
    others={"encoder": _PRE_NORM_ENCODER},
    shifts=True,
)
SCALED_EMBED: Final = "sqrt(d_model) if scale_embedding"


def _scaled(table: Architecture, *model_types: str, shifts: bool) -> Architecture:
    """The same, where the model scales the embedding outside of its module."""
    encoder = evolve(table.others["encoder"], embed_multiplier=SCALED_EMBED)
    return evolve(
        table,
        model_types=model_types,
        main=evolve(table.main, embed_multiplier=SCALED_EMBED),
        others={"encoder": encoder},
        shifts=shifts,
    )


M2M: Final = evolve(
    _MBART,
    model_types=("m2m_100",),
    main=evolve(PRE_NORM_DECODER, counts_tokens=True),
    others={"encoder": evolve(_PRE_NORM_ENCODER, counts_tokens=True)},
    shifts=False,
)
BART_WITH_FFN: Final = evolve(BART_PRE_NORM, mlp=(Experts(path="ffn"), Mlp(path="ffn")))
# Its experts read the mask that eager attention adds.
_NLLB: Final = evolve(
    with_attention(BART_WITH_FFN, asks_by_name=True),
    cross=(evolve(_CROSS, asks_by_name=True),),
)
_BIG_BIRD: Final = Attention(path="self_attn.self", asks_by_name=True, has_rotary=False)

_LED: Final = evolve(
    _BART,
    model_types=("led",),
    others={
        "encoder": evolve(
            _ENCODER,
            block=evolve(
                BART_BLOCK,
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
        embed_multiplier=SCALED_EMBED,
        counts_tokens=True,
        layout="pbd",
    ),
    unembed="decoder.output_projection",
    uncached="it leaves the causal mask out",
    others={
        "encoder": evolve(
            _ENCODER,
            embed_multiplier=SCALED_EMBED,
            counts_tokens=True,
            layout="pbd",
        )
    },
)


BARTS: Final[tuple[Architecture, ...]] = (
    _BART,
    _scaled(_BART, "mvp", shifts=True),
    _scaled(_BART, "blenderbot-small", "marian", shifts=False),
    Architecture(model_types=("trocr",), main=_DECODER),
    _MBART,
    evolve(_MBART, model_types=("blenderbot",), shifts=False),
    _scaled(_MBART, "pegasus", shifts=False),
    Architecture(model_types=("biogpt", "xglm"), main=PRE_NORM_DECODER),
    M2M,
    evolve(
        M2M,
        model_types=("nllb-moe",),
        main=evolve(M2M.main, block=_NLLB),
        others={"encoder": evolve(M2M.others["encoder"], block=_NLLB)},
        mixes_rows="its experts take so many tokens of all rows",
        no_func=ROUTED,
        refusal=draws,
    ),
    Architecture(
        model_types=("bigbird_pegasus",),
        main=evolve(
            _DECODER,
            block=evolve(
                BART_PRE_NORM,
                attention=(evolve(_BIG_BIRD, path="self_attn"),),
                cross=(evolve(_CROSS, asks_by_name=True),),
            ),
            ln_final="decoder.layernorm_embedding",
        ),
        others={
            "encoder": evolve(
                _ENCODER,
                block=evolve(
                    BART_PRE_NORM,
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
        refusal=sparse,
    ),
    _LED,
    _PEGASUS_X,
    _FSMT,
)
"""Tables of BART and its like, and of their decoders alone."""
