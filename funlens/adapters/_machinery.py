"""The private half of a spec: skeletons of the model, and where its sites are met."""

import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import chain
from typing import Any, Final

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters._binder import Binder
from funlens.adapters._collectives import is_split
from funlens.adapters._language import Architecture, Stack
from funlens.adapters._offload import execution_device, is_offloaded
from funlens.adapters._outputs import Head
from funlens.adapters._skeleton import bare_copy, fix_experts, put_taps
from funlens.adapters._tap import Tap
from funlens.adapters._tree import find
from funlens.data import INTEGER_PARTS, Site, SiteInfo

_WIDE: Final = frozenset(
    {
        "attn_scores",
        "cross_pattern",
        "cross_scores",
        "expert_out",
        "pattern",
        "rot_k",
        "rot_q",
        "router_logits",
        "router_weights",
    }
)
"""Parts that some families compute in float32, whatever their weights are."""


def _devices_of(module: nn.Module) -> frozenset[torch.device]:
    """List where weights lie; accelerate keeps those on `meta` that it brings later."""
    devices = frozenset(parameter.device for parameter in module.parameters())
    return devices - {torch.device("meta")}


# Their products are no part of a graph: torch warns, and goes on.
_INTEGER_KERNELS: Final = "torch.ao.nn.quantized"


def _finds_offloaded(machinery: Any) -> bool:
    return is_offloaded(machinery.module)


def _finds_visits(machinery: Any) -> bool:
    return any(tap.visit is not None for tap in machinery.taps.values())


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Machinery:
    """Skeletons of a model, which share its tensors, and its taps.

    Attributes:
        module: The structure without taps, for runs that look at nothing.
        binder: The table that describes it, and the numbers of its config.
        taps: Where each site is met.
        shapes: Axes and sizes of each site.
        blocks: Paths of the main stack's blocks.
        embed: Path of the token embedding; empty without one.
        unembed: Path of what maps the stream to logits of words; empty without one.
        head: What the head makes of the stream.
        attention: Name of the attention implementation that it came with.
        watched: Attention modules that do not ask transformers for a function.
        centered: Classes of norms that subtract the mean.
        plans: Plans of whole captures, which depend on no input.
        notes: What was found out about the model by trying.
        has_visits: Whether some sites are met in one of a module's several runs.
        is_offloaded: Whether some weights are there only while their module runs.
    """

    module: nn.Module
    binder: Binder
    taps: Mapping[Site, Tap]
    shapes: Mapping[Site, SiteInfo] = attrs.field(factory=dict[Site, SiteInfo])
    blocks: tuple[str, ...]
    embed: str
    unembed: str
    head: Head
    attention: str
    watched: frozenset[str]
    centered: frozenset[type]
    plans: dict[object, Any] = attrs.field(factory=dict[object, Any])
    notes: dict[str, Any] = attrs.field(factory=dict[str, Any], init=False)
    # no cached properties: `torch.compile` stops at the lock of one
    has_visits: bool = attrs.field(
        init=False, default=attrs.Factory(_finds_visits, takes_self=True)
    )
    is_offloaded: bool = attrs.field(
        init=False, default=attrs.Factory(_finds_offloaded, takes_self=True)
    )
    _lock: Any = attrs.field(factory=threading.RLock)
    _own: threading.local = attrs.field(factory=threading.local)
    _made: dict[bool, nn.Module] = attrs.field(factory=dict[bool, nn.Module])
    _spare: dict[bool, list[nn.Module]] = attrs.field(
        factory=dict[bool, list[nn.Module]]
    )

    @property
    def arch(self) -> Architecture:
        """The table."""
        return self.binder.arch

    def stack(self, name: str) -> Stack:
        """The words for one stack; the empty name is the main one's."""
        return self.arch.others[name] if name else self.arch.main

    def is_unread(self, site: Site) -> bool:
        """Tell whether a site is in blocks whose results the model does not read."""
        stack = self.stack(site.stack)
        told = (
            getattr(self.module.config, stack.read_at, None) if stack.read_at else None
        )
        if told is None:
            return False
        n_layers = 1 + max(at.layer or 0 for at in self.taps if at.stack == site.stack)
        states = (told,) if isinstance(told, int) else told
        deepest = max(state % (n_layers + 1) for state in states)
        layer = n_layers if site.layer is None else site.layer
        return layer >= deepest and layer > 0 and deepest < n_layers

    @property
    def config(self) -> Any:
        """HuggingFace's config of the main stack."""
        return self.binder.config

    @property
    def first_position(self) -> int:
        """The number that counted positions start from."""
        told = self.arch.first_position
        return told if isinstance(told, int) else int(getattr(self.config, told)) + 1

    @property
    def rows(self) -> int:
        """How many rows of ids are one row of the stream."""
        field = self.arch.codebooks
        return int(getattr(self.config, field)) if field else 1

    @property
    def can_skip(self) -> bool:
        """Whether blocks of the main stack can be left out of a run."""
        return not self.why_no_skip({})

    def in_front(self, given: Mapping[str, object]) -> str:
        """Say what stands in front of the positions of some inputs."""
        front = self.arch.front
        if front is None or (front.given and given.get(front.given) is None):
            return ""
        return front.what

    def why_no_skip(self, given: Mapping[str, object]) -> str:
        """Say why no block can be left out of a run; empty where some can.

        Args:
            given: The inputs of the run.
        """
        main = self.arch.main
        if main.scattered:
            return "its blocks are no modules"
        if main.rounds is not None:
            return "its blocks run several times"
        if main.shrinks:
            return main.shrinks
        front = self.in_front(given)
        if front:
            return f"{front} stand in front of the positions it is given"
        if not main.kinds[0].can_skip:
            return "its blocks pass more than the residual to each other"
        return ""

    @property
    def unembedding(self) -> Tap:
        """Where what enters the unembedding is met."""
        return Tap(site=Site(part="logits"), path=self.unembed, side="in")

    @property
    def begins(self) -> tuple[int, ...]:
        """Layers with which a block of HuggingFace's begins."""
        before = ("", *self.blocks)
        pairs = enumerate(zip(before, self.blocks, strict=False))
        return tuple(layer for layer, (last, block) in pairs if last != block)

    @property
    def unembeds_streams(self) -> bool:
        """Whether logits come from streams beside the main one's positions."""
        return self.arch.main.kinds[0].streams == "behind"

    @property
    def shifts(self) -> bool:
        """Whether the model makes a decoder's inputs itself where none are given."""
        return self.arch.shifts or self.head in {"sequences", "tokens"}

    @property
    def reads_full_masks(self) -> bool:
        """Whether a mask that hides nothing makes a difference."""
        whole: Any = self.module.config
        return bool(self.arch.counts_by) and hasattr(whole, self.arch.counts_by)

    @property
    def maskless(self) -> str:
        """Why HuggingFace's own model cannot be told what is padding."""
        return "" if self.reads_full_masks else self.arch.maskless

    @property
    def unpadded(self) -> str:
        """Why padding on the left is wrong in HuggingFace's own model."""
        reads_first = self.head == "sequences" and not self.binder.is_causal
        told = "its classifier reads the first column" if reads_first else ""
        return self.arch.unpadded or told

    @property
    def sees_padding(self) -> str:
        """Why real positions are not quite what they would be without padding."""
        told = self.arch.row_padding if self.head == "sequences" else ""
        return self.arch.sees_padding or told

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
        embed = find(self.module, self.embed)
        source = embed if embed is not None else self.module
        dispatched = execution_device(source)
        if dispatched is not None:
            return dispatched
        found = next(source.parameters(), None)
        return torch.device("cpu") if found is None else found.device

    def dtypes(self, part: str) -> frozenset[torch.dtype]:
        """Name the dtypes that values of a part can have."""
        if part in INTEGER_PARTS:
            return frozenset({torch.int64})
        is_wide = part in _WIDE or getattr(self.config, "residual_in_fp32", False)
        return frozenset({self.dtype, torch.float32} if is_wide else {self.dtype})

    @cached_property
    def _devices(self) -> frozenset[torch.device]:
        return _devices_of(self.module)

    def device_at(self, tap: Tap) -> torch.device | None:
        """Tell where a value lies; None if unknown, as where weights come and go."""
        devices = self._devices
        if len(devices) > 1:
            devices = _devices_of(find(self.module, tap.path) or self.module)
        return next(iter(devices)) if len(devices) == 1 else None

    @cached_property
    def weights_away(self) -> str:
        """Say why weights are no plain tensors in their place; empty if they are."""
        if self.is_offloaded:
            return "some of its weights are offloaded"
        is_parted = is_split(self.module)
        return "its weights are split among processes" if is_parted else ""

    def why_no_func(self, transform: str) -> str:
        """Say why a transform of `torch.func` cannot pass; empty where it can."""
        return self.arch.no_func.get(transform, "") or self.weights_away

    @cached_property
    def without_derivative(self) -> str:
        """Name a layer whose gradient torch would give as 0; empty if there is none."""
        kinds = (type(part) for part in self.module.modules())
        lost = (kind for kind in kinds if kind.__module__.startswith(_INTEGER_KERNELS))
        return next((f"quantized {kind.__name__}" for kind in lost), "")

    @cached_property
    def _order(self) -> Mapping[Site, int]:
        return {site: at for at, site in enumerate(self.taps)}

    @cached_property
    def asks_inputs(self) -> bool:
        """Whether some sites are only met with a certain input."""
        return any(tap.given for tap in self.taps.values())

    def noted(self, name: str, find: Callable[[], Any]) -> Any:
        """Give what was found out about the model before, or find it out."""
        if name not in self.notes:
            self.notes[name] = find()
        return self.notes[name]

    def ordered(self, sites: Iterable[Site]) -> list[Site]:
        """Sort whole sites by the order of the forward pass."""
        return sorted(sites, key=self._order.__getitem__)

    def bare(self) -> nn.Module:
        """Give the structure without taps, to be run."""
        if not self.is_offloaded:
            return self.module
        return self._of_thread("bare", partial(bare_copy, self.module))

    def tapped(self, *, eager: bool) -> nn.Module:
        """Give the structure with taps.

        Args:
            eager: Whether attention is looked into: families without the interface
                have a skeleton of their own for that.
        """
        apart = self._is_apart(eager=eager)
        if self.is_offloaded:
            return self._of_thread(str(apart), partial(self._new, eager=apart))
        with self._lock:
            if apart not in self._made:
                self._made[apart] = self._new(eager=apart)
            return self._made[apart]

    def _of_thread(self, key: str, make: Callable[[], nn.Module]) -> nn.Module:
        """Give a thread a structure of its own, whose weights come and go."""
        made: dict[str, nn.Module] = vars(self._own)
        if key not in made:
            made[key] = make()
        return made[key]

    def _is_apart(self, *, eager: bool) -> bool:
        """Tell whether looking into attention takes a structure of its own."""
        return eager and bool(self.watched) and self.attention != "eager"

    def faked(self, fake: Callable[[Tensor], Tensor], *, eager: bool) -> nn.Module:
        """Make a structure with taps whose tensors have no values.

        Args:
            fake: Makes a tensor without values of one with.
            eager: As for `tapped`.
        """
        apart = self._is_apart(eager=eager)
        tensors = chain(self.module.parameters(), self.module.buffers())
        replaced = {id(tensor): fake(tensor) for tensor in tensors}
        module = self._new(eager=apart, replaced=replaced)
        fix_experts(module)
        return module

    def _new(
        self, *, eager: bool, replaced: Mapping[int, Tensor] | None = None
    ) -> nn.Module:
        taps = [*self.taps.values()]
        if self.unembed:
            taps.append(self.unembedding)
        return put_taps(
            bare_copy(self.module, replaced),
            taps,
            blocks=self.blocks if self.can_skip else (),
            eager=eager,
            watched=self.watched,
            plain=self.arch.plain,
        )

    @contextmanager
    def lent(self, *, eager: bool) -> Generator[nn.Module]:
        """Lend a tapped structure to one caller, who may swap its parameters."""
        apart = self._is_apart(eager=eager)
        with self._lock:
            spare = self._spare.setdefault(apart, [])
            module = spare.pop() if spare else self._new(eager=apart)
        try:
            yield module
        finally:
            with self._lock:
                self._spare[apart].append(module)
