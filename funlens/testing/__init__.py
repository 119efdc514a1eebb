"""For those who write tools of their own: tiny models, and the laws as checks."""

from funlens.errors import UnknownRecipeError
from funlens.testing._laws import Certificate, LawResult, verify
from funlens.testing._recipes import (
    CAUSAL,
    FOUNDATION,
    RECIPES,
    Recipe,
    recipe_names,
    tiny_hf_model,
    tiny_inputs,
)

__all__ = [
    "CAUSAL",
    "Certificate",
    "FOUNDATION",
    "LawResult",
    "RECIPES",
    "Recipe",
    "UnknownRecipeError",
    "recipe_names",
    "tiny_hf_model",
    "tiny_inputs",
    "verify",
]
