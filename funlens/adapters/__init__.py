"""The HuggingFace boundary: tables of architectures, loading, tokens."""

from funlens.adapters._generation import generation_options, versions
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Fused,
    Mlp,
    NormKind,
    Stack,
    StateSpace,
)
from funlens.adapters._load import ContextLengthWarning, load
from funlens.adapters._machinery import Machinery
from funlens.adapters._registry import from_module, replaced, sites, supported
from funlens.adapters._skeleton import ACTIVE, Active, Point, Seen
from funlens.adapters._taps import Sizes, Tap, find
from funlens.adapters._tokens import (
    padding_mask,
    to_single_token,
    to_str_tokens,
    to_string,
    to_strings,
    to_tokens,
    token_position,
    tokenize_and_concatenate,
    tokens_to_directions,
)
from funlens.adapters._views import (
    head_results,
    input_by_output,
    norm_scale,
    unless_same,
    with_scale,
)

__all__ = [
    "ACTIVE",
    "Active",
    "Architecture",
    "Attention",
    "Block",
    "ContextLengthWarning",
    "Experts",
    "Fused",
    "Machinery",
    "Mlp",
    "NormKind",
    "Point",
    "Seen",
    "Sizes",
    "Stack",
    "StateSpace",
    "Tap",
    "find",
    "from_module",
    "generation_options",
    "head_results",
    "input_by_output",
    "load",
    "norm_scale",
    "padding_mask",
    "replaced",
    "sites",
    "supported",
    "to_single_token",
    "to_str_tokens",
    "to_string",
    "to_strings",
    "to_tokens",
    "token_position",
    "tokenize_and_concatenate",
    "tokens_to_directions",
    "unless_same",
    "versions",
    "with_scale",
]
