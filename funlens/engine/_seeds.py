"""Where randomness comes from: a seed, or a generator of the caller's."""

from typing import TypeAlias

import torch

from funlens.errors import OptionError

Seed: TypeAlias = int | torch.Generator
"""A number that fixes what is drawn, or a generator that goes on where it is."""


def generator_of(seed: Seed) -> torch.Generator:
    """Give a generator on the CPU; the global one is not touched.

    Raises:
        OptionError: It is neither a whole number nor such a generator.
    """
    if isinstance(seed, torch.Generator) and seed.device.type == "cpu":
        return seed
    if type(seed) is int:
        return torch.Generator().manual_seed(seed)
    problem = f"{seed!r} is neither a whole number nor a `torch.Generator` on the CPU"
    raise OptionError("seed", problem)
