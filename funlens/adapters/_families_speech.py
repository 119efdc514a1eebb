"""The tables of what hears and writes: Whisper and its like, decoders with an ear."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from funlens.adapters._families_audio import (
    CONFORMER_BLOCK,
    GRANITE_EAR,
    PARAKEET_BLOCK,
    WAV2VEC2_BLOCK,
    WAV2VEC2_STACK,
    WHISPER_BLOCK,
)
from funlens.adapters._families_barts import (
    BART_BLOCK,
    BART_WITH_FFN,
    M2M,
    PRE_NORM_DECODER,
    SCALED_EMBED,
)
from funlens.adapters._families_common import (
    GRANITE_STACK,
    NESTED,
    PRE_NORM,
    SELF,
    with_attention,
)
from funlens.adapters._families_seq2seq import PAIR, T5
from funlens.adapters._language import Architecture, Attention, Block, Mlp, Stack

WHISPER_EAR: Final = Stack(
    blocks="encoder.layers",
    block=WHISPER_BLOCK,
    pos_embed="encoder.embed_positions",
    ln_final="encoder.layer_norm",
)
"""An encoder of mel frames, as Whisper's."""

_CROSS: Final = Attention(path="encoder_attn", has_rotary=False)
_WRITER: Final = Block(
    ln1="input_layernorm",
    attention=(SELF,),
    ln_cross="post_attention_layernorm",
    cross=(_CROSS,),
    ln2="final_layernorm",
    mlp=(Mlp(path="mlp"),),
)
_MOONSHINE: Final = Architecture(
    model_types=("moonshine",),
    main=Stack(
        blocks="decoder.layers",
        block=evolve(
            _WRITER, mlp=(Mlp(path="mlp", up="", gate_up="fc1", gate_first=False),)
        ),
        embed="decoder.embed_tokens",
        ln_final="decoder.norm",
    ),
    others={
        "encoder": Stack(
            blocks="encoder.layers",
            block=PRE_NORM,
            ln_final=("encoder.layer_norm", "encoder.final_norm"),
        )
    },
)
_UNROTATED: Final = evolve(SELF, has_rotary=False)
_CANARY: Final = Architecture(
    model_types=("canary", "cohere_asr"),
    biased_masks=True,
    main=Stack(
        blocks="decoder.layers",
        block=evolve(_WRITER, attention=(_UNROTATED,)),
        embed="decoder.embed_tokens",
        pos_embed="decoder.pos_emb",
        ln_final="decoder.norm",
    ),
    others={
        "encoder": Stack(blocks="encoder.layers", block=PARAKEET_BLOCK, ln_final="")
    },
)
_SEAMLESS: Final = evolve(
    M2M,
    model_types=("seamless_m4t", "seamless_m4t_v2"),
    biased_masks=True,
    main=evolve(M2M.main, block=BART_WITH_FFN),
    others={
        "encoder": evolve(
            M2M.others["encoder"],
            block=BART_WITH_FFN,
            otherwise=Stack(
                blocks="speech_encoder.encoder.layers",
                block=CONFORMER_BLOCK,
                embed="speech_encoder.feature_projection",
                ln_final="speech_encoder.encoder.layer_norm",
            ),
        )
    },
)
_SPEECHT5: Final = Architecture(
    model_types=("speecht5",),
    body="speecht5",
    unembed="text_decoder_postnet.lm_head",
    main=Stack(
        blocks="decoder.wrapped_decoder.layers",
        block=evolve(
            BART_BLOCK,
            mlp=(
                Mlp(path="feed_forward", up="intermediate_dense", down="output_dense"),
            ),
        ),
        embed="decoder.prenet.embed_tokens",
        pos_embed="decoder.prenet.embed_positions",
        counts_tokens=True,
        ln_final="",
    ),
    others={
        "encoder": evolve(
            WAV2VEC2_STACK,
            blocks="encoder.wrapped_encoder.layers",
            block=WAV2VEC2_BLOCK,
            embed="encoder.prenet.feature_projection",
            pos_embed="encoder.prenet.pos_conv_embed",
            counts_frames=False,
        )
    },
)
_POP2PIANO: Final = evolve(
    T5,
    model_types=("pop2piano",),
    others={"encoder": evolve(T5.others["encoder"], embed="")},
)
_SPEECH_PAIR: Final = evolve(
    PAIR,
    model_types=("speech-encoder-decoder",),
    others={
        "encoder": evolve(
            WAV2VEC2_STACK,
            blocks="encoder.encoder.layers",
            embed="encoder.feature_projection",
            pos_embed="encoder.encoder.pos_conv_embed",
            counts_frames=False,
            config="encoder",
        )
    },
)

_APART: Final = dict.fromkeys(
    ("attn_scores", "pattern"), "the frames of each row attend in a call of their own"
)
_EAR: Final = Stack(
    blocks="audio_tower.layers",
    block=WHISPER_BLOCK,
    ln_final="audio_tower.layer_norm",
    config="audio_config",
    given="input_features",
)


def _amid(
    *model_types: str,
    main: Stack | None = None,
    ears: Mapping[str, Stack] | None = None,
    **words: Any,
) -> Architecture:
    """A table of a decoder that finds sound among its words; without, it only reads."""
    return Architecture(
        model_types=model_types,
        main=main or Stack(block=PRE_NORM),
        others={"audio": _EAR} if ears is None else ears,
        **words,
    )


_AMID: Final = (
    _amid("audioflamingo3", "glmasr", "musicflamingo", "qwen2_audio", ears={}),
    _amid("fun_asr_nano", ears={}),
    _amid(
        "vibevoice",
        "vibevoice_asr",
        ears={},
        refuses={
            "input_values": "beside it noise is drawn from torch's global generator"
        },
    ),
    _amid(
        "kyutai_speech_to_text",
        main=Stack(
            block=NESTED,
            embed="embed_tokens",
        ),
        ears={},
        channels="num_codebooks",
    ),
    _amid("voxtral"),
    _amid(
        "qwen3_asr",
        ears={
            "audio": evolve(
                _EAR,
                block=with_attention(WHISPER_BLOCK, hidden=_APART),
                ln_final="audio_tower.ln_post",
                packed="frames of all rows",
            )
        },
    ),
    _amid(
        "granite_speech",
        "granite_speech_plus",
        main=GRANITE_STACK,
        ears={"audio": evolve(GRANITE_EAR, given="input_features")},
        sizes={"d_model": "hidden_dim"},
    ),
    _amid(
        "voxtral_realtime",
        main=Stack(block=PRE_NORM, embed_changes=True),
        ears={
            "audio": evolve(
                _EAR,
                block=evolve(WHISPER_BLOCK, attention=(SELF,)),
                ln_final="audio_tower.norm",
                per_token=True,
            )
        },
        unpadded="its encoder hears the padding too",
    ),
)

SPEECH: Final[tuple[Architecture, ...]] = (
    Architecture(
        model_types=("whisper",),
        main=PRE_NORM_DECODER,
        others={"encoder": WHISPER_EAR},
    ),
    Architecture(
        model_types=("speech_to_text",),
        main=evolve(
            PRE_NORM_DECODER, embed_multiplier=SCALED_EMBED, counts_tokens=True
        ),
        others={"encoder": WHISPER_EAR},
    ),
    _MOONSHINE,
    evolve(
        _MOONSHINE,
        model_types=("moonshine_streaming",),
        others={"encoder": evolve(_MOONSHINE.others["encoder"], ln_final_changes=True)},
    ),
    _CANARY,
    _SEAMLESS,
    _SPEECHT5,
    _POP2PIANO,
    _SPEECH_PAIR,
    *_AMID,
)
"""Tables of what goes from sound to text."""
