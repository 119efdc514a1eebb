"""Frozen records: sites, interventions, caches, specs."""

import funlens.data._pytree  # noqa: F401 -- registers the records  # pyright: ignore[reportUnusedImport] (as for ruff)
from funlens.data._attributions import Attributions, places_of
from funlens.data._cache import ActivationCache, Receipt, Run, RunWithGrads
from funlens.data._checkpoint import Checkpoint
from funlens.data._circuit import Circuit
from funlens.data._circuit_effects import CircuitEffects
from funlens.data._circuit_files import load_circuit, save_circuit
from funlens.data._compare_circuits import CircuitComparison, compare_circuits
from funlens.data._concatenate import concatenate_caches
from funlens.data._edge_scores import EdgeScores
from funlens.data._effects import Effects, average_over, spread_over
from funlens.data._factored import FactoredMatrix, Svd
from funlens.data._files import load_cache, save_cache, to_numpy, to_xarray
from funlens.data._graph import Edge, Graph, true_at
from funlens.data._grid import Choice, Grid, Grids, grid
from funlens.data._interventions import (
    DECIDING,
    Add,
    Apply,
    Backward,
    Clamp,
    ForwardEdit,
    Freeze,
    Interchange,
    Intervention,
    Mean,
    Noise,
    Patch,
    Project,
    ProjectOut,
    Scale,
    Set,
    Splice,
    Zero,
)
from funlens.data._json import Record, content_hash, from_json, same_record, to_json
from funlens.data._linearity import Linearity
from funlens.data._means import Means, axes_of_mean
from funlens.data._parts import (
    AXES,
    ENTERING,
    INTEGER_PARTS,
    LARGE_PARTS,
    LAYER_PARTS,
    LEAVING,
    MODEL_PARTS,
    SELECTED_AXES,
    axes_of,
    axis_of,
)
from funlens.data._pick import (
    POSITION_WORDS,
    Padding,
    columns,
    drops_axis,
    left_axes,
    pick,
    take,
)
from funlens.data._selections import (
    Generated,
    PerRow,
    Selection,
    Selector,
    Span,
    generated,
)
from funlens.data._sites import (
    Part,
    Site,
    SiteLike,
    part_named,
    to_sites,
    transformer_lens_names,
)
from funlens.data._spec import BosPolicy, ModelSpec, SiteInfo
from funlens.data._support import Support
from funlens.data._writes import Writes

__all__ = [
    "AXES",
    "ActivationCache",
    "Add",
    "Apply",
    "Attributions",
    "Backward",
    "BosPolicy",
    "Checkpoint",
    "Choice",
    "Circuit",
    "CircuitComparison",
    "CircuitEffects",
    "Clamp",
    "DECIDING",
    "ENTERING",
    "Edge",
    "EdgeScores",
    "Effects",
    "FactoredMatrix",
    "ForwardEdit",
    "Freeze",
    "Generated",
    "Graph",
    "Grid",
    "Grids",
    "INTEGER_PARTS",
    "Interchange",
    "Intervention",
    "LARGE_PARTS",
    "LAYER_PARTS",
    "LEAVING",
    "Linearity",
    "MODEL_PARTS",
    "Mean",
    "Means",
    "ModelSpec",
    "Noise",
    "POSITION_WORDS",
    "Padding",
    "Part",
    "Patch",
    "PerRow",
    "Project",
    "ProjectOut",
    "Receipt",
    "Record",
    "Run",
    "RunWithGrads",
    "SELECTED_AXES",
    "Scale",
    "Selection",
    "Selector",
    "Set",
    "Site",
    "SiteInfo",
    "SiteLike",
    "Span",
    "Splice",
    "Support",
    "Svd",
    "Writes",
    "Zero",
    "average_over",
    "axes_of",
    "axes_of_mean",
    "axis_of",
    "columns",
    "compare_circuits",
    "concatenate_caches",
    "content_hash",
    "drops_axis",
    "from_json",
    "generated",
    "grid",
    "left_axes",
    "load_cache",
    "load_circuit",
    "part_named",
    "pick",
    "places_of",
    "same_record",
    "save_cache",
    "save_circuit",
    "spread_over",
    "take",
    "to_json",
    "to_numpy",
    "to_sites",
    "to_xarray",
    "transformer_lens_names",
    "true_at",
]
