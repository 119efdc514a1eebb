"""Laws of edits: what they change, and what they leave."""

from typing import Any

import torch
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import Add, Patch, Scale, Set, Site, Zero
from funlens.engine import run, run_with_cache
from funlens.engine._progress import steps
from funlens.testing._subject import LawResult, Subject, differ, exactly, worst


@torch.no_grad()
def own_value(subject: Subject) -> LawResult:
    found: dict[str, float] = {}
    for info in steps(subject.sites(), "own values"):
        base, cache = run_with_cache(subject.spec, subject.inputs, capture=[info.site])
        if info.read_only:
            continue
        patch = Patch(info.site, cache)
        found[str(info.site)] = exactly(
            run(subject.spec, subject.inputs, [patch]), base
        )
    return worst("patching a site with its own value changes no bit", found, 0.0)


@torch.no_grad()
def all_editable(subject: Subject) -> LawResult:
    generator = torch.Generator().manual_seed(1)
    found: dict[str, float] = {}
    for info in steps(subject.sites(), "edits"):
        base, cache = run_with_cache(subject.spec, subject.inputs, capture=[info.site])
        held = cache[info.site]
        known = dict(zip(info.axes, info.shape, strict=True))
        sizes = [known[axis] for axis in info.axes]
        wrong = [
            (axis, size, real)
            for axis, size, real in zip(info.axes, sizes, held.shape, strict=True)
            if isinstance(size, int) and size != real
        ]
        if wrong:
            found[f"{info.site} shape {wrong}"] = 1.0
        if info.read_only or _is_unread(subject, info.site):
            continue
        moved = _moved(held, generator)
        edited = run(subject.spec, subject.inputs, [Set(info.site, moved)])
        found[str(info.site)] = float(torch.equal(edited, base))
    law = "every declared site fires, has its shape, and moves the logits"
    return worst(law, found, 0.0)


def _is_unread(subject: Subject, site: Site) -> bool:
    """Tell whether the table says that the head cannot depend on a site."""
    machinery: Machinery = subject.spec.engine
    if site.stack and machinery.is_unread(site):
        return True
    is_last = site.layer == subject.spec.n_layers - 1 and site.part in {"q", "k", "v"}
    return bool(machinery.arch.unread) and machinery.head == "sequences" and is_last


def _moved(held: Tensor, generator: torch.Generator) -> Tensor:
    """Give other values of the same size; of indices, others that there are."""
    if not held.is_floating_point():
        return (held + 1) % (held.max() + 1)
    noise = torch.randn(held.shape, generator=generator).to(held)
    return held + held.abs().amax().clamp(min=1e-3) * noise


@torch.no_grad()
def neutral_edits(subject: Subject) -> LawResult:
    spec, inputs = subject.spec, subject.inputs
    middle = Site(part=subject.entering, layer=spec.n_layers - 1)
    base, _ = run_with_cache(spec, inputs, capture=[middle])
    zeros = torch.zeros(spec.d_model, dtype=spec.dtype, device=spec.device)
    once = run(spec, inputs, [Zero(middle)])
    found = {
        "adding 0": exactly(run(spec, inputs, [Add(middle, zeros)]), base),
        "scaling by 1": exactly(run(spec, inputs, [Scale(middle, 1.0)]), base),
        "zero twice": exactly(run(spec, inputs, [Zero(middle), Zero(middle)]), once),
    }
    first = Site(part=subject.entering, layer=0)
    edits = [Scale(first, 0.5), Scale(middle, 2.0)] if middle != first else []
    if edits:
        both = run(spec, inputs, edits)
        found["order"] = exactly(run(spec, inputs, edits[::-1]), both)
    return worst("edits that mean nothing change no bit, and edits commute", found, 0.0)


@torch.no_grad()
def transplant(subject: Subject) -> LawResult:
    law = "a residual patched whole gives the other prompt's logits"
    spec = subject.spec
    machinery: Machinery = spec.engine
    scattered = machinery.arch.main.scattered  # one after the other nevertheless
    why = machinery.arch.main.kinds[0].reads
    why = why or ("" if scattered else machinery.why_no_skip(subject.inputs))
    if why:
        return worst(law, {}, 0.0, why_not=why)
    other = _turned(subject)
    ends = _encoder_ends(subject)
    found: dict[str, float] = {}
    for layer in range(spec.n_layers):
        site = Site(part=subject.entering, layer=layer)
        if site not in subject.cache:
            continue
        expected, cache = run_with_cache(spec, other, capture=[*ends, site])
        patches = [Patch(at, cache) for at in (*ends, site)]
        got = run(spec, subject.inputs, patches)
        found[str(site)] = differ(got, expected)
    return worst(law, found, subject.tolerance)


@torch.no_grad()
def restart(subject: Subject) -> LawResult:
    """Leaving the first layers out, given what they would have made."""
    law = "a run that starts at a layer, from its residual, gives the same"
    spec = subject.spec
    machinery: Machinery = spec.engine
    why = machinery.why_no_skip(subject.inputs)
    if why:
        return worst(law, {}, 0.0, why_not=why)
    begins = {at: Site(part=subject.entering, layer=at) for at in machinery.begins}
    met = {at: site for at, site in begins.items() if site in subject.cache}
    base, cache = run_with_cache(spec, subject.inputs, capture=tuple(met.values()))
    found: dict[str, float] = {}
    for layer, site in met.items():
        got = run(spec, subject.inputs, start_at_layer=layer, residual=cache[site])
        found[str(site)] = differ(got, base)
    return worst(law, found, subject.tolerance)


def _turned(subject: Subject) -> dict[str, Any]:
    """Give another prompt: the tokens in another order.

    The last stays where it is: there some classifiers look for the end of the text.
    """
    tokens: Tensor | None = subject.inputs.get("input_ids")
    if tokens is None:
        return {
            **subject.inputs,
            subject.source: subject.inputs[subject.source].flip(-1),
        }
    other = torch.cat([tokens[:, :-1].flip(1), tokens[:, -1:]], dim=1)
    return {**subject.inputs, "input_ids": other}


def _encoder_ends(subject: Subject) -> tuple[Site, ...]:
    """Name what a decoder reads of its encoder, if there is one."""
    layers = [layer for stack, layer in subject.stacks() if stack == "encoder"]
    return tuple(
        Site(part="resid_post", layer=at, stack="encoder") for at in layers[-1:]
    )
