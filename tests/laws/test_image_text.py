"""The laws, on every model of transformers that is shown pictures and has a table."""

from typing import Any, Final

import pytest

import funlens as fl
from funlens.testing import RECIPES, Recipe, tiny_hf_model, tiny_inputs

# Without a table, and why.
WITHOUT: Final = {
    "blip": "no table yet: a text decoder that sees through cross-attention",
    "chameleon": "it embeds the picture's code words in a second run of its embedding",
    "diffusion_gemma": "no table yet: two stacks share what they keep",
    "ernie4_5_vl_moe": "its experts are two groups, run in turn",
    "florence2": "no table yet: its tower attends by window and by channel",
    "glm5_next": "no table yet: streams and a recurrence of its own",
    "granite4_vision": "no table yet: multipliers, and features in several layers",
    "granite_docling": "no table yet: what is seen is added within its layers",
    "idefics": "gated layers of cross-attention stand between its blocks",
    "kosmos-2": "no table yet: norms within attention and MLP",
    "kosmos-2.5": "no table yet, as for kosmos-2",
    "minicpmv4_6": "no table yet: a row alone differs by itself",
    "minicpmv4_7": "no table yet, as for minicpmv4_6",
    "mistral_large4": "no table yet: its attention is chosen by an indexer",
    "muse_glimmer": "no table yet: gates and norms of its own",
    "muse_spark": "no table yet, as for muse_glimmer",
    "pi0": "its output is what a robot should do",
    "pix2struct": "its encoder is given no tokens",
    "pp_formulanet": "its encoder is given no tokens",
    "udop": "its encoder joins patches to the text",
    "vision-encoder-decoder": "its encoder is given no tokens",
}
# With a table whose laws do not hold where pictures are shown, and why.
TEXT_ONLY: Final = {
    "dots3_note": "its pictures are placed otherwise beside padding on the left",
    "emu3": "it embeds the picture's code words in a second run of its embedding",
}
ROWS: Final = [
    row
    for row in RECIPES
    if row.task == "image-text" and row.model_type not in {*WITHOUT, *TEXT_ONLY}
]
# One for each mechanism: a plain tower, one whose last block is not read, packed
# patches in windows, features in several layers, a strip, a tower without a site.
A_FEW: Final = frozenset(
    {
        "deepseek_vl-image",
        "fuyu-image",
        "llava-image",
        "minicpm_ocr-image",
        "qwen2_5_vl-image",
        "qwen3_vl-image",
    }
)


def marked(row: Recipe) -> Any:
    """Mark all rows but a few as belonging to the whole table."""
    marks = [] if row.name in A_FEW else [pytest.mark.architectures]
    return pytest.param(row.name, marks=marks)


def test_the_rest_is_without_a_table() -> None:
    """The list of what is left out holds nothing that has a table."""
    known = set(fl.supported())
    assert set() == known & set(WITHOUT)
    assert set() == {row.model_type for row in ROWS} - known


@pytest.mark.parametrize("name", [marked(row) for row in ROWS])
def test_every_law_holds(name: str, unchecked: None) -> None:
    """Each law holds that applies, against a model that funlens never saw."""
    certificate = fl.verify(
        fl.from_module(tiny_hf_model(name)),
        tiny_inputs(name),
        untouched=tiny_hf_model(name),
    )
    assert [] == [row for row in certificate.rows if not row.holds]
