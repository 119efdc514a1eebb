"""The laws that hold on every architecture, as checks of a loaded model."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters import Machinery, find, head_results, to_tokens, versions
from funlens.data import (
    Add,
    ModelSpec,
    Part,
    Patch,
    Scale,
    Set,
    Site,
    Zero,
)
from funlens.engine import run, run_with_cache
from funlens.engine._progress import steps
from funlens.errors import InputError

TOLERANCE: Final[Mapping[torch.dtype, float]] = {
    torch.float64: 1e-10,  # sums of a few hundred terms of size 1
    torch.float32: 2e-4,  # the same, with 24 bits, through a few layers
    torch.bfloat16: 1e-1,  # 8 bits: a stream of size 10 is known to 0.05
    torch.float16: 2e-2,  # 11 bits
}
"""Largest difference, relative to the largest value where that is above 1."""

_ROWS: Final = 2
_COLUMNS: Final = 7


@attrs.frozen(kw_only=True)
class LawResult:
    """One law on one model.

    Attributes:
        law: What holds.
        holds: Whether it does.
        value: Largest difference found; 0 where bits are compared and equal.
        tolerance: Largest difference that is allowed.
        note: Where it failed, or why it does not apply.
        applies: Whether the model can have it.
    """

    law: str
    holds: bool
    value: float
    tolerance: float
    note: str = ""
    applies: bool = True


@attrs.frozen(kw_only=True)
class Certificate:
    """Which laws hold on a model.

    Attributes:
        model: Name of the model.
        model_type: Architecture.
        versions: Packages it was checked with.
        rows: One result for each law.
    """

    model: str
    model_type: str
    versions: tuple[tuple[str, str], ...]
    rows: tuple[LawResult, ...] = attrs.field(converter=tuple)

    @property
    def holds(self) -> bool:
        """Whether every law holds that applies."""
        return all(row.holds for row in self.rows)


@attrs.frozen(kw_only=True, eq=False)
class _Subject:
    """A model, an input, and one run that kept everything."""

    spec: ModelSpec
    inputs: Mapping[str, Any]
    untouched: nn.Module | None
    cache: Any
    logits: Tensor

    @property
    def tolerance(self) -> float:
        """Tolerance for the model's dtype."""
        return TOLERANCE[self.spec.dtype]

    def has(self, part: str, layer: int, stack: str = "") -> bool:
        """Tell whether a layer has a part."""
        return Site(part=part, layer=layer, stack=stack) in self.cache

    def at(self, part: str, layer: int, stack: str = "") -> Tensor:
        """Look up what a layer had."""
        return self.cache[Site(part=part, layer=layer, stack=stack)]

    def stacks(self) -> Iterator[tuple[str, int]]:
        """Go through all layers of all stacks."""
        for site in self.cache:
            if site.part == "resid_pre":
                yield site.stack, site.layer


def verify(
    spec: ModelSpec,
    inputs: Mapping[str, Any] | Tensor | str | None = None,
    *,
    untouched: nn.Module | None = None,
) -> Certificate:
    """Check the laws on a model.

    Args:
        spec: The model.
        inputs: What to run; random tokens if left out.
        untouched: A module that funlens never saw, to compare logits with; the
            spec's own copy of the structure without taps if left out.

    Returns:
        A certificate with one row for each law. Costs two forwards for each site.
    """
    given = _inputs(spec, inputs)
    logits, cache = run_with_cache(spec, given)
    subject = _Subject(
        spec=spec, inputs=given, untouched=untouched, cache=cache, logits=logits
    )
    rows = [law(subject) for law in steps(LAWS, "laws")]
    return Certificate(
        model=spec.name,
        model_type=spec.model_type,
        versions=versions(),
        rows=rows,
    )


def _inputs(
    spec: ModelSpec, inputs: Mapping[str, Any] | Tensor | str | None
) -> Mapping[str, Any]:
    if isinstance(inputs, Mapping):
        return inputs
    if isinstance(inputs, Tensor):
        return {"input_ids": inputs}
    if isinstance(inputs, str):
        return {"input_ids": to_tokens(spec, inputs)}
    if not spec.d_vocab:
        raise InputError("the model has no vocabulary", "inputs", "Pass `inputs=`")
    generator = torch.Generator().manual_seed(0)
    low = min(4, spec.d_vocab - 1)

    def draw(columns: int) -> Tensor:
        shape = (_ROWS, columns)
        return torch.randint(low, spec.d_vocab, shape, generator=generator)

    drawn = {"input_ids": draw(_COLUMNS).to(spec.device)}
    if spec.is_encoder_decoder:
        drawn["decoder_input_ids"] = draw(_COLUMNS - 2).to(spec.device)
    return drawn


def _differ(one: Tensor, other: Tensor) -> float:
    size = max(1.0, float(other.abs().max()))
    return float((one - other).abs().max()) / size


def _worst(
    law: str, found: Mapping[str, float], tolerance: float, *, why_not: str = ""
) -> LawResult:
    if not found:
        return LawResult(
            law=law,
            holds=True,
            value=0.0,
            tolerance=tolerance,
            note=why_not,
            applies=False,
        )
    where = max(found, key=found.__getitem__)
    value = found[where]
    holds = value <= tolerance
    note = "" if holds else f"at {where}"
    return LawResult(law=law, holds=holds, value=value, tolerance=tolerance, note=note)


@torch.no_grad()
def _same_logits(subject: _Subject) -> LawResult:
    module: Any = subject.untouched or subject.spec.module
    expected = module(**subject.inputs).logits
    plain = run(subject.spec, subject.inputs)
    kept, _ = run_with_cache(subject.spec, subject.inputs, capture=[Part("resid_post")])
    found = {
        "run": _exactly(plain, expected),
        "run_with_cache": _exactly(kept, expected),
    }
    return _worst("logits are HuggingFace's, bit for bit", found, 0.0)


def _exactly(one: Tensor, other: Tensor) -> float:
    return 0.0 if torch.equal(one, other) else max(_differ(one, other), 1e-300)


def _blocks_join(subject: _Subject) -> LawResult:
    found: dict[str, float] = {}
    for stack, layer in subject.stacks():
        if subject.has("resid_pre", layer + 1, stack):
            here = subject.at("resid_post", layer, stack)
            found[f"{stack}{layer}"] = _exactly(
                here, subject.at("resid_pre", layer + 1, stack)
            )
    return _worst("resid_post(l) == resid_pre(l + 1)", found, 0.0, why_not="one layer")


_WRITERS: Final = ("attn_out", "cross_out", "ssm_out", "mlp_out")


def _writes_sum(subject: _Subject) -> LawResult:
    law = "what a block adds is resid_post - resid_pre"
    if subject.spec.has_stream_norm:
        return _worst(law, {}, 0.0, why_not="a norm stands on the stream itself")
    found: dict[str, float] = {}
    for stack, layer in subject.stacks():
        total = subject.at("resid_pre", layer, stack)
        for part in _WRITERS:
            if subject.has(part, layer, stack):
                total = total + subject.at(part, layer, stack)
            if part == "cross_out" and subject.has("resid_mid", layer, stack):
                mid = subject.at("resid_mid", layer, stack)
                found[f"resid_mid {stack}{layer}"] = _differ(total, mid)
        post = subject.at("resid_post", layer, stack)
        found[f"resid_post {stack}{layer}"] = _differ(total, post)
    return _worst(law, found, subject.tolerance)


def _patterns(subject: _Subject) -> LawResult:
    law = "pattern rows sum to 1, and see nothing later"
    machinery: Machinery = subject.spec.engine
    words = machinery.arch.main.block.attention
    has_sink = words is not None and words.sink
    found: dict[str, float] = {}
    for site, pattern in subject.cache.items():
        if site.part not in {"pattern", "cross_pattern"}:
            continue
        off = pattern.float().sum(-1) - 1
        off = off.clamp(min=0.0) if has_sink else off
        found[f"sum {site}"] = float(off.abs().max())
        if subject.spec.is_causal and site.part == "pattern" and not site.stack:
            found[f"later {site}"] = float(pattern.triu(1).abs().max())
    return _worst(law, found, subject.tolerance, why_not="no attention")


def _heads_mix(subject: _Subject) -> LawResult:
    found: dict[str, float] = {}
    for stack, layer in subject.stacks():
        if not subject.has("pattern", layer, stack):
            continue
        v = subject.at("v", layer, stack)
        if subject.spec.engine.changes_values(layer, stack):
            continue
        z = subject.at("z", layer, stack)
        each = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
        pattern = subject.at("pattern", layer, stack).to(each.dtype)
        mixed = torch.einsum("bhqk,bkhd->bqhd", pattern, each)
        found[f"{stack}{layer}"] = _differ(mixed, z)
    why = "no attention, or values change between projection and mixing"
    return _worst("z == pattern @ v", found, subject.tolerance, why_not=why)


@torch.no_grad()
def _heads_sum(subject: _Subject) -> LawResult:
    machinery: Machinery = subject.spec.engine
    found: dict[str, float] = {}
    for site, proj in subject.cache.items():
        if site.part != "attn_proj":
            continue
        z = subject.at("z", site.layer, site.stack)
        at = find(machinery.module, machinery.taps[site].path)
        if at is None:  # the taps were made from this module
            raise AssertionError(site)
        total = head_results(at, z).sum(-2)
        bias = getattr(at, "bias", None)
        total = total if bias is None else total + bias
        found[str(site)] = _differ(total, proj)
    law = "heads' results and the bias sum to attn_proj"
    return _worst(law, found, subject.tolerance, why_not="no attention")


@torch.no_grad()
def _own_value(subject: _Subject) -> LawResult:
    found: dict[str, float] = {}
    for info in steps(subject.spec.sites, "own values"):
        base, cache = run_with_cache(subject.spec, subject.inputs, capture=[info.site])
        if info.read_only:
            continue
        patch = Patch(info.site, cache)
        found[str(info.site)] = _exactly(
            run(subject.spec, subject.inputs, [patch]), base
        )
    return _worst("patching a site with its own value changes no bit", found, 0.0)


@torch.no_grad()
def _all_editable(subject: _Subject) -> LawResult:
    generator = torch.Generator().manual_seed(1)
    found: dict[str, float] = {}
    for info in steps(subject.spec.sites, "edits of every site"):
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
        if info.read_only:
            continue
        noise = torch.randn(held.shape, generator=generator).to(held)
        size = held.abs().amax().clamp(min=1e-3)
        edited = run(
            subject.spec, subject.inputs, [Set(info.site, held + size * noise)]
        )
        found[str(info.site)] = float(torch.equal(edited, base))
    law = "every declared site fires, has its shape, and moves the logits"
    return _worst(law, found, 0.0)


@torch.no_grad()
def _neutral_edits(subject: _Subject) -> LawResult:
    spec, inputs = subject.spec, subject.inputs
    middle = Site(part="resid_pre", layer=spec.n_layers - 1)
    base, _ = run_with_cache(spec, inputs, capture=[middle])
    zeros = torch.zeros(spec.d_model, dtype=spec.dtype, device=spec.device)
    once = run(spec, inputs, [Zero(middle)])
    found = {
        "adding 0": _exactly(run(spec, inputs, [Add(middle, zeros)]), base),
        "scaling by 1": _exactly(run(spec, inputs, [Scale(middle, 1.0)]), base),
        "zero twice": _exactly(run(spec, inputs, [Zero(middle), Zero(middle)]), once),
    }
    first = Site(part="resid_pre", layer=0)
    edits = [Scale(first, 0.5), Scale(middle, 2.0)] if middle != first else []
    if edits:
        both = run(spec, inputs, edits)
        found["order"] = _exactly(run(spec, inputs, edits[::-1]), both)
    return _worst(
        "edits that mean nothing change no bit, and edits commute", found, 0.0
    )


@torch.no_grad()
def _transplant(subject: _Subject) -> LawResult:
    law = "a residual patched whole gives the other prompt's logits"
    spec = subject.spec
    if spec.is_encoder_decoder:
        return _worst(law, {}, 0.0, why_not="the encoder's output is read as well")
    other = dict(subject.inputs)
    other["input_ids"] = subject.inputs["input_ids"].flip(1)
    found: dict[str, float] = {}
    for layer in range(spec.n_layers):
        site = Site(part="resid_pre", layer=layer)
        expected, cache = run_with_cache(spec, other, capture=[site])
        got = run(spec, subject.inputs, [Patch(site, cache)])
        found[str(site)] = _differ(got, expected)
    return _worst(law, found, subject.tolerance)


@torch.no_grad()
def _batch(subject: _Subject) -> LawResult:
    spec = subject.spec
    whole = run(spec, subject.inputs)
    found: dict[str, float] = {}
    for row in range(whole.shape[0]):
        alone = {name: held[row : row + 1] for name, held in subject.inputs.items()}
        found[f"row {row}"] = _differ(run(spec, alone), whole[row : row + 1])
    return _worst("a batch gives its rows alone", found, subject.tolerance)


@torch.no_grad()
def _padding(subject: _Subject) -> LawResult:
    law = "padding on either side changes no real position"
    spec = subject.spec
    if spec.is_encoder_decoder:
        return _worst(law, {}, 0.0, why_not="checked on the encoder by the tests")
    tokens = subject.inputs["input_ids"]
    plain = run(spec, subject.inputs)
    blank = tokens[:, :3]
    found: dict[str, float] = {}
    for side, parts in (("left", (blank, tokens)), ("right", (tokens, blank))):
        padded = torch.cat(parts, dim=1)
        mask = torch.cat([torch.ones_like(part) for part in parts], dim=1)
        real = slice(3, None) if side == "left" else slice(0, tokens.shape[1])
        mask[:] = 0
        mask[:, real] = 1
        got = run(spec, padded, attention_mask=mask)[:, real]
        found[side] = _differ(got, plain)
    return _worst(law, found, subject.tolerance)


@torch.no_grad()
def _unchanged(subject: _Subject) -> LawResult:
    spec = subject.spec
    state = torch.random.get_rng_state()
    versions = {name: p._version for name, p in spec.module.named_parameters()}  # noqa: SLF001 -- torch has no public name for it
    held = {name: tensor._version for name, tensor in subject.inputs.items()}  # noqa: SLF001 -- torch has no public name for it
    site = Site(part="resid_post", layer=0)
    run(spec, subject.inputs, [Zero(site)])
    after = {name: p._version for name, p in spec.module.named_parameters()}  # noqa: SLF001 -- torch has no public name for it
    later = {name: tensor._version for name, tensor in subject.inputs.items()}  # noqa: SLF001 -- torch has no public name for it
    found = {
        "weights": float(versions != after),
        "inputs": float(held != later),
        "global generator": float(not torch.equal(state, torch.random.get_rng_state())),
        "the cache": _exactly(
            subject.cache[site], run_with_cache(spec, subject.inputs).cache[site]
        ),
    }
    return _worst("nothing else changed", found, 0.0)


LAWS: Final[tuple[Callable[[_Subject], LawResult], ...]] = (
    _same_logits,
    _blocks_join,
    _writes_sum,
    _patterns,
    _heads_mix,
    _heads_sum,
    _own_value,
    _all_editable,
    _neutral_edits,
    _transplant,
    _batch,
    _padding,
    _unchanged,
)
"""Every law that `verify` checks, in order."""
