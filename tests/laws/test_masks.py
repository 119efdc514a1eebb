"""A mask that hides nothing, on every model that reads tokens."""

from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.testing import RECIPES, tiny_inputs
from tests.laws.every_law import marked
from tests.models._verified import built

TOLERANCE: Final = 1e-4  # with a mask SDPA takes another kernel
# What cannot be compared, and why.
APART: Final = {
    "fnet": "it takes no mask",
    "fsmt": "HuggingFace's logits are others with its cache on, which runs have off",
    "xlnet": "its causal form fails where it is given a mask",
    "xlstm": "it takes no mask",
}
RUNS: Final = {row.name for row in fl.supported() if row.task and not row.refused}
READS: Final = [
    row
    for row in RECIPES
    if row.name in RUNS - set(APART)
    and "input_ids" in dict(row.inputs or {"input_ids": None})
]
A_FEW: Final = frozenset({"bert", "gpt2", "qwen2_5_omni_thinker-image", "t5"})


@pytest.mark.parametrize("name", marked(READS, A_FEW))
def test_a_mask_that_hides_nothing_gives_huggingface_s_output(
    name: str, unchecked: None
) -> None:
    """Whether funlens passes it on or not."""
    spec, given = fl.from_module(built(name)), tiny_inputs(name)
    tokens: Tensor = given["input_ids"][:: spec.engine.rows]
    given["attention_mask"] = torch.ones(tokens.shape[:2], dtype=torch.long)
    with torch.no_grad():
        output: Any = built(name)(**given)
    logits = getattr(output, "logits", None)
    expected = output[0] if logits is None else logits
    got = fl.run(spec, given)
    torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=TOLERANCE)
