"""`Effects`: what a sweep found, on named axes."""

from collections.abc import Mapping

import attrs
import torch
from torch import Tensor


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
