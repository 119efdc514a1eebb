"""Attention is chosen layer by layer: SDPA, but where a run looks inside."""

from functools import cache
from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "bert")


class Counting(TorchFunctionMode):
    """Counts the calls of PyTorch's fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count, and call."""
        self.calls += func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model that came with SDPA, loaded once."""
    return fl.from_module(tiny_hf_model(name, attn_implementation="sdpa"))


def fused(name: str, *edits: Any, capture: Any = (fl.resid_post,)) -> int:
    """How many layers of a run use PyTorch's fused attention."""
    with Counting() as counting:
        fl.run_with_cache(spec_of(name), tiny_inputs(name), edits, capture=capture)
    return counting.calls


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_are_not_looked_into_run_sdpa(name: str) -> None:
    """All of them for residuals and heads' outputs, none for all patterns."""
    assert 2 == fused(name)
    assert 2 == fused(name, fl.Zero(fl.z(0, head=1)), capture=[fl.z, fl.q, fl.v])
    assert 1 == fused(name, capture=[fl.pattern(0)])
    assert 1 == fused(name, fl.Scale(fl.attn_scores(1), 2.0))
    assert 0 == fused(name, fl.Scale(fl.attn_scores(1), 2.0), capture=[fl.pattern(0)])
    assert 0 == fused(name, capture=fl.EVERY)


@pytest.mark.parametrize("name", NAMES)
def test_rotated_queries_and_keys_need_no_eager_attention(name: str) -> None:
    """They are seen on the way into attention, whichever it is."""
    if fl.rot_q(0) in {info.site for info in spec_of(name).sites}:
        assert 2 == fused(name, capture=[fl.rot_q, fl.rot_k])


@pytest.mark.parametrize("name", NAMES)
def test_module_that_came_eager_stays_eager(name: str) -> None:
    """Its own choice is kept, and its logits with it."""
    model: Any = tiny_hf_model(name, attn_implementation="eager")
    with torch.no_grad():
        expected = model(**tiny_inputs(name)).logits
    spec = fl.from_module(tiny_hf_model(name, attn_implementation="eager"))
    with Counting() as counting:
        got = fl.run_with_cache(spec, tiny_inputs(name), capture=[fl.resid_post])
    assert 0 == counting.calls
    assert torch.equal(expected, got.logits)


@pytest.mark.parametrize("name", NAMES)
def test_both_kinds_of_attention_agree(name: str) -> None:
    """To what float32 allows: sums are taken in another order."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    expected = fl.run(spec, inputs)
    got, _ = fl.run_with_cache(spec, inputs, capture=[fl.pattern])
    torch.testing.assert_close(expected, got, atol=1e-5, rtol=0)
