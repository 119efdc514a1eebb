"""The recipes of models that hear."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_inputs import Drawing, Known, Marks, Noise, Text
from funlens.testing._recipes_modal_sizes import AUDIO
from funlens.testing._recipes_record import Recipe, Task, recipe

_WAVE: Final = {"input_values": Noise((100,))}
_MELS: Final = {"input_features": Noise((32, 8))}  # frames by bins
_BINS: Final = {"input_features": Noise((8, 16))}  # bins by frames
_WORDS: Final = {"decoder_input_ids": Text()}

_CONVOLVED: Final = {
    "conv_dim": (8, 16),
    "conv_kernel": (4, 3),
    "conv_stride": (4, 2),
    "num_conv_pos_embedding_groups": 2,
    "num_conv_pos_embeddings": 4,
    "num_feat_extract_layers": 2,
}


def _told(model_type: str, inputs: Mapping[str, Drawing], **settings: Any) -> Recipe:
    """Write a row of a model that writes down what it hears."""
    return recipe(
        model_type, variant="speech", task="speech", inputs=inputs, **settings
    )


def _spelled(model_type: str, inputs: Mapping[str, Drawing], **settings: Any) -> Recipe:
    return recipe(model_type, variant="ctc", task="ctc", inputs=inputs, **settings)


def _sorted(model_type: str, inputs: Mapping[str, Drawing], **settings: Any) -> Recipe:
    return recipe(
        model_type, variant="audio_classifier", task="audio-classifier", inputs=inputs, **settings
    )


_WAVES: Final = ("data2vec-audio", "hubert", "sew", "sew-d", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-conformer", "wavlm")

def _heard(tokens, inputs=_BINS):
    return {"input_ids": Text((AUDIO,) * tokens), **inputs}

_ALL: Final = {"input_features_mask": Known((1,) * 32)}
_LONG: Final = {"input_features": Noise((8, 32))}
_GRANITE = {
        "encoder_config.context_size": 4,
        "encoder_config.hidden_dim": 16,
        "encoder_config.input_dim": 8,
        "encoder_config.max_pos_emb": 8,
        "encoder_config.num_layers": 2,
        "encoder_config.output_dim": 8,
}

_CODEC = {"hidden_size": 8, "num_filters": 4, "downsampling_ratios": (2, 4), "depths": (1, 1, 1), "vae_std": 0.0, "kernel_size": 3}

SPEECH = (
    _told("canary", {**_MELS, **_WORDS}),
    _told("cohere_asr", {**_MELS, **_WORDS}),
    _told("dia", {"input_ids": Text(), "decoder_input_ids": Text(streams=3, fewer=2)}, delay_pattern=(0, 1, 2), nested={"decoder_config.num_channels": 3, "decoder_config.cross_hidden_size": 16, "decoder_config.cross_num_attention_heads": 4, "decoder_config.cross_num_key_value_heads": 2, "decoder_config.cross_head_dim": 4}),
    _told("fun_asr_nano", {**_heard(32, {"input_features": Noise((32, 56))}), **_ALL}, nested={"adaptor_config.intermediate_size": 4, "audio_config.fsmn_kernel_size": 3, "audio_config.num_timestamp_prediction_layers": 1}),
    _told("granite_speech", _heard(4, {"input_features": Noise((8, 8))}), window_size=4, downsample_rate=2, has_lora_adapter=False, nested=_GRANITE),
    _told("granite_speech_plus", _heard(4, {"input_features": Noise((8, 8))}), window_size=4, downsample_rate=2, has_lora_adapter=False, nested=_GRANITE),
    _told("kyutai_speech_to_text", {"input_ids": Text(streams=4)}, num_codebooks=3, codebook_vocab_size=32, audio_pad_token_id=AUDIO, nested={"codec_config.num_filters": 4, "codec_config.upsampling_ratios": (2,2), "codec_config.hidden_size": 16, "codec_config.codebook_size": 16, "codec_config.codebook_dim": 8,"codec_config.vector_quantization_hidden_dimension": 8, "codec_config.num_quantizers": 3, "codec_config.upsample_groups": 4}),
    _told("moonshine", {"input_values": Noise((3000,)), **_WORDS}),
    _told("moonshine_streaming", {"input_values": Noise((800,)), **_WORDS}, num_key_value_heads=4),
    _told("pop2piano", {"input_features": Noise((7, 16)), **_WORDS}),
    _told("qwen3_asr", {**_heard(13, {"input_features": Noise((8, 100))}), "input_features_mask": Known((1,) * 100)}, nested={"audio_config.output_dim": 16}, note="its encoder counts in windows of 100 frames"),
    _told("seamless_m4t", {**_MELS, **_WORDS}),
    _told("seamless_m4t_v2", {**_MELS, **_WORDS}),
    _told("speech-encoder-decoder", {**_WAVE, **_WORDS}, nested={f"encoder.{k}": v for k,v in _CONVOLVED.items()}),
    _told("speech_to_text", {**_MELS, **_WORDS}),
    _told("speecht5", {**_WAVE, **_WORDS}, **_CONVOLVED),
    _told("vibevoice", {**_heard(4, {"input_values": Noise((1, 32))}), "padding_mask": Known((1,) * 32)}, nested={f"{part}.{k}": v for part in ("audio_config","semantic_model_config") for k,v in _CODEC.items()}|{"diffusion_head_config.frequency_embedding_size": 8}),
    _told("vibevoice_asr", _heard(4, {"input_values": Noise((1, 32))}), nested={f"{part}.{k}": v for part in ("acoustic_tokenizer_encoder_config","semantic_tokenizer_encoder_config") for k,v in _CODEC.items()}),
    _told("voxtral", _heard(4, _LONG), nested={"audio_config.max_source_positions": 16, "audio_config.intermediate_size": 64}),
    _told("voxtral_realtime", {"input_ids": Text(), "input_features": Noise((8, 8), per_token=1)}, nested={"text_config.head_dim": 4}),
    _told("whisper", {**_LONG, **_WORDS}, max_source_positions=16),
)
CTC = (
    *(_spelled(n, _WAVE, **_CONVOLVED) for n in _WAVES),
    _spelled("granite_speech5_ctc", {"input_features": Noise((32, 32))}, nested={"encoder_config.context_size": 8, "encoder_config.num_key_value_heads": 4}),
    _spelled("lasr_ctc", _MELS, nested={"encoder_config.conv_kernel_size": 3}),
    _spelled("parakeet_ctc", _MELS),
    _spelled("wav2vec2-bert", _MELS),
)
AUDIO_CLASSIFIERS = (
    *(_sorted(n, _WAVE, **_CONVOLVED) for n in _WAVES),
    _sorted("audio-spectrogram-transformer", {"input_values": Noise((16, 8))}, max_length=16, patch_size=4, frequency_stride=4, time_stride=4),
    _sorted("wav2vec2-bert", _MELS),
    _sorted("whisper", {"input_features": Noise((8, 32))}, max_source_positions=16),
)
SOUND: Final = (*SPEECH, *CTC, *AUDIO_CLASSIFIERS)
