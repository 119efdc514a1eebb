"""One pure question per file."""

from funlens.analyses._attribution_patching import attribution_patching
from funlens.analyses._effective_attention import effective_attention
from funlens.analyses._head_scores import Role, head_scores, repeated_tokens
from funlens.analyses._integrated_gradients import Along, integrated_gradients
from funlens.analyses._linearity import linearity

__all__ = [
    "Along",
    "Role",
    "attribution_patching",
    "effective_attention",
    "head_scores",
    "integrated_gradients",
    "linearity",
    "repeated_tokens",
]
