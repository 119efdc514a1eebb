"""For those who write tools of their own: tiny models, and the laws as checks."""

from funlens.errors import UnknownRecipeError
from funlens.testing._infer import infer
from funlens.testing._laws import Certificate, LawResult, verify
from funlens.testing._recipes import (
    CAUSAL,
    FOUNDATION,
    MASKED,
    RECIPES,
    SEQ2SEQ,
    Recipe,
    head_recipes,
    recipe_names,
    tiny_hf_model,
    tiny_inputs,
)
from funlens.testing._recipes_drawing import (
    Known,
    Marks,
    Noise,
    PerToken,
    Placed,
    Text,
)
from funlens.testing._recipes_heads import variants_of
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
    "Known",
    "LawResult",
    "MASKED",
    "Marks",
    "Noise",
    "PerToken",
    "Placed",
    "RECIPES",
    "Recipe",
    "SEQ2SEQ",
    "Text",
    "UnknownRecipeError",
    "head_recipes",
    "infer",
    "intervention_strategy",
    "interventions_strategy",
    "recipe_names",
    "selection_strategy",
    "site_strategy",
    "tiny_hf_model",
    "tiny_inputs",
    "variants_of",
    "verify",
]
