"""The tables of what sees: blocks of vision transformers, and models of these alone."""

from typing import Any, Final

from attrs import evolve

from funlens.adapters._families_common import SELF, with_attention
from funlens.adapters._language import Architecture, Attention, Block, Mlp, Stack
from funlens.adapters._refits import show_scaled
from funlens.adapters._spelling import OUT
from funlens.adapters._tree import find

_SPLIT: Final = Attention(
    path="attention.attention",
    o="/attention.output.dense",
    added="/attention.output.dense",
    has_rotary=False,
)
VIT_BLOCK: Final = Block(
    ln1=("layernorm_before", "norm1", "layer_norm1", "rms_norm1"),
    attention=(_SPLIT, evolve(SELF, has_rotary=False)),
    ln1_post="layer_scale1",
    ln2=("layernorm_after", "norm2", "layer_norm2", "rms_norm2"),
    mlp=(
        Mlp(path=("mlp", "ffn")),
        Mlp(
            path="intermediate",
            up="dense",
            down="/output.dense",
            added="/output.dense",
        ),
    ),
    ln2_post="layer_scale2",
)
"""A block of ViT and of what is spelled like it: CLIP, SigLIP, DINOv2."""

ROTARY_VIT_BLOCK: Final = with_attention(VIT_BLOCK, has_rotary=True)
"""The same, where patches are told apart by rotation."""

PIXTRAL_BLOCK: Final = Block(
    ln1="attention_norm",
    attention=(SELF,),
    ln2="ffn_norm",
    mlp=(Mlp(path="feed_forward"),),
)
"""A block of Pixtral's."""

# A parameter of the block scales what is added, before one module that both parts pass.
_DROP: Final = "/drop_path"
BEIT_BLOCK: Final = evolve(
    with_attention(VIT_BLOCK, added=_DROP),
    mlp=tuple(evolve(words, added=_DROP) for words in VIT_BLOCK.mlp),
)
"""A block of BEiT's."""

_BLOCKS: Final = (
    "layers",
    "encoder.layer",
    "encoder.layers",
    "model.layer",
    "transformer.layers",
    "vision_model.encoder.layers",
)
VIT_STACK: Final = Stack(
    blocks=_BLOCKS,
    block=VIT_BLOCK,
    embed=("embeddings", "vision_model.embeddings"),
    ln_final=("layernorm", "norm"),
)
"""A stack that stands alone; its embeddings hold what is added for positions."""

_CLIP: Final = evolve(
    VIT_STACK,
    pos_embed=(
        "embeddings.position_embedding",
        "vision_model.embeddings.position_embedding",
    ),
    ln_final="",  # the last norm is of the first position only
    config="vision_config",
)
_SIGLIP: Final = evolve(
    _CLIP, ln_final=("post_layernorm", "vision_model.post_layernorm")
)

INTERNVL_STACK: Final = evolve(
    VIT_STACK,
    block=evolve(VIT_BLOCK, ln1_post="scaled_attention", ln2_post="scaled_mlp"),
)
"""A stack of InternVL's blocks, once `show_scaled` gave them two modules more."""

_MERGED: Final = "patches are merged between its stages"
_REDUCED: Final = Attention(
    path="attention.self",
    o="/attention.output.dense",
    added="/attention.output.dense",
    has_rotary=False,
    more_keys="keys stand for several patches each",
)
_STAGED_BLOCK: Final = evolve(
    VIT_BLOCK,
    ln1=("layernorm_before", "layer_norm_1"),
    attention=(_REDUCED, evolve(_REDUCED, path="attention", o=OUT, added="")),
    ln2=("layernorm_after", "layer_norm_2"),
    mlp=(
        Mlp(path="mlp", up=("dense1", "fc1"), down=("dense2", "fc2")),
        VIT_BLOCK.mlp[1],
    ),
)
_STAGED: Final = Stack(
    blocks=("encoder.layers.*.blocks", "stages.*.blocks", "encoder.block.*"),
    block=_STAGED_BLOCK,
    embed="embeddings",
    ln_final=("layernorm", "encoder.layer_norm"),
    unjoined=_MERGED,
    shrinks=_MERGED,
    sized_by="layernorm_before",
)
_WINDOWED: Final = dict.fromkeys(
    (
        *("attn_in", "q", "k", "v", "attn_scores", "pattern"),
        *("z", "head_result", "attn_proj"),
    ),
    "windows are rows of their own there, in an order of their own",
)
_IN_WINDOWS: Final = tuple(
    evolve(words, added="/drop_path", hidden=_WINDOWED)
    for words in (
        evolve(_SPLIT, path="attention.self"),
        evolve(SELF, has_rotary=False),
    )
)


def _compares(module: Any) -> str:
    """Tell whether a model compares pictures and texts, with a stack for each."""
    if find(module, "text_model") is None:
        return ""
    return (
        "it compares pictures and texts, and neither of its two stacks is the main "
        "one. Describe its `vision_model` or its `text_model`"
    )


def _seeing(*model_types: str, main: Stack = VIT_STACK, **words: Any) -> Architecture:
    """A table of one stack whose patches see each other."""
    words = {"refusal": _compares, **words}
    return Architecture(model_types=model_types, main=main, is_causal=False, **words)


VISION: Final[tuple[Architecture, ...]] = (
    _seeing(
        "deit",
        "dinov2",
        "dinov2_with_registers",
        "ijepa",
        "pixio",
        "radio",
        "videomae",
        "vit",
        "vit_mae",
        "vit_msn",
        "vivit",
    ),
    _seeing("internvl_vision", main=INTERNVL_STACK, refit=show_scaled),
    _seeing(
        "yolos",
        main=evolve(VIT_STACK, unjoined="positions are added between its blocks"),
    ),
    _seeing("beit", main=evolve(VIT_STACK, block=BEIT_BLOCK)),
    _seeing(
        "data2vec-vision",
        main=evolve(
            VIT_STACK,
            block=evolve(
                BEIT_BLOCK,
                attention=(evolve(_SPLIT, added=_DROP),),
            ),
        ),
        no_func={"Jvp": "it calls a kernel of attention without that derivative"},
    ),
    _seeing("dinov3_vit", "sapiens2", main=evolve(VIT_STACK, block=ROTARY_VIT_BLOCK)),
    _seeing(
        "chinese_clip_vision_model",
        "clip",
        "clip_vision_model",
        "metaclip_2",
        main=_CLIP,
    ),
    _seeing(
        "mlcd_vision_model",
        main=evolve(_CLIP, block=with_attention(ROTARY_VIT_BLOCK, out_layout="pbd")),
    ),
    _seeing(
        "idefics3_vision",
        "siglip",
        "siglip_vision_model",
        "smolvlm_vision",
        main=_SIGLIP,
    ),
    _seeing("siglip2", "siglip2_vision_model", main=evolve(_SIGLIP, pos_embed="")),
    _seeing(
        "aimv2_vision_model",
        main=evolve(_SIGLIP, ln_final="rms_norm"),
        no_func={
            "Jvp": "what pools its patches calls a kernel without that derivative"
        },
    ),
    _seeing("pvt", "pvt_v2", main=evolve(_STAGED, sized_by="layer_norm_1")),
    _seeing("segformer", main=_STAGED),
    _seeing(
        "donut-swin",
        "swin",
        biased_masks=True,
        main=evolve(_STAGED, block=evolve(_STAGED_BLOCK, attention=_IN_WINDOWS)),
    ),
    _seeing(
        "swinv2",
        main=evolve(
            _STAGED,
            block=evolve(
                _STAGED_BLOCK,
                ln1="",
                attention=_IN_WINDOWS,
                ln1_post="layernorm_before",
                mid=("in", "intermediate"),
                ln2="",
                ln2_post="layernorm_after",
            ),
        ),
    ),
    _seeing(
        "pixtral",
        main=evolve(
            VIT_STACK,
            block=PIXTRAL_BLOCK,
            embed="ln_pre",
            ln_final="",
            packed="the patches of all pictures",
        ),
        mixes_rows="the patches of all pictures are one row",
    ),
)
"""Tables of ViT and its like."""
