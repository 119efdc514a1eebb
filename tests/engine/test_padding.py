"""Selections reach what they name; padding changes nothing at real positions."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

WITH_HEADS: Final = ("gpt2", "llama", "gemma2", "mixtral", "t5", "bert", "gptj")
NAMES: Final = ("gpt2", "llama", "gptj", "bloom", "opt")
TOLERANCE: Final = 1e-4  # float32: softmax over more keys sums in another order
N_PAD: Final = 3


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def kept(name: str, site: fl.Site, edits: Any = ()) -> Tensor:
    """What passes a site."""
    found = fl.run_with_cache(spec_of(name), tiny_inputs(name), edits, capture=[site])
    return found.cache[site]


@pytest.mark.parametrize("name", WITH_HEADS)
@pytest.mark.parametrize("head", [1, (0, 3)])
def test_head_selection_changes_only_that_head(name: str, head: Any) -> None:
    """Other heads keep their bits."""
    whole = kept(name, fl.z(0))
    expected = whole.clone()
    expected[:, :, [head] if isinstance(head, int) else list(head)] = 0
    assert torch.equal(expected, kept(name, fl.z(0), [fl.Zero(fl.z(0, head=head))]))


@pytest.mark.parametrize("name", WITH_HEADS)
@pytest.mark.parametrize(
    ("pos", "columns"),
    [(2, ([2, 2])), (-1, ([-1, -1])), (torch.tensor([1, 3]), [1, 3])],
)
def test_pos_selection_changes_only_that_place(
    name: str, pos: Any, columns: list[int]
) -> None:
    """A position, or one for each row."""
    expected = kept(name, fl.mlp_out(0)).clone()
    expected[torch.arange(2), columns] = 0
    got = kept(name, fl.mlp_out(0), [fl.Zero(fl.mlp_out(0, pos=pos))])
    assert torch.equal(expected, got)


@pytest.mark.parametrize("name", WITH_HEADS)
@pytest.mark.parametrize("pos", [3, -1, torch.tensor([1, 4])])
def test_head_at_a_position_changes_only_that_place(name: str, pos: Any) -> None:
    """Two axes are left out; the value is `[batch, d_head]`."""
    site, value = fl.z(0, head=1, pos=pos), torch.arange(8.0).view(2, 4)
    columns = pos if isinstance(pos, torch.Tensor) else torch.tensor([pos, pos])
    expected = kept(name, fl.z(0)).clone()
    expected[torch.arange(2), columns, 1] = value
    got = kept(name, fl.z(0), [fl.Set(site, value)])
    assert torch.equal(expected, got)
    assert torch.equal(value, kept(name, site, [fl.Set(site, value)]))


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "t5", "bert", "gptj"])
def test_neuron_selection_changes_only_that_neuron(name: str) -> None:
    """Neurons are the last axis of mlp_post."""
    site = fl.mlp_post(0)
    expected = kept(name, site).clone()
    expected[:, 2, 5] = 0
    got = kept(name, site, [fl.Zero(fl.mlp_post(0, neuron=5, pos=2))])
    assert torch.equal(expected, got)


def padded(tokens: Tensor, side: str) -> tuple[Tensor, Tensor, slice]:
    """Tokens with three more on one side, their mask, and the real columns."""
    blank, real = tokens[:, :N_PAD], torch.ones_like(tokens)
    none = torch.zeros_like(blank)
    if side == "left":
        columns = slice(N_PAD, None)
        return torch.cat([blank, tokens], 1), torch.cat([none, real], 1), columns
    columns = slice(0, tokens.shape[1])
    return torch.cat([tokens, blank], 1), torch.cat([real, none], 1), columns


EDITS: Final[dict[str, list[Any]]] = {
    "none": [],
    "last": [fl.Zero(fl.resid_pre(1, pos=-1))],
    "second": [fl.Scale(fl.mlp_out(0, pos=1), 2.0)],
    "head": [fl.Zero(fl.z(0, head=1))],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("edit", EDITS)
def test_padding_changes_no_real_position(name: str, side: str, edit: str) -> None:
    """With and without edits, negative positions among them."""
    tokens = tiny_inputs(name)["input_ids"]
    more, mask, real = padded(tokens, side)
    expected = fl.run(spec_of(name), tokens, EDITS[edit])
    got = fl.run(spec_of(name), more, EDITS[edit], attention_mask=mask)[:, real]
    torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_cache_counts_from_last_real_token(name: str, side: str) -> None:
    """pos=-1 is each row's last real token, whichever side the padding is on."""
    tokens = tiny_inputs(name)["input_ids"]
    more, mask, _ = padded(tokens, side)
    expected = fl.run_with_cache(spec_of(name), tokens).cache
    got = fl.run_with_cache(spec_of(name), more, attention_mask=mask).cache
    site = fl.resid_post(1, pos=-1)
    torch.testing.assert_close(expected[site], got[site], atol=TOLERANCE, rtol=0)


def test_rows_of_different_length_equal_rows_alone() -> None:
    """A batch with one short row."""
    tokens = tiny_inputs("gpt2")["input_ids"]
    mask = torch.ones_like(tokens)
    mask[1, :2] = 0
    got = fl.run(spec_of("gpt2"), tokens, attention_mask=mask)
    alone = fl.run(spec_of("gpt2"), tokens[1:, 2:])
    torch.testing.assert_close(alone, got[1:, 2:], atol=TOLERANCE, rtol=0)


def test_mask_with_a_gap_is_refused() -> None:
    """Real tokens stand side by side."""
    tokens = tiny_inputs("gpt2")["input_ids"]
    mask = torch.ones_like(tokens)
    mask[0, 3] = 0
    with pytest.raises(fl.errors.InputError, match="gap"):
        fl.run(spec_of("gpt2"), tokens, attention_mask=mask)
