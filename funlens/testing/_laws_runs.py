"""Laws of runs: against HuggingFace, against each other, and what they leave behind."""

from typing import Any

import torch
from torch import Tensor

from funlens.data import Part, Site, Zero
from funlens.engine import run, run_with_cache
from funlens.testing._subject import PADS, LawResult, Subject, differ, exactly, worst


@torch.no_grad()
def same_logits(subject: Subject) -> LawResult:
    module: Any = subject.untouched or subject.spec.module
    expected = module(**subject.inputs).logits
    plain = run(subject.spec, subject.inputs)
    kept, _ = run_with_cache(
        subject.spec, subject.inputs, capture=[Part(subject.leaving)]
    )
    found = {
        "run": exactly(plain, expected),
        "run_with_cache": exactly(kept, expected),
    }
    return worst("logits are HuggingFace's, bit for bit", found, 0.0)


@torch.no_grad()
def batch(subject: Subject) -> LawResult:
    law = "a batch gives its rows alone"
    spec = subject.spec
    mixes = spec.engine.arch.mixes_rows
    if mixes:
        return worst(law, {}, 0.0, why_not=mixes)
    whole = run(spec, subject.inputs)
    found: dict[str, float] = {}
    n_rows = whole.shape[0] // spec.engine.rows
    for row in range(n_rows):

        def alone(held: Tensor, row: int = row) -> Tensor:
            each = held.shape[0] // n_rows
            return held[row * each : (row + 1) * each]

        one = {name: alone(held) for name, held in subject.inputs.items()}
        found[f"row {row}"] = differ(run(spec, one), alone(whole))
    return worst(law, found, subject.tolerance)


@torch.no_grad()
def padding(subject: Subject) -> LawResult:
    law = "padding on either side changes no real position"
    spec = subject.spec
    arch = spec.engine.arch
    if arch.mixes_rows or arch.maskless:
        return worst(law, {}, 0.0, why_not=arch.mixes_rows or arch.maskless)
    if spec.is_encoder_decoder:
        return worst(law, {}, 0.0, why_not="checked on the encoder by the tests")
    tokens = subject.inputs["input_ids"]
    if spec.n_ctx is not None and tokens.shape[1] + PADS > spec.n_ctx:
        return worst(law, {}, 0.0, why_not="the input leaves no room for padding")
    n_pos = tokens.shape[1]
    plain = run(spec, subject.inputs)[:, -n_pos:]  # others may stand in front
    found: dict[str, float] = {}
    for side in ("right",) if arch.unpadded else ("left", "right"):
        given = {
            name: _padded(held, n_pos, side) for name, held in subject.inputs.items()
        }
        mask = torch.zeros_like(given["input_ids"])[:: spec.engine.rows]
        real = slice(PADS, None) if side == "left" else slice(0, n_pos)
        mask[:, real] = 1
        got = run(spec, given, attention_mask=mask)[:, -n_pos - PADS :][:, real]
        found[side] = differ(got, plain)
    return worst(law, found, subject.tolerance)


def _padded(held: Tensor, n_pos: int, side: str) -> Tensor:
    """Lengthen what has a column for each position, by its first."""
    if held.ndim < 2 or held.shape[1] != n_pos:  # noqa: PLR2004 -- batch and pos
        return held
    blank = held[:, :1].expand(-1, PADS, *held.shape[2:])
    parts = [blank, held] if side == "left" else [held, blank]
    return torch.cat(parts, dim=1)


@torch.no_grad()
def unchanged(subject: Subject) -> LawResult:
    spec = subject.spec
    state = torch.random.get_rng_state()
    versions = {name: p._version for name, p in spec.module.named_parameters()}  # noqa: SLF001 -- torch has no public name for it
    held = {name: tensor._version for name, tensor in subject.inputs.items()}  # noqa: SLF001 -- torch has no public name for it
    site = Site(part=subject.leaving, layer=0)
    run(spec, subject.inputs, [Zero(site)])
    after = {name: p._version for name, p in spec.module.named_parameters()}  # noqa: SLF001 -- torch has no public name for it
    later = {name: tensor._version for name, tensor in subject.inputs.items()}  # noqa: SLF001 -- torch has no public name for it
    found = {
        "weights": float(versions != after),
        "inputs": float(held != later),
        "global generator": float(not torch.equal(state, torch.random.get_rng_state())),
        "the cache": exactly(
            subject.cache[site], run_with_cache(spec, subject.inputs).cache[site]
        ),
    }
    return worst("nothing else changed", found, 0.0)
