"""Generation with edits, against HuggingFace's own."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "gemma2", "mixtral", "gptj", "mamba")
TOLERANCE: Final = 1e-4  # float32: one token at a time sums in another order
N_NEW: Final = 5


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def prompt(name: str) -> Tensor:
    """Two rows of tokens."""
    return tiny_inputs(name)["input_ids"]


def made(name: str, edits: Any = (), **options: Any) -> Tensor:
    """Greedy tokens."""
    given: dict[str, Any] = {"max_new_tokens": N_NEW, "do_sample": False, **options}
    return fl.generate(spec_of(name), prompt(name), edits, **given)


def steer(name: str, **where: Any) -> list[fl.Intervention]:
    """A strong push of the stream."""
    vector = torch.linspace(-9, 9, 16)
    return [fl.Add(fl.resid_pre(1, **where), vector)]


@pytest.mark.parametrize("name", NAMES)
def test_greedy_equals_huggingface(name: str) -> None:
    """Without edits, and with an edit of nothing."""
    model: Any = tiny_hf_model(name)
    mask = torch.ones_like(prompt(name))
    expected = model.generate(
        prompt(name),
        attention_mask=mask,
        max_new_tokens=N_NEW,
        do_sample=False,
        pad_token_id=0,
    )
    assert torch.equal(expected, made(name))
    assert torch.equal(expected, made(name, [fl.Scale(fl.resid_pre(1), 1.0)]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("where", "expected"),
    [({"pos": 1}, 1), ({"pos": fl.generated}, N_NEW - 1), ({}, N_NEW)],
)
def test_edit_acts_as_often_as_its_positions_pass(
    name: str, where: dict[str, Any], expected: int
) -> None:
    """One position once, generated ones at each step but the unread last."""
    held = fl.generate_with_cache(
        spec_of(name),
        prompt(name),
        steer(name, **where),
        capture=[fl.resid_pre(1)],
        max_new_tokens=N_NEW,
        min_new_tokens=N_NEW,
        do_sample=False,
    )
    assert expected == held.cache.receipts[0].count


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mamba"])
@pytest.mark.parametrize("where", [{"pos": 1}, {"pos": fl.generated}, {}])
def test_without_key_value_cache_agrees(name: str, where: dict[str, Any]) -> None:
    """Steering is the same with and without HuggingFace's cache."""
    edits = steer(name, **where)
    assert torch.equal(made(name, edits), made(name, edits, use_cache=False))


@pytest.mark.parametrize("name", NAMES)
def test_cache_agrees_with_a_second_forward(name: str) -> None:
    """What was kept on the way is what one forward over all tokens gives."""
    edits = steer(name, pos=1)
    spec, site = spec_of(name), fl.resid_post(1)
    held = fl.generate_with_cache(
        spec, prompt(name), edits, capture=[site], max_new_tokens=N_NEW, do_sample=False
    )
    read = held.tokens[:, :-1]
    logits, cache_ = fl.run_with_cache(spec, read, edits, capture=[site])
    got = held.cache[site]
    torch.testing.assert_close(cache_[site], got, atol=TOLERANCE, rtol=TOLERANCE)
    steps = logits[:, prompt(name).shape[1] - 1 :]
    torch.testing.assert_close(steps, held.logits, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_seed_fixes_the_draws(name: str) -> None:
    """Same seed, same tokens; the global generator is where it was."""
    state = torch.get_rng_state()

    def drawn(seed: int) -> Tensor:
        return made(name, do_sample=True, seed=seed, max_new_tokens=12)

    assert torch.equal(drawn(1), drawn(1))
    assert any(not torch.equal(drawn(1)[0], drawn(seed)[0]) for seed in (2, 3))
    assert torch.equal(state, torch.get_rng_state())


def test_unknown_option_is_refused() -> None:
    """HuggingFace's `generate` does not know it."""
    with pytest.raises(fl.errors.OptionError, match="temprature"):
        made("gpt2", temprature=0.5)


def test_prompt_padded_on_the_right_is_refused() -> None:
    """It cannot go on."""
    tokens = prompt("gpt2")
    mask = torch.ones_like(tokens)
    mask[0, -2:] = 0
    with pytest.raises(fl.errors.InputError, match="right"):
        fl.generate(spec_of("gpt2"), {"input_ids": tokens, "attention_mask": mask})


def test_prompt_padded_on_the_left_equals_rows_alone() -> None:
    """The short row goes on as it would alone."""
    tokens = prompt("gpt2")
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0
    given = {"input_ids": tokens, "attention_mask": mask}
    options: dict[str, Any] = {"max_new_tokens": N_NEW, "do_sample": False}
    got = fl.generate(spec_of("gpt2"), given, **options)
    alone = fl.generate(spec_of("gpt2"), tokens[:1, 2:], **options)
    assert torch.equal(alone[0], got[0, 2:])


def test_sampling_without_a_seed_is_refused() -> None:
    """Nothing is drawn from the global generator."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    tokens = tiny_inputs("gpt2")["input_ids"]
    with pytest.raises(fl.errors.OptionError, match="seed"):
        fl.generate(spec, tokens, do_sample=True, max_new_tokens=2)
