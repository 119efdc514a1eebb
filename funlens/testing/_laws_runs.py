"""Laws of runs: against HuggingFace, against each other, and what they leave behind."""

from typing import Any

import torch
from torch import Tensor

from funlens.adapters import Machinery, output_of
from funlens.data import Part, Site, Zero
from funlens.engine import run, run_with_cache
from funlens.engine._inputs import accepts
from funlens.testing._subject import (
    PADS,
    LawResult,
    Subject,
    differ,
    exactly,
    padded,
    worst,
)


@torch.no_grad()
def same_logits(subject: Subject) -> LawResult:
    module: Any = subject.untouched or subject.spec.module
    machinery: Machinery = subject.spec.engine
    more = {"use_cache": False} if machinery.arch.uncached else {}
    expected = output_of(module(**subject.inputs, **more))
    plain = run(subject.spec, subject.inputs)
    kept, _ = run_with_cache(
        subject.spec, subject.inputs, capture=[Part(subject.leaving)]
    )
    found = {
        "run": exactly(plain, expected),
        "run_with_cache": exactly(kept, expected),
    }
    return worst("the output is HuggingFace's, bit for bit", found, 0.0)


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
            if held.shape[0] < n_rows:  # pictures side by side in one strip
                return held.chunk(n_rows, dim=-1)[row]
            each = held.shape[0] // n_rows
            return held[row * each : (row + 1) * each]

        one = {name: alone(held) for name, held in subject.inputs.items()}
        found[f"row {row}"] = differ(run(spec, one), alone(whole))
    return worst(law, found, subject.tolerance)


@torch.no_grad()
def padding(subject: Subject) -> LawResult:
    law = "padding on either side changes no real position"
    spec = subject.spec
    machinery: Machinery = spec.engine
    arch = machinery.arch
    why_not = arch.mixes_rows or machinery.maskless or machinery.sees_padding
    if why_not:
        return worst(law, {}, 0.0, why_not=why_not)
    tokens = subject.inputs.get("input_ids")
    if tokens is None:
        return _decoder_padding(subject, law)
    if spec.n_ctx is not None and tokens.shape[1] + PADS > spec.n_ctx:
        return worst(law, {}, 0.0, why_not="the input leaves no room for padding")
    n_pos = tokens.shape[1]
    plain = run(spec, subject.inputs)
    found: dict[str, float] = {}
    for side in ("left", "right"):
        if side == "left" and _is_left_wrong(subject):
            continue
        given = padded(subject, side)
        mask = given.pop("attention_mask")
        got = run(spec, given, attention_mask=mask)
        expected = plain
        if got.shape != plain.shape:
            real = slice(PADS, None) if side == "left" else slice(0, n_pos)
            # others may stand in front
            got, expected = got[:, -n_pos - PADS :][:, real], plain[:, -n_pos:]
        found[side] = differ(got, expected)
    return worst(law, found, subject.tolerance)


def _decoder_padding(subject: Subject, law: str) -> LawResult:
    """Pad the words of a decoder that reads no text, behind the last."""
    words: Tensor | None = subject.inputs.get("decoder_input_ids")
    if words is None:
        return worst(law, {}, 0.0, why_not="it takes no tokens that could be padded")
    blank = words[:, -1:].expand(-1, PADS)
    given = {**subject.inputs, "decoder_input_ids": torch.cat([words, blank], dim=1)}
    if accepts(subject.spec.module, "decoder_attention_mask"):
        real = torch.ones_like(words)
        mask = torch.cat([real, torch.zeros_like(blank)], dim=1)
        given["decoder_attention_mask"] = mask
    plain = run(subject.spec, subject.inputs)
    got = run(subject.spec, given)[:, : words.shape[1]]
    return worst(law, {"right": differ(got, plain)}, subject.tolerance)


def _is_left_wrong(subject: Subject) -> bool:
    """Tell whether HuggingFace's own model is wrong with padding on the left.

    It masks nothing of a decoder's inputs that it makes from padded ones.
    """
    machinery: Machinery = subject.spec.engine
    made = subject.spec.is_encoder_decoder and "decoder_input_ids" not in subject.inputs
    return bool(machinery.unpadded) or made


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
