"""The heads that are listed, and transformers' own list of model types for each."""

from collections.abc import Mapping
from typing import Final

from transformers.models.auto import modeling_auto as auto

_LISTS: Final[Mapping[str, str]] = {
    "causal-lm": "CAUSAL_LM",
    "masked-lm": "MASKED_LM",
    "seq2seq-lm": "SEQ_TO_SEQ_CAUSAL_LM",
    "image-text": "IMAGE_TEXT_TO_TEXT",
    "speech": "SPEECH_SEQ_2_SEQ",
    "ctc": "CTC",
    "audio-classifier": "AUDIO_CLASSIFICATION",
    "image-classifier": "IMAGE_CLASSIFICATION",
    "token-classification": "TOKEN_CLASSIFICATION",
    "sequence-classification": "SEQUENCE_CLASSIFICATION",
}
TITLES: Final[Mapping[str, str]] = {
    "causal-lm": "Causal language models",
    "masked-lm": "Masked language models",
    "seq2seq-lm": "Sequence-to-sequence models",
    "image-text": "Pictures and text to text",
    "speech": "Speech to text",
    "ctc": "Connectionist temporal classification",
    "audio-classifier": "Audio classifiers",
    "image-classifier": "Image classifiers",
    "token-classification": "Token classifiers",
    "sequence-classification": "Sequence classifiers",
    "base": "Base models without a head",
}


def types_of(task: str) -> frozenset[str]:
    """List the model types that transformers has for a task; all of them for `base`."""
    name = f"FOR_{_LISTS[task]}_MAPPING" if task in _LISTS else "MAPPING"
    return frozenset(getattr(auto, f"MODEL_{name}_NAMES"))
