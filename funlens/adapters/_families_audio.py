"""The tables of what hears: blocks of audio encoders, and models of these alone."""

from typing import Any, Final

from attrs import evolve

from funlens.adapters._families_berts import BERT_BLOCK
from funlens.adapters._families_common import BANDED, SELF, with_attention
from funlens.adapters._families_vision import VIT_STACK
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Fused,
    Mixer,
    Mlp,
    Stack,
)
from funlens.adapters._refits import call_projections

_FEED: Final = Mlp(path="feed_forward", up="intermediate_dense", down="output_dense")
WAV2VEC2_BLOCK: Final = Block(
    attention=(Attention(path="attention", has_rotary=False),),
    mid=("out", "layer_norm"),
    mlp=(_FEED,),
    beside=(Mlp(path="adapter_layer"),),
    stream_norm=True,
)
"""A block of wav2vec 2.0 and of what is spelled like it."""

WAV2VEC2_PRE_NORM: Final = evolve(
    WAV2VEC2_BLOCK,
    ln1="layer_norm",
    mid=None,
    ln2="final_layer_norm",
    stream_norm=False,
)
"""The same with norms before attention and feed-forward part."""

_HIDDEN_MID: Final = {
    "resid_mid": "what is added to it goes through a norm on the stream"
}


def _half(path: str, up: str, down: str) -> Mlp:
    """One of a conformer's two feed-forward parts, of which half is added."""
    return Mlp(path=path, up=up, down=down, multiplier=0.5)


CONFORMER_BLOCK: Final = Block(
    macaron=(_half("ffn1", "intermediate_dense", "output_dense"),),
    ln1="self_attn_layer_norm",
    attention=(
        Attention(
            path="self_attn",
            q="linear_q",
            k="linear_k",
            v="linear_v",
            o="linear_out",
            has_rotary=False,
        ),
    ),
    mixer=(Mixer(path="conv_module", o=""),),
    ln2="ffn2_layer_norm",
    mlp=(_half("ffn2", "intermediate_dense", "output_dense"),),
    stream_norm=True,
    hidden=_HIDDEN_MID,
)
"""A block of a conformer: attention and a convolution between two half-steps."""

PARAKEET_BLOCK: Final = Block(
    macaron=(_half("feed_forward1", "linear1", "linear2"),),
    ln1="norm_self_att",
    attention=(evolve(SELF, has_rotary=False),),
    mixer=(Mixer(path="conv", o=""),),
    ln2="norm_feed_forward2",
    mlp=(_half("feed_forward2", "linear1", "linear2"),),
    stream_norm=True,
    hidden=_HIDDEN_MID,
)
"""A conformer's block as Parakeet spells it."""

WHISPER_BLOCK: Final = Block(
    ln1="self_attn_layer_norm",
    attention=(Attention(path="self_attn", has_rotary=False),),
    ln2="final_layer_norm",
    mlp=(Mlp(path="mlp"), Mlp()),
)
"""A block of Whisper's encoder."""

_GRANITE_BLOCK: Final = Block(
    macaron=(_half("ff1", "up_proj", "down_proj"),),
    ln1="attn.pre_norm",
    attention=(
        Attention(
            path="attn",
            q="to_q",
            fused=Fused(path="to_kv", order="kv"),
            o="to_out",
            has_rotary=False,
            hidden=BANDED,
        ),
    ),
    mixer=(Mixer(path="conv", o=""),),
    ln2="ff2.pre_norm",
    mlp=(_half("ff2", "up_proj", "down_proj"),),
    stream_norm=True,
    stream_changes=True,
    hidden=_HIDDEN_MID,
)
_GUESSES: Final = "what its middle layer guesses is added to the stream"
GRANITE_EAR: Final = Stack(
    blocks="encoder.layers",
    block=_GRANITE_BLOCK,
    embed="encoder.input_linear",
    ln_final="",
    unjoined=_GUESSES,
    config="encoder_config",
)
"""The conformer that Granite hears with."""

WAV2VEC2_STACK: Final = Stack(
    blocks="encoder.layers",
    block=WAV2VEC2_BLOCK,
    embed=("feature_projection", "layer_norm"),
    pos_embed="encoder.pos_conv_embed",
    ln_final="",
    counts_frames=True,
    embed_changes=True,  # where frames are padding
)
"""A stack of frames; positions are told apart by a convolution."""


def _hearing(
    *model_types: str, main: Stack, unembed: str = "lm_head", **words: Any
) -> Architecture:
    """A table of one stack whose frames hear each other."""
    return Architecture(
        model_types=model_types,
        main=main,
        is_causal=False,
        unembed=unembed,
        **words,
    )


def _wavlm(block: Block) -> Block:
    """The same, where a bias of the first block's goes through all."""
    laid = with_attention(block, layout="pbd", out_layout="pbd")
    return evolve(laid, can_skip=False)


_LIKE_WAV2VEC2: Final = (
    "hubert",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
)
_CONFORMER: Final = evolve(
    WAV2VEC2_STACK, block=CONFORMER_BLOCK, pos_embed="", ln_final="encoder.layer_norm"
)
_PARAKEET: Final = Stack(
    blocks=("encoder.layers", "layers"),
    block=PARAKEET_BLOCK,
    ln_final="",
    config="encoder_config",
)
# Frames are joined before its blocks and parted behind them.
_SQUEEZED: Final = evolve(
    WAV2VEC2_STACK, embed="", pos_embed="", counts_frames=False, squeezes=True
)

AUDIO: Final[tuple[Architecture, ...]] = (
    _hearing(
        *_LIKE_WAV2VEC2,
        when={"do_stable_layer_norm": True},
        main=evolve(
            WAV2VEC2_STACK, block=WAV2VEC2_PRE_NORM, ln_final="encoder.layer_norm"
        ),
    ),
    _hearing(*_LIKE_WAV2VEC2, "data2vec-audio", main=WAV2VEC2_STACK),
    _hearing(
        "wavlm",
        main=evolve(WAV2VEC2_STACK, block=_wavlm(WAV2VEC2_BLOCK)),
        when={"do_stable_layer_norm": False},
        refit=call_projections,
    ),
    _hearing(
        "wavlm",
        main=evolve(
            WAV2VEC2_STACK,
            block=_wavlm(WAV2VEC2_PRE_NORM),
            ln_final="encoder.layer_norm",
        ),
        refit=call_projections,
    ),
    _hearing("sew", main=_SQUEEZED),
    _hearing(
        "sew-d",
        main=evolve(
            _SQUEEZED,
            blocks="encoder.encoder.layer",
            block=with_attention(BERT_BLOCK, pattern_changes=True, again=True),
        ),
        no_func=dict.fromkeys(
            ("Vmap", "Grad", "Jvp"),
            "its softmax is an autograd function that torch.func cannot pass",
        ),
    ),
    _hearing("wav2vec2-bert", "wav2vec2-conformer", biased_masks=True, main=_CONFORMER),
    _hearing(
        "parakeet_ctc",
        "parakeet_encoder",
        biased_masks=True,
        main=_PARAKEET,
        unembed="ctc_head",
    ),
    _hearing(
        "lasr_ctc",
        "lasr_encoder",
        main=evolve(
            _PARAKEET,
            block=evolve(
                with_attention(PARAKEET_BLOCK, has_rotary=True),
                unsummed="the stream is scaled where something is added",
            ),
            ln_final=("encoder.out_norm", "out_norm"),
        ),
        unembed="ctc_head",
    ),
    _hearing(
        "granite_speech5_ctc",
        biased_masks=True,
        main=evolve(
            _PARAKEET,
            block=with_attention(PARAKEET_BLOCK, hidden=BANDED),
            embed="encoder.input_linear",
            unjoined=_GUESSES,
            shrinks="its blocks join pairs of frames",
        ),
        unembed="ctc_head",
    ),
    _hearing(
        "qwen2_audio_encoder",
        "voxtral_encoder",
        main=Stack(
            blocks="layers",
            block=WHISPER_BLOCK,
            ln_final="layer_norm",
        ),
    ),
    Architecture(
        model_types=("audio-spectrogram-transformer",), main=VIT_STACK, is_causal=False
    ),
)
"""Tables of wav2vec 2.0 and its like, and of conformers."""
