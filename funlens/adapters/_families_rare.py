"""The tables of families with a way of their own."""

from typing import Final

from attrs import evolve

from funlens.adapters._families_common import NESTED, PRE_NORM, SANDWICH, SELF, causal
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Fused,
    Mlp,
    Stack,
)

_GATED: Final = "a gate multiplies the mixed heads"
_SCALED: Final = "the stream itself is scaled"
_PLAIN: Final = evolve(SELF, has_rotary=False)
_GEMMA4: Final = evolve(
    SANDWICH,
    attention=(evolve(SELF, changes="a norm stands on the values"),),
    can_skip=False,
    unsummed="each layer ends with a scalar that multiplies the stream",
)

_INDEXED: Final = evolve(
    PRE_NORM,
    attention=(
        evolve(
            SELF,
            path="self_attn",
            q="q_b_proj",
            kv="kv_b_proj",
            q_latent="q_a_layernorm",
            kv_latent="kv_a_layernorm",
            asks_by_name=True,
            has_rotary=False,
            changes=_GATED,
        ),
    ),
    can_skip=False,
)

RARE: Final[tuple[Architecture, ...]] = (
    Architecture(
        model_types=("openai-gpt",),
        main=Stack(
            block=Block(
                attention=(evolve(_PLAIN, fused=Fused(path="c_attn")),),
                mid=("out", "ln_1"),
                mlp=(Mlp(path="mlp"),),
                stream_norm=True,
            ),
            pos_embed="positions_embed",
            ln_final="",
        ),
    ),
    causal(
        "gpt_neox_japanese",
        block=evolve(
            PRE_NORM,
            attention=(
                evolve(_PLAIN, fused=Fused(path="query_key_value", by_group=True)),
            ),
            unsummed="the last layer adds a bias that no module gives",
        ),
    ),
    causal(
        "codegen",
        block=Block(
            ln1="ln_1",
            attention=(
                evolve(SELF, fused=Fused(path="qkv_proj", groups=4, order="qvk")),
            ),
            mlp=(Mlp(path="mlp"),),
            parallel=True,
        ),
    ),
    Architecture(
        model_types=("ctrl",),
        main=Stack(
            block=Block(
                ln1="layernorm1",
                attention=(evolve(_PLAIN, path="multi_head_attention"),),
                ln2="layernorm2",
                mlp=(Mlp(path="ffn", up="0", down="2"),),
            ),
            embed_changes=True,
            ln_final="layernorm",
        ),
    ),
    Architecture(
        model_types=("dbrx",),
        main=Stack(
            block=Block(
                ln1="norm_attn_norm.norm_1",
                attention=(
                    Attention(
                        path="norm_attn_norm.attn",
                        fused=Fused(path="Wqkv"),
                        changed_in_place=True,
                    ),
                ),
                ln2="norm_attn_norm.norm_2",
                mlp=(Experts(path="ffn"),),
            )
        ),
        no_func={"Vmap": "it goes through its experts in a loop"},
    ),
    Architecture(
        model_types=("doge",),
        when={"is_moe": True},
        main=Stack(block=evolve(PRE_NORM, unsummed=_SCALED)),
        biased_masks=True,
        mixes_rows="its router lays out all rows' tokens so that they mix",
    ),
    Architecture(
        model_types=("doge",),
        main=Stack(block=evolve(PRE_NORM, unsummed=_SCALED)),
        biased_masks=True,
    ),
    causal(
        "zaya",
        block=evolve(
            PRE_NORM,
            attention=(
                evolve(
                    SELF,
                    q="qkv_proj.q_proj",
                    k="qkv_proj.k_proj",
                    v="",
                    changes="convolutions mix queries and keys with those before",
                    hidden={"v": "half of each value is of the position before"},
                ),
            ),
            mlp=(Experts(path="mlp", router=""),),
            unsummed=_SCALED,
            can_skip=False,
        ),
    ),
    Architecture(
        model_types=("llama4", "llama4_text"),
        main=Stack(
            block=evolve(
                PRE_NORM,
                mlp=(
                    Experts(path="feed_forward", shared_changes=True),
                    Mlp(path="feed_forward"),
                ),
            )
        ),
        unpadded="it scales queries and cuts chunks by column, not by position",
    ),
    causal(
        "moshi",
        block=NESTED,
    ),
    causal(
        "inkling_text",
        block=evolve(
            PRE_NORM,
            attention=(evolve(SELF, changes="a convolution runs over the values"),),
            ln1_post="attn_sconv",
            ln2_post="mlp_sconv",
        ),
    ),
    causal(
        "gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text", block=_GEMMA4
    ),
    Architecture(
        model_types=("jetmoe",),
        main=Stack(
            block=evolve(
                PRE_NORM,
                attention=(),
                # its heads are experts, so that none has a place of its own
                ln1_post="self_attention",
                mlp=(
                    Experts(
                        path="mlp",
                        router="router.layer",
                        experts="input_linear",
                        shared="",
                    ),
                ),
                unsummed="its heads are experts, and what they add is not met",
            )
        ),
        no_func={"Vmap": "it counts the tokens of each expert"},
    ),
    evolve(
        causal("axk2", block=_INDEXED),
        sees_padding="its indexer chooses among the padding behind the text too",
    ),
    Architecture(
        model_types=("dots3_note", "dots3_note_text"),
        main=Stack(block=_INDEXED),
        refuses={"pixel_values": "padded rows come out otherwise beside pictures"},
    ),
    Architecture(
        model_types=("minimax_m3_vl_text",),
        main=Stack(
            block=evolve(
                PRE_NORM,
                attention=(evolve(SELF, asks_by_name=True, has_rotary=False),),
            )
        ),
        unpadded="its indexer chooses blocks by column, not by position",
    ),
)
"""Tables that share little with others."""
