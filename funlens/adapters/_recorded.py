"""What a run's cache says of a layer's recurrence."""

import torch
from torch import Tensor

from funlens.adapters._machinery import Machinery
from funlens.adapters._mixers import Delta, kind_in
from funlens.adapters._recurrence import Steps
from funlens.adapters._tree import find
from funlens.data import ActivationCache, ModelSpec, Site
from funlens.errors import SiteNotFoundError, nearest


def steps_of(spec: ModelSpec, cache: ActivationCache, layer: int) -> Steps:
    """Put together what a layer's recurrence was given, from a cache.

    Raises:
        SiteNotFoundError: The layer has no recurrence with a decay.
        SiteNotCachedError: The cache does not hold it.
    """
    machinery: Machinery = spec.engine
    decays = Site(part="ssm_decay", layer=layer)
    if decays not in machinery.taps:
        names = [str(known) for known in machinery.taps if known.part == "ssm_decay"]
        raise SiteNotFoundError(str(decays), spec.n_layers, nearest(str(decays), names))
    mixer = find(machinery.module, machinery.taps[decays].path)
    decay = cache[decays]
    one = torch.ones_like(decay[:, :, :1, :1])

    def held(part: str, otherwise: Tensor) -> Tensor:
        site = Site(part=part, layer=layer)
        return cache[site] if site in machinery.taps else otherwise

    return Steps(
        q=held("ssm_q", one),
        k=held("ssm_k", one),
        v=decay,
        decay=decay,
        beta=held("ssm_beta", torch.ones_like(decay[..., 0])),
        corrects=mixer is not None and isinstance(kind_in(mixer), Delta),
    )
