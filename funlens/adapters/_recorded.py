"""Recurrences as sums over earlier positions, from what a run's cache says of them."""

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters._machinery import Machinery
from funlens.adapters._mixers import Delta, Memory, kind_in
from funlens.adapters._recurrence import Steps, recurred, wide
from funlens.adapters._tree import find
from funlens.data import ActivationCache, ModelSpec, Site
from funlens.errors import SiteNotFoundError, nearest


def value_weights(spec: ModelSpec, cache: ActivationCache, layer: int) -> Tensor:
    """Give the weight of each position's value in what each position reads.

    Returns:
        `[batch, head, query, key]`.

    Raises:
        SiteNotFoundError: The layer has no recurrence that reads values.
        SiteNotCachedError: The cache does not hold what makes the weights.
    """
    machinery: Machinery = spec.engine
    value = Site(part="ssm_v", layer=layer)
    if value not in machinery.taps:
        names = [str(known) for known in machinery.taps if known.part == "ssm_v"]
        raise SiteNotFoundError(str(value), spec.n_layers, nearest(str(value), names))
    path = machinery.taps[value].path
    mixer: Any = find(machinery.module, path.rpartition(".")[0])
    if hasattr(mixer, "time_first"):
        key = cache[Site(part="ssm_k", layer=layer)]
        return _with_bonus(
            key[..., 0], -mixer.time_decay.detach().exp(), mixer.time_first.detach()
        )

    def held(part: str) -> Tensor | None:
        site = Site(part=part, layer=layer)
        return cache[site] if site in machinery.taps else None

    at = find(machinery.module, path)
    steps = _steps(held, mixer if held("ssm_decay") is None else at)
    batch, n_pos, heads = steps.decay.shape[:3]
    each = torch.eye(n_pos, dtype=steps.decay.dtype, device=steps.decay.device)
    apart = each[None, :, None].expand(batch, n_pos, heads, n_pos)
    return recurred(attrs.evolve(steps, v=apart)).y.permute(0, 2, 1, 3)


def _steps(held: Callable[[str], Tensor | None], mixer: nn.Module | None) -> Steps:
    """Put together what a recurrence was given, without its values."""
    q, k, decay, beta = map(held, ("ssm_q", "ssm_k", "ssm_decay", "ssm_beta"))
    if decay is None:  # lightning attention: a constant of each head
        module: Any = mixer
        like = q if q is not None else torch.ones(1, 1, 1, 1)
        rate: Tensor = module.slope_rate[:, 0].to(like.dtype)
        decay = (-rate).exp().expand(*like.shape[:2], *rate.shape)
    one = torch.ones_like(decay[:, :, :1, :1])
    kind = None if mixer is None else kind_in(mixer)
    return Steps(
        q=one if q is None else q,
        k=one if k is None else k,
        v=decay,
        decay=decay,
        beta=torch.ones_like(decay[..., 0]) if beta is None else beta,
        corrects=isinstance(kind, Delta),
        normalizes=isinstance(kind, Memory),
    )


def _with_bonus(key: Tensor, decay: Tensor, bonus: Tensor) -> Tensor:
    """Weigh as RWKV does: a softmax over keys that fade, the last with a bonus.

    Args:
        key: `[batch, pos, channel]`.
        decay: Logarithm of what a key's weight is multiplied by at each position.
        bonus: What is added to the key of the position itself.
    """
    n_pos = key.shape[1]
    at = torch.arange(n_pos, device=key.device)
    since = (at[:, None] - at[None, :] - 1)[None, None]
    faded = wide(key).mT[:, :, None] + decay[:, None, None] * since
    own = wide(key).mT[:, :, None] + bonus[:, None, None]
    scores = torch.where(since < 0, own, faded)
    return scores.masked_fill(since < -1, -torch.inf).softmax(-1)
