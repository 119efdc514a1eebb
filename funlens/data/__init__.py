"""Frozen records: sites, interventions, caches, specs."""

import funlens.data._pytree  # noqa: F401 -- registers the records  # pyright: ignore[reportUnusedImport] (as for ruff)
from funlens.data._cache import ActivationCache, Receipt, Run, RunWithGrads
from funlens.data._factored import FactoredMatrix, Svd
from funlens.data._files import load_cache, save_cache, to_numpy, to_xarray
from funlens.data._interventions import (
    DECIDING,
    Add,
    Apply,
    Clamp,
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
from funlens.data._json import (
    Record,
    content_hash,
    from_json,
    same_record,
    to_json,
)
from funlens.data._parts import AXES, LAYER_PARTS, MODEL_PARTS, axes_of, axis_of
from funlens.data._pick import POSITION_WORDS, columns, drops_axis, pick, take
from funlens.data._selections import Generated, PerRow, Selection, Span, generated
from funlens.data._sites import Part, Site, SiteLike, to_sites
from funlens.data._spec import BosPolicy, ModelSpec, SiteInfo

__all__ = [
    "AXES",
    "ActivationCache",
    "Add",
    "Apply",
    "BosPolicy",
    "Clamp",
    "DECIDING",
    "FactoredMatrix",
    "Freeze",
    "Generated",
    "Interchange",
    "Intervention",
    "LAYER_PARTS",
    "MODEL_PARTS",
    "Mean",
    "ModelSpec",
    "Noise",
    "POSITION_WORDS",
    "Part",
    "Patch",
    "PerRow",
    "Project",
    "ProjectOut",
    "Receipt",
    "Record",
    "Run",
    "RunWithGrads",
    "Scale",
    "Selection",
    "Set",
    "Site",
    "SiteInfo",
    "SiteLike",
    "Span",
    "Splice",
    "Svd",
    "Zero",
    "axes_of",
    "axis_of",
    "columns",
    "content_hash",
    "drops_axis",
    "from_json",
    "generated",
    "load_cache",
    "pick",
    "same_record",
    "save_cache",
    "take",
    "to_json",
    "to_numpy",
    "to_sites",
    "to_xarray",
]
