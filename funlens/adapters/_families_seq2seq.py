"""The tables of T5, and of pairs of two models."""

from typing import Final

from attrs import evolve

from funlens.adapters._families_berts import BERT_BLOCK
from funlens.adapters._families_common import (
    BANDED,
    ROUTED,
    SANDWICH,
    casts,
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


def _t5_block(*, last: int) -> Block:
    """A block of a stack whose MLP is its `last` sublayer."""
    return Block(
        ln1="layer.0.layer_norm",
        attention=(Attention(path="layer.0.SelfAttention", has_rotary=False),),
        ln_cross="layer.1.layer_norm",
        cross=(Attention(path="layer.1.EncDecAttention", has_rotary=False),),
        can_skip=False,
        mid=("in", f"layer.{last}"),
        ln2=f"layer.{last}.layer_norm",
        mlp=(
            Experts(path=f"layer.{last}.mlp"),
            Mlp(path=(f"layer.{last}.DenseReluDense", f"layer.{last}.mlp")),
        ),
    )


T5: Final = Architecture(
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
    T5, model_types=("switch_transformers",), no_func=ROUTED, refusal=casts
)

_LOCAL: Final = Attention(
    path="layer.0.LocalSelfAttention", has_rotary=False, hidden=BANDED
)
_TRANSIENT: Final = evolve(
    _LOCAL, path="layer.0.TransientGlobalSelfAttention", again=True
)
_LONG_T5: Final = evolve(
    T5,
    model_types=("longt5",),
    others={
        "encoder": evolve(
            T5.others["encoder"], block=evolve(_t5_block(last=1), attention=(_LOCAL,))
        )
    },
)
_LONG_T5_GLOBAL: Final = evolve(
    _LONG_T5,
    when={"encoder_attention_type": "transient-global"},
    others={
        "encoder": evolve(
            T5.others["encoder"],
            block=evolve(_t5_block(last=1), attention=(_TRANSIENT,)),
        )
    },
    unpadded="its global tokens stand for blocks of columns",
)
_ONE_FURTHER: Final = "its classifier reads one position further, if there is one"
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
        row_padding=_ONE_FURTHER,
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
    row_padding=_ONE_FURTHER,
)

PAIR: Final = Architecture(
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
    T5,
    _SWITCH,
    _LONG_T5_GLOBAL,
    _LONG_T5,
    *_T5_GEMMAS,
    _T5_GEMMA2,
    PAIR,
)
"""Tables of T5 and its like, and of others that go from one text to another."""
