"""Tensor parallelism: which sites' values the processes hold parts of.

Transformers says of each module how it is split; the taps learn it once, when the spec
is made. Nothing here is reached by a model that one process holds whole.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs
from funlens.adapters._collectives import Layout, is_part, is_split
from funlens.adapters._taps import Side, Tap
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

_HEADS_OF: Final[Mapping[Side, tuple[str, ...]]] = {
    "rot_q": ("q",),
    "scores": ("q",),
    "pattern": ("q",),
    "rot_k": ("k", "v"),
}
"""Inside attention, heads are split as those of a projection are."""

_OTHERS: Final[Mapping[str, str]] = {
    "dp_replicate_size": "copies",
    "ep_size": "experts",
    "fsdp_size": "weights between layers",
    "pp_size": "layers",
}
_EVEN: Final = ("head", "kv_head", "d_mlp")
_ADVICE: Final = "Load it with `funlens.load(..., tp_plan='auto')`, or in one process."


def with_parts(module: Any, taps: Mapping[Site, Tap]) -> dict[Site, Tap]:
    """Let taps of a module that is split among processes give their values whole.

    Raises:
        UnsupportedConfigError: It is split in a way whose parts are not known.
    """
    if not is_split(module):
        return dict(taps)
    group, styles = _group_of(module), _styles_of(module)
    found: dict[Site, Tap] = {}
    for site, tap in taps.items():
        layout = _layout(tap, styles, found, group)
        found[site] = tap if layout is None else _parted(tap, layout, module)
    return found


def _group_of(module: Any) -> Any:
    """Find the processes that share the weights."""
    model_type = module.config.model_type
    told = getattr(module.config, "distributed_config", None)
    if told is None:
        problem = "its weights are split, and its config does not tell how"
        raise UnsupportedConfigError(model_type, problem, _ADVICE)
    for field, what in _OTHERS.items():
        if getattr(told, field, 1) > 1:
            problem = f"its {what} are spread over processes ({field})"
            raise UnsupportedConfigError(model_type, problem, _ADVICE)
    split: Any = next(held for held in module.parameters() if is_part(held))
    return split.device_mesh.get_group()


def _styles_of(module: Any) -> Mapping[str, str]:
    """Give each module's style, by its path with stars for numbers."""
    plan: Mapping[str, str] = module.tp_plan
    unknown = sorted(set(plan.values()) - _BY_STYLE.keys() - _WHOLE)
    if unknown:
        problem = f"modules are split by {unknown[0]!r}, whose parts are not known"
        raise UnsupportedConfigError(module.config.model_type, problem, _ADVICE)
    return plan


def _layout(
    tap: Tap, styles: Mapping[str, str], before: Mapping[Site, Tap], group: Any
) -> Layout | None:
    """Say which part of what a tap meets a process holds; None if it is whole."""
    if tap.side in _HEADS_OF:
        prefix = "cross_" if tap.site.part.startswith("cross_") else ""
        sites = (
            attrs.evolve(tap.site, part=prefix + part) for part in _HEADS_OF[tap.side]
        )
        made = next((before[site] for site in sites if site in before), None)
        is_parted = made is not None and isinstance(made.view, Parted)
        return Layout(group, axis=1) if is_parted else None
    style = styles.get(re.sub(r"\.\d+(?=\.|$)", ".*", tap.path), "")
    if tap.side == "experts" and style == "moe_tp_experts":
        return Layout(group)
    axis, pieces = _BY_STYLE.get(style, {}).get(tap.side, (0, 0))
    return Layout(group, axis=axis, pieces=pieces) if pieces else None


def _parted(tap: Tap, layout: Layout, module: Any) -> Tap:
    if tap.side == "experts":
        return attrs.evolve(tap, view=PartOfSum(tap.view, layout))
    count = layout.group.size()
    for axis in _EVEN:
        size = tap.sizes.get(axis, 0)
        if isinstance(size, int) and size % count:
            raise UnsupportedConfigError(
                module.config.model_type,
                f"{count} processes cannot share {size} ({axis} at {tap.site}) evenly",
                "Start a number of processes that divides it.",
            )
    return attrs.evolve(tap, view=Parted(tap.view, layout))
