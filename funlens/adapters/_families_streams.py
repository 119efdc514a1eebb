"""The tables of families whose blocks pass several streams to each other."""

from typing import Final

from attrs import evolve

from funlens.adapters._families_common import PRE_NORM, SANDWICH, SELF, causal
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Mixer,
    Stack,
)

_GATED: Final = "a gate multiplies the mixed heads"

_SHARED: Final = Attention(
    path="self_attn",
    k="kv_proj",
    v="",
    q_latent="q_a_norm",
    z="o_a_proj",
    o="o_b_proj",
    sink="sinks",
    hidden={"v": "keys are the values too"},
)
_COMPRESSED: Final = evolve(
    _SHARED,
    needs="compressor",
    more_keys="compressed stretches of the text",
    hidden={**_SHARED.hidden, "rot_k": "compressed keys stand among them"},
)

_LATENT: Final = evolve(
    SELF,
    q="q_b_proj",
    kv="kv_b_proj",
    q_latent="q_a_layernorm",
    kv_latent="kv_a_layernorm",
    sink="sinks",
    changes=_GATED,
    asks_by_name=True,
    has_rotary=False,
)

_QWEN4: Final = Block(
    attention=(evolve(SELF, gated_query=True, changes=_GATED),),
    mixer=(
        Mixer(
            path="linear_attn",
            parts={"ssm_proj": ("out", "in_proj_qkv")},
        ),
    ),
    mlp=PRE_NORM.mlp,
    streams="flat",
    reads="some of its layers look up pieces of the text",
)

# what it predicts comes from the streams behind; parts hold all streams' positions
_PROPHETNET: Final = Architecture(
    model_types=("prophetnet",),
    when={"is_encoder_decoder": False},
    main=Stack(
        block=Block(streams="behind"),
        embed="decoder.word_embeddings",
        ln_final="",
    ),
    sizes={"n_streams": "ngram"},
    maskless="its predicting streams depend on the length of the input",
)

_INKLING2: Final = Architecture(
    model_types=("inkling2_text",),
    main=Stack(
        block=Block(
            ln1=("input_layernorm", "q_input_layernorm"),
            attention=(
                evolve(
                    SELF,
                    sink="sink_proj",
                    has_rotary=True,
                    changes="a convolution and a norm change values, and a gate z",
                ),
            ),
            ln1_post="post_attention_convolution",
            ln2="post_attention_layernorm",
            mlp=PRE_NORM.mlp,
            ln2_post="post_mlp_convolution",
            can_skip=False,
            unsummed="the stream begins anew every few layers",
            hidden={"resid_mid": "the MLP reads a mixture of what earlier layers gave"},
        )
    ),
    no_func={"Jvp": "it mixes layers with a kernel that has no forward derivative"},
)

STREAMS: Final[tuple[Architecture, ...]] = (
    Architecture(
        model_types=("deepseek_v4",),
        main=Stack(
            block=evolve(
                PRE_NORM,
                attention=(_COMPRESSED, _SHARED),
                streams="inner",
                reads="its first layers choose experts by the token",
            )
        ),
        unpadded="it compresses stretches of columns, not of positions",
    ),
    causal(
        "hy_v4",
        # its layers share what an indexer chose
        block=evolve(
            PRE_NORM,
            attention=(_LATENT,),
            streams="inner",
            can_skip=False,
        ),
    ),
    Architecture(
        model_types=("qwen4_exp", "qwen4_exp_text"),
        main=Stack(block=_QWEN4),
        no_func={"Vmap": "its indexer goes through positions one by one"},
    ),
    causal(
        "gemma3n_text",
        block=evolve(
            SANDWICH,
            attention=(evolve(SELF, changes="a norm stands on the values"),),
            streams="first",
            can_skip=False,
        ),
    ),
    _PROPHETNET,
    _INKLING2,
)
"""Tables of families with hyper-connections or alternating updates."""
