"""The tiny settings that models of pictures and sound share."""

from typing import Final

IMAGE: Final = 31
VIDEO: Final = 30
AUDIO: Final = 29
START: Final = 28
END: Final = 27

# On top of the settings of text, to every config that has the field.
MODAL_SIZES: Final[dict[str, object]] = {
    # tokens with a meaning; the rest of the vocabulary is words
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "audio_token_id": AUDIO,
    "vision_start_token_id": START,
    "vision_end_token_id": END,
    "image_start_token_id": START,
    "image_end_token_id": END,
    "video_start_token_id": START,
    "video_end_token_id": END,
    "audio_start_token_id": START,
    "audio_end_token_id": END,
    "boi_token_id": START,
    "eoi_token_id": END,
    # pictures
    "image_size": 16,
    "patch_size": 8,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "num_position_embeddings": 16,
    # widths and counts
    "depth": 2,
    "num_heads": 4,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "d_model": 16,
    "projection_dim": 16,
    "out_hidden_size": 16,
    "text_hidden_size": 16,
    "projector_hidden_size": 16,
    "encoder_hidden_size": 16,
    "n_routed_experts": 4,
    # sound
    "num_mel_bins": 8,
    "feature_projection_input_dim": 8,
    "input_feat_per_channel": 8,
    "conv_channels": 8,
    "subsampling_conv_channels": 8,
    "downsample_hidden_size": 8,
    "conv_depthwise_kernel_size": 3,
    "classifier_proj_size": 16,
    "speech_encoder_layers": 2,
    "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 32,
}
