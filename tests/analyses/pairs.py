"""Pairs of prompts on tiny models, and what patching really does."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model in float64, loaded once."""
    module: Any = tiny_hf_model(name).double()
    module.set_experts_implementation("eager")  # the kernels take no float64
    return fl.from_module(module)


def other_inputs(name: str) -> Mapping[str, Any]:
    """The tokens of `tiny_inputs` the other way round."""
    given = tiny_inputs(name)
    return {
        word: held.flip(1) if word == "input_ids" else held
        for word, held in given.items()
    }


@cache
def source_of(name: str) -> fl.ActivationCache:
    """Every site of the run on the other inputs."""
    return fl.run_with_cache(spec_of(name), other_inputs(name)).cache


def metric(logits: Tensor) -> Tensor:
    """One smooth number for each row."""
    return logits[:, -1, :5].logsumexp(-1)


def patched(name: str, site: fl.Site) -> Tensor:
    """What patching a site really adds to the metric of each row."""
    spec, given = spec_of(name), tiny_inputs(name)
    edit = fl.Patch(site, source_of(name))
    return (metric(fl.run(spec, given, [edit])) - metric(fl.run(spec, given))).double()


def per_row(numbers: Tensor) -> Tensor:
    """Sum over all places of a row, in float64."""
    return numbers.double().reshape(len(numbers), -1).sum(1)


def toy() -> fl.ModelSpec:
    """One layer of attention, without norms: linear in what its heads write."""
    config = fl.ToyConfig(
        n_layers=1, n_heads=4, d_model=16, d_mlp=0, d_vocab=32, norm="none"
    )
    return fl.from_module(fl.toy_module(config, seed=0).double())


def toy_tokens() -> tuple[Tensor, Tensor]:
    """Two pairs of prompts."""
    drawn = torch.randint(0, 32, (4, 7), generator=torch.Generator().manual_seed(0))
    return drawn[:2], drawn[2:]
