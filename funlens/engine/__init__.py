"""Planning runs and carrying them out."""

from funlens.engine._center_unembed import center_unembed
from funlens.engine._center_writing_weights import center_writing_weights
from funlens.engine._check import check
from funlens.engine._circuit_runs import (
    circuit_edits,
)
from funlens.engine._compiled import Compiled, compiled
from funlens.engine._dry import dry_run
from funlens.engine._fold_layer_norm import fold_layer_norm
from funlens.engine._fold_value_biases import fold_value_biases
from funlens.engine._generate import Generation, generate, generate_with_cache
from funlens.engine._grads import run_with_grads
from funlens.engine._hooks import from_hooks
from funlens.engine._inputs import Inputs
from funlens.engine._kept import KEPT
from funlens.engine._loss import loss, loss_per_token
from funlens.engine._metrics import (
    Metric,
    MetricLike,
    kl_divergence,
    log_prob_of,
    logit_diff,
    prob_of,
    rank_of,
    reads,
)
from funlens.engine._paths import Along
from funlens.engine._plan import EVERY, Every, captured_sites
from funlens.engine._refactor_factored_attention import refactor_factored_attention
from funlens.engine._rewired import SourceLike, graph, writes
from funlens.engine._run import instrumented, run, run_with_cache
from funlens.engine._seeds import Seed, generator_of
from funlens.engine._sources import check_source
from funlens.engine._statistics import (
    Correction,
    bootstrap_interval,
    corrected_p_values,
    sign_flip_test,
)
from funlens.engine._sweep import Metrics, SweepOptions, SweepWarning, plan_sweep, sweep
from funlens.engine._sweep_plan import Group, SweepPlan

__all__ = [
    "Along",
    "Compiled",
    "Correction",
    "EVERY",
    "Every",
    "Generation",
    "Group",
    "Inputs",
    "KEPT",
    "Metric",
    "MetricLike",
    "Metrics",
    "Seed",
    "SourceLike",
    "SweepOptions",
    "SweepPlan",
    "SweepWarning",
    "bootstrap_interval",
    "captured_sites",
    "center_unembed",
    "center_writing_weights",
    "check",
    "check_source",
    "circuit_edits",
    "compiled",
    "corrected_p_values",
    "dry_run",
    "fold_layer_norm",
    "fold_value_biases",
    "from_hooks",
    "generate",
    "generate_with_cache",
    "generator_of",
    "graph",
    "instrumented",
    "kl_divergence",
    "log_prob_of",
    "logit_diff",
    "loss",
    "loss_per_token",
    "plan_sweep",
    "prob_of",
    "rank_of",
    "reads",
    "refactor_factored_attention",
    "run",
    "run_with_cache",
    "run_with_grads",
    "sign_flip_test",
    "sweep",
    "writes",
]
