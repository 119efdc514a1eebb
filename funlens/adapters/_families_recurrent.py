"""The tables of families that mix positions by recurrences or convolutions."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from funlens.adapters._families_common import (
    AFTER_NORM,
    PRE_NORM,
    SELF,
    causal,
    with_attention,
)
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Gate,
    Mixer,
    Mlp,
    Place,
    Stack,
    Step,
)

_PARTS: Final[Mapping[str, Place]] = {
    "ssm_proj": (
        "out",
        ("in_proj", "in_proj_qkvz", "in_proj_qkv", "qkv_proj", "linear_x"),
    ),
    "ssm_params": ("out", ("x_proj", "in_proj_ba")),
}
_MIXER: Final = Mixer(
    path=("mamba", "mixer", "linear_attn", "conv", "temporal_block"), parts=_PARTS
)
_HYBRID: Final = evolve(PRE_NORM, mixer=(_MIXER,))
_SHORT: Final = evolve(
    _HYBRID, mixer=(evolve(_MIXER, gate=Gate(path="in_proj", slot=1)),)
)
_GATED: Final = "a gate multiplies the mixed heads"
_GATED_QUERY: Final = evolve(SELF, gated_query=True, changes=_GATED)
_MAMBA: Final = Block(ln1="norm", mixer=(_MIXER,))
_DELTA: Final = Mixer(path="self_attn", needs="forget_gate", parts=_PARTS)
_SHARED: Final = evolve(_MIXER, path=("mamba", "mamba_decoder.mamba"))
_ZAMBA: Final = Block(
    ln1=("input_layernorm", "mamba_decoder.input_layernorm"),
    mixer=(_SHARED,),
    can_skip=False,
)
_RECURRENCE: Final = (
    "ssm_q",
    "ssm_k",
    "ssm_v",
    "ssm_decay",
    "ssm_beta",
    "ssm_state",
    "ssm_y",
)
_LIGHTNING: Final = Mixer(
    path="self_attn",
    needs="output_gate",
    parts=_PARTS,
    gate=Gate(path="output_gate"),
    heads="num_attention_heads",
    steps={
        "ssm_q": Step(side="out", path="act_fn", slot=0, slots=3),
        "ssm_k": Step(side="out", path="act_fn", slot=1, slots=3),
        "ssm_v": Step(side="out", path="act_fn", slot=2, slots=3),
        "ssm_y": Step(side="in", path="norm"),
    },
    hidden={
        "ssm_decay": "a constant of each head, which is no activation",
        "ssm_beta": "it writes as strongly everywhere",
        "ssm_state": "its loop over blocks stands in its forward",
    },
)
_LATENT: Final = evolve(
    SELF,
    kv="kv_b_proj",
    q_latent="q_a_layernorm",
    kv_latent="kv_a_layernorm",
    needs="kv_b_proj",
)
_LATENT_HYBRID: Final = evolve(PRE_NORM, attention=(_LATENT,), mixer=(_DELTA,))


def _rescales(module: Any) -> str:
    """Tell whether RWKV's next run would divide its own weights in place."""
    body, config = module.base_model, module.config
    settled: bool = body.layers_are_rescaled
    if settled or not 0 < config.rescale_every < config.num_hidden_layers:
        return ""
    return (
        "its first run divides weights in place, and they are yours. Run it once "
        "before you hand it over, or build it with `rescale_every=0`"
    )


_NO_MASK: Final = "its recurrence takes no mask"

RECURRENT: Final[tuple[Architecture, ...]] = (
    causal("falcon_mamba", "mamba", "mamba2", block=_MAMBA),
    causal("bamba", "jamba", block=_HYBRID),
    causal("lfm2", "lfm2_moe", block=_SHORT),
    causal(
        "lfm3",
        block=evolve(
            with_attention(_SHORT, changes=_GATED),
            ln1_post="post_operator_norm",
            ln2_post="post_ffn_norm",
        ),
    ),
    causal(
        "nemo_speechlm",
        "nemotron_h",
        block=Block(
            ln1="norm",
            attention=(evolve(SELF, path="mixer", has_rotary=False),),
            mixer=(evolve(_MIXER, needs="conv1d"),),
            mlp=(Experts(path="mixer"), Mlp(path="mixer")),
        ),
    ),
    Architecture(
        model_types=("granitemoehybrid",),
        main=Stack(
            block=evolve(
                _HYBRID,
                multiplier="residual_multiplier",
                beside=(Mlp(path="shared_mlp"),),
            ),
            embed_multiplier="embedding_multiplier",
        ),
    ),
    causal(
        "falcon_h1",
        block=evolve(
            PRE_NORM,
            attention=(evolve(SELF, multiplier="attention_out_multiplier"),),
            mixer=(
                evolve(
                    _MIXER,
                    multiplier="ssm_out_multiplier",
                    gate=Gate(path="in_proj", multiplier="ssm_multipliers"),
                ),
            ),
        ),
    ),
    causal(
        "zamba",
        block=evolve(
            _ZAMBA,
            mixer=(
                evolve(
                    _SHARED,
                    hidden=dict.fromkeys(
                        (*_RECURRENCE, "ssm_gate"),
                        "its recurrence runs once for each head, and none sees all",
                    ),
                ),
            ),
        ),
    ),
    causal("zamba2", block=_ZAMBA),
    causal(
        "qwen3_next",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        block=evolve(_HYBRID, attention=(_GATED_QUERY,)),
    ),
    Architecture(
        model_types=("olmo_hybrid",),
        main=Stack(
            block=(evolve(_HYBRID, needs="linear_attn", attention=()), AFTER_NORM)
        ),
    ),
    causal("kimi_linear", block=_LATENT_HYBRID),
    causal("bailing_hybrid", block=with_attention(_LATENT_HYBRID, changes=_GATED)),
    causal(
        "minimax",
        block=evolve(
            PRE_NORM,
            attention=(SELF,),
            mixer=(_LIGHTNING,),
            unsummed="the stream is normed and scaled before anything is added",
        ),
    ),
    Architecture(
        model_types=("recurrent_gemma",),
        main=Stack(
            block=Block(
                ln1="temporal_pre_norm",
                attention=(Attention(path="temporal_block"),),
                mixer=(
                    evolve(
                        _MIXER,
                        needs="rg_lru",
                        parts={**_PARTS, "ssm_conv": ("in", "rg_lru")},
                        gate=Gate(path="linear_y"),
                    ),
                ),
                ln2="channel_pre_norm",
                mlp=(Mlp(path="mlp_block"),),
            )
        ),
        no_func=dict.fromkeys(
            ("Vmap", "Grad", "Jvp"),
            "its recurrence is an autograd function that torch.func cannot pass",
        ),
        unpadded=_NO_MASK,
    ),
    Architecture(
        model_types=("xlstm",),
        main=Stack(
            block=Block(
                ln1="norm_mlstm",
                mixer=(Mixer(path="mlstm_layer", gate=Gate(path="ogate_preact")),),
                ln2="norm_ffn",
                mlp=(Mlp(path="ffn"),),
            )
        ),
        no_func=dict.fromkeys(
            ("Vmap", "Jvp"), "its recurrence writes its states in place"
        ),
        unpadded=_NO_MASK,
    ),
    Architecture(
        model_types=("rwkv",),
        refusal=_rescales,
        main=Stack(
            block=Block(
                start=("out", "pre_ln"),
                ln1="ln1",
                mixer=(
                    Mixer(
                        path="attention",
                        o="output",
                        gate=Gate(path="receptance"),
                        steps={
                            "ssm_k": Step(side="out", path="key"),
                            "ssm_v": Step(side="out", path="value"),
                        },
                        hidden={
                            "ssm_q": "nothing addresses what is read",
                            "ssm_decay": "a constant of each channel, no activation",
                            "ssm_beta": "it is the exponential of the key",
                            "ssm_state": "its sums are scaled anew at each position",
                        },
                    ),
                ),
                ln2="ln2",
                mlp=(
                    Mlp(
                        path="feed_forward", up="key", gate="", gate_up="", down="value"
                    ),
                ),
            )
        ),
        unpadded=_NO_MASK,
    ),
)
"""Tables of state-space, linear-attention and convolutional families."""
