"""Many runs that differ only in their interventions, planned and run together."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypedDict, cast

import attrs
import torch
from torch import Tensor

from funlens.data import Effects, ModelSpec
from funlens.engine._cells import Cells, CellsLike, cells_of
from funlens.engine._columns import columns_of, from_stream
from funlens.engine._edits import tensors
from funlens.engine._inputs import Inputs, Prepared, prepare
from funlens.engine._metrics import Metric, MetricLike, measured, metric_of
from funlens.engine._plan import Edit
from funlens.engine._progress import steps
from funlens.engine._stacked import Ends, stacked
from funlens.engine._stacks import in_stacks
from funlens.engine._sweep_plan import (
    Group,
    SweepPlan,
    check_memory,
    placed_cells,
    planned,
    read_edits,
)
from funlens.engine._waves import Unedited, unedited, wave
from funlens.errors import FunlensError, InputError, ShapeError

Metrics: TypeAlias = MetricLike | Mapping[str, MetricLike]
"""One metric, or several with names."""


class SweepOptions(TypedDict, total=False):
    """What a named sweep hands on to `sweep`, with the same meaning.

    Attributes:
        attention_mask: As for `run`.
        memory: How many bytes the activations of a stack may take.
        resume: What an interrupted sweep of the same cells gave.
    """

    attention_mask: Tensor | None
    memory: int | None
    resume: Effects | None


class SweepWarning(UserWarning):
    """A sweep was interrupted, and gives what it has."""


@attrs.frozen(kw_only=True, eq=False)
class _Job:
    """A sweep that was looked through and planned."""

    spec: ModelSpec
    prepared: Prepared
    cells: Cells
    edits: tuple[tuple[Edit, ...] | None, ...]
    metrics: tuple[Metric, ...]
    plan: SweepPlan


def plan_sweep(
    spec: ModelSpec,
    inputs: Inputs,
    cells: CellsLike,
    *,
    metric: Metrics,
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> SweepPlan:
    """Say what a sweep would compute, and find every fault in it, without running.

    Args:
        spec: The model.
        inputs: As for `run`.
        cells: As for `sweep`.
        metric: As for `sweep`.
        attention_mask: As for `run`.
        memory: As for `sweep`.

    Raises:
        FunlensError: As for `sweep`, before anything runs.
        ExceptionGroup: Several faults.
    """
    return _job(
        spec,
        inputs,
        cells,
        metric=metric,
        attention_mask=attention_mask,
        memory=memory,
        resume=None,
    ).plan


def sweep(
    spec: ModelSpec,
    inputs: Inputs,
    cells: CellsLike,
    *,
    metric: Metrics,
    attention_mask: Tensor | None = None,
    memory: int | None = None,
    resume: Effects | None = None,
) -> Effects:
    """Run a model once for each cell, and measure each run.

    It gives what a loop of `run` gives. Cells are stacked along the batch, each group
    begins at the first layer that its edits can change, and no more is computed than
    the metric reads. `plan_sweep` says beforehand how much that is.

    Args:
        spec: The model.
        inputs: As for `run`; every cell has the same.
        cells: A `grid`; several by name, on the same axes, for a first axis `part`;
            or a list with a list of interventions for each cell.
        metric: What is measured: a metric such as `logit_diff`, or any function from
            logits `[batch, pos, vocab]` to `[batch]` or to one number; or several with
            names.
        attention_mask: As for `run`.
        memory: How many bytes the activations of a stack may take; a quarter of what
            is free if left out. A stack that does not fit is halved.
        resume: What an interrupted sweep of the same cells gave: its cells are not run
            again.

    Returns:
        The metric on the sweep's axes. Interrupted with Ctrl-C, it warns, and returns
        what was done.

    Raises:
        FunlensError: Anything asked for that cannot be done, before the model runs.
        ExceptionGroup: Several such faults.
        RunError: An edit misbehaved, or never acted; a note names the cell.

    Costs one run without edits, and for each cell the layers from its first edit on.
    """
    job = _job(
        spec,
        inputs,
        cells,
        metric=metric,
        attention_mask=attention_mask,
        memory=memory,
        resume=resume,
    )
    n_metrics, n_cells = len(job.metrics), len(job.cells.edits)
    begun, baseline = _unedited(job)
    rows = torch.full(
        (n_metrics, n_cells, baseline.shape[-1]), math.nan, dtype=baseline.dtype
    )
    done = torch.zeros(n_cells, dtype=torch.bool)
    if resume is not None:
        rows, done = resume.rows.reshape(rows.shape).clone(), resume.done.flatten()
        done = done.clone()
    for index, row in enumerate(job.edits):
        if row == ():
            rows[:, index], done[index] = baseline, True
    try:
        for group in steps(job.plan.groups, "cells"):
            for index, found in _measured(job, group, begun):
                rows[:, index], done[index] = found, True
    except KeyboardInterrupt:
        left = int((~done).sum())
        warnings.warn(
            f"interrupted: {left} of {n_cells} cells were not run; pass what was "
            "returned as `resume=` to go on",
            SweepWarning,
            stacklevel=2,
        )
    return _effects(job, rows, baseline, done, several=isinstance(metric, Mapping))


def _job(
    spec: ModelSpec,
    inputs: Inputs,
    cells: CellsLike,
    *,
    metric: Metrics,
    attention_mask: Tensor | None,
    memory: int | None,
    resume: Effects | None,
) -> _Job:
    check_memory(memory)
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    laid = cells_of(spec, prepared, cells)
    metrics = _metrics(metric)
    _check_plain(laid)
    edits = tuple(
        None if row is None else read_edits(spec, row, metrics)
        for row in placed_cells(spec, prepared, laid)
    )
    if resume is not None and (resume.axes[-len(laid.axes) :], resume.done.shape) != (
        laid.axes,
        laid.shape,
    ):
        shape = tuple(resume.done.shape)
        raise ShapeError("resume", shape, laid.shape, laid.axes)
    names = tuple(metric.name for metric in metrics)
    if resume is not None and resume.metric != names:
        raise InputError(
            f"what is resumed measured {', '.join(resume.metric)}",
            ", ".join(names),
            "Resume with the same metrics",
        )
    done: list[bool] = [False] * len(edits)
    if resume is not None:
        done = [bool(one) for one in resume.done.flatten()]
    plan = planned(spec, prepared, edits, metrics, memory=memory, done=done)
    return _Job(
        spec=spec,
        prepared=prepared,
        cells=laid,
        edits=edits,
        metrics=_reading(spec, prepared, metrics, plan),
        plan=plan,
    )


def _reading(
    spec: ModelSpec, prepared: Prepared, metrics: tuple[Metric, ...], plan: SweepPlan
) -> tuple[Metric, ...]:
    """Let metrics of a few tokens read what is unembedded, where the plan has that."""
    head = columns_of(spec, prepared, plan.logits_at) if plan.columns else None
    if head is None:
        return metrics
    return tuple(from_stream(metric, head) for metric in metrics)


def _metrics(metric: Metrics) -> tuple[Metric, ...]:
    """Let any function be a metric of all logits."""
    given: Mapping[str, Any] = (
        cast("Mapping[str, Any]", metric)
        if isinstance(metric, Mapping)
        else {"": metric}
    )
    if not given:
        raise InputError("there is no metric", "one or more", "Use `logit_diff`")
    made = {name: metric_of(each) for name, each in given.items()}
    return tuple(
        attrs.evolve(each, name=name) if name else each for name, each in made.items()
    )


def _check_plain(cells: Cells) -> None:
    """Refuse values that want a gradient: a sweep records none."""
    for index, row in enumerate(cells.edits):
        if any(part.requires_grad for edit in row or () for part in tensors(edit)):
            raise InputError(
                f"a value in {cells.name(index)} requires a gradient",
                "values without, since a sweep records no graph",
                "Detach it, or use `run_with_grads`",
            )


def _unedited(job: _Job) -> tuple[Unedited, Tensor]:
    """Run once without edits: what groups begin with, and what is measured there."""
    groups = job.plan.groups
    layers = sorted({at for g in groups for at in g.starts if at is not None})
    sites = tuple(metric.site for metric in job.metrics)
    keys = any(g.since or g.only is not None for g in groups)
    ends = Ends(
        sites=sites, logits_at=job.plan.logits_at, enters_unembed=job.plan.columns
    )
    values, start = unedited(job.spec, job.prepared, layers, ends, keeps_keys=keys)
    read = [_read(m, v) for m, v in zip(job.metrics, values, strict=True)]
    return start, torch.stack(read)


def _read(metric: Metric, value: Tensor) -> Tensor:
    """Give a metric's numbers, one for each row, on the CPU."""
    found = measured(metric, value)
    return found.detach().float().reshape(-1).expand(len(value)).cpu()


def _measured(job: _Job, group: Group, begun: Unedited) -> Iterator[tuple[int, Tensor]]:
    """Run a group, in halves where it does not fit; give each cell's numbers."""
    run = partial(_values, job, group, begun=begun)
    for cell, values in in_stacks(group.cells, run, len(group.cells)):
        numbers = [_read(m, v) for m, v in zip(job.metrics, values, strict=True)]
        yield cell, torch.stack(numbers)


def _values(
    job: _Job, group: Group, cells: Sequence[int], *, begun: Unedited
) -> list[list[Tensor]]:
    """Run some cells of a group as one; what goes wrong is told of one cell."""
    begins = dict(zip(group.cells, group.starts, strict=True))
    start = begins[cells[0]]
    start = None if group.joins else start
    ends = Ends(
        sites=tuple(metric.site for metric in job.metrics),
        logits_at=job.plan.logits_at,
        enters_unembed=job.plan.columns,
        start=start,
        residual=None if start is None else begun.residuals[start],
        stop=None if group.stop == job.spec.n_layers else group.stop,
    )
    rows = [job.edits[cell] or () for cell in cells]
    try:
        if group.joins:
            joining = [
                (begins[c] or 0, row) for c, row in zip(cells, rows, strict=True)
            ]
            return wave(
                job.spec,
                job.prepared,
                joining,
                ends,
                begun,
                since=group.since,
                only=group.only,
            )
        return stacked(job.spec, job.prepared, rows, ends)
    except FunlensError as error:
        if len(cells) == 1:
            error.add_note(f"in {job.cells.name(cells[0])}")
            raise
    for cell in cells:  # which one it was, and as it would be named alone
        _values(job, group, [cell], begun=begun)
    raise AssertionError("a stack failed, and none of its cells")


def _effects(
    job: _Job, rows: Tensor, baseline: Tensor, done: Tensor, *, several: bool
) -> Effects:
    shape, names = job.cells.shape, tuple(metric.name for metric in job.metrics)
    laid = rows.reshape(len(names), *shape, -1)
    axes, labels = job.cells.axes, dict(job.cells.labels)
    if several:
        axes, labels = ("metric", *axes), {"metric": names, **labels}
    else:
        laid, baseline = laid[0], baseline[0]
    return Effects(
        values=laid.mean(-1),
        rows=laid,
        baseline=baseline,
        axes=axes,
        labels=labels,
        metric=names,
        done=done.reshape(shape),
    )
