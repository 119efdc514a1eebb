"""Blocks that many families share, for the tables."""

from typing import Final

from attrs import evolve

from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Mlp,
    Stack,
)

LN1: Final = ("input_layernorm", "attention_layernorm", "attn_norm", "operator_norm")
LN2: Final = (
    "post_attention_layernorm",
    "pre_ff_layernorm",
    "feedforward_layernorm",
    "mlp_norm",
    "ffn_norm",
    "pre_feedforward_layernorm",
)
MLPS: Final = ("mlp", "feed_forward", "block_sparse_moe")
SELF: Final = Attention(path=("self_attn", "attn", "attention"))
PRE_NORM: Final = Block(
    ln1=LN1,
    attention=(SELF,),
    ln2=LN2,
    mlp=(Experts(path=MLPS), Mlp(path=MLPS)),
)
SANDWICH: Final = evolve(
    PRE_NORM,
    ln1_post="post_attention_layernorm",
    ln2="pre_feedforward_layernorm",
    ln2_post="post_feedforward_layernorm",
)
AFTER_NORM: Final = evolve(SANDWICH, ln1="", ln2="", mid=("in", "mlp"))
PARALLEL: Final = evolve(PRE_NORM, ln2="", parallel=True)
BANDED: Final = dict.fromkeys(
    ("attn_scores", "pattern"), "each block of queries sees the keys beside it only"
)


def causal(*model_types: str, block: Block = PRE_NORM) -> Architecture:
    return Architecture(model_types=model_types, main=Stack(block=block))


def with_attention(block: Block, **words: object) -> Block:
    """Give a block whose every attention has other words."""
    changed = tuple(evolve(attention, **words) for attention in block.attention)
    return evolve(block, attention=changed)
