"""Weights, circuits and processing, pinned; checked by pyright, not run."""

from typing import assert_type

from toolz import pipe
from torch import Tensor

import funlens as fl

spec = fl.load("builtin:tiny")
assert_type(fl.W_Q(spec), Tensor)
assert_type(fl.W_in(spec, 3), Tensor)
assert_type(fl.QK(spec), fl.FactoredMatrix)
assert_type(fl.OV(spec)[0, 1] @ fl.OV(spec)[1, 0], fl.FactoredMatrix)
assert_type(fl.OV(spec).T.AB, Tensor)
assert_type(fl.OV(spec).svd().S, Tensor)
assert_type(fl.with_weights(spec, {"a": fl.W_E(spec)}), fl.ModelSpec)
assert_type(fl.add_low_rank(spec, {"a": fl.QK(spec, 0)}), fl.ModelSpec)
assert_type(fl.interpolate(spec, spec, 0.5), fl.ModelSpec)
assert_type(
    pipe(
        spec,
        fl.fold_layer_norm,
        fl.center_writing_weights,
        fl.center_unembed,
        fl.fold_value_biases,
        fl.refactor_factored_attention,
    ),
    fl.ModelSpec,
)
