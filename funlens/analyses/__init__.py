"""One pure question per file."""

from funlens.analyses._edge_attribution import Along, edge_attribution
from funlens.analyses._effective_attention import effective_attention
from funlens.analyses._head_scores import Role, head_scores, repeated_tokens

__all__ = [
    "Along",
    "Role",
    "edge_attribution",
    "effective_attention",
    "head_scores",
    "repeated_tokens",
]
