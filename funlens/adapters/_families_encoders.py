"""The tables of encoders with a spelling of their own."""

from collections.abc import Callable
from typing import Any, Final

from attrs import evolve
from torch import nn

from funlens.adapters._families_berts import BERT_BLOCK
from funlens.adapters._families_common import PRE_NORM, SELF, with_attention
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Fused,
    Mlp,
    Stack,
)
from funlens.adapters._refits import call_layers

_POST_NORM: Final = Block(
    attention=(SELF,),
    mid=("out", ("post_attention_layernorm", "sa_layer_norm")),
    mlp=(Mlp(path=("mlp", "ffn")),),
    stream_norm=True,
)
_DEBERTA: Final = with_attention(
    BERT_BLOCK,
    fused=Fused(path="in_proj", by_group=True),
    changes="a bias is added to the values",
)


def _both_ways(
    *model_types: str,
    block: Block,
    refit: Callable[[nn.Module], None] | None = None,
    **words: Any,
) -> Architecture:
    """A table of one stack whose positions see both ways."""
    stack = Stack(block=block, **words)
    return Architecture(
        model_types=model_types, main=stack, is_causal=False, refit=refit
    )


ENCODERS: Final[tuple[Architecture, ...]] = (
    _both_ways("eurobert", "ultrabert", "ultravbert", block=PRE_NORM),
    _both_ways(
        "esmc", block=evolve(PRE_NORM, multiplier="6 / sqrt(num_hidden_layers)")
    ),
    _both_ways(
        "gte", "jina_embeddings_v3", "nomic_bert", block=_POST_NORM, ln_final=""
    ),
    _both_ways(
        "distilbert",
        block=with_attention(_POST_NORM, has_rotary=False),
        blocks="transformer.layer",
        pos_embed="embeddings.position_embeddings",
        ln_final="",
    ),
    _both_ways(
        "modernbert",
        "modernvbert",
        block=with_attention(PRE_NORM, fused=Fused(path="Wqkv")),
        ln_final=("final_norm", "text_model.final_norm"),
    ),
    _both_ways("deberta", block=_DEBERTA, ln_final=""),
    *(
        evolve(
            _both_ways(
                "deberta-v2",
                block=with_attention(BERT_BLOCK, again=True),
                ln_final="",
            ),
            when={"conv_kernel_size": size},
        )
        for size in (None, 0)
    ),
    _both_ways(
        "deberta-v2",
        # a convolution behind the first layer also reads what entered it
        block=evolve(with_attention(BERT_BLOCK, again=True), can_skip=False),
        ln_final="",
        unjoined="a convolution stands behind the first layer",
    ),
    _both_ways(
        "neomme",
        block=evolve(
            with_attention(
                PRE_NORM,
                o="output_projection.o_proj",
                changes="a gate multiplies the mixed heads",
            ),
            multiplier="residual_multiplier",
            can_skip=False,
        ),
        embed="embed_tokens",
        ln_final="final_norm",
    ),
    _both_ways(
        "squeezebert",
        block=Block(
            attention=(
                Attention(
                    path="attention",
                    o="/post_attention.conv1d",
                    added="/post_attention.conv1d",
                    has_rotary=False,
                ),
            ),
            mid=("out", "post_attention"),
            mlp=(
                Mlp(
                    path="intermediate",
                    up="conv1d",
                    down="/output.conv1d",
                    added="/output.conv1d",
                ),
            ),
            stream_norm=True,
        ),
        pos_embed="embeddings.position_embeddings",
        ln_final="",
        layout="bdp",
        refit=call_layers,
    ),
)
"""Tables of encoders that stand alone."""
