"""A private copy of a model's structure, sharing its tensors, with permanent taps.

The taps look at a context variable: nothing is put on or taken off for a run, and two
threads that run at once do not meet. The owner's module is never touched.
"""

import copy
import functools
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funlens.adapters._active import ACTIVE, Point, Seen
from funlens.adapters._attention import (
    ATTENTION,
    EAGER_ATTENTION,
    PACKED_ATTENTION,
)
from funlens.adapters._experts import EXPERTS
from funlens.adapters._inside import Inside
from funlens.adapters._recurring import watch_mixer
from funlens.adapters._sharing import rebound, shared_with
from funlens.adapters._tap import MIXER_SIDES, Side, Tap
from funlens.adapters._transforms import is_functional
from funlens.adapters._tree import find

# HuggingFace's own setters would also change the configs inside a config.
_ATTENTION_FIELD: Final = "_attn_implementation_internal"
_EXPERTS_FIELD: Final = "_experts_implementation_internal"
_OF_ATTENTION: Final = frozenset({"scores", "pattern", "rot_q", "rot_k"})
_OF_MIXERS: Final = frozenset(MIXER_SIDES)
# HuggingFace's classes for GELU by `tanh`, each a dozen operations.
_TANH_GELU: Final = frozenset({"FastGELUActivation", "NewGELUActivation"})
_IDS: Final = ("decoder_input_ids", "input_ids", "inputs_embeds")


def bare_copy(
    module: nn.Module, replaced: Mapping[int, Tensor] | None = None
) -> nn.Module:
    """Copy a module's structure and share its tensors.

    Args:
        module: The module; it is only read.
        replaced: Tensors to put in the place of others, by the others' `id`.
    """
    memo = shared_with(module)
    memo.update(replaced or {})
    return rebound(copy.deepcopy(module, memo), memo)


def put_taps(
    skeleton: nn.Module,
    taps: Iterable[Tap],
    *,
    blocks: Iterable[str],
    eager: bool,
    watched: Collection[str],
    plain: Mapping[str, str],
) -> nn.Module:
    """Place the taps of a bare copy.

    Args:
        skeleton: The copy, which nobody else holds.
        taps: What to tap.
        blocks: Blocks, which a run may leave out.
        eager: Whether modules that choose their own attention are to run eager.
        watched: Attention modules that do not ask transformers for a function.
        plain: Classes of modules that `torch.func` cannot pass, and the function of
            their modelling file that computes the same.
    """
    _set_attention(skeleton, [find(skeleton, path) for path in watched], eager=eager)
    _set_implementation(skeleton, _EXPERTS_FIELD, EXPERTS, "funlens_experts")
    sides: defaultdict[str, set[Side]] = defaultdict(set)
    for tap in taps:
        sides[tap.path].add(tap.side)
    for path, wanted in sides.items():
        at = find(skeleton, path) if path else skeleton
        if at is None:  # the taps were made from this module's own tree
            raise AssertionError(path)
        _place(at, path, wanted, watched=path in watched)
    _announce(skeleton)
    _make_plain(skeleton, plain)
    _make_fused(skeleton)
    for path in blocks:
        _make_skippable(find(skeleton, path) or skeleton, path)
    return skeleton


def has_interface(part: nn.Module) -> bool:
    """Tell whether a module's file asks transformers for its attention function."""
    names = vars(sys.modules[type(part).__module__])
    return "ALL_ATTENTION_FUNCTIONS" in names and "eager_attention_forward" in names


def _is_packed(part: nn.Module) -> bool:
    """Tell whether attention goes through the stretches of one packed row in turn."""
    names = vars(sys.modules[type(part).__module__])
    takes = inspect.signature(type(part).forward).parameters
    return "is_flash_attention_requested" in names and "cu_seqlens" in takes


def _set_attention(
    skeleton: nn.Module, watched: Sequence[nn.Module | None], *, eager: bool
) -> None:
    """Let attention go through funlens's function where it goes through any."""
    found = [*_configs(skeleton, _ATTENTION_FIELD)]
    apart = {id(getattr(part, "config", None)) for part in watched}
    asking = {id(config) for part, config in found if has_interface(part)} - apart
    packed = {id(config) for part, config in found if _is_packed(part)}
    for part, config in found:
        part.__dict__.setdefault("funlens_base", getattr(config, _ATTENTION_FIELD))
    for config in {id(config): config for _, config in found}.values():
        if id(config) in asking:
            is_eager = getattr(config, _ATTENTION_FIELD) == "eager"
            ours = EAGER_ATTENTION if is_eager else ATTENTION
            ours = PACKED_ATTENTION if id(config) in packed else ours
            setattr(config, _ATTENTION_FIELD, ours)
        elif eager:
            setattr(config, _ATTENTION_FIELD, "eager")


def _set_implementation(skeleton: nn.Module, field: str, name: str, note: str) -> None:
    """Set an implementation throughout, and note on each module what it had."""
    for part, config in _configs(skeleton, field):
        part.__dict__.setdefault(note, getattr(config, field))
    for _, config in _configs(skeleton, field):
        setattr(config, field, name)


def fix_experts(skeleton: nn.Module) -> None:
    """Run experts in the one way whose shapes do not depend on the router."""
    for part, _ in _configs(skeleton, _EXPERTS_FIELD):
        part.__dict__["funlens_experts"] = "batched_mm"


def _configs(skeleton: nn.Module, field: str) -> Iterator[tuple[nn.Module, Any]]:
    """Go through the modules whose config has a field."""
    for part in skeleton.modules():
        config: Any = getattr(part, "config", None)
        if hasattr(config, field):
            yield part, config


def _place(at: nn.Module, path: str, sides: set[Side], *, watched: bool) -> None:
    """Place the taps of one module."""
    if "in" in sides:
        at.register_forward_pre_hook(_entering((path, "in")), with_kwargs=True)
    leaving: tuple[Side, ...] = ("scale", "heads", "out")
    points: list[Point] = [(path, side) for side in leaving if side in sides]
    if points:
        at.register_forward_hook(_leaving(points), with_kwargs=True)
    inside = sides - {"in", "scale", "heads", "out"}
    if inside == {"ssm_gate"}:
        at.register_forward_pre_hook(_gated((path, "ssm_gate")), with_kwargs=True)
    elif inside & _OF_MIXERS:
        watch_mixer(at, path)
    elif inside:
        at.__dict__["funlens_path"] = path
    if "linear" in inside or (inside & _OF_ATTENTION and watched):
        _watch_inside(at, path)


def _entering(point: Point) -> Callable[..., Any]:
    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        active = ACTIVE.get()
        if active is None or not active.wants(point):
            return None
        if args:
            changed = active.act(point, args[0], Seen(module, args[0]))
            return None if changed is args[0] else ((changed, *args[1:]), kwargs)
        name = _name_of(kwargs)
        changed = active.act(point, kwargs[name], Seen(module, kwargs[name]))
        return None if changed is kwargs[name] else (args, {**kwargs, name: changed})

    return enter


def _name_of(kwargs: Mapping[str, Any]) -> str:
    """Name the argument that a module is about, where it is called by keywords."""
    return "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))


def _gated(point: Point) -> Callable[..., Any]:
    """Look at a norm's second argument, which multiplies what it norms."""

    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        active = ACTIVE.get()
        if active is None or not active.wants(point):
            return None
        gate = args[1] if len(args) > 1 else kwargs["gate"]
        changed = active.act(point, gate, Seen(module, None))
        if changed is gate:
            return None
        if len(args) > 1:
            return (args[0], changed, *args[2:]), kwargs
        return args, {**kwargs, "gate": changed}

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
            if "logits_to_keep" in kwargs and active.wants(("", "out")):
                kwargs["logits_to_keep"] = 0  # all: generation would keep the last
        return forward(*args, **kwargs)

    skeleton.forward = announced


def _make_plain(skeleton: nn.Module, plain: Mapping[str, str]) -> None:
    """Let some modules run a function of torch operations under `torch.func`."""
    for part in skeleton.modules():
        name = plain.get(type(part).__name__)
        if name is None:
            continue
        function = vars(sys.modules[type(part).__module__])[name]
        part.forward = _either(part.forward, function)


def _either(own: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any) -> Any:
        return plain(*args) if is_functional() else own(*args)

    return forward


def _make_fused(skeleton: nn.Module) -> None:
    """Let activations that are written out be one kernel, where a run may round."""
    for part in skeleton.modules():
        if type(part).__name__ in _TANH_GELU:
            part.forward = _fused(part.forward)


def _fused(own: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(entering: Tensor) -> Tensor:
        active = ACTIVE.get()
        if active is None or not active.rounds:
            return own(entering)
        return F.gelu(entering, approximate="tanh")

    return forward


def _make_skippable(block: nn.Module, path: str) -> None:
    """Let a run leave a block out, which then gives what it was given.

    In what the residual comes, and beside how many other values, is seen where the
    block first runs; where it never did, in one run whose result is dropped.
    """
    forward = block.forward
    seen: list[Any] = []

    def skippable(*args: Any, **kwargs: Any) -> Any:
        active = ACTIVE.get()
        if active is None or not active.skips(path):
            output = forward(*args, **kwargs)
            if not torch.compiler.is_compiling() and not seen:
                seen.append(_emptied(output))
            return output
        if not seen:
            token = ACTIVE.set(None)
            try:
                seen.append(_emptied(forward(*args, **kwargs)))
            finally:
                ACTIVE.reset(token)
        return _filled(seen[0], args[0] if args else kwargs[_name_of(kwargs)])

    block.forward = skippable


def _emptied(output: Any) -> Any:
    """Keep the form of an output, and none of its tensors."""
    if isinstance(output, tuple | list):
        return (None,) * len(cast("tuple[object, ...]", output))
    if isinstance(output, dict):
        return dict.fromkeys(cast("dict[str, object]", output))
    return None


def _filled(form: Any, residual: Any) -> Any:
    """Put a residual where the form has it: first."""
    if isinstance(form, tuple):
        return (residual, *form[1:])
    return residual if form is None else {**form, next(iter(form)): residual}
