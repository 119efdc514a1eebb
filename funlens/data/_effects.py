"""`Effects`: what a sweep found, on named axes."""

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor

from funlens.errors import InputError, SelectionError


@attrs.frozen(kw_only=True, eq=False)
class Effects:
    """A metric of many runs, laid out on the axes of the sweep.

    Attributes:
        values: The metric's mean over the batch, `[*axes]`; NaN where nothing was run.
        rows: The metric of each example, `[*axes, batch]`.
        baseline: The metric of the run without edits, `[batch]`; with several metrics
            `[metric, batch]`.
        axes: Names of the axes of `values`, such as `("layer", "pos")`.
        labels: What stands at each place of an axis.
        metric: Name of the metric, or names.
        done: `[*axes]` without the metrics: which cells were run. All of them, unless
            the sweep was interrupted or a layer lacks what the others have.
    """

    values: Tensor = attrs.field(repr=False)
    rows: Tensor = attrs.field(repr=False)
    baseline: Tensor = attrs.field(repr=False)
    axes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]] = attrs.field(repr=False)
    metric: tuple[str, ...]
    done: Tensor = attrs.field(repr=False)

    @property
    def is_complete(self) -> bool:
        """Whether every cell was run."""
        return bool(self.done.all())

    @property
    def change(self) -> Tensor:
        """How far each cell moved the metric from the baseline, `[*axes]`."""
        expected = self.baseline.mean(-1)
        return self.values - expected.reshape(*expected.shape, *[1] * self.done.ndim)

    def __repr__(self) -> str:
        """Say what is where, and how large."""
        sizes = ", ".join(
            f"{axis} {size}"
            for axis, size in zip(self.axes, self.values.shape, strict=True)
        )
        lowest, highest = (
            float(bound) for bound in torch.aminmax(self.values.nan_to_num(0.0))
        )
        missing = "" if self.is_complete else f", {int((~self.done).sum())} not run"
        named = ", ".join(self.metric)
        return f"Effects({named}: {sizes}; {lowest:.4g} to {highest:.4g}{missing})"


def average_over(effects: Effects, axis: str) -> Effects:
    """Average effects over one of their axes, such as the draws of a resampling.

    Args:
        effects: What a sweep found.
        axis: Name of the axis; NaN on it stays NaN.

    Returns:
        Effects without that axis.

    Raises:
        SelectionError: There is no such axis, or it tells metrics apart.
    """
    at = _axis(effects, axis)
    left = tuple(name for name in effects.axes if name != axis)
    rows = effects.rows.mean(at)
    return attrs.evolve(
        effects,
        values=rows.mean(-1),
        rows=rows,
        axes=left,
        labels={name: effects.labels[name] for name in left},
        done=effects.done.all(at - (effects.values.ndim - effects.done.ndim)),
    )


def spread_over(effects: Effects, axis: str) -> Tensor:
    """Give the standard deviation of effects along one of their axes.

    Args:
        effects: What a sweep found.
        axis: Name of the axis.

    Returns:
        Standard deviation of `values`, of a sample (n - 1), on the axes that are left.

    Raises:
        SelectionError: There is no such axis, or it tells metrics apart.
        InputError: One value has no spread.
    """
    at = _axis(effects, axis)
    if effects.values.shape[at] == 1:
        raise InputError(f"there is one {axis}", "two or more", "Draw more of them")
    return effects.values.std(at)


def _axis(effects: Effects, axis: str) -> int:
    several = effects.values.ndim - effects.done.ndim
    known = effects.axes[several:]
    if axis not in known:
        problem = f"there is no axis {axis} to go over"
        raise SelectionError("the effects", problem, f"one of {', '.join(known)}")
    return effects.axes.index(axis)
