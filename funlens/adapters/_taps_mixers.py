"""Where the inner sites of mixers are, and how large they are."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Final

import attrs
from torch import nn

from funlens.adapters._language import Mixer
from funlens.adapters._mixers import (
    CONVOLUTIONS,
    RESULTS,
    Delta,
    Dual,
    DualStep,
    Gated,
    Memory,
    Scan,
    ScanStep,
    kind_in,
    names_called,
)
from funlens.adapters._tree import features, find, first
from funlens.adapters._views import WHOLE, Columns, HeadPart, Heads, Rows, View
from funlens.data import AXES

_CONVOLUTION: Final = ("conv1d", "conv", "conv_1d")
_NORM: Final = ("norm", "o_norm")
_WITHIN: Final = ("", "rg_lru", "mlstm_backend")
_SCANS: Final = (Scan, ScanStep)


@attrs.frozen(kw_only=True)
class Inner:
    """One inner site of a mixer.

    Attributes:
        part: What it is.
        path: The module it is met at, below the mixer.
        side: Whether it enters or leaves that module; inside it if empty, at the side
            that is named as the part.
        view: How the value lies in the tensor.
        sizes: Lengths of its axes.
    """

    part: str
    path: str = ""
    side: str = ""
    view: View = WHOLE
    sizes: Mapping[str, int]


def steps_in(mixer: nn.Module, words: Mixer, config: Any, width: int) -> list[Inner]:
    """List the inner sites of a mixer, in the order of its forward pass.

    Args:
        mixer: The mixer.
        words: What its table says of it.
        config: The config of its stack.
        width: Width of what its output projection is given.
    """
    found = chain(_shown(mixer, width), _told(mixer, words, config, width))
    met = (one for one in found if one.part not in words.hidden)
    return sorted(met, key=lambda one: [*AXES].index(one.part))


def _shown(mixer: nn.Module, width: int) -> Iterator[Inner]:
    """List what the functions show that a mixer calls."""
    if set(CONVOLUTIONS) & names_called(mixer):
        convolution = find(mixer, first(mixer, _CONVOLUTION))
        yield Inner(part="ssm_conv", sizes={"d_conv": features(convolution)[1]})
    if set(RESULTS) & names_called(mixer):
        yield Inner(part="ssm_y", sizes={"head": width, "d_value": 1})
    for path in _WITHIN:
        at = find(mixer, path)
        if at is not None and kind_in(at) is not None:
            yield from _recurring(at, path, width)
            return


def _told(mixer: nn.Module, words: Mixer, config: Any, width: int) -> Iterator[Inner]:
    """List what a table says is met at a mixer's own modules."""
    heads = int(getattr(config, words.heads)) if words.heads else width
    for part, step in words.steps.items():
        path = first(mixer, step.path)
        if path:
            size = width // heads
            part_of = HeadPart(heads, step.slot * size, (step.slot + 1) * size)
            view = Heads(heads) if step.slots == 1 else part_of
            sizes = {"head": heads, "group": heads, "d_key": size, "d_value": size}
            yield Inner(part=part, path=path, side=step.side, view=view, sizes=sizes)
    gate = words.gate
    path = first(mixer, gate.path) if gate else ""
    if gate and path and not vars(mixer).get("mamba_rms_norm", False):
        factor = float(getattr(config, gate.multiplier)[0]) if gate.multiplier else 1.0
        start = gate.slot * width
        yield Inner(
            part="ssm_gate",
            path=path,
            side="out",
            view=Columns(start, start + width, factor),
            sizes={"d_inner": width},
        )


def _recurring(mixer: nn.Module, path: str, width: int) -> Iterator[Inner]:
    """List what the recurrence of a module shows."""
    kind = kind_in(mixer)
    sizes = _sizes(mixer, width)
    if isinstance(kind, _SCANS):
        yield Inner(part="ssm_gate", sizes={"d_inner": width})
    normalized = {"d_value": sizes["d_value"] + isinstance(kind, Memory)}
    addressed = () if isinstance(kind, Gated) else ("ssm_q", "ssm_k")
    strengths = () if isinstance(kind, Gated) else ("ssm_beta",)
    for part in (*addressed, "ssm_v", "ssm_decay", *strengths):
        yield Inner(part=part, path=path, sizes=sizes)
    yield Inner(part="ssm_state", path=path, sizes={**sizes, **normalized})
    yield Inner(part="ssm_y", path=path, sizes=sizes)
    norm = first(mixer, _NORM)
    is_used = vars(mixer).get("mamba_rms_norm", True)
    if norm and is_used and isinstance(kind, Delta | Dual | DualStep):
        gate = {"d_inner": width}
        yield Inner(part="ssm_gate", path=norm, view=Rows(width), sizes=gate)


def _sizes(mixer: nn.Module, width: int) -> Mapping[str, int]:
    """Read the sizes of a recurrence off its module."""
    kind, held = kind_in(mixer), vars(mixer)
    if isinstance(kind, Gated):
        return dict.fromkeys(("d_key", "d_value", "d_decay"), 1) | {"head": width}
    if isinstance(kind, Memory):
        config = held["config"]
        heads = int(config.num_heads)
        d_key = int(config.hidden_size * config.qk_dim_factor) // heads
        shared = {"head": heads, "group": heads, "d_decay": 1}
        return {**shared, "d_key": d_key, "d_value": width // heads}
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
