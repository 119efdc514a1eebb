"""The tables of encoders that stand alone, as BERT does."""

from typing import Final

from attrs import evolve

from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Mlp,
    Stack,
)

BERT_BLOCK: Final = Block(
    attention=(
        Attention(
            path="attention.self",
            o="/attention.output.dense",
            added="/attention.output.dense",
            has_rotary=False,
        ),
    ),
    cross=(
        Attention(
            path="crossattention.self",
            o="/crossattention.output.dense",
            added="/crossattention.output.dense",
            has_rotary=False,
        ),
    ),
    mid=("out", "attention.output"),
    cross_mid="crossattention.output",
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
    block=BERT_BLOCK,
    pos_embed="embeddings.position_embeddings",
    ln_final="",
)
_BERT_PRE_NORM: Final = evolve(
    BERT_BLOCK,
    ln1=("attention.ln", "attention.LayerNorm", "attention.self_attn_layer_norm"),
    ln2=("ln", "intermediate.LayerNorm", "LayerNorm"),
    stream_norm=False,
)
ENCODERS: Final[tuple[Architecture, ...]] = (
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
