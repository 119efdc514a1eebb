"""What loading and tokens give, pinned; checked by pyright, not run."""

from typing import assert_type

from torch import Tensor

import funlens as fl

spec = fl.load("builtin:tiny")

assert_type(spec, fl.ModelSpec)
assert_type(fl.checkpoints("EleutherAI/pythia-70m"), tuple[fl.Checkpoint, ...])
assert_type(fl.to_tokens(spec, "Mary"), Tensor)
assert_type(fl.to_chat_tokens(spec, [{"role": "user", "content": "Mary"}]), Tensor)
assert_type(fl.to_str_tokens(spec, "Mary"), tuple[str, ...])
assert_type(fl.to_single_token(spec, " Mary"), int)
