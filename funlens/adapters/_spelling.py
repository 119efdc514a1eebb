"""The common spelling: names that many families share for one thing.

Of several alternatives the first that a module has counts.
"""

from typing import Final

BLOCKS: Final = (
    "layers",
    "h",
    "blocks",
    "block",
    "layer",
    "language_model.layers",
    "text_model.layers",
    "language_model.model.layers",
    "decoder.layers",
    "decoder.block",
    "encoder.layers",
    "encoder.layer",
    "encoder.block",
    "model.layers",
)
LN_FINAL: Final = (
    "norm",
    "ln_f",
    "final_layernorm",
    "final_layer_norm",
    "norm_f",
    "embedding_norm",
    "final_norm",
    "ln_out",
    "out_norm",
    "model.norm",
    "language_model.norm",
    "language_model.model.norm",
    "language_model.norm_f",
    "language_model.final_layernorm",
    "text_model.norm",
    "text_model.final_norm",
)

QUERY: Final = ("q_proj", "query", "q", "q_lin", "q_b_proj", "Wq", "query_proj")
KEY: Final = ("k_proj", "key", "k", "k_lin", "Wk", "key_proj")
VALUE: Final = ("v_proj", "value", "v", "v_lin", "Wv", "value_proj")
OUT: Final = (
    "o_proj",
    "out_proj",
    "dense",
    "c_proj",
    "proj",
    "Wo",
    "o",
    "out_lin",
    "linear_out",
    "projection_layer",
)

GATE: Final = ("gate_proj", "wi_0", "w1", "proj_up_gate")
UP: Final = (
    "up_proj",
    "fc1",
    "c_fc",
    "dense_h_to_4h",
    "fc_in",
    "wi_1",
    "wi",
    "w3",
    "lin1",
    "linear_1",
    "proj_up",
)
GATE_UP: Final = ("gate_up_proj", "Wi", "input_linear")
DOWN: Final = (
    "down_proj",
    "fc2",
    "c_proj",
    "dense_4h_to_h",
    "fc_out",
    "wo",
    "w2",
    "lin2",
    "linear_2",
    "proj_down",
    "Wo",
    "output_linear",
)

ROUTER: Final = ("gate", "router")
EXPERTS: Final = ("experts",)
SHARED: Final = ("shared_experts", "shared_expert", "shared_mlp")
SHARED_GATE: Final = ("shared_expert_gate",)
