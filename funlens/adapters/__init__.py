"""The HuggingFace boundary: tables of architectures, loading, tokens."""

from funlens.adapters._active import ACTIVE, Active, Point, Seen
from funlens.adapters._chat import to_chat_tokens
from funlens.adapters._checkpoints import checkpoints
from funlens.adapters._circuits import OV, QK
from funlens.adapters._collectives import is_part
from funlens.adapters._corpus import tokenize_and_concatenate
from funlens.adapters._decoding import to_str_tokens, to_string, to_strings
from funlens.adapters._directions import tokens_to_directions
from funlens.adapters._draft import Draft
from funlens.adapters._encoding import Encoded, encode, to_single_token, to_tokens
from funlens.adapters._families import ARCHITECTURES
from funlens.adapters._frames import frame_counts
from funlens.adapters._generation import generation_options, versions
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Front,
    Fused,
    Gate,
    Mixer,
    Mlp,
    Path,
    Rounds,
    Stack,
    Step,
)
from funlens.adapters._load import load
from funlens.adapters._load_config import ContextLengthWarning
from funlens.adapters._machinery import Machinery
from funlens.adapters._matrices import acting_bias
from funlens.adapters._norms import NormForm, form_of
from funlens.adapters._offload import is_offloaded
from funlens.adapters._outputs import Head, output_of, with_output
from funlens.adapters._padding import padding_mask
from funlens.adapters._positions import token_position
from funlens.adapters._prefix import Prefix, recorded, recording
from funlens.adapters._recorded import value_weights
from funlens.adapters._registry import described, from_module, replaced, sites
from funlens.adapters._stream import (
    Matrix,
    StreamNorm,
    StreamWriter,
    bare_readers,
    matrix_at,
    processed,
    refusal,
    stream_norms,
    stream_writers,
)
from funlens.adapters._support import supported
from funlens.adapters._taps import Binder, Tap
from funlens.adapters._toy import ToyConfig, toy, toy_module
from funlens.adapters._tracr import from_tracr, tracr_outputs
from funlens.adapters._transforms import (
    active_transforms,
    is_differentiating,
    is_forward_mode,
    is_functional,
)
from funlens.adapters._tree import Sizes, find
from funlens.adapters._views import (
    AsIs,
    BeforeSink,
    EveryRow,
    Half,
    HeadPart,
    Heads,
    Scaled,
    Slots,
    Square,
    Swapped,
    Tokens,
    Whole,
    head_results,
    input_by_output,
    norm_scale,
    unless_same,
    with_scale,
)
from funlens.adapters._weight_edits import (
    add_low_rank,
    exchanged,
    interpolate,
    weights_of,
    with_weights,
)
from funlens.adapters._weights import (
    W_E,
    W_K,
    W_O,
    W_Q,
    W_U,
    W_V,
    W_E_pos,
    W_gate,
    W_in,
    W_out,
    W_pos,
    b_gate,
    b_in,
    b_K,
    b_O,
    b_out,
    b_Q,
    b_U,
    b_V,
)

__all__ = [
    "ACTIVE",
    "ARCHITECTURES",
    "Active",
    "Architecture",
    "AsIs",
    "Attention",
    "BeforeSink",
    "Binder",
    "Block",
    "ContextLengthWarning",
    "Draft",
    "Encoded",
    "EveryRow",
    "Experts",
    "Front",
    "Fused",
    "Gate",
    "Half",
    "Head",
    "HeadPart",
    "Heads",
    "Machinery",
    "Matrix",
    "Mixer",
    "Mlp",
    "NormForm",
    "OV",
    "Path",
    "Point",
    "Prefix",
    "QK",
    "Rounds",
    "Scaled",
    "Seen",
    "Sizes",
    "Slots",
    "Square",
    "Stack",
    "Step",
    "StreamNorm",
    "StreamWriter",
    "Swapped",
    "Tap",
    "Tokens",
    "ToyConfig",
    "W_E",
    "W_E_pos",
    "W_K",
    "W_O",
    "W_Q",
    "W_U",
    "W_V",
    "W_gate",
    "W_in",
    "W_out",
    "W_pos",
    "Whole",
    "acting_bias",
    "active_transforms",
    "add_low_rank",
    "b_K",
    "b_O",
    "b_Q",
    "b_U",
    "b_V",
    "b_gate",
    "b_in",
    "b_out",
    "bare_readers",
    "checkpoints",
    "described",
    "encode",
    "exchanged",
    "find",
    "form_of",
    "frame_counts",
    "from_module",
    "from_tracr",
    "generation_options",
    "head_results",
    "input_by_output",
    "interpolate",
    "is_differentiating",
    "is_forward_mode",
    "is_functional",
    "is_offloaded",
    "is_part",
    "load",
    "matrix_at",
    "norm_scale",
    "output_of",
    "padding_mask",
    "processed",
    "recorded",
    "recording",
    "refusal",
    "replaced",
    "sites",
    "stream_norms",
    "stream_writers",
    "supported",
    "to_chat_tokens",
    "to_single_token",
    "to_str_tokens",
    "to_string",
    "to_strings",
    "to_tokens",
    "token_position",
    "tokenize_and_concatenate",
    "tokens_to_directions",
    "toy",
    "toy_module",
    "tracr_outputs",
    "unless_same",
    "value_weights",
    "versions",
    "weights_of",
    "with_output",
    "with_scale",
    "with_weights",
]
