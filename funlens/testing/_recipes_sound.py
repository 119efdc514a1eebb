"""The recipes of models that hear."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_drawing import Drawing, Known, Noise, Text
from funlens.testing._recipes_modal_sizes import AUDIO
from funlens.testing._recipes_record import Recipe, recipe

WAVE: Final = {"input_values": Noise((100,))}
LONG_WAVE: Final = {"input_values": Noise((3200,))}
FRAMES: Final = {"input_features": Noise((32, 8))}  # frames by bins
BINS: Final = {"input_features": Noise((8, 32))}  # bins by frames
WORDS: Final = {"decoder_input_ids": Text()}

WHISPER: Final = {"max_source_positions": 16}

# What turns a wave into frames in wav2vec 2.0 and its kin.
CONVOLVED: Final = {
    "conv_dim": (8, 16),
    "conv_kernel": (4, 3),
    "conv_stride": (4, 2),
    "num_conv_pos_embedding_groups": 2,
    "num_conv_pos_embeddings": 4,
    "num_feat_extract_layers": 2,
}
CONVOLVED_TYPES: Final = (
    "data2vec-audio",
    "hubert",
    "sew",
    "sew-d",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-conformer",
    "wavlm",
)


def _told(model_type: str, inputs: Mapping[str, Drawing], **settings: Any) -> Recipe:
    """Write a row of a model that writes down what it hears."""
    return recipe(
        model_type, variant="speech", task="speech", inputs=inputs, **settings
    )


def _spelled(model_type: str, inputs: Mapping[str, Drawing], **settings: Any) -> Recipe:
    """Write a row of a model that gives a letter, or none, for each frame."""
    return recipe(model_type, variant="ctc", task="ctc", inputs=inputs, **settings)


def _sorted(model_type: str, inputs: Mapping[str, Drawing], **settings: Any) -> Recipe:
    """Write a row of a model that names the kind of what it hears."""
    return recipe(
        model_type,
        variant="audio_classifier",
        task="audio-classifier",
        inputs=inputs,
        **settings,
    )


def _amid(
    tokens: int, sound: Mapping[str, Drawing], frames: int | None = None
) -> dict[str, Drawing]:
    """Put so many placeholders into the text, and a mask over frames of sound."""
    mask = {} if frames is None else {"input_features_mask": Known((1,) * frames)}
    return {"input_ids": Text((AUDIO,) * tokens), **sound, **mask}


_PREFIXED_GRANITE: Final = {
    "encoder_config.context_size": 4,
    "encoder_config.hidden_dim": 16,
    "encoder_config.input_dim": 8,
    "encoder_config.max_pos_emb": 8,
    "encoder_config.num_layers": 2,
    "encoder_config.output_dim": 8,
}


def _vibevoice(*parts: str) -> dict[str, object]:
    """Write the settings of parts that turn a wave into latents."""
    settings = {
        "depths": (1, 1, 1),
        "downsampling_ratios": (2, 4),
        "hidden_size": 8,
        "kernel_size": 3,
        "num_filters": 4,
        "vae_std": 0.0,
    }
    return {f"{part}.{key}": value for part in parts for key, value in settings.items()}


_NO_NOISE: Final = "without the noise that it adds even in evaluation"

# An encoder hears, and a decoder writes.
_ENCODED: Final = (
    *(
        _told(name, {**FRAMES, **WORDS})
        for name in (
            "canary",
            "cohere_asr",
            "seamless_m4t",
            "seamless_m4t_v2",
            "speech_to_text",
        )
    ),
    _told("moonshine", {**LONG_WAVE, **WORDS}),
    _told("moonshine_streaming", {**LONG_WAVE, **WORDS}, num_key_value_heads=4),
    _told("pop2piano", {"input_features": Noise((9, 16)), **WORDS}),
    _told(
        "speech-encoder-decoder",
        {**WAVE, **WORDS},
        nested={f"encoder.{key}": value for key, value in CONVOLVED.items()},
    ),
    _told("speecht5", {**WAVE, **WORDS}, nested=CONVOLVED),
    _told("whisper", {**BINS, **WORDS}, nested=WHISPER),
    _told(
        "dia",
        {"input_ids": Text(), "decoder_input_ids": Text(fewer=2, streams=3)},
        delay_pattern=(0, 1, 2),
        nested={
            "decoder_config.cross_head_dim": 4,
            "decoder_config.cross_hidden_size": 16,
            "decoder_config.cross_num_attention_heads": 4,
            "decoder_config.cross_num_key_value_heads": 2,
            "decoder_config.num_channels": 3,
        },
        note="it speaks: reads text, and writes three streams of sound",
    ),
)

# Sound stands among the words.
_AMID: Final = (
    _told(
        "fun_asr_nano",
        _amid(32, {"input_features": Noise((32, 56))}, frames=32),
        nested={
            "adaptor_config.intermediate_size": 4,
            "audio_config.fsmn_kernel_size": 3,
            "audio_config.num_timestamp_prediction_layers": 1,
        },
    ),
    *(
        _told(
            name,
            _amid(4, {"input_features": Noise((8, 8))}),
            downsample_rate=2,
            has_lora_adapter=False,
            window_size=4,
            nested=_PREFIXED_GRANITE,
        )
        for name in ("granite_speech", "granite_speech_plus")
    ),
    _told(
        "kyutai_speech_to_text",
        {"input_ids": Text(streams=4)},
        audio_pad_token_id=AUDIO,
        codebook_vocab_size=32,
        num_codebooks=3,
        nested={
            "codec_config.codebook_dim": 8,
            "codec_config.codebook_size": 16,
            "codec_config.num_filters": 4,
            "codec_config.num_quantizers": 3,
            "codec_config.upsample_groups": 4,
            "codec_config.upsampling_ratios": (2, 2),
            "codec_config.vector_quantization_hidden_dimension": 8,
        },
        note="a word and three codes of sound at each position",
    ),
    _told(
        "qwen3_asr",
        _amid(13, {"input_features": Noise((8, 100))}, frames=100),
        nested={"audio_config.output_dim": 16},
        note="its encoder counts in windows of 100 frames",
    ),
    _told(
        "vibevoice",
        {
            **_amid(4, {"input_values": Noise((1, 32))}),
            "padding_mask": Known((1,) * 32),
        },
        nested={
            **_vibevoice("audio_config", "semantic_model_config"),
            "diffusion_head_config.frequency_embedding_size": 8,
        },
        note=_NO_NOISE,
    ),
    _told(
        "vibevoice_asr",
        _amid(4, {"input_values": Noise((1, 32))}),
        nested=_vibevoice(
            "acoustic_tokenizer_encoder_config", "semantic_tokenizer_encoder_config"
        ),
        note=_NO_NOISE,
    ),
    _told(
        "voxtral",
        _amid(4, BINS),
        nested={
            "audio_config.intermediate_size": 64,
            "audio_config.max_source_positions": 16,
        },
    ),
    _told(
        "voxtral_realtime",
        {"input_ids": Text(), "input_features": Noise((8, 8), per_token=1)},
        nested={"text_config.head_dim": 4},
        note="the sound of a moment is added to the word of that moment",
    ),
)

_SPELLED: Final = (
    *(_spelled(name, WAVE, nested=CONVOLVED) for name in CONVOLVED_TYPES),
    _spelled(
        "granite_speech5_ctc",
        {"input_features": Noise((32, 32))},
        nested={
            "encoder_config.context_size": 8,
            "encoder_config.num_key_value_heads": 4,
        },
    ),
    _spelled("lasr_ctc", FRAMES, nested={"encoder_config.conv_kernel_size": 3}),
    _spelled("parakeet_ctc", FRAMES),
    _spelled("wav2vec2-bert", FRAMES),
)

_AST: Final = {
    "frequency_stride": 4,
    "max_length": 16,
    "patch_size": 4,
    "time_stride": 4,
}
_AST_FRAMES: Final = {"input_values": Noise((16, 8))}

SORTED: Final = (
    *(_sorted(name, WAVE, nested=CONVOLVED) for name in CONVOLVED_TYPES),
    _sorted("audio-spectrogram-transformer", _AST_FRAMES, nested=_AST),
    _sorted("wav2vec2-bert", FRAMES),
    _sorted("whisper", BINS, nested=WHISPER),
)

SOUND: Final[tuple[Recipe, ...]] = (*_ENCODED, *_AMID, *_SPELLED, *SORTED)
