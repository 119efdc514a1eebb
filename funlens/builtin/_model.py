"""The architecture, and how it is written to disk and read back."""

from pathlib import Path
from typing import Final, cast

import torch
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from funlens.builtin._tokenizer import BOS_ID, CONTEXT, EOS_ID, PAD_ID

D_MODEL: Final = 128
D_MLP: Final = 384
N_LAYERS: Final = 4
N_HEADS: Final = 4
INIT_STD: Final = 0.04


def new_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """Make the untrained model; the seed fixes its weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_MODEL,
        intermediate_size=D_MLP,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS,
        max_position_embeddings=CONTEXT,
        initializer_range=INIT_STD,
        tie_word_embeddings=False,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, folder: Path
) -> None:
    """Write weights in half precision, to be read back in single precision."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = LlamaForCausalLM(model.config)
    stored.load_state_dict(model.state_dict())
    stored.half().save_pretrained(folder)
    stored.config.dtype = torch.float32
    stored.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        max_new_tokens=32,
    ).save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def read(folder: Path) -> LlamaForCausalLM:
    """Read the saved model back, as any user of the folder does."""
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the saved tokenizer back, as any user of the folder does."""
    return cast("PreTrainedTokenizerFast", AutoTokenizer.from_pretrained(folder))
