"""The functions of transformers that recur, and what goes through each.

A mixer of HuggingFace's calls them by name from its `forward`. Which of them it calls
tells what it is, whichever family it belongs to.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funlens.adapters._recurrence import Steps, wide

Given = Mapping[str, Any]
Function = Callable[..., Any]
Pair = tuple[Tensor, Tensor | None]


@runtime_checkable
class Kind(Protocol):
    """How one function is given what a recurrence needs, and gives what it makes."""

    def taken(self, given: Given) -> Steps:
        """Give what the recurrence uses, from the function's arguments."""
        ...

    def bare(self, function: Function, given: dict[str, Any]) -> Pair:
        """Run the function, without skip and gate: what is read, and the last state."""
        ...

    def made(self, given: Given, y: Tensor, state: Tensor | None) -> Any:
        """Give what the function would, from what is read."""
        ...


class Delta:
    """The gated delta rule, with a decay for each head or for each of its keys."""

    def taken(self, given: Given) -> Steps:
        q, k, g = (wide(given[name]) for name in ("query", "key", "g"))
        if given.get("use_qk_l2norm_in_kernel"):
            q, k = (
                part * torch.rsqrt(part.square().sum(-1, keepdim=True) + 1e-6)
                for part in (q, k)
            )
        decay = g.exp()
        return Steps(
            q=q / q.shape[-1] ** 0.5,
            k=k,
            v=given["value"],
            decay=decay if decay.ndim == q.ndim else decay[..., None],
            beta=given["beta"],
            state=given.get("initial_state"),
            corrects=True,
        )

    def bare(self, function: Function, given: dict[str, Any]) -> Pair:
        y, state = function(**given)
        return y, state

    def made(self, given: Given, y: Tensor, state: Tensor | None) -> Any:
        del given
        return y, state


class Dual:
    """Mamba 2: one decay for each head, keys and queries that groups of heads share."""

    def taken(self, given: Given) -> Steps:
        dt = _time_step(given["dt"], given)
        low, high = given.get("dt_limit", (0.0, float("inf")))
        dt = dt.clamp(min=low, max=high)
        state = given.get("initial_states")
        return Steps(
            q=given["C"],
            k=given["B"],
            v=given["hidden_states"],
            decay=(wide(given["A"]) * wide(dt)).exp()[..., None],
            beta=dt,
            state=None if state is None else state.mT,
        )

    def bare(self, function: Function, given: dict[str, Any]) -> Pair:
        made = function(**{**given, "D": None})
        y, state = made if given.get("return_final_states") else (made, None)
        return y, None if state is None else state.mT

    def made(self, given: Given, y: Tensor, state: Tensor | None) -> Any:
        if given["D"] is not None:
            y = y + given["D"][..., None] * given["hidden_states"].float()
        return (y, state.mT) if state is not None else y


class DualStep:
    """One step of Mamba 2; it writes the state that it is given."""

    def taken(self, given: Given) -> Steps:
        dt = given["dt"][..., 0] + given["dt_bias"][:, 0].to(given["dt"].dtype)
        dt = F.softplus(dt)[:, None]
        return Steps(
            q=given["C"][:, None],
            k=given["B"][:, None],
            v=given["hidden_states"][:, None],
            decay=(wide(given["A"])[:, 0, 0] * wide(dt)).exp()[..., None],
            beta=dt,
            state=given["state"].clone().mT,
        )

    def bare(self, function: Function, given: dict[str, Any]) -> Pair:
        y = function(**{**given, "D": None, "z": None})
        return y[:, None], given["state"].mT

    def made(self, given: Given, y: Tensor, state: Tensor | None) -> Any:
        _put_back(given, None if state is None else state.mT)
        y = y[:, 0]
        if given["D"] is not None:
            y = (y + given["hidden_states"] * given["D"]).to(y.dtype)
        if given.get("z") is not None:
            y = (y * F.silu(given["z"])).to(y.dtype)
        return y


class Scan:
    """Mamba 1: each channel is a head, with a decay for each of its keys."""

    def taken(self, given: Given) -> Steps:
        dt = _time_step(given["dt"].mT, given)
        return Steps(
            q=given["C"].mT[:, :, None],
            k=given["B"].mT[:, :, None],
            v=given["hidden_states"].mT[..., None],
            decay=(wide(given["A"]) * wide(dt)[..., None]).exp(),
            beta=dt,
        )

    def bare(self, function: Function, given: dict[str, Any]) -> Pair:
        made = function(**{**given, "D": None, "z": None})
        y, state = made if given.get("return_last_state") else (made, None)
        return y.mT[..., None], None if state is None else state[..., None]

    def made(self, given: Given, y: Tensor, state: Tensor | None) -> Any:
        y = y[..., 0].mT
        if given["D"] is not None:
            y = y + given["hidden_states"] * given["D"][None, :, None]
        if given["z"] is not None:
            y = y * F.silu(given["z"])
        return (y, state[..., 0]) if state is not None else y


class ScanStep:
    """One step of Mamba 1; it writes the state that it is given."""

    def taken(self, given: Given) -> Steps:
        dt = _time_step(given["dt"], given)[:, None]
        return Steps(
            q=given["C"][:, None, None],
            k=given["B"][:, None, None],
            v=given["hidden_states"][:, None, :, None],
            decay=(wide(given["A"]) * wide(dt)[..., None]).exp(),
            beta=dt,
            state=given["state"].clone()[..., None],
        )

    def bare(self, function: Function, given: dict[str, Any]) -> Pair:
        y = function(**{**given, "D": None, "z": None})
        return y[:, None, :, None], given["state"][..., None]

    def made(self, given: Given, y: Tensor, state: Tensor | None) -> Any:
        _put_back(given, None if state is None else state[..., 0])
        y = y[:, 0, :, 0]
        if given["D"] is not None:
            y = y + given["hidden_states"] * given["D"]
        if given["z"] is not None:
            y = y * F.silu(given["z"])
        return y.to(given["hidden_states"].dtype)


class Gated:
    """RG-LRU: each channel is a head of one number, that nothing addresses."""

    def taken(self, given: Given) -> Steps:
        entering, state = given["hidden_states"], given["recurrent_states"]
        one = torch.ones_like(entering[:, :, :1, None])
        decay = given["recurrent_gate"] * ~given["reset"]
        return Steps(
            q=one,
            k=one,
            v=entering[..., None],
            decay=decay[..., None],
            beta=torch.ones_like(entering),
            state=None if state is None else state[..., None, None],
        )

    def bare(self, function: Function, given: dict[str, Any]) -> Pair:
        y, state = function(**given)
        return y[..., None], state[..., None, None]

    def made(self, given: Given, y: Tensor, state: Tensor | None) -> Any:
        del given
        return y[..., 0], None if state is None else state[..., 0, 0]


class Memory:
    """mLSTM: a state, and beside it a normalizer; both kept apart from their size."""

    def taken(self, given: Given) -> Steps:
        q, k, v = (given[name].transpose(1, 2) for name in ("query", "key", "value"))
        return Steps(
            q=q / q.shape[-1] ** 0.5,
            k=k,
            v=v,
            decay=wide(given["fgate"]).sigmoid().mT[..., None],
            beta=wide(given["igate"]).exp().mT,
            state=_packed(*(given.get(f"{name}_initial") for name in "cnm")),
            normalizes=True,
        )

    def bare(self, function: Function, given: dict[str, Any]) -> Pair:
        made: Any = function(**given)
        has_state = not isinstance(made, Tensor)
        y: Tensor = made[0] if has_state else made
        parts: Any = made[1] if has_state else None
        given["states"] = parts
        return y.transpose(1, 2), None if parts is None else _packed(*parts)

    def made(self, given: Given, y: Tensor, state: Tensor | None) -> Any:
        y = y.transpose(1, 2)
        if state is None:
            return y
        cell, normalizer, size = given["states"]
        same = (_packed(cell, normalizer, size) == state).flatten(2).all(-1)
        kept = same[..., None]
        return y, (
            torch.where(kept[..., None], cell, state[..., :-1]),
            torch.where(kept, normalizer, state[..., -1]),
            torch.where(kept, size, torch.zeros_like(size)),
        )


def _packed(
    cell: Tensor | None, normalizer: Tensor | None, size: Tensor | None
) -> Tensor | None:
    """Put state and normalizer beside each other, at their size."""
    if cell is None or normalizer is None or size is None:
        return None
    both = torch.cat([cell, normalizer[..., None]], dim=-1)
    return both * size.exp()[..., None]


def _time_step(dt: Tensor, given: Given) -> Tensor:
    bias = given.get("dt_bias", given.get("delta_bias"))
    if bias is not None:
        dt = dt + bias.to(dt.dtype)
    softplus = given.get("dt_softplus") or given.get("delta_softplus")
    return F.softplus(dt) if softplus else dt


def _put_back(given: Given, state: Tensor | None) -> None:
    """Write another state where the function wrote its own."""
    if state is not None and state.data_ptr() != given["state"].data_ptr():
        given["state"].copy_(state)


_DELTA: Final = Delta()

KINDS: Final[Mapping[str, Kind]] = {
    "torch_chunk_gated_delta_rule": _DELTA,
    "torch_recurrent_gated_delta_rule": _DELTA,
    "chunk_kimi_delta_attention": _DELTA,
    "recurrent_kimi_delta_attention": _DELTA,
    "mamba2_chunk_scan": Dual(),
    "mamba2_selective_state_update": DualStep(),
    "mamba_selective_scan": Scan(),
    "mamba_selective_state_update": ScanStep(),
    "_rnn_scan": Gated(),
    "_train_fn": Memory(),
    "_inference_fn": Memory(),
}
"""The functions, by the name that a mixer calls."""

CONVOLUTIONS: Final = ("causal_conv1d_fn", "causal_conv1d_update")
"""Convolutions over `[batch, channel, pos]`, activation included."""


RESULTS: Final = ("rwkv_linear_attention",)
"""Functions that give what is read, `[batch, pos, channel]`, and a state beside it."""


def names_called(module: nn.Module) -> frozenset[str]:
    """Give the names that a module's `forward` looks up, below its decorators too."""
    function: Any = type(module).forward
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return frozenset(function.__code__.co_names)


def kind_in(module: nn.Module) -> Kind | None:
    """Tell what recurs in a mixer: None where nothing does that is known."""
    called = names_called(module)
    return next((kind for name, kind in KINDS.items() if name in called), None)
