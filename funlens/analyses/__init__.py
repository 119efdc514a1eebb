"""One pure question per file."""

from funlens.analyses._head_scores import Role, head_scores, repeated_tokens

__all__ = [
    "Role",
    "head_scores",
    "repeated_tokens",
]
