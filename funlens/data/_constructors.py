"""The constructors of sites: each a part in all layers, called for one of them."""

from typing import Final

from funlens.data._sites import Part

__all__ = [
    "attn_in",
    "attn_out",
    "attn_proj",
    "attn_scores",
    "audio",
    "cross_k",
    "cross_out",
    "cross_pattern",
    "cross_q",
    "cross_scores",
    "cross_v",
    "cross_z",
    "dense_out",
    "embed",
    "encoder",
    "expert_out",
    "head_result",
    "k",
    "kv_latent",
    "label_logits",
    "ln1_normalized",
    "ln1_scale",
    "ln2_normalized",
    "ln2_scale",
    "ln_final_normalized",
    "ln_final_scale",
    "local",
    "logits",
    "macaron_out",
    "mlp_gate",
    "mlp_in",
    "mlp_out",
    "mlp_post",
    "mlp_pre",
    "mlp_proj",
    "patches",
    "pattern",
    "pos_embed",
    "q",
    "q_latent",
    "resid_mid",
    "resid_post",
    "resid_pre",
    "rot_k",
    "rot_q",
    "router_indices",
    "router_logits",
    "router_weights",
    "shared_out",
    "ssm_beta",
    "ssm_conv",
    "ssm_decay",
    "ssm_gate",
    "ssm_in",
    "ssm_k",
    "ssm_out",
    "ssm_params",
    "ssm_post",
    "ssm_proj",
    "ssm_q",
    "ssm_state",
    "ssm_v",
    "ssm_y",
    "streams_post",
    "streams_pre",
    "v",
    "vision",
    "z",
]

embed: Final = Part("embed")
"""Token embedding, as it enters the residual stream."""

pos_embed: Final = Part("pos_embed")
"""Learned position embedding."""

resid_pre: Final = Part("resid_pre")
"""Residual stream that enters a block."""

resid_mid: Final = Part("resid_mid")
"""Residual stream between attention and MLP; absent from parallel blocks."""

resid_post: Final = Part("resid_post")
"""Residual stream that leaves a block."""

streams_pre: Final = Part("streams_pre")
"""Streams that enter a block, where a model carries several instead of `resid_pre`."""

streams_post: Final = Part("streams_post")
"""Streams that leave a block, where a model carries several instead of `resid_post`."""

ln1_scale: Final = Part("ln1_scale")
"""What the norm before attention divides by."""

ln1_normalized: Final = Part("ln1_normalized")
"""Output of the norm before attention, gain and bias included."""

ln2_scale: Final = Part("ln2_scale")
"""What the norm before the MLP divides by."""

ln2_normalized: Final = Part("ln2_normalized")
"""Output of the norm before the MLP."""

ln_final_scale: Final = Part("ln_final_scale")
"""What the last norm divides by."""

ln_final_normalized: Final = Part("ln_final_normalized")
"""Output of the last norm."""

attn_in: Final = Part("attn_in")
"""What the attention module is given."""

q_latent: Final = Part("q_latent")
"""What queries are made from, in latent attention."""

kv_latent: Final = Part("kv_latent")
"""What keys and values are made from, in latent attention: what its cache holds."""

q: Final = Part("q")
"""Queries before rotation and before any norm of their own."""

k: Final = Part("k")
"""Keys before rotation and before any norm of their own."""

v: Final = Part("v")
"""Values."""

rot_q: Final = Part("rot_q")
"""Queries after rotation, as attention uses them."""

rot_k: Final = Part("rot_k")
"""Keys after rotation, as attention uses them."""

attn_scores: Final = Part("attn_scores")
"""What enters the softmax of attention: scaled and masked."""

pattern: Final = Part("pattern")
"""Attention pattern: what the softmax gives."""

z: Final = Part("z")
"""Mixed values of each head, before the output projection."""

head_result: Final = Part("head_result")
"""What each head adds, before the bias: `z` times its output weights."""

attn_proj: Final = Part("attn_proj")
"""Result of attention's output projection, bias included."""

attn_out: Final = Part("attn_out")
"""Exactly what attention adds to the stream, after norm and multiplier."""

mlp_in: Final = Part("mlp_in")
"""What the MLP is given."""

shared_out: Final = Part("shared_out")
"""What the experts that every token passes add, within a mixture."""

mlp_pre: Final = Part("mlp_pre")
"""First projection of the MLP; on gated ones the factor beside the gate."""

mlp_gate: Final = Part("mlp_gate")
"""Gate of a gated MLP, before its activation."""

mlp_post: Final = Part("mlp_post")
"""Hidden units of the MLP, as the last projection is given them."""

mlp_proj: Final = Part("mlp_proj")
"""Result of the MLP's last projection."""

mlp_out: Final = Part("mlp_out")
"""Exactly what the MLP adds to the stream, after norm and multiplier."""

router_logits: Final = Part("router_logits")
"""Scores of a router, before it chooses; editing them changes the choice."""

router_indices: Final = Part("router_indices")
"""Numbers of the chosen experts, `int64`."""

router_weights: Final = Part("router_weights")
"""What each chosen expert's output is multiplied by."""

expert_out: Final = Part("expert_out")
"""What each chosen expert adds: its output times its weight, in the router's order."""

dense_out: Final = Part("dense_out")
"""Exactly what a dense MLP beside a mixture of experts, or another, adds."""

macaron_out: Final = Part("macaron_out")
"""Exactly what a feed-forward part before attention adds, as in a conformer."""

ssm_in: Final = Part("ssm_in")
"""What a state-space mixer is given."""

ssm_proj: Final = Part("ssm_proj")
"""Input projection of a state-space mixer."""

ssm_params: Final = Part("ssm_params")
"""Time step, B and C of a state-space mixer, before they are expanded."""

ssm_conv: Final = Part("ssm_conv")
"""Output of a mixer's convolution over positions, after its activation if it has one.

Padding is only taken out afterwards.
"""

ssm_gate: Final = Part("ssm_gate")
"""Gate that multiplies what a mixer mixed, before its activation."""

ssm_q: Final = Part("ssm_q")
"""What reads the state, as the recurrence uses it: queries after norm and scale, or C.

Heads of one group share it. Editing it, or anything else that a recurrence is given,
runs that recurrence position by position.
"""

ssm_k: Final = Part("ssm_k")
"""Where in the state is written, as the recurrence uses it: keys after norm, or B."""

ssm_v: Final = Part("ssm_v")
"""What is written into the state: values, x, or the gated input of RG-LRU."""

ssm_decay: Final = Part("ssm_decay")
"""What the state is multiplied by at each position.

One number for each head, or one for each of its keys. Where a time step makes both
this and `ssm_beta`, editing one leaves the other.
"""

ssm_beta: Final = Part("ssm_beta")
"""How strongly is written into the state: beta, the time step, or an input gate."""

ssm_state: Final = Part("ssm_state")
"""State of a recurrence after each position: kept only where it is asked for.

The new state at each position an edit selects is made from the state of the run without
that edit; from there the recurrence goes on. xLSTM has a normalizer as last value.
It agrees with HuggingFace's own, which does not pass every state, to rounding. Memory:
heads times keys times values for each position, hundreds of times the stream.
"""

ssm_y: Final = Part("ssm_y")
"""What is read from the state at each position, before skip, norm and gate."""

ssm_post: Final = Part("ssm_post")
"""What a state-space mixer's output projection is given."""

ssm_out: Final = Part("ssm_out")
"""Exactly what a state-space mixer adds to the stream."""

logits: Final = Part("logits")
"""Logits, after caps and scale."""

label_logits: Final = Part("label_logits")
"""Logits of a classifier of whole rows: no position, one for each label."""

cross_q: Final = Part("cross_q")
"""Queries of attention over an encoder."""

cross_k: Final = Part("cross_k")
"""Keys from an encoder."""

cross_v: Final = Part("cross_v")
"""Values from an encoder."""

cross_scores: Final = Part("cross_scores")
"""What enters the softmax of attention over an encoder."""

cross_pattern: Final = Part("cross_pattern")
"""Pattern of attention over an encoder."""

cross_z: Final = Part("cross_z")
"""Mixed values of attention over an encoder."""

cross_out: Final = Part("cross_out")
"""Exactly what attention over an encoder adds to the stream."""


class _Stack:
    """The same parts in a stack beside the main one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, part: str) -> Part:
        """Name a part of the stack."""
        if part.startswith("_"):
            raise AttributeError(part)
        return Part(part, self._name)


encoder: Final = _Stack("encoder")
"""The same parts in an encoder: `encoder.resid_post(3)`."""

vision: Final = _Stack("vision")
"""The same parts in a vision tower: `vision.pattern(0)`."""

audio: Final = _Stack("audio")
"""The same parts in an audio tower."""

local: Final = _Stack("local")
"""The same parts in what encodes bytes before they are joined to patches."""

patches: Final = _Stack("patches")
"""The same parts in what runs over patches of bytes."""
