"""A private copy of a model's structure, sharing its tensors, with permanent taps.

The taps look at a context variable: nothing is put on or taken off for a run, and two
threads that run at once do not meet. The owner's module is never touched.
"""

import copy
import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from itertools import chain
from typing import Any, Final, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from funlens.adapters._taps import Side, Tap, find

ATTENTION: Final = "funlens"
Point = tuple[str, Side]

_IDS: Final = ("decoder_input_ids", "input_ids", "inputs_embeds")


@runtime_checkable
class Active(Protocol):
    """What a run does at the taps."""

    def wants(self, point: Point) -> bool:
        """Tell whether the run looks at a point."""
        ...

    def wants_inside(self, path: str) -> bool:
        """Tell whether the run looks at scores, pattern or a router of a module."""
        ...

    def act(self, point: Point, raw: Any, seen: "Seen") -> Any:
        """Look at a tensor, and give it or another back."""
        ...

    def begins(self, n_pos: int) -> None:
        """Learn how many positions a forward of the whole model is given."""
        ...

    def skips(self, path: str) -> bool:
        """Tell whether a block is left out."""
        ...

    @property
    def forces_eager(self) -> bool:
        """Whether SDPA cannot be used in this run."""
        ...


class Seen:
    """The module at a tap, and what entered it."""

    __slots__ = ("entered", "module")

    def __init__(self, module: nn.Module, entered: Any) -> None:
        self.module = module
        self.entered = entered


ACTIVE: Final[ContextVar[Active | None]] = ContextVar("funlens", default=None)


def bare_copy(
    module: nn.Module, replaced: dict[int, Tensor] | None = None
) -> nn.Module:
    """Copy a module's structure and share its tensors.

    Args:
        module: The module; it is only read.
        replaced: Tensors to put in the place of others, by the others' `id`.
    """
    memo: dict[int, Any] = {
        id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())
    }
    memo.update(replaced or {})
    return copy.deepcopy(module, memo)


def tapped_copy(
    module: nn.Module,
    taps: Iterable[Tap],
    *,
    blocks: Mapping[str, int],
    attention: str | None,
) -> nn.Module:
    """Copy a module's structure and place its taps.

    Args:
        module: The module; it is only read.
        taps: What to tap.
        blocks: Blocks, which a run may leave out, and how much each returns after
            the residual.
        attention: Attention implementation to set; None leaves the module's own.
    """
    skeleton = bare_copy(module)
    if attention is not None:
        _set_attention(skeleton, attention)
    sides: defaultdict[str, set[Side]] = defaultdict(set)
    for tap in taps:
        sides[tap.path].add(tap.side)
    for path, wanted in sides.items():
        at = find(skeleton, path) if path else skeleton
        if at is None:  # the taps were made from this module's own tree
            raise AssertionError(path)
        _place(at, path, wanted, interface=attention == ATTENTION)
    _announce(skeleton)
    for path, extras in blocks.items():
        _make_skippable(find(skeleton, path) or skeleton, path, extras=extras)
    return skeleton


def _set_attention(skeleton: nn.Module, attention: str) -> None:
    for part in skeleton.modules():
        config: Any = getattr(part, "config", None)
        if hasattr(config, "_attn_implementation"):
            part.__dict__.setdefault("funlens_base", config._attn_implementation)  # noqa: SLF001 -- HuggingFace's only name for it
    for part in skeleton.modules():
        config: Any = getattr(part, "config", None)
        if hasattr(config, "_attn_implementation"):
            config._attn_implementation = attention  # noqa: SLF001 -- HuggingFace's only name for it


def _place(at: nn.Module, path: str, sides: set[Side], *, interface: bool) -> None:
    """Place the taps of one module."""
    if "in" in sides:
        at.register_forward_pre_hook(_entering((path, "in")), with_kwargs=True)
    leaving: tuple[Side, ...] = ("scale", "heads", "out")
    points: list[Point] = [(path, side) for side in leaving if side in sides]
    if points:
        at.register_forward_hook(_leaving(points), with_kwargs=True)
    inside = sides & {"scores", "pattern", "rot_q", "rot_k", "linear"}
    if inside:
        at.__dict__["funlens_path"] = path
    if "linear" in inside or (inside and not interface):
        _watch_inside(at, path)


def _entering(point: Point) -> Callable[..., Any]:
    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        active = ACTIVE.get()
        if active is None or not active.wants(point):
            return None
        if args:
            changed = active.act(point, args[0], Seen(module, args[0]))
            return None if changed is args[0] else ((changed, *args[1:]), kwargs)
        name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
        changed = active.act(point, kwargs[name], Seen(module, kwargs[name]))
        return None if changed is kwargs[name] else (args, {**kwargs, name: changed})

    return enter


def _leaving(points: list[Point]) -> Callable[..., Any]:
    def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        active = ACTIVE.get()
        if active is None:
            return None
        given = output
        for point in points:
            if active.wants(point):
                entered = args[0] if args else kwargs.get("hidden_states")
                output = active.act(point, output, Seen(module, entered))
        return None if output is given else output

    return leave


def _watch_inside(at: nn.Module, path: str) -> None:
    """Let a module's own softmax, products and projections be seen."""
    forward = at.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        active = ACTIVE.get()
        if active is None or not active.wants_inside(path):
            return forward(*args, **kwargs)
        with Inside(active, path, at):
            return forward(*args, **kwargs)

    at.forward = watched


def _announce(skeleton: nn.Module) -> None:
    """Tell the run when a forward of the whole model begins."""
    forward = skeleton.forward

    @functools.wraps(forward)
    def announced(*args: Any, **kwargs: Any) -> Any:
        active = ACTIVE.get()
        if active is not None:
            every = (*(kwargs.get(name) for name in _IDS), *args)
            given = next((part for part in every if isinstance(part, Tensor)), None)
            active.begins(0 if given is None else given.shape[1])
        return forward(*args, **kwargs)

    skeleton.forward = announced


def _make_skippable(block: nn.Module, path: str, *, extras: int) -> None:
    forward = block.forward

    def skippable(*args: Any, **kwargs: Any) -> Any:
        active = ACTIVE.get()
        if active is None or not active.skips(path):
            return forward(*args, **kwargs)
        entered = args[0] if args else kwargs["hidden_states"]
        return (entered, *[None] * extras) if extras else entered

    block.forward = skippable


_SOFTMAX: Final = frozenset({F.softmax, torch.softmax, Tensor.softmax})
_PRODUCT: Final = frozenset(
    {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm}
)


class Inside(TorchFunctionMode):
    """While a module runs: its softmax, its first product, its first projection."""

    def __init__(self, active: Active, path: str, module: nn.Module) -> None:
        super().__init__()
        self.active = active
        self.path = path
        self.seen = Seen(module, None)
        self.products = 0
        self.projections = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Let the run look before and after."""
        del types
        kwargs = kwargs or {}
        if func in _SOFTMAX:
            args = (self._act("scores", args[0]), *args[1:])
            return self._act("pattern", func(*args, **kwargs))
        if func in _PRODUCT and args[0].ndim == 4:  # noqa: PLR2004 -- batch head query key
            self.products += 1
            if self.products == 1:
                keys = self._act("rot_k", args[1].transpose(-1, -2))
                args = (self._act("rot_q", args[0]), keys.transpose(-1, -2), *args[2:])
        if func is F.linear:
            self.projections += 1
            if self.projections == 1:
                return self._act("linear", func(*args, **kwargs))
        return func(*args, **kwargs)

    def _act(self, side: Side, raw: Any) -> Any:
        point: Point = (self.path, side)
        if not self.active.wants(point):
            return raw
        return self.active.act(point, raw, self.seen)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend for every family: SDPA, or eager where the run looks inside."""
    from transformers import modeling_utils

    active = ACTIVE.get()
    path = module.__dict__.get("funlens_path", "")
    base = module.__dict__.get("funlens_base", "eager")
    if active is None:
        watched = False
    else:
        watched = active.wants_inside(path)
        query, key = _rotated(active, path, module, query, key)
        base = "eager" if watched or active.forces_eager else base
    if base != "eager":
        functions: Any = modeling_utils.ALL_ATTENTION_FUNCTIONS
        return functions[base](module, query, key, value, attention_mask, **kwargs)
    eager: Any = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    is_causal = kwargs.get("is_causal")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    mask = _additive(attention_mask, query, key, is_causal=bool(is_causal))
    if active is None or not watched:
        return eager(module, query, key, value, mask, **kwargs)
    with Inside(active, path, module) as inside:
        inside.products = 1  # queries and keys were seen as arguments
        return eager(module, query, key, value, mask, **kwargs)


def _rotated(
    active: Active, path: str, module: nn.Module, query: Tensor, key: Tensor
) -> tuple[Tensor, Tensor]:
    seen = Seen(module, None)
    if active.wants((path, "rot_q")):
        query = active.act((path, "rot_q"), query, seen)
    if active.wants((path, "rot_k")):
        key = active.act((path, "rot_k"), key, seen)
    return query, key


def _additive(
    mask: Tensor | None, query: Tensor, key: Tensor, *, is_causal: bool
) -> Tensor | None:
    """Turn SDPA's mask into the one that is added to scores."""
    lowest = torch.finfo(query.dtype).min
    if mask is None:
        n_queries, n_keys = query.shape[2], key.shape[2]
        if n_queries == 1 or not is_causal:
            return None
        seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
        mask = seen.tril()[None, None]  # aligned as SDPA's: keys may be spare slots
    if mask.dtype != torch.bool:
        return mask
    zero = torch.zeros((), dtype=query.dtype, device=query.device)
    return torch.where(mask, zero, lowest)


def register_attention() -> None:
    """Make the name `funlens` known to transformers; twice is once."""
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    AttentionInterface.register(ATTENTION, attend)
    masks: Any = masking_utils
    AttentionMaskInterface.register(ATTENTION, masks.sdpa_mask)
