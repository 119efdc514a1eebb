"""Laws of transforms: many runs at once, and slopes."""

from typing import Final

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from funlens.adapters import Machinery
from funlens.data import Add, Site
from funlens.engine import run
from funlens.testing._subject import LawResult, Subject, differ, worst

_VECTORS: Final = 3
# The first balances rounding, 1e-7 / step in float32, and curvature, step**2. The
# second crosses fewer kinks.
_STEPS: Final = (1e-2, 2e-3)
SLOPE_TOLERANCE: Final = 2e-2
"""Relative: a central difference across a kink (ReLU, a clamp) errs by about 1%."""


def _vectors(subject: Subject) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    shape = (_VECTORS, subject.spec.d_model)
    return torch.randn(shape, generator=generator).to(subject.logits)


def _steered(subject: Subject, vector: Tensor) -> Tensor:
    spec = subject.spec
    site = Site(part=subject.entering, layer=spec.n_layers - 1, pos=-1)
    return run(spec, subject.inputs, [Add(site, vector)])


@torch.no_grad()
def vmap_loops(subject: Subject) -> LawResult:
    """A `vmap` over edits is the loop of runs."""
    law = "vmap over edits is the loop of runs"
    machinery: Machinery = subject.spec.engine
    why_not = machinery.why_no_func("Vmap")
    if why_not:
        return worst(law, {}, 0.0, why_not=why_not)
    vectors = _vectors(subject)

    def steered(vector: Tensor) -> Tensor:
        return _steered(subject, vector)

    loop = torch.stack([steered(vector) for vector in vectors])
    at_once = vmap(steered)(vectors)
    found = {"logits": differ(at_once, loop)}
    return worst(law, found, subject.tolerance)


def slopes(subject: Subject) -> LawResult:
    """Derivatives, backward and forward, are the difference of two runs."""
    law = "grad and jvp are the difference of runs"
    machinery: Machinery = subject.spec.engine
    why_not = machinery.why_no_func("Grad")
    if why_not:
        return worst(law, {}, 0.0, why_not=why_not)
    if subject.spec.dtype.itemsize < torch.float32.itemsize:
        return worst(law, {}, 0.0, why_not="differences drown in this dtype's rounding")
    start, direction, _ = _vectors(subject)
    weight = torch.linspace(-1.0, 1.0, subject.logits.shape[-1]).to(start)

    def value(vector: Tensor) -> Tensor:
        return (_steered(subject, vector).log_softmax(-1) @ weight).sum()

    slopes = {"grad": grad(value)(start) @ direction}
    if not machinery.why_no_func("Jvp"):
        slopes["jvp"] = jvp(value, (start,), (direction,))[1]
    with torch.no_grad():
        expected = [
            (value(start + step * direction) - value(start - step * direction))
            / (2 * step)
            for step in _STEPS
        ]
    found = {
        name: min(_relative(slope.detach(), one) for one in expected)
        for name, slope in slopes.items()
    }
    return worst(law, found, SLOPE_TOLERANCE)


def _relative(slope: Tensor, expected: Tensor) -> float:
    return float((slope - expected).abs() / expected.abs().clamp(min=1.0))
