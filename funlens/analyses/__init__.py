"""One pure question per file."""

from funlens.analyses._ablations import (
    AblationOptions,
    mean_ablation,
    resample_ablation,
    zero_ablation,
)
from funlens.analyses._acdc import Better, acdc
from funlens.analyses._attribution_patching import attribution_patching
from funlens.analyses._completeness import By, completeness, minimality
from funlens.analyses._edge_attribution import edge_attribution
from funlens.analyses._effective_attention import effective_attention
from funlens.analyses._faithfulness import faithfulness
from funlens.analyses._head_scores import Role, head_scores, repeated_tokens
from funlens.analyses._integrated_gradients import integrated_gradients
from funlens.analyses._linearity import linearity
from funlens.analyses._mean_activations import mean_activations
from funlens.analyses._patching import (
    patch_all_heads,
    patch_all_heads_by_pos,
    patch_attn_out,
    patch_blocks,
    patch_heads,
    patch_heads_by_pos,
    patch_mlp_out,
    patch_patterns,
    patch_patterns_by_query,
    patch_patterns_by_query_key,
    patch_resid_mid,
    patch_resid_post,
    patch_resid_pre,
)
from funlens.analyses._path_patching import Norms, path_patching
from funlens.analyses._scrub import Labels, Scrubbed, scrub
from funlens.analyses._summarize import Normalized, Summary, summarize

__all__ = [
    "AblationOptions",
    "Better",
    "By",
    "Labels",
    "Normalized",
    "Norms",
    "Role",
    "Scrubbed",
    "Summary",
    "acdc",
    "attribution_patching",
    "completeness",
    "edge_attribution",
    "effective_attention",
    "faithfulness",
    "head_scores",
    "integrated_gradients",
    "linearity",
    "mean_ablation",
    "mean_activations",
    "minimality",
    "patch_all_heads",
    "patch_all_heads_by_pos",
    "patch_attn_out",
    "patch_blocks",
    "patch_heads",
    "patch_heads_by_pos",
    "patch_mlp_out",
    "patch_patterns",
    "patch_patterns_by_query",
    "patch_patterns_by_query_key",
    "patch_resid_mid",
    "patch_resid_post",
    "patch_resid_pre",
    "path_patching",
    "repeated_tokens",
    "resample_ablation",
    "scrub",
    "summarize",
    "zero_ablation",
]
