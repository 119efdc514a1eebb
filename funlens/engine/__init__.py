"""Planning runs and carrying them out."""

from funlens.engine._check import check, shapes
from funlens.engine._generate import Generation, generate, generate_with_cache
from funlens.engine._grads import run_with_grads
from funlens.engine._hooks import from_hooks
from funlens.engine._inputs import Inputs
from funlens.engine._loss import loss, loss_per_token
from funlens.engine._metrics import log_prob_of, logit_diff
from funlens.engine._on_gradient import on_gradient
from funlens.engine._plan import EVERY, Every
from funlens.engine._run import instrumented, run, run_with_cache

__all__ = [
    "EVERY",
    "Every",
    "Generation",
    "Inputs",
    "check",
    "from_hooks",
    "generate",
    "generate_with_cache",
    "instrumented",
    "log_prob_of",
    "logit_diff",
    "loss",
    "loss_per_token",
    "on_gradient",
    "run",
    "run_with_cache",
    "run_with_grads",
    "shapes",
]
