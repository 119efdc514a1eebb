"""The private half of a spec: skeletons of the model, and where its sites are met."""

import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import nn

from funlens.adapters._language import Architecture
from funlens.adapters._skeleton import ATTENTION, tapped_copy
from funlens.adapters._taps import Sizes, Tap, find, is_centered
from funlens.data import Site, SiteInfo


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Machinery:
    """Skeletons of a model, which share its tensors, and its taps.

    Attributes:
        module: The structure without taps, for runs that look at nothing.
        arch: The table that describes it.
        config: HuggingFace's config, a private copy.
        sizes: The numbers of the config.
        taps: Where each site is met.
        shapes: Axes and sizes of each site.
        blocks: Paths of the main stack's blocks.
        has_interface: Whether its attention goes through transformers' interface.
        attention: Name of the attention implementation that it came with.
        plans: Plans of whole captures, which depend on no input.
    """

    module: nn.Module
    arch: Architecture
    config: Any
    sizes: Sizes
    taps: Mapping[Site, Tap]
    shapes: Mapping[Site, SiteInfo] = attrs.field(factory=dict[Site, SiteInfo])
    blocks: tuple[str, ...]
    has_interface: bool
    attention: str
    plans: dict[object, Any] = attrs.field(factory=dict[object, Any])
    _lock: Any = attrs.field(factory=threading.RLock)
    _made: dict[bool, nn.Module] = attrs.field(factory=dict[bool, nn.Module])
    _spare: dict[bool, list[nn.Module]] = attrs.field(
        factory=dict[bool, list[nn.Module]]
    )

    @property
    def is_centered(self) -> bool:
        """Whether the norms subtract the mean."""
        return is_centered(self.arch.norm)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the floating-point parameters."""
        return next(
            (p.dtype for p in self.module.parameters() if p.is_floating_point()),
            torch.float32,
        )

    @property
    def device(self) -> torch.device:
        """Device of the token embedding, where inputs enter."""
        embed = find(self.module, self.arch.main.embeds[-1])
        source = embed if embed is not None else self.module
        found = next(source.parameters(), None)
        return torch.device("cpu") if found is None else found.device

    @cached_property
    def _order(self) -> Mapping[Site, int]:
        return {site: at for at, site in enumerate(self.taps)}

    def ordered(self, sites: Iterable[Site]) -> list[Site]:
        """Sort whole sites by the order of the forward pass."""
        return sorted(sites, key=self._order.__getitem__)

    def changes_values(self, layer: int, stack: str) -> bool:
        """Tell whether values change between their projection and the mixing."""
        tap = self.taps[Site(part="v", layer=layer, stack=stack)]
        return tap.in_place

    def tapped(self, *, eager: bool) -> nn.Module:
        """Give the structure with taps.

        Args:
            eager: Whether attention is looked into: families without the interface
                have a skeleton of their own for that.
        """
        apart = eager and not self.has_interface and self.attention != "eager"
        with self._lock:
            if apart not in self._made:
                self._made[apart] = self._new(eager=apart)
            return self._made[apart]

    @property
    def _unembed(self) -> Tap:
        return Tap(site=Site(part="logits"), path=self.arch.unembed, side="in")

    def _new(self, *, eager: bool) -> nn.Module:
        own = "eager" if eager else None
        return tapped_copy(
            self.module,
            [*self.taps.values(), self._unembed],
            blocks=dict.fromkeys(self.blocks, self.arch.main.block.extras),
            attention=ATTENTION if self.has_interface else own,
        )

    @contextmanager
    def lent(self, *, eager: bool) -> Generator[nn.Module]:
        """Lend a tapped structure to one caller, who may swap its parameters."""
        apart = eager and not self.has_interface and self.attention != "eager"
        with self._lock:
            spare = self._spare.setdefault(apart, [])
            module = spare.pop() if spare else self._new(eager=apart)
        try:
            yield module
        finally:
            with self._lock:
                self._spare[apart].append(module)
