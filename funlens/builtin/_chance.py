"""Random choices that come from one `torch.Generator`."""

from collections.abc import Sequence
from typing import TypeVar

import torch

Option = TypeVar("Option")


def below(generator: torch.Generator, n: int) -> int:
    """Draw a whole number from 0 to `n - 1`."""
    return int(torch.randint(n, (), generator=generator))


def between(generator: torch.Generator, low: int, high: int) -> int:
    """Draw a whole number from `low` to `high`, both included."""
    return low + below(generator, high - low + 1)


def chance(generator: torch.Generator, probability: float) -> bool:
    """Say yes with the given probability."""
    return float(torch.rand((), generator=generator)) < probability


def pick(generator: torch.Generator, options: Sequence[Option]) -> Option:
    """Draw one option, all equally likely."""
    return options[below(generator, len(options))]


def pick_two(
    generator: torch.Generator, options: Sequence[Option]
) -> tuple[Option, Option]:
    """Draw two different options, in random order."""
    first = below(generator, len(options))
    second = below(generator, len(options) - 1)
    return options[first], options[second + (second >= first)]
