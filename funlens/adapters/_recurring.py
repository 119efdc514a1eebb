"""Inside mixers: their convolution and their recurrence, seen as they run.

A mixer's `forward` finds the functions it calls among its file's globals. The private
copy's gets globals of its own, where those functions let the run look.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import CellType, FunctionType
from typing import Any, Final

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters._active import ACTIVE, Active, Seen
from funlens.adapters._mixers import CONVOLUTIONS, KINDS, RESULTS, Kind, names_called
from funlens.adapters._recurrence import Steps, recurred
from funlens.adapters._tap import MIXER_SIDES, Side
from funlens.adapters._views import unless_same

_GIVEN: Final[Mapping[Side, str]] = {
    "ssm_q": "q",
    "ssm_k": "k",
    "ssm_v": "v",
    "ssm_decay": "decay",
    "ssm_beta": "beta",
}
_LENGTH: Final[ContextVar[int]] = ContextVar("funlens_length", default=0)


@attrs.frozen(eq=False)
class _Door:
    """Where a mixer's inner sites are met."""

    module: nn.Module
    path: str

    def active(self, *sides: Side) -> Active | None:
        """Give the run, where it looks at one of several sides."""
        active = ACTIVE.get()
        if active is None or not any(active.wants((self.path, s)) for s in sides):
            return None
        return active

    def act(self, active: Active, side: Side, value: Tensor) -> Tensor:
        """Let the run look at a value."""
        if not active.wants((self.path, side)):
            return value
        new: Tensor = active.act((self.path, side), value, Seen(self.module, None))
        return new


def watch_mixer(at: nn.Module, path: str) -> None:
    """Let a mixer's convolution and recurrence be seen."""
    door = _Door(at, path)
    own = {
        name: _looking(door, name)
        for name in names_called(at) & {*KINDS, *CONVOLUTIONS, *RESULTS}
    }
    attribute = "_old_forward" if "_old_forward" in at.__dict__ else "forward"
    inner: Any = getattr(at, attribute)
    for name in {*own} - {*_globals(inner.__func__)}:
        setattr(at, name, own[name](getattr(at, name)))  # a method
    forward = _with_globals(inner.__func__, own)

    def measured(*args: Any, **kwargs: Any) -> Any:
        if door.active("ssm_conv") is None:
            return forward(at, *args, **kwargs)
        entering: Tensor = args[0] if args else kwargs["hidden_states"]
        token = _LENGTH.set(entering.shape[1])
        try:
            return forward(at, *args, **kwargs)
        finally:
            _LENGTH.reset(token)

    setattr(at, attribute, functools.wraps(inner)(measured))


def _globals(function: Any) -> Mapping[str, Any]:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    found: Mapping[str, Any] = function.__globals__
    return found


def _with_globals(
    function: Any, own: Mapping[str, Callable[..., Any]]
) -> Callable[..., Any]:
    """Rebuild a function, below its decorators, that finds other functions by name."""
    within = getattr(function, "__wrapped__", None)
    cells: tuple[CellType, ...] = function.__closure__ or ()
    scope = function.__globals__
    if within is None:
        changed = {
            name: make(scope[name]) for name, make in own.items() if name in scope
        }
        scope = {**scope, **changed}
    else:
        inner = _with_globals(within, own)
        cells = tuple(
            CellType(inner) if cell.cell_contents is within else cell for cell in cells
        )
    rebuilt = FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, cells
    )
    rebuilt.__kwdefaults__ = function.__kwdefaults__
    return rebuilt


def _looking(door: _Door, name: str) -> Callable[[Any], Callable[..., Any]]:
    """Make what lets a run look at a function of this name."""
    if name in CONVOLUTIONS:
        return functools.partial(_convolution, door)
    if name in RESULTS:
        return functools.partial(_result, door)
    return functools.partial(_recurrence, door, KINDS[name])


def _convolution(door: _Door, function: Callable[..., Any]) -> Callable[..., Any]:
    def convolved(*args: Any, **kwargs: Any) -> Any:
        made: Tensor = function(*args, **kwargs)
        active = door.active("ssm_conv")
        if active is None:
            return made
        before = made.shape[-1] - _LENGTH.get()  # of a cache; the mixer drops them
        value = made[..., before:].mT
        new = door.act(active, "ssm_conv", value)
        if new is value:
            return made
        return torch.cat([made[..., :before], new.mT], dim=-1)

    return convolved


def _result(door: _Door, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        y, state = function(*args, **kwargs)
        active = door.active("ssm_y")
        if active is None:
            return y, state
        return door.act(active, "ssm_y", y[..., None])[..., 0], state

    return run


def _recurrence(
    door: _Door, kind: Kind, function: Callable[..., Any]
) -> Callable[..., Any]:
    names = tuple(inspect.signature(function).parameters)

    def run(*args: Any, **kwargs: Any) -> Any:
        active = door.active(*MIXER_SIDES)
        if active is None:
            return function(*args, **kwargs)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        gate = given.get("z")
        if gate is not None:
            given["z"] = _gate(door, active, gate)
        return _looked(door, active, kind, function, given)

    return run


def _gate(door: _Door, active: Active, gate: Tensor) -> Tensor:
    """Let the run look at a gate, `[batch, channel]` or with positions behind."""
    one = gate.ndim == 2  # noqa: PLR2004 -- a single position
    value = gate[:, None] if one else gate.mT
    new = door.act(active, "ssm_gate", value)
    if new is value:
        return gate
    return new[:, 0] if one else new.mT


def _looked(
    door: _Door,
    active: Active,
    kind: Kind,
    function: Callable[..., Any],
    given: dict[str, Any],
) -> Any:
    was = kind.taken(given)
    steps = was
    for side, name in _GIVEN.items():
        steps = _changed(door, active, side, steps, name)
    y, last = kind.bare(function, given)
    keeps = active.wants((door.path, "ssm_state"))
    if steps is not was or keeps:
        ours = recurred(steps, keeps=keeps)
        moved = _moved(was, steps)
        if keeps:
            states = ours.states.to(was.v.dtype)
            new = door.act(active, "ssm_state", states)
            if new is not states:
                pair = (
                    ours.states,
                    unless_same(new == states, ours.states, new.to(ours.states.dtype)),
                )
                ours = recurred(steps, keeps=True, moved=pair)
                moved = moved | (new != states).flatten(-2).any(-1)
        since = moved.cumsum(1) == 0
        y = unless_same(since[..., None], y, ours.y.to(y.dtype))
        if last is not None:
            end = ours.states[:, -1] if keeps else ours.states
            last = unless_same(since[:, -1, :, None, None], last, end.to(last.dtype))
    shown = y.to(was.v.dtype)
    new = door.act(active, "ssm_y", shown)
    if new is not shown:
        y = unless_same(new == shown, y, new.to(y.dtype))
    return kind.made(given, y, last)


def _changed(door: _Door, active: Active, side: Side, steps: Steps, name: str) -> Steps:
    """Let the run look at what a recurrence is given, in the model's own dtype."""
    held: Tensor = getattr(steps, name)
    value = held.to(steps.v.dtype)
    new = door.act(active, side, value)
    if new is value:
        return steps
    return attrs.evolve(
        steps, **{name: unless_same(new == value, held, new.to(held.dtype))}
    )


def _moved(was: Steps, now: Steps) -> Tensor:
    """Tell at which positions and heads a recurrence is given something else."""
    heads = was.v.shape[2]
    found = (was.v != now.v).any(-1)
    for name in ("q", "k", "decay"):
        differs = (getattr(was, name) != getattr(now, name)).any(-1)
        found = found | differs.repeat_interleave(heads // differs.shape[2], 2)
    return found | (was.beta != now.beta)
