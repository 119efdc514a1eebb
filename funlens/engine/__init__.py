"""Planning runs and carrying them out."""

from funlens.engine._center_unembed import center_unembed
from funlens.engine._center_writing_weights import center_writing_weights
from funlens.engine._check import check
from funlens.engine._circuit_runs import (
    CircuitRuns,
    checked_circuits,
    circuit_edits,
    circuit_runs,
)
from funlens.engine._dry import dry_run
from funlens.engine._edge_gradients import edge_products
from funlens.engine._fold_layer_norm import fold_layer_norm
from funlens.engine._fold_value_biases import fold_value_biases
from funlens.engine._generate import Generation, generate, generate_with_cache
from funlens.engine._grads import run_with_grads
from funlens.engine._hooks import from_hooks
from funlens.engine._inputs import Inputs, Prepared, prepare
from funlens.engine._kept import KEPT
from funlens.engine._loss import loss, loss_per_token
from funlens.engine._measure import MetricLike, metric_of
from funlens.engine._metrics import (
    Metric,
    kl_divergence,
    log_prob_of,
    logit_diff,
    prob_of,
    rank_of,
    reads,
)
from funlens.engine._plan import EVERY, Every
from funlens.engine._refactor_factored_attention import refactor_factored_attention
from funlens.engine._rewired import (
    SourceLike,
    graph,
    source_values,
    wiring_of,
    writes,
)
from funlens.engine._run import instrumented, run, run_with_cache
from funlens.engine._sweep import SweepWarning, plan_sweep, sweep
from funlens.engine._sweep_plan import Group, SweepPlan
from funlens.engine._wiring import Reader, Values, Wiring, Writer

__all__ = [
    "CircuitRuns",
    "EVERY",
    "Every",
    "Generation",
    "Group",
    "Inputs",
    "KEPT",
    "Metric",
    "MetricLike",
    "Prepared",
    "Reader",
    "SourceLike",
    "SweepPlan",
    "SweepWarning",
    "Values",
    "Wiring",
    "Writer",
    "center_unembed",
    "center_writing_weights",
    "check",
    "checked_circuits",
    "circuit_edits",
    "circuit_runs",
    "dry_run",
    "edge_products",
    "fold_layer_norm",
    "fold_value_biases",
    "from_hooks",
    "generate",
    "generate_with_cache",
    "graph",
    "instrumented",
    "kl_divergence",
    "log_prob_of",
    "logit_diff",
    "loss",
    "loss_per_token",
    "metric_of",
    "plan_sweep",
    "prepare",
    "prob_of",
    "rank_of",
    "reads",
    "refactor_factored_attention",
    "run",
    "run_with_cache",
    "run_with_grads",
    "source_values",
    "sweep",
    "wiring_of",
    "writes",
]
