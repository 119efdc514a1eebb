"""Tiny random models are built from recipes, and the same bits each time."""

from collections.abc import Callable
from typing import Final

import pytest
import torch
from torch import nn

from funlens.testing._recipes import (
    RECIPES,
    UnknownRecipeError,
    head_recipes,
    recipe_names,
    tiny_hf_model,
    tiny_inputs,
)
from funlens.testing._recipes_config import config_of
from funlens.testing._recipes_record import Recipe

# One of each kind: plain, grouped queries, experts, tied encoder and decoder, masked,
# recurrent, a config made of parts, more than ids, and a part of a config.
A_FEW: Final = (
    "gpt2",
    "llama",
    "mixtral",
    "gemma2",
    "t5",
    "bert",
    "mamba",
    "fuyu",
    "longformer",
    "musicgen",
)
TEXT_ONLY: Final = tuple(row for row in RECIPES if not row.inputs)
ROLES: Final = ("pad", "bos", "eos", "decoder_start")


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    """Say whether two models hold equal tensors under equal names."""
    first, second = left.state_dict(), right.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("name", A_FEW)
def test_a_recipe_builds_a_model_that_runs(name: str) -> None:
    """The logits are finite, one row of them for each token."""
    model = tiny_hf_model(name)
    given = tiny_inputs(name)
    with torch.no_grad():
        logits = model(**given).logits
    tokens = given.get("decoder_input_ids", given["input_ids"])
    assert (*tokens.shape, 32) == logits.shape
    assert bool(logits.isfinite().all())
    assert not model.training


@pytest.mark.parametrize("name", A_FEW)
def test_the_seed_fixes_every_weight(name: str) -> None:
    """The same seed gives the same bits, another seed others."""
    first, again, other = (tiny_hf_model(name, seed=seed) for seed in (1, 1, 2))
    assert same_bits(first, again)
    assert not same_bits(first, other)


@pytest.mark.parametrize("name", A_FEW)
def test_building_leaves_the_global_randomness_alone(name: str) -> None:
    """The global random state is the same before and after."""
    before = torch.get_rng_state()
    tiny_hf_model(name)
    tiny_inputs(name)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", A_FEW)
def test_the_global_randomness_leaves_a_model_alone(name: str) -> None:
    """The weights do not depend on what was drawn before."""
    first = tiny_hf_model(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = tiny_hf_model(name)
    assert same_bits(first, again)


def test_no_gain_is_one_and_no_bias_is_zero() -> None:
    """A mistake about a norm's weights cannot hide in the initial values."""
    for name, weight in tiny_hf_model("gpt2").named_parameters():
        assert not bool(((weight == 0) | (weight == 1)).any()), name


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_can_be_chosen(implementation: str) -> None:
    """The choice reaches the config, and the weights do not depend on it."""
    model = tiny_hf_model("llama", attn_implementation=implementation)
    assert implementation == model.config._attn_implementation
    assert same_bits(tiny_hf_model("llama"), model)


@pytest.mark.parametrize("row", TEXT_ONLY, ids=lambda row: row.name)
def test_every_recipe_has_a_config_and_inputs(row: Recipe) -> None:
    """No id that is drawn is a special one, and none is outside the vocabulary."""
    drawn = tiny_inputs(row.name, batch=3, pos=20)
    config = config_of(row)
    special = {getattr(config, f"{role}_token_id", None) for role in ROLES}
    vocab = config.get_text_config().vocab_size
    rows = 3 * (config.num_codebooks if "input_ids" in row.extra else 1)
    assert (rows, 20) == drawn["input_ids"].shape
    for name in drawn.keys() & {"input_ids", "decoder_input_ids"}:
        tokens = drawn[name]
        assert set(tokens.flatten().tolist()) <= set(range(vocab)) - special


def test_the_seed_fixes_the_inputs() -> None:
    """The same seed gives the same ids, another seed others."""
    first, again, other = (
        tiny_inputs("gpt2", seed=seed)["input_ids"] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_decoder_gets_other_positions_than_its_encoder() -> None:
    """The two kinds of position cannot be taken for each other."""
    drawn = tiny_inputs("t5", pos=7)
    assert (7, 5) == (
        drawn["input_ids"].shape[1],
        drawn["decoder_input_ids"].shape[1],
    )


def test_names_are_unique() -> None:
    """Each name leads to one recipe."""
    assert len(RECIPES) + len(head_recipes()) == len(recipe_names())


@pytest.mark.parametrize("call", [tiny_hf_model, tiny_inputs])
def test_an_unknown_name_is_refused_with_the_nearest(
    call: Callable[[str], object],
) -> None:
    """The error holds the name and what comes near it."""
    with pytest.raises(UnknownRecipeError) as caught:
        call("lama")
    assert "lama" == caught.value.name
    assert "llama" == caught.value.near[0]
    for fragment in ("'lama'", "llama", "recipe_names()"):
        assert fragment in str(caught.value)
