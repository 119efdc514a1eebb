"""The recipes of the other sequence-to-sequence language models in transformers."""

from typing import Final

from funlens.testing._recipes_record import Recipe
from funlens.testing._recipes_record import recipe as _recipe

_SLIDING_FULL: Final = ("sliding_attention", "full_attention")

# The shared settings are enough, and a causal model has the plain name already.
_PLAIN_TWINS: Final = (
    "bart",
    "blenderbot",
    "blenderbot-small",
    "marian",
    "mbart",
    "moss_transcribe_diarize",
    "mvp",
    "pegasus",
    "plbart",
)

# The shared settings are enough.
_PLAIN: Final = ("encoder-decoder", "m2m_100")

_TEXT: Final = (
    _recipe(
        "bigbird_pegasus",
        variant="seq2seq",
        task="seq2seq-lm",
        attention_type="original_full",
    ),
    _recipe("fsmt", task="seq2seq-lm", src_vocab_size=40),
    _recipe(
        "led",
        task="seq2seq-lm",
        attention_window=(4, 8),
        extra=("global_attention_mask",),
        max_decoder_position_embeddings=64,
        max_encoder_position_embeddings=64,
    ),
    _recipe("longt5", task="seq2seq-lm", local_radius=2, num_decoder_layers=3),
    _recipe(
        "longt5",
        variant="transient_global",
        task="seq2seq-lm",
        encoder_attention_type="transient-global",
        feed_forward_proj="gated-gelu",
        global_block_size=2,
        local_radius=2,
    ),
    _recipe("mt5", task="seq2seq-lm", num_decoder_layers=3),
    _recipe(
        "nllb-moe",
        task="seq2seq-lm",
        decoder_sparse_step=2,
        encoder_sparse_step=2,
        note="the second layer of each stack has experts",
    ),
    _recipe(
        "pegasus_x",
        task="seq2seq-lm",
        block_size=4,
        note="two global tokens beside the text; every other layer's blocks shift",
        num_global_tokens=2,
    ),
    _recipe(
        "prophetnet",
        variant="seq2seq",
        task="seq2seq-lm",
        num_buckets=8,
        num_decoder_attention_heads=4,
        note="its cache has as many layers as its encoder",
        num_decoder_layers=2,
        num_encoder_layers=2,
        relative_max_distance=16,
    ),
    _recipe(
        "switch_transformers",
        task="seq2seq-lm",
        d_kv=4,
        num_decoder_layers=2,
        num_sparse_decoder_layers=1,
        num_sparse_encoder_layers=1,
    ),
    _recipe("t5gemma", task="seq2seq-lm", nested={"decoder.num_hidden_layers": 3}),
    _recipe(
        "t5gemma2",
        task="seq2seq-lm",
        nested={
            "decoder.layer_types": _SLIDING_FULL,
            "encoder.text_config.layer_types": _SLIDING_FULL,
        },
    ),
    _recipe("umt5", task="seq2seq-lm", num_decoder_layers=3),
)

_GRANITE_SPEECH: Final = {
    "encoder_config.context_size": 8,
    "encoder_config.max_pos_emb": 16,
    "projector_config.encoder_hidden_size": 16,
}

_SEAMLESS: Final = {
    "encoder_attention_heads": 4,
    "encoder_layers": 2,
    "feature_projection_input_dim": 16,
    "lang_embed_dim": 8,
    "num_conv_pos_embedding_groups": 4,
    "num_conv_pos_embeddings": 8,
    "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 32,
    "speech_encoder_layers": 2,
    "spkr_embed_dim": 8,
    "t2u_decoder_attention_heads": 4,
    "t2u_decoder_ffn_dim": 32,
    "t2u_decoder_layers": 2,
    "t2u_encoder_attention_heads": 4,
    "t2u_encoder_ffn_dim": 32,
    "t2u_encoder_layers": 2,
    "t2u_max_position_embeddings": 64,
    "t2u_vocab_size": 32,
    "unit_embed_dim": 16,
    "unit_hifi_gan_vocab_size": 32,
    "upsample_initial_channel": 32,
    "vocoder_num_langs": 4,
    "vocoder_num_spkrs": 4,
}

_VIBEVOICE: Final = {
    "depths": (1, 1, 1),
    "downsampling_ratios": (2, 2),
    "num_filters": 4,
}

# Decoders only, that hear; these run on the text alone.
_SPEECH: Final = (
    _recipe("audioflamingo3", task="seq2seq-lm"),
    _recipe("glmasr", task="seq2seq-lm"),
    _recipe("granite_speech", task="seq2seq-lm", nested=_GRANITE_SPEECH),
    _recipe("granite_speech_plus", task="seq2seq-lm", nested=_GRANITE_SPEECH),
    _recipe(
        "musicflamingo",
        task="seq2seq-lm",
        nested={"audio_config.model_type": "audioflamingo3_encoder"},
    ),
    _recipe(
        "nemo_speechlm",
        task="seq2seq-lm",
        nested={
            "audio_config.diarization_config.head_config.audio_hidden_size": 16,
            "text_config.hybrid_override_pattern": "M*E",
            "text_config.moe_shared_expert_intermediate_size": 24,
            "word_timestamp_config.blank_token_id": 31,
        },
    ),
    _recipe("qwen2_audio", task="seq2seq-lm"),
    _recipe(
        "qwen3_asr",
        task="seq2seq-lm",
        nested={
            "audio_config.downsample_hidden_size": 8,
            "audio_config.output_dim": 16,
        },
    ),
    _recipe("seamless_m4t", task="seq2seq-lm", nested=_SEAMLESS),
    _recipe(
        "seamless_m4t_v2",
        task="seq2seq-lm",
        char_vocab_size=32,
        t2u_variance_predictor_embed_dim=16,
        t2u_variance_predictor_hidden_dim=8,
        nested={
            key: value
            for key, value in _SEAMLESS.items()
            if "num_conv_pos_embedding" not in key
        },
    ),
    _recipe(
        "vibevoice_asr",
        task="seq2seq-lm",
        nested={
            f"{kind}_tokenizer_encoder_config.{key}": value
            for kind in ("acoustic", "semantic")
            for key, value in _VIBEVOICE.items()
        },
    ),
    _recipe("voxtral", task="seq2seq-lm"),
    _recipe("voxtral_realtime", task="seq2seq-lm", extra=("encoder_inputs_embeds",)),
)

SEQ2SEQ: Final[tuple[Recipe, ...]] = (
    *(_recipe(name, variant="seq2seq", task="seq2seq-lm") for name in _PLAIN_TWINS),
    *(_recipe(name, task="seq2seq-lm") for name in _PLAIN),
    *_TEXT,
    *_SPEECH,
)
