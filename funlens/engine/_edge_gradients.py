"""Gradients at what receivers read, times what senders wrote."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from funlens.data import Intervention, ModelSpec, Site
from funlens.engine._inputs import Prepared
from funlens.engine._measure import ends_of, row_numbers
from funlens.engine._metrics import MetricLike, metric_of
from funlens.engine._options import Options
from funlens.engine._plan import kept, lay_out, placed
from funlens.engine._stacked import read
from funlens.engine._traced import traced
from funlens.engine._wiring import Reader, Wiring
from funlens.errors import FunlensError, raise_all


def edge_products(
    spec: ModelSpec,
    prepared: Prepared,
    wiring: Wiring,
    moved: Mapping[int, Tensor],
    *,
    metric: MetricLike,
    interventions: Sequence[Intervention] = (),
) -> Float[Tensor, "batch receiver sender"]:
    """Give the metric's gradient at each receiver's input times what moves each sender.

    One forward and one backward; memory grows with one layer's receivers.

    Args:
        spec: The model.
        prepared: The inputs.
        wiring: The model's.
        moved: By how much is moved what the senders of each writer wrote, by its
            number; writers that are left out score 0.
        metric: What is differentiated.
        interventions: What else is changed in the run.

    Raises:
        UserFunctionError: The metric has no gradient.
    """
    gradients, streams = _at_readers(
        spec, prepared, wiring, metric=metric, interventions=interventions
    )
    graph = wiring.graph
    shape = (prepared.main.batch, len(graph.receivers), len(graph.senders))
    found = torch.zeros(shape, dtype=spec.dtype, device=spec.device)
    with torch.no_grad():
        for reader, rows in wiring.rows():
            stream, gradient = streams[reader.stream], gradients[reader.site]
            wanted = _before_norm(reader, stream, gradient)
            for index, (_, columns) in enumerate(wiring.columns()):
                if index in moved and columns.start < reader.before:
                    found[:, rows, columns] = _products(wanted, moved[index])
    return found


def _products(
    wanted: Float[Tensor, "receiver batch pos d_model"],
    moved: Tensor,
) -> Float[Tensor, "batch receiver sender"]:
    every = moved.expand(-1, *wanted.shape[1:]).transpose(0, 1).flatten(2)
    return wanted.transpose(0, 1).flatten(2) @ every.mT


def _at_readers(
    spec: ModelSpec,
    prepared: Prepared,
    wiring: Wiring,
    *,
    metric: MetricLike,
    interventions: Sequence[Intervention],
) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """Give the metric's gradient at each reader, and the stream that it reads."""
    named = metric_of(metric)
    ends = ends_of(spec, named)
    sites = [reader.site for reader in wiring.readers]
    streams = [reader.stream for reader in wiring.readers]
    captured = () if ends.logits_at is not None else ends.sites
    held = dict.fromkeys([*sites, *streams, *captured])
    faults: list[FunlensError] = []
    edits = placed(spec, prepared.frames, interventions, faults=faults)
    raise_all(faults)
    keeps = [kept(spec, prepared.frames, site) for site in held]
    plan = lay_out(spec, edits, keeps, links=True)
    with torch.enable_grad():
        out, trace = traced(
            spec,
            prepared,
            plan,
            options=Options(grad=True, logits_at=ends.logits_at),
            links=True,
        )
        (value,) = read(out, trace, ends.sites, ends.logits_at)
        total: Any = row_numbers(named, value, differs=True).sum()
        nodes = [trace.captured[site][0] for site in sites]
        found = torch.autograd.grad(
            total, nodes, allow_unused=True, materialize_grads=True
        )
    values = {site: trace.captured[site][0].detach() for site in streams}
    return dict(zip(sites, found, strict=True)), values


def _before_norm(
    reader: Reader,
    stream: Float[Tensor, "batch pos d_model"],
    gradient: Tensor,
) -> Float[Tensor, "receiver batch pos d_model"]:
    """Carry the gradient at what receivers are given back to the stream."""
    if reader.weight is None:
        wanted = gradient[None]
    else:
        wanted = torch.einsum("bphd,hmd->hbpm", gradient, reader.weight)
    if reader.norm is None:
        return wanted
    with torch.enable_grad():
        own = stream.expand_as(wanted).detach().requires_grad_()
        (found,) = torch.autograd.grad(reader.norm(own), own, wanted)
    return found
