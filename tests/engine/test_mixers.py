"""The inner sites of mixers that are not attention: their meaning, and their edits."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.data import Part, Site
from funlens.testing import tiny_hf_model, tiny_inputs

# One family for each way to mix: its sites, of those that not all have.
NAMES: Final = (
    "mamba",
    "jamba",
    "mamba2",
    "bamba",
    "falcon_h1",
    "qwen3_next",
    "olmo_hybrid",
    "kimi_linear",
    "lfm2",
    "recurrent_gemma",
    "xlstm",
    "rwkv",
    "minimax",
)
STATEFUL: Final = tuple(
    name for name in NAMES if name not in {"lfm2", "rwkv", "minimax"}
)
# HuggingFace's own RWKV gives other logits with its state than without.
GENERATING: Final = tuple(name for name in NAMES if name != "rwkv")
N_NEW: Final = 3
TOLERANCE: Final = 2e-4  # float32: one token at a time sums in another order


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


@cache
def mixing(name: str) -> int:
    """The last layer that mixes without attention."""
    layers = [info.site.layer for info in spec_of(name).sites if _mixes(info.site)]
    assert layers
    assert layers[-1] is not None
    return layers[-1]


def _mixes(site: Site) -> bool:
    return site.part == "ssm_out"


def inner(name: str) -> list[Site]:
    """The sites of one mixer, its state included."""
    sites = [info.site for info in spec_of(name).sites]
    return [
        site
        for site in sites
        if site.part.startswith("ssm_") and site.layer == mixing(name)
    ]


def prompt(name: str) -> Tensor:
    """Two rows of tokens."""
    return tiny_inputs(name)["input_ids"]


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference, by the largest value."""
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max()) / max(1.0, float(other.abs().max()))


@pytest.mark.parametrize("name", GENERATING)
def test_every_inner_site_agrees_while_generating(name: str) -> None:
    """With a cache of states, each site has what one forward over all tokens has."""
    spec, sites = spec_of(name), inner(name)
    made = fl.generate_with_cache(
        spec,
        prompt(name),
        capture=sites,
        max_new_tokens=N_NEW,
        min_new_tokens=N_NEW,
        do_sample=False,
    )
    whole = fl.run_with_cache(spec, made.tokens[:, :-1], capture=sites).cache
    apart = {str(site): far(made.cache[site], whole[site]) for site in sites}
    assert {} == {name: by for name, by in apart.items() if by > TOLERANCE}


@pytest.mark.parametrize("name", GENERATING)
@pytest.mark.parametrize(
    ("pos", "read"), [(2, 2), (fl.generated, slice(7, None))], ids=["prompt", "new"]
)
def test_edits_of_every_inner_site_act_while_generating(
    name: str, pos: Any, read: Any
) -> None:
    """Each site changes the logits as in one forward, at one position or new ones."""
    spec = spec_of(name)
    for site in inner(name):
        # the factor of a state would compound while generating
        size = 0.0 if site.part == "ssm_state" else 0.5
        here = Part(site.part)(site.layer, pos=pos)
        there = Part(site.part)(site.layer, pos=read)
        made = fl.generate_with_cache(
            spec,
            prompt(name),
            [fl.Scale(here, size)],
            capture=[fl.resid_post],
            max_new_tokens=N_NEW,
            min_new_tokens=N_NEW,
            do_sample=False,
        )
        tokens = made.tokens[:, :-1]
        logits = fl.run(spec, tokens, [fl.Scale(there, size)])[:, -N_NEW:]
        assert far(made.logits, logits) < TOLERANCE, str(site)


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_is_what_all_later_positions_read(name: str) -> None:
    """Emptied after position 2, it leaves what a run from position 3 on would read."""
    spec, layer = spec_of(name), mixing(name)
    tokens, zero = prompt(name), fl.Zero(fl.ssm_state(layer, pos=2))
    _, cache = fl.run_with_cache(spec, tokens, [zero], capture=[fl.ssm_y(layer)])
    _, plain = fl.run_with_cache(spec, tokens, capture=[fl.ssm_y(layer)])
    given = ("ssm_q", "ssm_k", "ssm_v", "ssm_decay", "ssm_beta")
    y, was = cache[fl.ssm_y(layer)], plain[fl.ssm_y(layer)]
    assert torch.equal(was[:, :2], y[:, :2])
    assert float(y[:, 2].abs().max()) == 0
    assert not torch.equal(was[:, 3:], y[:, 3:])
    has = {info.site for info in spec.sites}
    early = [
        fl.Zero(Part(part)(layer, pos=slice(0, 3)))
        for part in given
        if part in {"ssm_v", "ssm_beta"} and Part(part)(layer) in has
    ]
    _, from_three = fl.run_with_cache(spec, tokens, early, capture=[fl.ssm_y(layer)])
    if name != "xlstm":  # its normalizer counts what was written, whatever it was
        assert far(y[:, 3:], from_three[fl.ssm_y(layer)][:, 3:]) < TOLERANCE


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_can_be_handed_to_another_prompt(name: str) -> None:
    """Patched from another run, it makes the logits depend on that run's tokens."""
    spec, layer = spec_of(name), mixing(name)
    tokens = prompt(name)
    site = fl.ssm_state(layer, pos=3)
    _, other = fl.run_with_cache(spec, tokens.flip(1), capture=[fl.ssm_state(layer)])
    base = fl.run(spec, tokens)
    patched = fl.run(spec, tokens, [fl.Patch(site, other)])
    assert far(base[:, :3], patched[:, :3]) < 1e-6  # experts sum by what is near
    assert far(base[:, 4:], patched[:, 4:]) > TOLERANCE


@pytest.mark.parametrize("name", ["mamba", "mamba2", "qwen3_next", "kimi_linear"])
def test_no_decay_forgets_everything(name: str) -> None:
    """With a decay of 0 at a position, nothing before it is read from there on."""
    spec, layer = spec_of(name), mixing(name)
    tokens, pos = prompt(name), 4
    zero = fl.Zero(fl.ssm_decay(layer, pos=pos))
    _, cache = fl.run_with_cache(spec, tokens, [zero])
    weights = fl.effective_attention(spec, cache, layer)
    assert float(weights[:, :, pos:, :pos].abs().max()) == 0
    read = torch.einsum("bhqk,bkhd->bqhd", weights, cache[fl.ssm_v(layer)])
    assert far(read, cache[fl.ssm_y(layer)]) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "step"), [("mamba", 3e-3), ("mamba2", 3e-3), ("kimi_linear", 3e-4)]
)
def test_slopes_of_an_edit_are_those_of_finite_differences(
    name: str, step: float
) -> None:
    """An addition of nothing has the derivative that small additions show."""
    spec, layer = spec_of(name), mixing(name)
    tokens = prompt(name)
    for part in ("ssm_v", "ssm_decay", "ssm_beta", "ssm_state"):
        site = Part(part)(layer, pos=3)
        _, cache = fl.run_with_cache(spec, tokens, capture=[Part(part)(layer)])
        push = torch.ones_like(cache[Part(part)(layer)][:, 3])

        def logit(size: Tensor, site: Site = site, push: Tensor = push) -> Tensor:
            return fl.run(spec, tokens, [fl.Add(site, push * size)])[:, -1].sum()

        slope = torch.func.grad(logit)(torch.zeros(()))
        with torch.no_grad():
            rise = logit(torch.tensor(step)) - logit(torch.tensor(-step))
        apart = (slope.detach() - rise / 2 / step).abs()
        assert float(apart) < 1e-3 + 2e-2 * float(slope.detach().abs())


def test_states_are_kept_only_where_they_are_asked_for() -> None:
    """They are far larger than other sites."""
    kept = fl.run_with_cache(spec_of("mamba2"), prompt("mamba2")).cache
    assert not any(site.part == "ssm_state" for site in kept)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "qwen3_next", "lfm2"])
def test_vmap_over_edits_of_inner_sites_is_the_loop(name: str) -> None:
    """Also forwards in mode: a slope along a direction is the gradient's."""
    spec, tokens = spec_of(name), prompt(name)
    for site in inner(name):
        held = fl.run_with_cache(spec, tokens, capture=[site]).cache[site]
        generator = torch.Generator().manual_seed(0)
        pushes = torch.randn((2, *held.shape), generator=generator) / 10

        def pushed(push: Tensor, site: Site = site) -> Tensor:
            return fl.run(spec, tokens, [fl.Add(site, push)])

        def total(push: Tensor, site: Site = site) -> Tensor:
            return pushed(push, site).sum()

        together = torch.func.vmap(pushed)(pushes)
        assert far(together, torch.stack([pushed(one) for one in pushes])) < TOLERANCE
        zero = torch.zeros_like(held)
        _, along = torch.func.jvp(total, (zero,), (pushes[0],))
        slope = (torch.func.grad(total)(zero) * pushes[0]).sum()
        assert float((along - slope).detach().abs()) < 1e-2


@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon_h1", "qwen3_next"])
def test_in_half_precision_a_look_changes_no_bit(name: str) -> None:
    """Sites have the model's dtype, and their own values mean no change."""
    untouched = tiny_hf_model(name).to(torch.bfloat16)
    spec = fl.from_module(tiny_hf_model(name).to(torch.bfloat16))
    with torch.no_grad():
        expected = untouched(prompt(name)).logits
    for site in inner(name):
        logits, kept = fl.run_with_cache(spec, prompt(name), capture=[site])
        assert kept[site].dtype == torch.bfloat16
        assert torch.equal(expected, logits)
        own = fl.run(spec, prompt(name), [fl.Patch(site, kept)])
        assert torch.equal(expected, own)
