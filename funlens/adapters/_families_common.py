"""Blocks that many families share, for the tables."""

from collections.abc import Mapping
from typing import Any, Final

import torch
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
NESTED: Final = evolve(
    PRE_NORM,
    attention=(
        evolve(
            SELF,
            q="q_proj.linear",
            k="k_proj.linear",
            v="v_proj.linear",
            o="o_proj.linear",
        ),
    ),
    mlp=(Mlp(path="mlp", up="", gate_up="fc1"),),
)
"""The block of Moshi and of Kyutai's models: each projection within a module."""

SANDWICH: Final = evolve(
    PRE_NORM,
    ln1_post="post_attention_layernorm",
    ln2="pre_feedforward_layernorm",
    ln2_post="post_feedforward_layernorm",
)
AFTER_NORM: Final = evolve(SANDWICH, ln1="", ln2="", mid=("in", "mlp"))
PARALLEL: Final = evolve(PRE_NORM, ln2="", parallel=True)
GRANITE: Final = evolve(
    PRE_NORM,
    multiplier="residual_multiplier",
    beside=(Mlp(path="shared_mlp"),),
)
GRANITE_STACK: Final = Stack(block=GRANITE, embed_multiplier="embedding_multiplier")
ROUTED: Final[Mapping[str, str]] = dict.fromkeys(
    ("Vmap", "Grad", "Jvp"), "each run of its routers sets the weights' own dtype anew"
)
BANDED: Final[Mapping[str, str]] = dict.fromkeys(
    ("attn_scores", "pattern"), "each block of queries sees the keys beside it only"
)


def sparse(module: Any) -> str:
    """Tell whether BigBird's attention is sparse."""
    if module.config.attention_type == "original_full":
        return ""
    return (
        "its sparse attention makes no pattern, and gives way to another for short "
        "inputs. Build it with `attention_type='original_full'`"
    )


def causal(*model_types: str, block: Block = PRE_NORM) -> Architecture:
    return Architecture(model_types=model_types, main=Stack(block=block))


def with_attention(block: Block, **words: object) -> Block:
    """Give a block whose every attention has other words."""
    changed = tuple(evolve(attention, **words) for attention in block.attention)
    return evolve(block, attention=changed)


def casts(module: Any) -> str:
    """Tell whether a run would change the dtype of the routers' own weights."""
    wanted = getattr(torch, module.config.router_dtype)
    routers = [part for part in module.modules() if hasattr(part, "expert_capacity")]
    if all(router.classifier.weight.dtype == wanted for router in routers):
        return ""
    return (
        f"its first run casts the routers' weights to {wanted}, and they are yours. "
        "Run it once before you hand it over"
    )


def draws(module: Any) -> str:
    """Tell whether routers cast weights, or draw from the global generator."""
    policy = module.config.second_expert_policy
    if policy == "all":
        return casts(module)
    return f"its routers draw random numbers: `second_expert_policy` is {policy!r}"
