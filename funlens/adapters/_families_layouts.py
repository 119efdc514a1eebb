"""The tables of families that lay layers or positions out in a way of their own."""

from typing import Any, Final

from attrs import evolve

from funlens.adapters._families_common import PRE_NORM, SELF, with_attention
from funlens.adapters._language import (
    Architecture,
    Attention,
    Block,
    Experts,
    Front,
    Mlp,
    Rounds,
    Stack,
)
from funlens.adapters._refits import record_every_cycle

_PLAIN: Final = evolve(SELF, has_rotary=False)


def _half(at: int, block: Block) -> Block:
    """One of the two layers within a block of LongCat's."""
    return evolve(
        block,
        ln1=f"input_layernorm.{at}",
        attention=(
            evolve(
                SELF,
                path=f"self_attn.{at}",
                q="q_b_proj",
                kv="kv_b_proj",
                q_latent="q_a_layernorm",
                kv_latent="kv_a_layernorm",
            ),
        ),
        ln2=f"post_attention_layernorm.{at}",
        reads="experts that the first half of a block starts add to the second",
    )


_BETWEEN: Final = ("in", "input_layernorm.1")
_LONGCAT: Final = Architecture(
    model_types=("longcat_flash",),
    main=Stack(
        halves=(
            _half(0, Block(end=_BETWEEN, mlp=(Mlp(path="mlps.0"),))),
            _half(
                1,
                Block(
                    start=_BETWEEN,
                    mlp=(Experts(path="mlp"),),
                    beside=(Mlp(path="mlps.1"),),
                ),
            ),
        )
    ),
    no_func={"Vmap": "it goes through its experts in a loop"},
)


def _hrm_order(config: Any) -> tuple[int, ...]:
    """The fast blocks several times, then the slow ones, and all of that again."""
    return (*(0,) * config.L_cycles, 1) * config.H_cycles


_HRM: Final = Architecture(
    model_types=("hrm_text",),
    main=Stack(
        block=with_attention(PRE_NORM, changes="a gate multiplies the mixed heads"),
        rounds=Rounds(
            lists=("L_module.layers", "H_module.layers"),
            order=_hrm_order,
            between="a round begins with the sum of the fast and the slow state",
        ),
        embed_multiplier="embedding_scale",
        ln_final="H_module.final_norm",
    ),
    refit=record_every_cycle,
)

_MLLAMA: Final = Architecture(
    model_types=("mllama", "mllama_text_model"),
    main=Stack(
        block=(
            evolve(
                PRE_NORM,
                needs="cross_attn",
                given="cross_attention_states",
                attention=(),
                cross=(evolve(_PLAIN, path="cross_attn"),),
                unsummed="learned gates multiply what is added",
                hidden={"cross_out": "a gate multiplies it", "mlp_out": "likewise"},
            ),
            PRE_NORM,
        )
    ),
)

_BLT: Final = Architecture(
    model_types=("blt",),
    main=Stack(
        blocks="local_decoder.layers",
        block=evolve(
            PRE_NORM,
            reads="patches of bytes",
            unjoined="attention over patches comes between",
        ),
        embed_changes=True,
        ln_final="local_decoder.norm",
        config="decoder_config",
    ),
    others={
        "local": Stack(
            blocks="local_encoder.layers",
            block=PRE_NORM,
            ln_final="",
            config="encoder_config",
            same_positions=True,
        ),
        "patches": Stack(
            blocks="global_transformer.layers",
            block=PRE_NORM,
            ln_final="",
            config="global_config",
        ),
    },
    unpadded="it cuts patches from padding too",
)

_XLM: Final = Architecture(
    model_types=("xlm",),
    when={"causal": True},
    main=Stack(
        blocks="attentions",
        scattered=True,
        block=Block(
            start=("out", ("layer_norm2.{before}", "layer_norm_emb")),
            attention=(evolve(_PLAIN, path="attentions.{layer}"),),
            mid=("out", "layer_norm1.{layer}"),
            mlp=(Mlp(path="ffns.{layer}"),),
            end=("out", "layer_norm2.{layer}"),
            stream_norm=True,
            stream_changes=True,
        ),
        embed="embeddings",
        pos_embed="position_embeddings",
        ln_final="",
    ),
    unpadded="its causal mask does not leave padding out",
)

_XLNET: Final = Architecture(
    model_types=("xlnet",),
    when={"attn_type": "uni"},
    main=Stack(
        layout="pbd",
        embed_layout="pbd",
        block=Block(
            attention=(
                Attention(
                    path="rel_attn",
                    q="",
                    k="",
                    v="",
                    o="",
                    has_rotary=False,
                    hidden={"attn_in": "the stream itself is given to it"},
                ),
            ),
            mid=("out", "rel_attn"),
            mlp=(Mlp(up="ff.layer_1", down="ff.layer_2"),),
            stream_norm=True,
        ),
        ln_final="",
    ),
    maskless="its causal form fails where it is given a mask",
)

_CPM_BLOCK: Final = Block(
    ln1="self_att.layernorm_before_attention",
    attention=(
        Attention(
            path="self_att.self_attention",
            q="project_q",
            k="project_k",
            v="project_v",
            o="attention_out",
            has_rotary=False,
        ),
    ),
    mid=("in", "ffn"),
    ln2="ffn.layernorm_before_ffn",
    mlp=(Mlp(path="ffn.ffn", gate="w_in.w_0", up="w_in.w_1", down="w_out"),),
)


def _hashes(module: Any) -> str:
    """Say why Reformer cannot be run."""
    del module
    return (
        "its hashing attention seeds torch's global generator or draws from it, and "
        "its reversible blocks give no gradients in evaluation mode"
    )


_REFORMER: Final = Architecture(
    model_types=("reformer",),
    main=Stack(block=Block(ln1="attention.layer_norm")),
    refusal=_hashes,
)

LAYOUTS: Final[tuple[Architecture, ...]] = (
    _LONGCAT,
    _HRM,
    _MLLAMA,
    _BLT,
    _XLM,
    evolve(_XLM, when={}, is_causal=False, unpadded=""),
    evolve(
        _XLM,
        model_types=("flaubert",),
        when={"pre_norm": False},
        is_causal=False,
        unpadded="",
    ),
    _REFORMER,
    _XLNET,
    evolve(_XLNET, when={}, is_causal=False, maskless=""),
    Architecture(
        model_types=("cpmant",),
        main=Stack(block=_CPM_BLOCK, ln_final="encoder.output_layernorm"),
        sizes={"d_head": "dim_head"},
        is_causal=False,
        front=Front("learned prompts"),
        keeps_cache=True,
        maskless="it takes no mask",
    ),
    Architecture(
        model_types=("musicgen_decoder",),
        main=Stack(
            block=Block(
                ln1="self_attn_layer_norm",
                attention=(_PLAIN,),
                cross=(
                    evolve(_PLAIN, path="encoder_attn", given="encoder_hidden_states"),
                ),
                ln2="final_layer_norm",
                mlp=(Mlp(),),
            ),
            pos_embed="decoder.embed_positions",
            ln_final="decoder.layer_norm",
        ),
        codebooks="num_codebooks",
    ),
    Architecture(
        model_types=("musicgen_melody_decoder",),
        main=Stack(
            block=Block(
                ln1="self_attn_layer_norm",
                attention=(_PLAIN,),
                ln2="final_layer_norm",
                mlp=(Mlp(),),
            ),
            pos_embed="decoder.embed_positions",
            ln_final="decoder.layer_norm",
        ),
        codebooks="num_codebooks",
        front=Front("what the music is about", given="encoder_hidden_states"),
        unpadded="positions are counted from what stands in front",
    ),
)
"""Tables with halves, rounds, scattered layers, or positions in front."""
