"""One attention function for every family that asks transformers for one."""

import sys
from typing import Any, Final

import torch
from torch import Tensor, nn

from funlens.adapters._active import ACTIVE, Active, Seen
from funlens.adapters._inside import Inside

ATTENTION: Final = "funlens"
EAGER_ATTENTION: Final = "funlens_eager"  # with the masks that eager attention has


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
    base = module.__dict__.get("funlens_base") or "eager"
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
        if not is_causal:
            return None
        seen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device)
        # One query sees all; several are aligned as SDPA's, keys may be spare slots.
        mask = (seen if n_queries == 1 else seen.tril())[None, None]
    if mask.dtype != torch.bool:
        return mask
    zero = torch.zeros((), dtype=query.dtype, device=query.device)
    return torch.where(mask, zero, lowest)


def register_attention() -> None:
    """Make funlens's names known to transformers; twice is once."""
    from transformers import AttentionInterface, AttentionMaskInterface, masking_utils

    masks: Any = masking_utils
    for name, mask in (
        (ATTENTION, masks.sdpa_mask),
        (EAGER_ATTENTION, masks.eager_mask),
    ):
        AttentionInterface.register(name, attend)
        AttentionMaskInterface.register(name, mask)
