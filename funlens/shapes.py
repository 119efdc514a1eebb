"""Axis words and the tensor aliases made of them.

`batch` examples · `pos` token position · `query`, `key` positions of attention ·
`head` query heads · `kv_head` key and value heads · `d_model` residual width ·
`stream` streams of a model that carries several ·
`d_head` · `d_mlp` · `vocab` · `layer` blocks · `expert` · `choice` chosen experts ·
`group` heads that share the keys of a recurrence · `d_key`, `d_value` axes of its
state · `d_decay` one, or as `d_key` · `d_conv` channels of a convolution ·
`one` an axis of size one · `row`, `mid`, `column`, `rank` axes of a factored matrix.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Logits", "Mask", "Pattern", "Residual", "Tokens"]

Tokens = Int[Tensor, "batch pos"]
Mask = Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"]
Residual = Float[Tensor, "batch pos d_model"]
Pattern = Float[Tensor, "batch head query key"]
Logits = Float[Tensor, "batch pos vocab"]
