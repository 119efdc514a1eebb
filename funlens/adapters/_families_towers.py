"""The towers that look at pictures, for the tables of models that have one."""

from collections.abc import Mapping
from typing import Final

from attrs import evolve

from funlens.adapters._language import Attention, Block, Fused, Mlp, Stack
from funlens.adapters._spelling import DOWN, OUT, UP

_SCALED: Final = "a learned scale of each width multiplies what is added"

VIT: Final = Block(
    ln1=(
        "layer_norm1",
        "layernorm_before",
        "norm1",
        "input_layernorm",
        "attention_norm",
        "rms_norm1",
        "pre_attention_layer_norm",
        "operator_norm",
    ),
    attention=(
        Attention(
            path=("self_attn", "attention", "attn"),
            fused=Fused(path="qkv"),
            o=(*OUT, "projection", "output"),
            has_rotary=False,
        ),
    ),
    ln2=(
        "layer_norm2",
        "layernorm_after",
        "norm2",
        "post_attention_layernorm",
        "ffn_norm",
        "rms_norm2",
        "pre_mlp_layer_norm",
    ),
    mlp=(
        Mlp(
            path=("mlp", "feed_forward", "ffn"),
            up=(*UP, "linear_fc1"),
            down=(*DOWN, "linear_fc2"),
        ),
    ),
)
"""A block of a vision transformer, in every common spelling."""
ROTARY: Final = evolve(VIT, attention=(evolve(VIT.attention[0], has_rotary=True),))
"""The same, where queries and keys are rotated by row and column."""
SCALED: Final = evolve(
    VIT,
    unsummed=_SCALED,
    hidden={"attn_out": _SCALED, "mlp_out": _SCALED},
)
"""The same, where what is added is scaled by parameters of the block."""
CONVOLVED: Final = (
    evolve(ROTARY, needs="self_attn"),
    evolve(VIT, attention=(), unsummed="what its convolution adds is not met"),
)
"""Blocks of which some have a convolution in the place of attention."""
CLIPPED: Final = evolve(
    VIT,
    ln2="pre_feedforward_layernorm",
    attention=(
        Attention(
            path="self_attn",
            q="q_proj.linear",
            k="k_proj.linear",
            v="v_proj.linear",
            o="o_proj.linear",
            changes="a norm stands on the values",
        ),
    ),
    ln1_post="post_attention_layernorm",
    ln2_post="post_feedforward_layernorm",
    mlp=(
        Mlp(
            path="mlp",
            up="up_proj.linear",
            gate="gate_proj.linear",
            down="down_proj.linear",
        ),
    ),
)
"""A block with norms on both sides, whose projections are clipped."""


def tower(
    path: str,
    *,
    block: Block | tuple[Block, ...] = VIT,
    ln_final: str = "",
    given: str = "pixel_values",
    sizes: Mapping[str, str] | None = None,
    config: str = "vision_config",
    read_at: str = "",
) -> Mapping[str, Stack]:
    """Write the stack that looks at pictures.

    Args:
        path: Its list of blocks, below HuggingFace's `base_model`.
        block: What a block looks like.
        ln_final: Norm after the last block.
        given: The input without which it does not run.
        sizes: Fields of its config that are not called as usual.
        config: Field of the config that describes it.
        read_at: Field that tells which states between its blocks are read.
    """
    return {
        "vision": Stack(
            blocks=path,
            block=block,
            ln_final=ln_final,
            given=given,
            sizes=sizes or {},
            config=config,
            read_at=read_at,
        )
    }
