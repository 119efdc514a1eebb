"""One pure question per file."""

from funlens.analyses._acdc import Better, acdc
from funlens.analyses._completeness import By, completeness, minimality
from funlens.analyses._edge_attribution import Along, edge_attribution
from funlens.analyses._effective_attention import effective_attention
from funlens.analyses._faithfulness import faithfulness
from funlens.analyses._head_scores import Role, head_scores, repeated_tokens

__all__ = [
    "Along",
    "Better",
    "By",
    "Role",
    "acdc",
    "completeness",
    "edge_attribution",
    "effective_attention",
    "faithfulness",
    "head_scores",
    "minimality",
    "repeated_tokens",
]
