"""A linear recurrence, step by step: what mixers without attention have in common.

Each head keeps a matrix. At each position it is multiplied by a decay, a key and a
value write into it, and a query reads from it. The delta rule first takes away what
the key would read already.
"""

import attrs
import torch
from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class Steps:
    """What a recurrence is given at each position, as it uses it.

    Attributes:
        q: What reads, `[batch, pos, group, d_key]`.
        k: Where is written, likewise.
        v: What is written, `[batch, pos, head, d_value]`.
        decay: What the state is multiplied by, `[batch, pos, head, 1 or d_key]`.
        beta: How strongly is written, `[batch, pos, head]`.
        state: What the positions before left, `[batch, head, d_key, d_value]`; None
            where there are none.
        corrects: Whether a write first takes away what its key reads (the delta rule).
        normalizes: Whether what is read is divided by what would be read had each
            position written 1, where that is above 1; the state keeps it as its last
            column.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    decay: Tensor
    beta: Tensor
    state: Tensor | None = None
    corrects: bool = False
    normalizes: bool = False


@attrs.frozen(eq=False)
class Recurred:
    """What a recurrence gives.

    Attributes:
        y: What is read at each position, `[batch, pos, head, d_value]`.
        states: The state after each position, `[batch, pos, head, d_key, d_value]`, or
            after the last one only.
    """

    y: Tensor
    states: Tensor


def recurred(
    steps: Steps,
    *,
    keeps: bool = False,
    moved: tuple[Tensor, Tensor] | None = None,
) -> Recurred:
    """Run a recurrence position by position, in 32 bits or more.

    Args:
        steps: What it is given.
        keeps: Whether to give the states of all positions.
        moved: All states as they were, and as they are to be: where the two differ,
            the recurrence goes on from the second.
    """
    heads = steps.v.shape[2]
    times = heads // steps.q.shape[2]
    q, k, v, decay, beta = (
        wide(part)
        for part in (
            steps.q.repeat_interleave(times, 2),
            steps.k.repeat_interleave(times, 2),
            steps.v,
            steps.decay,
            steps.beta,
        )
    )
    if steps.normalizes:
        v = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    state = _start(steps, k, v)
    read: list[Tensor] = []
    states: list[Tensor] = []
    for at in range(v.shape[1]):
        state = state * decay[:, at, :, :, None]
        written = v[:, at]
        if steps.corrects:
            written = written - (state * k[:, at, :, :, None]).sum(-2)
        written = written * beta[:, at, :, None]
        state = state + k[:, at, :, :, None] * written[:, :, None]
        if moved is not None:
            was, now = (part[:, at] for part in moved)
            differs = (was != now).flatten(-2).any(-1)[..., None, None]
            state = torch.where(differs, now, state + (now - was))
        read.append((state * q[:, at, :, :, None]).sum(-2))
        if keeps:
            states.append(state)
    y = torch.stack(read, 1)
    if steps.normalizes:
        y = y[..., :-1] / y[..., -1:].abs().clamp(min=1)
    return Recurred(y, torch.stack(states, 1) if keeps else state)


def wide(part: Tensor) -> Tensor:
    """Give at least 32 bits."""
    return part.float() if part.dtype.itemsize < 4 else part  # noqa: PLR2004 -- bytes of float32


def _start(steps: Steps, k: Tensor, v: Tensor) -> Tensor:
    if steps.state is not None:
        return steps.state.to(v.dtype)
    shape = (v.shape[0], v.shape[2], k.shape[-1], v.shape[-1])
    return torch.zeros(shape, dtype=v.dtype, device=v.device)
