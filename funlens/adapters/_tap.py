"""`Tap`: where one site is met in a module."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from funlens.adapters._language import (
    Layout,
)
from funlens.adapters._views import (
    WHOLE,
    View,
)
from funlens.data import Site

Side: TypeAlias = Literal[
    "in",
    "out",
    "scale",
    "heads",
    "scores",
    "pattern",
    "rot_q",
    "rot_k",
    "linear",
    "choices",
    "weights",
    "experts",
    "ssm_conv",
    "ssm_gate",
    "ssm_q",
    "ssm_k",
    "ssm_v",
    "ssm_decay",
    "ssm_beta",
    "ssm_state",
    "ssm_y",
]

MIXER_SIDES: Final[tuple[Side, ...]] = (
    "ssm_conv",
    "ssm_gate",
    "ssm_q",
    "ssm_k",
    "ssm_v",
    "ssm_decay",
    "ssm_beta",
    "ssm_state",
    "ssm_y",
)
"""Steps inside a mixer, named as the parts they are."""


@attrs.frozen(kw_only=True)
class Tap:
    """Where one site is met.

    Attributes:
        site: The site.
        path: Module it is met at.
        side: Its input, its output, or a step inside it.
        index: Which of several outputs.
        view: How the value lies in the tensor.
        sizes: Lengths of its axes, as far as they are known without running; a word
            where an axis is longer than its name says.
        note: What one would expect to hold of it and does not, and why.
        rejoins: Whether a changed value must also enter the sum at the block's end.
        in_place: Whether the model later changes that tensor in place.
        by_name: Whether the module looks at the name of the attention function.
        all_keys: Whether positions count all keys, also those of a cache.
        layout: Order of rows, positions and widths in the tensor.
        overhangs: Whether the tensor holds positions beyond the site's.
        read_only: Why it cannot be changed; empty where it can.
        given: The input without which it is not met.
        visit: Which of the module's runs in one forward, where it runs several times.
        front: Whether other positions may stand before those that the model is given.
    """

    site: Site
    path: str
    side: Side
    index: int = 0
    view: View = WHOLE
    sizes: Mapping[str, int | str] = attrs.field(factory=dict[str, int | str])
    note: str = ""
    rejoins: bool = False
    in_place: bool = False
    by_name: bool = False
    all_keys: bool = False
    layout: Layout = "bpd"
    overhangs: bool = False
    read_only: str = ""
    given: str = ""
    visit: int | None = None
    front: bool = False

    @property
    def point(self) -> tuple[str, Side]:
        """What the model passes there: a module's path, and a side of it."""
        return self.path, self.side
