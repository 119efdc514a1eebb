"""A sweep against the loop of runs."""

import torch
from torch import Tensor

from funlens.data import Intervention, Scale, Site
from funlens.engine import reads, run_with_cache, sweep
from funlens.testing._subject import LawResult, Subject, differ, worst


@torch.no_grad()
def sweep_loops(subject: Subject) -> LawResult:
    """Edits of the stream, whole and at one position, in the first and last layers."""
    spec = subject.spec
    ends = sorted({0, spec.n_layers - 1})
    cells: list[list[Intervention]] = [
        [Scale(Site(part=subject.entering, layer=layer, pos=pos), 0.5)]
        for layer in ends
        for pos in (None, -1)
        if Site(part=subject.entering, layer=layer) in subject.cache
    ]
    site = Site(part=subject.leaving, layer=spec.n_layers - 1, pos=-1)
    found = sweep(spec, subject.inputs, cells, metric=reads(site, _read))
    expected = [
        _read(run_with_cache(spec, subject.inputs, cell, capture=[site]).cache[site])
        for cell in cells
    ]
    moved = {
        str(cell[0].site): differ(found.rows[at], expected[at].float().cpu())
        for at, cell in enumerate(cells)
    }
    return worst("a sweep is the loop of runs", moved, subject.tolerance)


def _read(value: Tensor) -> Tensor:
    """Weigh a row's numbers differently, so that none can stand for another."""
    flat = value.flatten(1).float()
    return flat @ torch.linspace(-1.0, 1.0, flat.shape[1], device=flat.device)
