"""Where the inner sites of mixers are, and how large they are."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
from torch import nn

from funlens.adapters._mixers import (
    CONVOLUTIONS,
    Delta,
    Dual,
    DualStep,
    Gated,
    Scan,
    ScanStep,
    kind_in,
    names_called,
)
from funlens.adapters._tree import features, find
from funlens.adapters._views import WHOLE, Rows, View

_CONVOLUTION: Final = ("conv1d", "conv", "conv_1d")
_NORM: Final = ("norm", "o_norm")
_SCANS: Final = (Scan, ScanStep)


@attrs.frozen(kw_only=True)
class Inner:
    """One inner site of a mixer.

    Attributes:
        part: What it is; its side has the same name.
        path: The module it is met at, below the mixer.
        view: How the value lies in the tensor.
        sizes: Lengths of its axes.
    """

    part: Any
    path: str = ""
    view: View = WHOLE
    sizes: Mapping[str, int]


def inner_sites(mixer: nn.Module, width: int) -> Iterator[Inner]:
    """List what a mixer's own functions show, in the order of its forward pass.

    Args:
        mixer: The mixer.
        width: Width of what its output projection is given.
    """
    held: Any = mixer
    if set(CONVOLUTIONS) & names_called(mixer):
        convolution = next(
            found for name in _CONVOLUTION if (found := find(mixer, name)) is not None
        )
        yield Inner(part="ssm_conv", sizes={"d_conv": features(convolution)[1]})
    kind = kind_in(mixer)
    if kind is None or getattr(held, "n_mamba_heads", 1) > 1:
        return
    sizes = _sizes(mixer, width)
    if isinstance(kind, _SCANS):
        yield Inner(part="ssm_gate", sizes={"d_inner": width})
    addressed = () if isinstance(kind, Gated) else ("ssm_q", "ssm_k")
    strengths = () if isinstance(kind, Gated) else ("ssm_beta",)
    for part in (*addressed, "ssm_v", "ssm_decay", *strengths, "ssm_state", "ssm_y"):
        yield Inner(part=part, sizes=sizes)
    for name in _NORM:
        if isinstance(kind, Delta | Dual | DualStep) and find(mixer, name) is not None:
            gate = {"d_inner": width}
            yield Inner(part="ssm_gate", path=name, view=Rows(width), sizes=gate)


def _sizes(mixer: nn.Module, width: int) -> Mapping[str, int]:
    """Read the sizes of a recurrence off its module."""
    kind, held = kind_in(mixer), vars(mixer)
    if isinstance(kind, Gated):
        return dict.fromkeys(("d_key", "d_value", "d_decay"), 1) | {"head": width}
    if isinstance(kind, Scan | ScanStep):
        d_key = int(held["ssm_state_size"])
        narrow = {"group": 1, "d_value": 1}
        return {"head": width, "d_key": d_key, "d_decay": d_key, **narrow}
    if isinstance(kind, Dual | DualStep):
        heads = int(held["num_heads"])
        return {
            "head": heads,
            "group": int(held["n_groups"]),
            "d_key": int(held["ssm_state_size"]),
            "d_value": width // heads,
            "d_decay": 1,
        }
    heads = int(held.get("num_v_heads", held.get("num_heads", 0)))
    d_key = int(held.get("head_k_dim", held.get("head_dim", 0)))
    return {
        "head": heads,
        "group": int(held.get("num_k_heads", heads)),
        "d_key": d_key,
        "d_value": width // heads,
        "d_decay": d_key if "num_v_heads" not in held else 1,
    }
