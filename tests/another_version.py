"""Tests on another version of transformers: what it lacks or does otherwise."""

from collections.abc import Mapping
from typing import Final

import pytest
import transformers

from funlens.adapters._verified import VERIFIED
from funlens.testing import RECIPES, head_recipes

TYPES: Final = {
    row.name: row.config_type or row.model_type for row in (*RECIPES, *head_recipes())
}
# What a version of HuggingFace's own code cannot run as the recipes have it, by recipe
# or by type, and why.
UNBUILT: Final[Mapping[str, Mapping[str, str]]] = {
    "5.20.0": {
        "cohere_compass": "it rotates by no less than three sections",
        "cohere_compass_text": "it rotates by no less than three sections",
        "cosmos3_edge-image": "without a cache, places of patches are packed texts",
        "fuyu-image": "it calls its pictures `image_patches`",
        "vipllava-image": "it calls the layers that it reads otherwise",
    }
}
_DICE: Final = "it draws from the global generator for dropping layers, dropping none"
_SPREAD: Final = "its recurrence is given the keys of each head, not of each group"
# On which laws do not hold, by recipe or by type, and why.
APART: Final[Mapping[str, Mapping[str, str]]] = {
    "5.20.0": {
        **dict.fromkeys(
            (
                "data2vec-audio",
                "fsmt",
                "hubert",
                "led",
                "nllb-moe",
                "seamless_m4t-speech",
                "seamless_m4t_v2-speech",
                "sew",
                "speech-encoder-decoder",
                "unispeech",
                "unispeech-sat",
                "wav2vec2",
                "wav2vec2-bert",
                "wav2vec2-conformer",
                "wavlm",
            ),
            _DICE,
        ),
        **dict.fromkeys(
            (
                "olmo_hybrid",
                "qwen3_5",
                "qwen3_5_moe",
                "qwen3_5_moe_text",
                "qwen3_5_text",
                "qwen3_next",
                "qwen4_exp",
                "qwen4_exp_text",
            ),
            _SPREAD,
        ),
        "minimax_m3_vl-image": "all rows' pictures attend to each other",
        "t5gemma": "its SDPA leaves out the cap that eager attention has",
        "t5gemma-base": "",  # within the tolerance
        "t5gemma-sequence-classification": "",
    }
}


def _said(of: Mapping[str, Mapping[str, str]], name: str) -> str:
    """Look up what is said of a recipe, or of its type, on the installed version."""
    held = of.get(transformers.__version__, {})
    return held.get(name, held.get(TYPES.get(name, ""), ""))


def skip_absent(name: str) -> None:
    """Skip a recipe that another version lacks; the verified one has everything."""
    installed, of = transformers.__version__, TYPES.get(name)
    if of is None or installed == VERIFIED:
        return
    if of not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {installed} has no {of}")
    why = _said(UNBUILT, name)
    if why:
        pytest.skip(f"transformers {installed} cannot run this {name}: {why}")


def why_apart(name: str) -> str:
    """Say why laws do not hold on another version; nothing where they should."""
    return _said(APART, name)
