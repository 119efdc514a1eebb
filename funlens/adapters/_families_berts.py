"""The tables of BERT and of what is spelled like it."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from funlens.adapters._families_common import BANDED, sparse, with_attention
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Front,
    Mixer,
    Mlp,
    Stack,
)
from funlens.adapters._refits import unroll_groups

BERT_BLOCK: Final = Block(
    attention=(
        Attention(
            path="attention.self",
            o="/attention.output.dense",
            added="/attention.output.dense",
            has_rotary=False,
        ),
    ),
    cross=(
        Attention(
            path="crossattention.self",
            o="/crossattention.output.dense",
            added="/crossattention.output.dense",
            has_rotary=False,
        ),
    ),
    mid=("out", "attention.output"),
    cross_mid="crossattention.output",
    mlp=(
        Mlp(
            path="intermediate",
            up="dense",
            down="/output.dense",
            added="/output.dense",
        ),
    ),
    stream_norm=True,
)
_BERT_STACK: Final = Stack(
    block=BERT_BLOCK,
    pos_embed="embeddings.position_embeddings",
    ln_final="",
)
_BERT_PRE_NORM: Final = evolve(
    BERT_BLOCK,
    ln1=("attention.ln", "attention.LayerNorm", "attention.self_attn_layer_norm"),
    ln2=("ln", "intermediate.LayerNorm", "LayerNorm"),
    stream_norm=False,
)
_UNSEEN: Final[Mapping[str, str]] = dict.fromkeys(
    ("attn_scores", "pattern"), "what it gives is near a pattern that it never makes"
)
_OWN_FUNCTION: Final[Mapping[str, str]] = dict.fromkeys(
    ("Vmap", "Grad", "Jvp"),
    "its attention is an autograd function that torch.func cannot pass",
)
_NO_KERNEL: Final = "without its CUDA kernel it mixes nothing"
_NARROW: Final = "within a bottleneck of another width"


def _both_ways(
    *model_types: str,
    main: Stack = _BERT_STACK,
    block: Block | None = None,
    **words: Any,
) -> Architecture:
    """A table of one stack whose positions see both ways."""
    stack = main if block is None else evolve(main, block=block)
    return Architecture(model_types=model_types, main=stack, is_causal=False, **words)


BERTS: Final[tuple[Architecture, ...]] = (
    Architecture(
        model_types=(
            "bert",
            "bert-generation",
            "electra",
            "ernie",
            "rembert",
            "roc_bert",
            "roformer",
        ),
        main=_BERT_STACK,
        is_causal="is_decoder",
    ),
    Architecture(
        model_types=("big_bird",),
        main=_BERT_STACK,
        is_causal="is_decoder",
        refusal=sparse,
    ),
    Architecture(
        model_types=("camembert", "data2vec-text", "roberta", "xlm-roberta"),
        main=_BERT_STACK,
        is_causal="is_decoder",
        first_position="pad_token_id",
    ),
    Architecture(
        model_types=("xmod",),
        main=evolve(
            _BERT_STACK,
            block=evolve(BERT_BLOCK, unsummed="a language's adapter follows the MLP"),
        ),
        is_causal="is_decoder",
        first_position="pad_token_id",
    ),
    Architecture(
        model_types=("git",),
        main=evolve(
            _BERT_STACK,
            block=with_attention(BERT_BLOCK, asks_by_name=True),
            embed_changes=True,
        ),
        front=Front("a picture's patches", given="pixel_values"),
    ),
    Architecture(
        model_types=("megatron-bert",),
        main=evolve(_BERT_STACK, block=_BERT_PRE_NORM, ln_final="encoder.ln"),
        is_causal="is_decoder",
    ),
    Architecture(
        model_types=("roberta-prelayernorm", "xlm-roberta-xl"),
        main=evolve(
            _BERT_STACK,
            block=_BERT_PRE_NORM,
            ln_final=("LayerNorm", "encoder.LayerNorm"),
        ),
        is_causal="is_decoder",
        first_position="pad_token_id",
    ),
    _both_ways("layoutlm"),
    _both_ways("ibert", first_position="pad_token_id"),
    _both_ways("tapas", main=evolve(_BERT_STACK, counts_tokens=True)),
    _both_ways(
        "mpnet",
        block=evolve(
            BERT_BLOCK,
            attention=(Attention(path="attention.attn", has_rotary=False),),
            mid=("out", "attention"),
        ),
        first_position=2,
    ),
    _both_ways(
        "albert",
        main=evolve(
            _BERT_STACK,
            blocks="encoder.albert_layer_groups.turn*.albert_layers",
            block=Block(
                attention=(
                    Attention(path="attention", added="dense", has_rotary=False),
                ),
                mid=("out", "attention"),
                mlp=(Mlp(up="ffn", down="ffn_output", added="ffn_output"),),
                stream_norm=True,
            ),
        ),
        refit=unroll_groups,
    ),
    _both_ways(
        "esm",
        when={"position_embedding_type": "rotary"},
        main=Stack(
            block=with_attention(_BERT_PRE_NORM, has_rotary=True),
            # nothing is added to it, and its tokens may be scaled for those masked
            embed="embeddings",
            ln_final="encoder.emb_layer_norm_after",
        ),
    ),
    _both_ways(
        "esm",
        main=evolve(
            _BERT_STACK, block=_BERT_PRE_NORM, ln_final="encoder.emb_layer_norm_after"
        ),
        first_position="pad_token_id",
    ),
    _both_ways(
        "convbert",
        block=with_attention(
            BERT_BLOCK, times=2, changes="half of the heads are convolutions"
        ),
        sees_padding="its convolutions take padding in",
    ),
    _both_ways(
        "longformer",
        main=evolve(
            _BERT_STACK,
            block=with_attention(
                BERT_BLOCK, layout="pbd", changed_in_place=True, hidden=BANDED
            ),
            overhangs=True,
        ),
        first_position="pad_token_id",
        unread="the first column, which it reads, has projections of its own",
        no_func={"Vmap": "it cuts bands out of its scores one by one"},
    ),
    _both_ways(
        "luke",
        main=evolve(
            _BERT_STACK,
            block=evolve(
                with_attention(
                    BERT_BLOCK,
                    lossy="entities share each row",
                    changes="entities' values are mixed in",
                ),
                can_skip=False,
            ),
            overhangs=True,
        ),
        first_position="pad_token_id",
    ),
    _both_ways(
        "mobilebert",
        block=Block(
            attention=(
                evolve(
                    BERT_BLOCK.attention[0],
                    hidden=dict.fromkeys(
                        ("attn_in", "head_result", "attn_proj", "attn_out"), _NARROW
                    ),
                ),
            ),
            mlp=(
                Mlp(
                    path="intermediate",
                    up="dense",
                    down="/output.dense",
                    added="/output.bottleneck.dense",
                    hidden=dict.fromkeys(("mlp_in", "mlp_proj"), _NARROW),
                ),
            ),
            stream_norm=True,
        ),
        sees_padding="each token is embedded with its neighbors",
    ),
    _both_ways(
        "fnet",
        block=evolve(
            BERT_BLOCK,
            attention=(),
            mixer=(Mixer(path="fourier.self", o=""),),
            mid=("out", "fourier"),
        ),
        maskless="it takes no mask",
    ),
    _both_ways(
        "nystromformer",
        block=with_attention(
            BERT_BLOCK, hidden=_UNSEEN, changes="a convolution is added"
        ),
        first_position=2,
        sees_padding="its landmarks and its convolution take padding in",
    ),
    _both_ways(
        "yoso",
        block=with_attention(
            BERT_BLOCK, hidden=_UNSEEN, changes="the mixed heads are normed"
        ),
        first_position=2,
        sees_padding="its mask leaves nothing out",
        no_func=_OWN_FUNCTION,
    ),
    _both_ways(
        "mra",
        block=with_attention(
            BERT_BLOCK,
            hidden={
                **_UNSEEN,
                **dict.fromkeys(("attn_in", "q", "k", "v"), _NO_KERNEL),
            },
            changes="blocks of keys are left out",
        ),
        first_position=2,
        no_func=_OWN_FUNCTION,
    ),
)
"""Tables of BERT and its like."""
