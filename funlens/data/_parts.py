"""The vocabulary of sites: what each part means, and its axes."""

from collections.abc import Mapping
from typing import Final

from funlens.errors import SelectionError, SiteNotFoundError, nearest

_RESIDUAL: Final = ("batch", "pos", "d_model")
_SCALE: Final = ("batch", "pos", "one")
_HEADS: Final = ("batch", "pos", "head", "d_head")
_KV_HEADS: Final = ("batch", "pos", "kv_head", "d_head")
_PATTERN: Final = ("batch", "head", "query", "key")
_NEURONS: Final = ("batch", "pos", "d_mlp")
_LATENT: Final = ("batch", "pos", "d_latent")
_STREAMS: Final = ("batch", "pos", "stream", "d_model")
_SHARED: Final = ("batch", "pos", "group", "d_key")
_CHANNELS: Final = ("batch", "pos", "d_inner")

MODEL_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "embed": _RESIDUAL,
    "pos_embed": _RESIDUAL,
    "ln_final_scale": _SCALE,
    "ln_final_normalized": _RESIDUAL,
    "logits": ("batch", "pos", "vocab"),
    "label_logits": ("batch", "label"),
}
"""Axes of the parts that a model has once."""

LAYER_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "resid_pre": _RESIDUAL,
    "streams_pre": _STREAMS,
    "macaron_out": _RESIDUAL,
    "ln1_scale": _SCALE,
    "ln1_normalized": _RESIDUAL,
    "attn_in": _RESIDUAL,
    "q_latent": _LATENT,
    "kv_latent": _LATENT,
    "q": _HEADS,
    "k": _KV_HEADS,
    "v": _KV_HEADS,
    "rot_q": _HEADS,
    "rot_k": _KV_HEADS,
    "attn_scores": _PATTERN,
    "pattern": _PATTERN,
    "z": _HEADS,
    "head_result": ("batch", "pos", "head", "d_model"),
    "attn_proj": _RESIDUAL,
    "attn_out": _RESIDUAL,
    "cross_q": _HEADS,
    "cross_k": ("batch", "source", "kv_head", "d_head"),
    "cross_v": ("batch", "source", "kv_head", "d_head"),
    "cross_scores": ("batch", "head", "query", "source"),
    "cross_pattern": ("batch", "head", "query", "source"),
    "cross_z": _HEADS,
    "cross_out": _RESIDUAL,
    "resid_mid": _RESIDUAL,
    "ln2_scale": _SCALE,
    "ln2_normalized": _RESIDUAL,
    "mlp_in": _RESIDUAL,
    "router_logits": ("batch", "pos", "expert"),
    "router_indices": ("batch", "pos", "choice"),
    "router_weights": ("batch", "pos", "choice"),
    "expert_out": ("batch", "pos", "choice", "d_model"),
    "shared_out": _RESIDUAL,
    "mlp_pre": _NEURONS,
    "mlp_gate": _NEURONS,
    "mlp_post": _NEURONS,
    "mlp_proj": _RESIDUAL,
    "mlp_out": _RESIDUAL,
    "dense_out": _RESIDUAL,
    "ssm_in": _RESIDUAL,
    "ssm_proj": ("batch", "pos", "d_ssm_proj"),
    "ssm_params": ("batch", "pos", "d_ssm_params"),
    "ssm_conv": ("batch", "pos", "d_conv"),
    "ssm_q": _SHARED,
    "ssm_k": _SHARED,
    "ssm_v": ("batch", "pos", "head", "d_value"),
    "ssm_decay": ("batch", "pos", "head", "d_decay"),
    "ssm_beta": ("batch", "pos", "head"),
    "ssm_state": ("batch", "pos", "head", "d_key", "d_value"),
    "ssm_y": ("batch", "pos", "head", "d_value"),
    "ssm_gate": _CHANNELS,
    "ssm_post": _CHANNELS,
    "ssm_out": _RESIDUAL,
    "resid_post": _RESIDUAL,
    "streams_post": _STREAMS,
}
"""Axes of the parts that every layer has, in the order of the forward pass."""

AXES: Final[Mapping[str, tuple[str, ...]]] = {**MODEL_PARTS, **LAYER_PARTS}

ENTERING: Final = ("resid_pre", "streams_pre")
"""What enters a layer: one stream, or several."""

LEAVING: Final = ("resid_post", "streams_post")
"""What leaves it."""

INTEGER_PARTS: Final = frozenset({"router_indices"})
"""Parts that hold indices (`int64`) rather than activations."""

LARGE_PARTS: Final = frozenset({"head_result", "ssm_state"})
"""Parts far larger than others, which are only kept where they are asked for."""

SELECTED_AXES: Final[Mapping[str, tuple[str, ...]]] = {
    "head": ("head", "kv_head", "group"),
    "pos": ("pos",),
    "query": ("query",),
    "key": ("key", "source"),
    "neuron": ("d_mlp",),
    "expert": ("expert",),
    "stream": ("stream",),
}
"""The axes that each word of a selection can mean."""

STACKS: Final = ("", "encoder", "vision", "audio", "local", "patches")
"""The main stack (the decoder, where there are two) and its companions."""

# TransformerLens's name within a block, and the part here. Its hook_pre is the gate's
# on a gated MLP; `data.parse_site` is told which it is.
TRANSFORMER_LENS: Final[Mapping[str, str]] = {
    "hook_resid_pre": "resid_pre",
    "ln1.hook_scale": "ln1_scale",
    "ln1.hook_normalized": "ln1_normalized",
    "attn.hook_q": "q",
    "attn.hook_k": "k",
    "attn.hook_v": "v",
    "attn.hook_rot_q": "rot_q",
    "attn.hook_rot_k": "rot_k",
    "attn.hook_attn_scores": "attn_scores",
    "attn.hook_pattern": "pattern",
    "attn.hook_z": "z",
    "attn.hook_result": "head_result",
    "hook_attn_out": "attn_out",
    "hook_resid_mid": "resid_mid",
    "ln2.hook_scale": "ln2_scale",
    "ln2.hook_normalized": "ln2_normalized",
    "mlp.hook_pre": "mlp_pre",
    "mlp.hook_pre_linear": "mlp_pre",
    "mlp.hook_post": "mlp_post",
    "hook_mlp_out": "mlp_out",
    "hook_resid_post": "resid_post",
}

TRANSFORMER_LENS_MODEL: Final[Mapping[str, str]] = {
    "hook_embed": "embed",
    "hook_pos_embed": "pos_embed",
    "ln_final.hook_scale": "ln_final_scale",
    "ln_final.hook_normalized": "ln_final_normalized",
}


def axes_of(part: str) -> tuple[str, ...]:
    """Name the axes of a part, or say which part is nearest."""
    if part not in AXES:
        raise SiteNotFoundError(part, 0, nearest(part, AXES))
    return AXES[part]


def axis_of(part: str, word: str) -> int:
    """Find the axis that `head=`, `pos=` and the like select on a part.

    Raises:
        SelectionError: The part has no such axis.
    """
    axes = axes_of(part)
    for axis in SELECTED_AXES[word]:
        if axis in axes:
            return axes.index(axis)
    holders = tuple(name for name in AXES if set(SELECTED_AXES[word]) & set(AXES[name]))
    raise SelectionError(
        part,
        f"{part} has no {word} axis, its axes are {' '.join(axes)}",
        f"a part that has one, such as {', '.join(nearest(part, holders)[:4])}",
    )
