"""Laws of one run: what sums to what."""

from typing import Final

import torch
from attrs import evolve
from torch import Tensor

from funlens.adapters import Machinery, acting_bias, find, head_results
from funlens.analyses import effective_attention
from funlens.data import ENTERING, LEAVING
from funlens.testing._subject import (
    LawResult,
    Subject,
    differ,
    exactly,
    worst,
)


def blocks_join(subject: Subject) -> LawResult:
    machinery: Machinery = subject.spec.engine
    found: dict[str, float] = {}
    why = "one layer"
    for stack, layer in subject.stacks():
        unjoined = machinery.stack(stack).unjoined
        why = unjoined or why
        for entering, leaving in zip(ENTERING, LEAVING, strict=True):
            if subject.has(entering, layer + 1, stack) and not unjoined:
                note = subject.note(entering, layer + 1, stack)
                if note:
                    why = note
                    continue
                here = subject.at(leaving, layer, stack)
                after = subject.at(entering, layer + 1, stack)
                found[f"{stack}{layer}"] = exactly(here, after)
    return worst("what leaves a block enters the next", found, 0.0, why_not=why)


_WRITERS: Final = (
    "macaron_out",
    "attn_out",
    "ssm_out",
    "cross_out",
    "mlp_out",
    "dense_out",
)


def writes_sum(subject: Subject) -> LawResult:
    law = "what a block adds is resid_post - resid_pre"
    machinery: Machinery = subject.spec.engine
    found: dict[str, float] = {}
    notes: dict[str, None] = {}
    for stack, layer in subject.stacks():
        if not subject.has("resid_post", layer, stack):
            notes["blocks pass several streams on"] = None
            continue
        note = subject.note("resid_post", layer, stack)
        if note:
            notes[note] = None
            kinds = machinery.stack(stack).kinds
            if any(kind.stream_norm and not kind.unsummed for kind in kinds):
                found.update(_norms_of_sums(subject, stack, layer))
            continue
        total = subject.at("resid_pre", layer, stack)
        for part in _WRITERS:
            if subject.has(part, layer, stack):
                total = total + subject.at(part, layer, stack)
            if part == "cross_out" and subject.has("resid_mid", layer, stack):
                mid = subject.at("resid_mid", layer, stack)
                found[f"resid_mid {stack}{layer}"] = differ(total, mid)
        post = subject.at("resid_post", layer, stack)
        found[f"resid_post {stack}{layer}"] = differ(total, post)
    why = "; ".join(notes) or "no blocks"
    return worst(law, found, subject.tolerance, why_not=why)


_NORMED: Final = (
    ("resid_pre", ("attn_out", "ssm_out"), "resid_mid"),
    ("resid_mid", ("mlp_out", "dense_out"), "resid_post"),
)


def _norms_of_sums(subject: Subject, stack: str, layer: int) -> dict[str, float]:
    """Where norms stand on the stream, they norm the stream and what is added."""
    found: dict[str, float] = {}
    for before, writers, after in _NORMED:
        wrote = [part for part in writers if subject.has(part, layer, stack)]
        crosses = after == "resid_mid" and subject.has("cross_out", layer, stack)
        ends = (subject.has(part, layer, stack) for part in (before, after))
        if crosses or not wrote or not all(ends):
            continue
        total = subject.at(before, layer, stack)
        for part in wrote:
            total = total + subject.at(part, layer, stack)
        stream = subject.at(after, layer, stack)
        found[f"{after} {stack}{layer}"] = _off_norm(total, stream)
    return found


def _off_norm(total: Tensor, stream: Tensor) -> float:
    """Tell how far a stream is from any gain and bias on a sum that was normed.

    Gain and bias are fitted to each feature over all positions, as a line.
    """
    rows, wanted = (part.flatten(0, -2).double() for part in (total, stream))
    centered = rows - rows.mean(-1, keepdim=True)
    normed = (
        part / part.square().mean(-1, keepdim=True).sqrt() for part in (rows, centered)
    )
    return min(_off_line(each, wanted) for each in normed)


def _off_line(inputs: Tensor, outputs: Tensor) -> float:
    apart, wanted = (part - part.mean(0) for part in (inputs, outputs))
    slope = (apart * wanted).sum(0) / apart.square().sum(0).clamp(min=1e-12)
    return float(
        (wanted - slope * apart).abs().max() / outputs.abs().max().clamp(min=1.0)
    )


def patterns(subject: Subject) -> LawResult:
    law = "pattern rows sum to 1, and see nothing later"
    machinery: Machinery = subject.spec.engine
    is_text = not any(name.startswith("pixel_values") for name in subject.inputs)
    is_causal = subject.spec.is_causal and (is_text or not machinery.arch.looks_ahead)
    found: dict[str, float] = {}
    for site, pattern in subject.cache.items():
        if site.part not in {"pattern", "cross_pattern"}:
            continue
        off = pattern.float().sum(-1) - 1
        note = subject.note(site.part, site.layer or 0, site.stack)
        if note:  # rows sum to less than 1
            off = off.clamp(min=0.0)
        found[f"sum {site}"] = float(off.abs().max())
        if is_causal and site.part == "pattern" and not site.stack:
            own = pattern[..., : pattern.shape[-2]]  # others stand behind these
            found[f"later {site}"] = float(own.triu(1).abs().max())
    return worst(law, found, subject.tolerance, why_not="no attention")


def recurrences_read(subject: Subject) -> LawResult:
    """What a linear recurrence reads is its effective attention on its values."""
    law = "ssm_y == effective attention @ ssm_v"
    found: dict[str, float] = {}
    for stack, layer in subject.stacks():
        if stack or not all(
            subject.has(part, layer, stack) for part in ("ssm_v", "ssm_y")
        ):
            continue
        weights = effective_attention(subject.spec, subject.cache, layer)
        value, y = (subject.at(part, layer, stack) for part in ("ssm_v", "ssm_y"))
        read = torch.einsum("bhqk,bkhd->bqhd", weights.to(value), value)
        found[str(layer)] = differ(read, y)
    why = "no recurrence that reads values"
    return worst(law, found, subject.tolerance, why_not=why)


def heads_mix(subject: Subject) -> LawResult:
    found: dict[str, float] = {}
    for stack, layer in subject.stacks():
        if not all(subject.has(part, layer, stack) for part in ("pattern", "v", "z")):
            continue
        v = subject.at("v", layer, stack)
        if subject.note("z", layer, stack):
            continue
        z = subject.at("z", layer, stack)
        each = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
        pattern = subject.at("pattern", layer, stack).to(each.dtype)
        mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, each)
        found[f"{stack}{layer}"] = differ(mixed, z)
    why = "no attention, or values change between projection and mixing"
    return worst("z == pattern @ v", found, subject.tolerance, why_not=why)


@torch.no_grad()
def heads_sum(subject: Subject) -> LawResult:
    machinery: Machinery = subject.spec.engine
    found: dict[str, float] = {}
    for site, proj in subject.cache.items():
        if site.part != "attn_proj" or site.layer is None:
            continue
        if evolve(site, part="head_result") not in machinery.taps:
            continue  # its weight cannot be read
        z = subject.at("z", site.layer, site.stack)
        at = find(machinery.module, machinery.taps[site].path)
        if at is None:  # the taps were made from this module
            raise AssertionError(site)
        total = head_results(at, z).sum(-2)
        bias = acting_bias(at)
        total = total if bias is None else total + bias
        found[str(site)] = differ(total, proj)
    law = "heads' results and the bias sum to attn_proj"
    why = "no attention, or its output weights cannot be read"
    return worst(law, found, subject.tolerance, why_not=why)
