"""What a model puts in front of the positions it is given: cut off, and put back."""

from typing import TypeAlias

import torch
from torch import Tensor

from funlens.data import Site

Cuts: TypeAlias = tuple[tuple[int, int], ...]
"""Axes, and how many of each one's first indices are in front."""


def cuts_of(site: Site, value: Tensor, *, window: int, seen: int) -> Cuts:
    """Find what is in front on each axis of a site's value.

    Args:
        site: The site.
        value: Its value, with what is in front.
        window: Positions that this forward was given.
        seen: Positions that all forwards so far were given.
    """
    known = {"pos": window, "query": window, "key": seen}
    found = (
        (at, value.shape[at] - known[axis])
        for at, axis in enumerate(site.axes)
        if axis in known
    )
    return tuple((at, front) for at, front in found if front > 0)


def cut(value: Tensor, cuts: Cuts) -> Tensor:
    """Leave out what is in front."""
    for at, front in cuts:
        value = value.narrow(at, front, value.shape[at] - front)
    return value


def put_back(whole: Tensor, new: Tensor, cuts: Cuts) -> Tensor:
    """Give the whole value with another one behind what is in front."""
    if not cuts:
        return new
    (at, front), *others = cuts
    before = whole.narrow(at, 0, front)
    behind = whole.narrow(at, front, whole.shape[at] - front)
    return torch.cat([before, put_back(behind, new, tuple(others))], dim=at)
