"""The tables of encoders that stand alone, as BERT does."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Final

from attrs import evolve
from torch import nn

from funlens.adapters._families_common import BANDED, PRE_NORM, SELF, with_attention
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Fused,
    Mixer,
    Mlp,
    Stack,
)
from funlens.adapters._skeleton import bare_copy

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
_POST_NORM: Final = Block(
    attention=(SELF,),
    mid=("out", ("post_attention_layernorm", "sa_layer_norm")),
    mlp=(Mlp(path=("mlp", "ffn")),),
    stream_norm=True,
)
_DEBERTA: Final = with_attention(
    BERT_BLOCK,
    fused=Fused(path="in_proj", by_group=True),
    changes="a bias is added to the values",
)
_UNSEEN: Final = dict.fromkeys(
    ("attn_scores", "pattern"), "what it gives is near a pattern that it never makes"
)
_OWN_FUNCTION: Final = dict.fromkeys(
    ("Vmap", "Grad", "Jvp"),
    "its attention is an autograd function that torch.func cannot pass",
)
_NO_KERNEL: Final = "without its CUDA kernel it mixes nothing"
_NARROW: Final = "within a bottleneck of another width"


def _turns(module: Any) -> None:
    """Give ALBERT's groups, which run several times, a copy for each time."""
    encoder = module.base_model.encoder
    encoder.albert_layer_groups = _Turns(
        encoder.albert_layer_groups, encoder.config.num_hidden_layers
    )
    encoder.config.num_hidden_groups = encoder.config.num_hidden_layers


class _Turns(nn.ModuleList):
    """Groups of layers under their own names, and a copy for each time one runs."""

    def __init__(self, groups: Sequence[nn.Module], n_turns: int) -> None:
        super().__init__(groups)
        for turn in range(n_turns):
            group = groups[turn * len(groups) // n_turns]
            self.add_module(f"turn{turn}", bare_copy(group))

    def __getitem__(self, turn: int) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride] (slices are not asked for)
        """Give the copy for one time."""
        return getattr(self, f"turn{turn}")


def _called(module: Any) -> None:
    """Let SqueezeBERT call its layers, rather than their `forward` past all hooks."""
    encoder = module.base_model.encoder
    encoder.layers = _Called(encoder.layers)


class _Called(nn.ModuleList):
    """Layers whose `forward`, as the encoder asks for it, calls them."""

    def __iter__(self) -> Iterator[Any]:
        """Go through the layers."""
        return (SimpleNamespace(forward=layer) for layer in self._modules.values())


def encoder_of(
    *model_types: str,
    block: Block,
    refit: Callable[[nn.Module], None] | None = None,
    **words: Any,
) -> Architecture:
    """A table of one stack whose positions see both ways."""
    stack = Stack(block=block, **words)
    return Architecture(
        model_types=model_types, main=stack, is_causal=False, refit=refit
    )


ENCODERS: Final[tuple[Architecture, ...]] = (
    Architecture(
        model_types=(
            "bert",
            "bert-generation",
            "big_bird",
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
        model_types=("camembert", "data2vec-text", "roberta", "xlm-roberta", "xmod"),
        main=_BERT_STACK,
        is_causal="is_decoder",
        first_position="pad_token_id",
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
    encoder_of("eurobert", "ultrabert", "ultravbert", block=PRE_NORM),
    encoder_of(
        "esmc", block=evolve(PRE_NORM, multiplier="6 / sqrt(num_hidden_layers)")
    ),
    encoder_of(
        "gte", "jina_embeddings_v3", "nomic_bert", block=_POST_NORM, ln_final=""
    ),
    encoder_of(
        "distilbert",
        block=with_attention(_POST_NORM, has_rotary=False),
        blocks="transformer.layer",
        pos_embed="embeddings.position_embeddings",
        ln_final="",
    ),
    encoder_of(
        "modernbert",
        "modernvbert",
        block=with_attention(PRE_NORM, fused=Fused(path="Wqkv")),
        ln_final=("final_norm", "text_model.final_norm"),
    ),
    Architecture(
        model_types=("albert",),
        main=evolve(
            _BERT_STACK,
            blocks="encoder.albert_layer_groups.turn*.albert_layers",
            block=Block(
                attention=(
                    Attention(
                        path="attention", added="attention.dense", has_rotary=False
                    ),
                ),
                mid=("out", "attention"),
                mlp=(Mlp(up="ffn", down="ffn_output", added="ffn_output"),),
                stream_norm=True,
            ),
        ),
        is_causal=False,
        refit=_turns,
    ),
    Architecture(
        model_types=("esm",),
        when={"position_embedding_type": "rotary"},
        main=Stack(
            block=with_attention(_BERT_PRE_NORM, has_rotary=True),
            # nothing is added to it, and its tokens may be scaled for those masked
            embed="embeddings",
            ln_final="encoder.emb_layer_norm_after",
        ),
        is_causal=False,
    ),
    Architecture(
        model_types=("esm",),
        main=evolve(
            _BERT_STACK, block=_BERT_PRE_NORM, ln_final="encoder.emb_layer_norm_after"
        ),
        is_causal=False,
        first_position="pad_token_id",
    ),
    encoder_of("deberta", block=_DEBERTA, ln_final=""),
    *(
        evolve(
            encoder_of(
                "deberta-v2",
                block=with_attention(BERT_BLOCK, again=True),
                ln_final="",
            ),
            when={"conv_kernel_size": size},
        )
        for size in (None, 0)
    ),
    encoder_of(
        "deberta-v2",
        # a convolution behind the first layer also reads what entered it
        block=evolve(with_attention(BERT_BLOCK, again=True), can_skip=False),
        ln_final="",
        unjoined="a convolution stands behind the first layer",
    ),
    Architecture(
        model_types=("convbert",),
        main=evolve(
            _BERT_STACK,
            block=with_attention(
                BERT_BLOCK, times=2, changes="half of the heads are convolutions"
            ),
        ),
        is_causal=False,
        sees_padding="its convolutions take padding in",
    ),
    Architecture(
        model_types=("ibert",),
        main=_BERT_STACK,
        is_causal=False,
        first_position="pad_token_id",
    ),
    Architecture(model_types=("layoutlm",), main=_BERT_STACK, is_causal=False),
    Architecture(
        model_types=("tapas",),
        main=evolve(_BERT_STACK, counts_tokens=True),
        is_causal=False,
    ),
    Architecture(
        model_types=("longformer",),
        main=evolve(
            _BERT_STACK,
            block=with_attention(
                BERT_BLOCK, layout="pbd", changed_in_place=True, hidden=BANDED
            ),
            overhangs=True,
        ),
        is_causal=False,
        first_position="pad_token_id",
        no_func={"Vmap": "it cuts bands out of its scores one by one"},
    ),
    Architecture(
        model_types=("luke",),
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
        is_causal=False,
        first_position="pad_token_id",
    ),
    Architecture(
        model_types=("mpnet",),
        main=evolve(
            _BERT_STACK,
            block=evolve(
                BERT_BLOCK,
                attention=(Attention(path="attention.attn", has_rotary=False),),
                mid=("out", "attention"),
            ),
        ),
        is_causal=False,
        first_position=2,
    ),
    Architecture(
        model_types=("mobilebert",),
        main=evolve(
            _BERT_STACK,
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
        ),
        is_causal=False,
        sees_padding="each token is embedded with its neighbors",
    ),
    Architecture(
        model_types=("neomme",),
        main=Stack(
            block=evolve(
                with_attention(
                    PRE_NORM,
                    o="output_projection.o_proj",
                    changes="a gate multiplies the mixed heads",
                ),
                multiplier="residual_multiplier",
                can_skip=False,
            ),
            embed="embed_tokens",
            ln_final="final_norm",
        ),
        is_causal=False,
    ),
    encoder_of(
        "squeezebert",
        block=Block(
            attention=(
                Attention(
                    path="attention",
                    o="/post_attention.conv1d",
                    added="/post_attention.conv1d",
                    has_rotary=False,
                ),
            ),
            mid=("out", "post_attention"),
            mlp=(
                Mlp(
                    path="intermediate",
                    up="conv1d",
                    down="/output.conv1d",
                    added="/output.conv1d",
                ),
            ),
            stream_norm=True,
            can_skip=False,
        ),
        pos_embed="embeddings.position_embeddings",
        ln_final="",
        layout="bdp",
        refit=_called,
    ),
    Architecture(
        model_types=("fnet",),
        main=evolve(
            _BERT_STACK,
            block=evolve(
                BERT_BLOCK,
                attention=(),
                mixer=(Mixer(path="fourier.self", o=""),),
                mid=("out", "fourier"),
            ),
            embed="embeddings.word_embeddings",
        ),
        is_causal=False,
        unmasked="it takes no mask",
    ),
    Architecture(
        model_types=("nystromformer",),
        main=evolve(
            _BERT_STACK,
            block=with_attention(
                BERT_BLOCK, hidden=_UNSEEN, changes="a convolution is added"
            ),
        ),
        is_causal=False,
        first_position=2,
        sees_padding="its landmarks and its convolution take padding in",
    ),
    Architecture(
        model_types=("yoso",),
        main=evolve(
            _BERT_STACK,
            block=with_attention(
                BERT_BLOCK, hidden=_UNSEEN, changes="the mixed heads are normed"
            ),
        ),
        is_causal=False,
        first_position=2,
        sees_padding="its mask leaves nothing out",
        no_func=_OWN_FUNCTION,
    ),
    Architecture(
        model_types=("mra",),
        main=evolve(
            _BERT_STACK,
            block=with_attention(
                BERT_BLOCK,
                hidden={
                    **_UNSEEN,
                    **dict.fromkeys(("attn_in", "q", "k", "v"), _NO_KERNEL),
                },
                changes="blocks of keys are left out",
            ),
        ),
        is_causal=False,
        first_position=2,
        no_func=_OWN_FUNCTION,
    ),
)
"""Tables of encoders that stand alone."""
