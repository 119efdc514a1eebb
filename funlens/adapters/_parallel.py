"""Tensor parallelism: which sites' values the processes hold parts of.

Transformers says of each module how it is split; the taps learn it once, when the spec
is made. Nothing here is reached by a model that one process holds whole.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
from torch import nn

from funlens.adapters._collectives import Layout, is_part, is_split
from funlens.adapters._tap import Side, Tap
from funlens.adapters._tree import find
from funlens.adapters._views import Parted, PartOfSum
from funlens.data import Site
from funlens.errors import UnsupportedConfigError

_BY_STYLE: Final[Mapping[str, Mapping[Side, tuple[int, int]]]] = {
    "colwise": {"out": (-1, 1)},
    "packed_colwise": {"out": (-1, 2)},
    "replicated_with_grad_allreduce": {"in": (-2, 1), "out": (-2, 1)},
    "rowwise": {"in": (-1, 1), "heads": (-1, 1)},
}
"""Axis and pieces of what is split at a module, by the style in transformers' plan."""

_WHOLE: Final = frozenset(
    {
        "all_reduce",
        "colwise_gather_output",
        "colwise_rep",
        "embedding_colwise",
        "embedding_rowwise",
        "local_params",
        "mla_kv_a_proj",
        "moe_identity_expert",
        "moe_tp_experts",
        "packed_rowwise",
        "replicate",
        "rowwise_rep",
        "rowwise_split_input",
    }
)
"""Styles of modules that take and give whole tensors, or of parameters only."""

_INSIDE: Final = frozenset({"rot_q", "rot_k", "scores", "pattern"})
_HEADS: Final = frozenset({"q", "k", "v", "cross_q", "cross_k", "cross_v"})

_OTHERS: Final[Mapping[str, str]] = {
    "dp_replicate_size": "copies",
    "ep_size": "experts",
    "fsdp_size": "weights between layers",
    "pp_size": "layers",
}
_NOWHERE: Final = (0, 0)
_EVEN: Final = ("head", "kv_head", "d_mlp")
_SPREAD: Final = "is_distributed_loading_by_transformers"
_ADVICE: Final = "Load it with `funlens.load(..., tp_plan='auto')`, or in one process."


def with_parts(module: Any, taps: Mapping[Site, Tap]) -> dict[Site, Tap]:
    """Let taps of a module that is split among processes give their values whole.

    Raises:
        UnsupportedConfigError: It is split in a way whose parts are not known.
    """
    split: Any = next((held for held in module.parameters() if is_part(held)), None)
    if split is None:
        return dict(taps)
    parallel = _Parallel(
        module=module,
        taps=taps,
        group=split.device_mesh.get_group(),
        styles=_styles_of(module),
    )
    return {site: parallel.parted(tap) for site, tap in taps.items()}


def refuse_spread(module: Any) -> None:
    """Refuse what else may be spread over processes than parts of matrices.

    Raises:
        UnsupportedConfigError: It is, or nobody says how.
    """
    if not (getattr(module, _SPREAD, False) or is_split(module)):
        return
    model_type = module.config.model_type
    told = getattr(module.config, "distributed_config", None)
    if told is None:
        problem = "its weights are split, and its config does not tell how"
        raise UnsupportedConfigError(model_type, problem, _ADVICE)
    for field, what in _OTHERS.items():
        if getattr(told, field, 1) > 1:
            problem = f"its {what} are spread over processes ({field})"
            raise UnsupportedConfigError(model_type, problem, _ADVICE)


def _styles_of(module: Any) -> Mapping[str, str]:
    """Give each module's style, by its path with stars for numbers."""
    plan: Mapping[str, str] = module.tp_plan
    unknown = sorted(set(plan.values()) - _BY_STYLE.keys() - _WHOLE)
    if unknown:
        problem = f"modules are split by {unknown[0]!r}, whose parts are not known"
        raise UnsupportedConfigError(module.config.model_type, problem, _ADVICE)
    return plan


@attrs.frozen(kw_only=True, eq=False)
class _Parallel:
    """A split module, and what transformers' plan says of it."""

    module: nn.Module
    taps: Mapping[Site, Tap]
    group: Any
    styles: Mapping[str, str]

    def parted(self, tap: Tap) -> Tap:
        """Let a tap give its value whole, where a process holds a part of it."""
        if tap.side == "experts" and self.style(tap.path) == "moe_tp_experts":
            layout = Layout(self.group)
            return attrs.evolve(tap, view=PartOfSum(tap.view, layout))
        axis, pieces = self.place(tap)
        if not pieces:
            return tap
        self.check_even(tap)
        layout = Layout(self.group, axis=axis, pieces=pieces)
        return attrs.evolve(tap, view=Parted(tap.view, layout))

    def style(self, path: str) -> str:
        """Give a module's style; empty without one."""
        return self.styles.get(re.sub(r"\.\d+(?=\.|$)", ".*", path), "")

    def place(self, tap: Tap) -> tuple[int, int]:
        """Give the axis that is split, and its pieces; no pieces where none is."""
        if tap.side in _INSIDE:
            heads = (1, 1) if self.has_own_heads(tap) else _NOWHERE
            return heads if tap.side != "rot_k" or self.has_own_keys(tap) else _NOWHERE
        style = self.style(tap.path)
        if style:
            return _BY_STYLE.get(style, {}).get(tap.side, _NOWHERE)
        is_norm = not hasattr(find(self.module, tap.path), "out_features")
        if tap.site.part in _HEADS and is_norm and self.has_own_heads(tap):
            return (-2, 1)
        return _NOWHERE

    def has_own_heads(self, tap: Tap) -> bool:
        """Tell whether each process runs heads of its own in a tap's attention."""
        parts = (
            ("cross_z",) if tap.site.part.startswith("cross_") else ("attn_proj", "z")
        )
        sites = (attrs.evolve(tap.site, part=part) for part in parts)
        found = (self.taps[site].path for site in sites if site in self.taps)
        return any(self.style(path) == "rowwise" for path in found)

    def has_own_keys(self, tap: Tap) -> bool:
        """Tell whether keys, which heads may share, are split as heads are."""
        prefix = "cross_" if tap.site.part.startswith("cross_") else ""
        sites = (attrs.evolve(tap.site, part=prefix + part) for part in ("k", "v"))
        made = next((self.taps[site] for site in sites if site in self.taps), None)
        return made is None or self.place(made) != _NOWHERE

    def check_even(self, tap: Tap) -> None:
        """Refuse heads or neurons of which processes would have different numbers."""
        count = self.group.size()
        for axis in _EVEN:
            size = tap.sizes.get(axis, 0)
            if isinstance(size, int) and size % count:
                config: Any = self.module.config
                raise UnsupportedConfigError(
                    config.model_type,
                    f"{count} processes cannot share {size} ({axis} at {tap.site}) "
                    "evenly",
                    "Start a number of processes that divides it.",
                )
