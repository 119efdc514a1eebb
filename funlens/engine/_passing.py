"""Gradients of a metric at many sites, looked at as they pass, and not kept."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import ModelSpec, Padding, PerRow, Selection, Site, pick
from funlens.engine._inputs import Prepared
from funlens.engine._metrics import Metric, measured
from funlens.engine._options import Options
from funlens.engine._plan import Edit, kept, lay_out, make_plan
from funlens.engine._stacked import for_rows, tiled_inputs
from funlens.engine._trace import Trace
from funlens.engine._traced import traced
from funlens.errors import InputError


def passing(
    spec: ModelSpec,
    prepared: Prepared,
    metric: Metric,
    sites: Sequence[Site],
    look: Callable[[Site, Tensor, Tensor], None],
    *,
    edits: Sequence[Edit] = (),
    times: int = 1,
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
        edits: What to change, placed on the frames of all rows.
        times: How often the inputs are put below each other.

    Returns:
        The metric, `[time, batch]`, or `[time]` where it gives one number for a batch.

    Raises:
        InputError: The metric has no derivative, or another number of values.
    """
    inputs = prepared if times == 1 else tiled_inputs(prepared, times)
    site = for_rows(metric.site, times)
    logits_at = _logits_at(spec, site, [*sites, *(e.record.site for e in edits)])
    wanted = tuple(dict.fromkeys([*sites, *([] if logits_at else [site.whole])]))
    waiting = dict.fromkeys(sites)

    def shown(passed: Site, value: Tensor, gradient: Tensor) -> None:
        if passed in asked:
            waiting.pop(passed, None)
            look(passed, value, gradient)

    asked = frozenset(sites)
    anchor = torch.zeros((), device=spec.device, requires_grad=True)
    if edits:
        keeps = [kept(spec, inputs.frames, held) for held in wanted]
        plan = lay_out(spec, edits, keeps, links=True)
    else:
        plan = make_plan(spec, inputs.frames, (), captured=wanted, links=True)
    options = Options(grad=True, logits_at=logits_at)
    with torch.enable_grad():
        out, trace = traced(
            spec, inputs, plan, options=options, links=True, watch=(anchor, shown)
        )
        read = _read(out, trace, site, logits_at)
        values, gradient = _slope(metric, read, times)
        if read.requires_grad:
            torch.autograd.grad(read, [anchor], [gradient], allow_unused=True)
    for left in waiting:
        value = trace.captured[left][0].detach()
        look(left, value, torch.zeros_like(value))
    return values


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


def _slope(metric: Metric, read: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """Give a metric of each batch, and the gradient of their sum where it reads.

    Raises:
        InputError: It has no derivative.
    """
    leaf = read.detach()
    if leaf.is_floating_point():
        leaf = leaf.requires_grad_()
    values = torch.stack([measured(metric, part) for part in leaf.chunk(times)])
    if not values.requires_grad:
        raise InputError(
            f"the metric {metric.name} has no derivative: it counts or compares, or "
            "was detached",
            f"a smooth function of {metric.site}",
            "Use `logit_diff` or `log_prob_of`",
        )
    (gradient,) = torch.autograd.grad(values.sum(), [leaf])
    return values.detach(), gradient
