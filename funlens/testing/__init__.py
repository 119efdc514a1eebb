"""For those who write tools of their own: tiny models, and the laws as checks."""

from funlens.testing._laws import Certificate, LawResult, verify
from funlens.testing._recipes import (
    CAUSAL,
    FOUNDATION,
    RECIPES,
    Recipe,
    UnknownRecipeError,
    recipe_names,
    tiny_hf_model,
    tiny_inputs,
)
from funlens.testing._strategies import (
    intervention_strategy,
    interventions_strategy,
    selection_strategy,
    site_strategy,
)

__all__ = [
    "CAUSAL",
    "Certificate",
    "FOUNDATION",
    "LawResult",
    "RECIPES",
    "Recipe",
    "UnknownRecipeError",
    "intervention_strategy",
    "interventions_strategy",
    "recipe_names",
    "selection_strategy",
    "site_strategy",
    "tiny_hf_model",
    "tiny_inputs",
    "verify",
]
