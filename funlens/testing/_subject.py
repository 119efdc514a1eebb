"""What a law is checked on, and what comes of it."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters import Machinery
from funlens.data import ENTERING, LEAVING, ActivationCache, ModelSpec, Site, SiteInfo

TOLERANCE: Final[Mapping[torch.dtype, float]] = {
    torch.float64: 1e-10,  # sums of a few hundred terms of size 1
    torch.float32: 2e-4,  # the same, with 24 bits, through a few layers
    torch.bfloat16: 1e-1,  # 8 bits: a stream of size 10 is known to 0.05
    torch.float16: 2e-2,  # 11 bits
}
"""Largest difference, relative to the largest value where that is above 1."""


PADS: Final = 3
"""How many padding tokens the law of padding puts in front or behind."""


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
class Subject:
    """A model, an input, and one run that kept everything."""

    spec: ModelSpec
    inputs: Mapping[str, Any]
    untouched: nn.Module | None
    cache: ActivationCache
    logits: Tensor

    @property
    def tolerance(self) -> float:
        """Tolerance for the model's dtype."""
        return TOLERANCE[self.spec.dtype]

    @property
    def source(self) -> str:
        """Name of what the model reads: tokens, pictures or sound."""
        for name in ("input_ids", "inputs_embeds"):
            if name in self.inputs:
                return name
        named = str(getattr(self.spec.module, "main_input_name", ""))
        return named if named in self.inputs else next(iter(self.inputs))

    def has(self, part: str, layer: int, stack: str = "") -> bool:
        """Tell whether a layer has a part."""
        return Site(part=part, layer=layer, stack=stack) in self.cache

    def sites(self) -> tuple[SiteInfo, ...]:
        """Give the sites that the input lets the model pass."""
        return tuple(
            info
            for info in self.spec.sites
            if not info.given or info.given in self.inputs
        )

    @property
    def entering(self) -> str:
        """What enters the blocks of the main stack."""
        return ENTERING[self.spec.n_streams > 1]

    @property
    def leaving(self) -> str:
        """What leaves them."""
        return LEAVING[self.spec.n_streams > 1]

    def at(self, part: str, layer: int, stack: str = "") -> Tensor:
        """Look up what a layer had."""
        return self.cache[Site(part=part, layer=layer, stack=stack)]

    def note(self, part: str, layer: int, stack: str = "") -> str:
        """Say what does not hold of a site, and why; empty where all does."""
        machinery: Machinery = self.spec.engine
        tap = machinery.taps[Site(part=part, layer=layer, stack=stack)]
        unseen = machinery.in_front(self.inputs) if part in {"pattern", "z"} else ""
        return tap.note or (unseen if tap.front else "")

    def stacks(self) -> Iterator[tuple[str, int]]:
        """Go through all layers of all stacks."""
        for site in self.cache:
            if site.part in ENTERING and site.layer is not None:
                yield site.stack, site.layer


def padded(subject: Subject, side: Literal["left", "right"]) -> dict[str, Any]:
    """Give the inputs with padding in front or behind, and the mask of what is real."""
    tokens: Tensor = subject.inputs["input_ids"]
    rows = tokens[:: subject.spec.engine.rows]
    one = rows if rows.ndim == 2 else rows[..., 0]  # noqa: PLR2004 -- several ids at each position
    real = subject.inputs.get("attention_mask", torch.ones_like(one))
    arch = subject.spec.engine.arch
    by_token = any(stack.per_token for stack in arch.others.values())
    given = {**subject.inputs, "attention_mask": real}
    for name, held in given.items():
        if name == "encoder_inputs_embeds":  # sound, as many frames for each token
            frames = PADS * held.shape[1] // tokens.shape[1]
            blank = torch.zeros_like(held[:, :1]).expand(-1, frames, -1)
            parts = (blank, held) if side == "left" else (held, blank)
            given[name] = torch.cat(parts, dim=1)
        if name == "input_features" and by_token:
            frames = PADS * held.shape[-1] // tokens.shape[1]
            blank = torch.zeros_like(held[..., :1]).expand(*held.shape[:-1], frames)
            parts = (blank, held) if side == "left" else (held, blank)
            given[name] = torch.cat(parts, dim=-1)
        is_by_token = held.ndim > 1 and held.shape[1] == tokens.shape[1]
        is_kept = held.is_floating_point() or name.startswith("decoder_")
        if is_by_token and not is_kept:
            blank = held[:, -1:].expand(-1, PADS, *held.shape[2:])
            known = _pad_token(subject) if name == "input_ids" else 0
            blank = blank if known is None else torch.full_like(blank, known)
            parts = (blank, held) if side == "left" else (held, blank)
            given[name] = torch.cat(parts, dim=1)
    return given


def _pad_token(subject: Subject) -> int | None:
    config: Any = subject.spec.engine.config
    pad: int | None = getattr(config, "pad_token_id", None)
    return pad


def differ(one: Tensor, other: Tensor) -> float:
    size = max(1.0, float(other.abs().max()))
    return float((one - other).abs().max()) / size


def worst(
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


def exactly(one: Tensor, other: Tensor) -> float:
    return 0.0 if torch.equal(one, other) else max(differ(one, other), 1e-300)
