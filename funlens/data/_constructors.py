"""The constructors of sites: each a part in all layers, called for one of them."""

from typing import Final

from funlens.data._sites import Part

embed: Final = Part("embed")
pos_embed: Final = Part("pos_embed")
resid_pre: Final = Part("resid_pre")
resid_mid: Final = Part("resid_mid")
resid_post: Final = Part("resid_post")
ln1_scale: Final = Part("ln1_scale")
ln1_normalized: Final = Part("ln1_normalized")
ln2_scale: Final = Part("ln2_scale")
ln2_normalized: Final = Part("ln2_normalized")
ln_final_scale: Final = Part("ln_final_scale")
ln_final_normalized: Final = Part("ln_final_normalized")
attn_in: Final = Part("attn_in")
q: Final = Part("q")
k: Final = Part("k")
v: Final = Part("v")
rot_q: Final = Part("rot_q")
rot_k: Final = Part("rot_k")
attn_scores: Final = Part("attn_scores")
pattern: Final = Part("pattern")
z: Final = Part("z")
head_result: Final = Part("head_result")
attn_proj: Final = Part("attn_proj")
attn_out: Final = Part("attn_out")
mlp_in: Final = Part("mlp_in")
mlp_pre: Final = Part("mlp_pre")
mlp_gate: Final = Part("mlp_gate")
mlp_post: Final = Part("mlp_post")
mlp_proj: Final = Part("mlp_proj")
mlp_out: Final = Part("mlp_out")
router_logits: Final = Part("router_logits")
router_weights: Final = Part("router_weights")
expert_out: Final = Part("expert_out")
ssm_in: Final = Part("ssm_in")
ssm_proj: Final = Part("ssm_proj")
ssm_params: Final = Part("ssm_params")
ssm_post: Final = Part("ssm_post")
ssm_out: Final = Part("ssm_out")
logits: Final = Part("logits")
cross_q: Final = Part("cross_q")
cross_k: Final = Part("cross_k")
cross_v: Final = Part("cross_v")
cross_scores: Final = Part("cross_scores")
cross_pattern: Final = Part("cross_pattern")
cross_z: Final = Part("cross_z")
cross_out: Final = Part("cross_out")


class _Encoder:
    """The same parts in the encoder that stands beside the main stack."""

    def __getattr__(self, name: str) -> Part:
        """Name a part of the encoder."""
        if name.startswith("_"):
            raise AttributeError(name)
        return Part(name, "encoder")


encoder: Final = _Encoder()
"""The same parts in an encoder: `encoder.resid_post(3)`."""
