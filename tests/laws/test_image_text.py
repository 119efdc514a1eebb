"""The laws, on every model of transformers that is shown pictures and has a table."""

from typing import Any, Final

import pytest
import torch

import funlens as fl
from funlens.adapters import described
from funlens.errors import InputError
from funlens.testing import RECIPES, tiny_hf_model, tiny_inputs
from funlens.testing._recipes_modal_sizes import START
from tests.another_version import skip_absent
from tests.laws.every_law import check_every_law, marked
from tests.models._obstacles import UNDESCRIBED

# Without a table.
WITHOUT: Final = {
    row.model_type
    for row in RECIPES
    if row.task == "image-text" and row.model_type in UNDESCRIBED
}
# With a table that refuses pictures, and why.
TEXT_ONLY: Final = {"dots3_note": "padded rows"}
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


def test_the_rest_is_without_a_table() -> None:
    """The list of what is left out holds nothing that has a table."""
    known = set(described())
    assert set() == known & WITHOUT
    assert set() == {row.model_type for row in ROWS} - known


@pytest.mark.parametrize("model_type", TEXT_ONLY)
def test_pictures_that_a_table_cannot_answer_for_are_refused(model_type: str) -> None:
    """The error says why; text alone runs."""
    name = f"{model_type}-image"
    skip_absent(name)
    spec, given = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    with pytest.raises(InputError, match=TEXT_ONLY[model_type]):
        fl.run(spec, given)
    fl.run(spec, {"input_ids": given["input_ids"]})


@pytest.mark.parametrize("name", marked(ROWS, A_FEW))
def test_every_law_holds(name: str, unchecked: None) -> None:
    """Each law holds that applies, against a model that funlens never saw."""
    check_every_law(name)


THINKERS: Final = ("qwen2_5_omni_thinker-image", "qwen3_omni_moe_thinker-image")


@pytest.mark.parametrize("name", THINKERS)
def test_a_mask_is_passed_on_where_it_hides_nothing_and_is_read(name: str) -> None:
    """With one HuggingFace counts a picture's positions by row and column."""
    given = tiny_inputs(name)
    given["input_ids"][:, 2] = START  # right before the picture
    whole = torch.ones_like(given["input_ids"])
    padded = whole.clone()
    padded[0, :1] = 0
    spec, found = fl.from_module(tiny_hf_model(name)), []
    for mask in ({}, {"attention_mask": whole}, {"attention_mask": padded}):
        untouched = tiny_hf_model(name)
        with torch.no_grad():
            found.append(untouched(**given, **mask).logits)
        assert torch.equal(found[-1], fl.run(spec, {**given, **mask}))
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[0], fl.run(spec, given))


@pytest.mark.parametrize("name", THINKERS)
def test_padding_is_refused_where_huggingface_s_own_model_fails(name: str) -> None:
    """Its config class has no field for the token by which it finds pictures."""
    module: Any = tiny_hf_model(name)
    assert START == module.config.vision_start_token_id
    del module.config.vision_start_token_id
    given = tiny_inputs(name)
    mask = torch.ones_like(given["input_ids"])
    spec = fl.from_module(module)
    with torch.no_grad():
        assert torch.equal(module(**given).logits, fl.run(spec, given))
    with pytest.raises(AttributeError, match="vision_start_token_id"):
        module(**given, attention_mask=mask)
    mask[0, :1] = 0
    with pytest.raises(InputError, match="asks its config for what it lacks"):
        fl.run(spec, given, attention_mask=mask)
