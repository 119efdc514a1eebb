"""Gradients of a metric at many sites, looked at as they pass, and not kept."""

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import ModelSpec, Padding, PerRow, Selection, Site, pick
from funlens.engine._inputs import Prepared
from funlens.engine._metrics import Metric, measured
from funlens.engine._options import Options
from funlens.engine._plan import Edit, kept, lay_out, make_plan
from funlens.engine._stacked import for_rows, tiled, tiled_inputs
from funlens.engine._trace import Trace, Watch
from funlens.engine._traced import traced
from funlens.errors import InputError


@attrs.frozen(kw_only=True, eq=False)
class Rows:
    """How runs of the same inputs lie below each other, and where they begin.

    Attributes:
        times: How often the inputs are repeated.
        edits: What is changed, placed on the frames of all rows.
        start: Layer to begin with; None for the whole model.
        residual: What enters it in one run.
    """

    times: int = 1
    edits: tuple[Edit, ...] = ()
    start: int | None = None
    residual: Tensor | None = None


ONCE = Rows()
"""One run of the whole model, without edits."""


def passing(
    spec: ModelSpec,
    prepared: Prepared,
    metric: Metric,
    sites: Sequence[Site],
    look: Callable[[Site, Tensor, Tensor], None],
    *,
    rows: Rows = ONCE,
) -> Tensor:
    """Run forward and backward once, and show each site's value and gradient.

    What was shown and not kept is gone when the backward has passed it. A site that
    the model passes twice is shown twice, one that the metric does not depend on once,
    with a gradient of zeros.

    Args:
        spec: The model.
        prepared: Its inputs.
        metric: What the gradients are of.
        sites: Whole sites.
        look: What is shown a site, its value and its gradient.
        rows: What is run.

    Returns:
        The metric, `[time, batch]`, or `[time]` where it gives one number for a batch.

    Raises:
        InputError: The metric has no derivative, or another number of values.
    """
    asked = frozenset(sites)
    waiting = dict.fromkeys(sites)

    def shown(site: Site, value: Tensor, gradient: Tensor) -> None:
        if site in asked:
            waiting.pop(site, None)
            look(site, value, gradient)

    anchor = torch.zeros((), device=spec.device, requires_grad=True)
    with torch.enable_grad():
        read, trace = read_of(
            spec, prepared, metric, sites, rows=rows, watch=(anchor, shown)
        )
        values, gradient = slope_of(metric, read, rows.times)
        if read.requires_grad:
            torch.autograd.grad(read, [anchor], [gradient], allow_unused=True)
    for site in waiting:
        value = trace.captured[site][0].detach()
        look(site, value, torch.zeros_like(value))
    return values


def read_of(
    spec: ModelSpec,
    prepared: Prepared,
    metric: Metric,
    sites: Sequence[Site] = (),
    *,
    rows: Rows = ONCE,
    watch: Watch | None = None,
    eager: bool = False,
) -> tuple[Tensor, Trace]:
    """Run, and give what a metric reads, with the sites among what was captured.

    Args:
        spec: The model.
        prepared: Its inputs.
        metric: What reads.
        sites: What else is captured.
        rows: What is run.
        watch: What is shown gradients as they pass.
        eager: Whether to run attention whose gradient has a gradient.
    """
    inputs = prepared if rows.times == 1 else tiled_inputs(prepared, rows.times)
    site = for_rows(metric.site, rows.times)
    looked = [*sites, *(edit.record.site for edit in rows.edits)]
    logits_at = _logits_at(spec, site, looked)
    ends = () if logits_at is not None else (site.whole,)
    wanted = tuple(dict.fromkeys((*sites, *ends)))
    links = watch is not None
    if rows.edits:
        keeps = [kept(spec, inputs.frames, held) for held in wanted]
        plan = lay_out(spec, rows.edits, keeps, links=links)
    else:
        plan = make_plan(spec, inputs.frames, (), captured=wanted, links=links)
    entering = None if rows.residual is None else tiled(rows.residual, rows.times)
    out, trace = traced(
        spec,
        inputs,
        plan,
        options=Options(
            grad=torch.is_grad_enabled(),
            logits_at=logits_at,
            start_at_layer=rows.start,
            residual=entering,
        ),
        links=links,
        watch=watch,
        eager=eager,
    )
    return _read(out, trace, site, logits_at), trace


def values_of(metric: Metric, read: Tensor, times: int) -> Tensor:
    """Measure each of several batches: `[time, batch]`, or `[time]`.

    Raises:
        InputError: The metric gives another number of values.
    """
    return torch.stack([measured(metric, part) for part in read.chunk(times)])


def _logits_at(spec: ModelSpec, site: Site, others: Sequence[Site]) -> Selection | None:
    """Give the one position of logits that is read, if no others are looked at."""
    machinery: Machinery = spec.engine
    cannot = not machinery.unembed or machinery.unembeds_streams
    if site.part != "logits" or cannot or any(o.part == "logits" for o in others):
        return None
    return site.pos


def _read(out: Tensor, trace: Trace, site: Site, logits_at: Selection | None) -> Tensor:
    """Give what the metric reads of a run."""
    if logits_at is not None:
        drops = isinstance(logits_at, int | PerRow)
        return out.squeeze(1) if drops else out
    frame = trace.frames[""]
    encoder = trace.frames.get("encoder", frame)
    return pick(
        trace.captured[site.whole][0],
        site,
        main=Padding(starts=frame.starts, stops=frame.stops),
        encoder=Padding(starts=encoder.starts, stops=encoder.stops),
    )


def slope_of(metric: Metric, read: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """Give a metric of each batch, and the gradient of their sum where it reads.

    Args:
        metric: The metric.
        read: What it reads, of several batches.
        times: How many.

    Raises:
        InputError: It has no derivative.
    """
    leaf = read.detach()
    if leaf.is_floating_point():
        leaf = leaf.requires_grad_()
    values = values_of(metric, leaf, times)
    if not values.requires_grad:
        raise InputError(
            f"the metric {metric.name} has no derivative: it counts or compares, or "
            "was detached",
            f"a smooth function of {metric.site}",
            "Use `logit_diff` or `log_prob_of`",
        )
    (gradient,) = torch.autograd.grad(values.sum(), [leaf])
    return values.detach(), gradient
