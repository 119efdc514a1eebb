"""The recipes of the other masked language models in transformers."""

from typing import Final

from funlens.testing._recipes_record import Recipe
from funlens.testing._recipes_record import recipe as _recipe

_SLIDING_FULL: Final = ("sliding_attention", "full_attention")

# The shared settings are enough, and a causal model has the plain name already.
_PLAIN_TWINS: Final = (
    "bart",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "mbart",
    "megatron-bert",
    "mvp",
    "roberta",
    "roberta-prelayernorm",
    "roformer",
    "xlm-roberta",
    "xlm-roberta-xl",
)

# The shared settings are enough.
_PLAIN: Final = (
    "albert",
    "eurobert",
    "fnet",
    "gte",
    "ibert",
    "jina_embeddings_v3",
    "nomic_bert",
    "yoso",
)

_TWINS: Final = (
    _recipe(
        "big_bird", variant="masked", task="masked-lm", attention_type="original_full"
    ),
    _recipe(
        "reformer",
        variant="masked",
        task="masked-lm",
        attention_head_size=4,
        attn_layers=("local", "lsh"),
        axial_pos_embds_dim=(8, 8),
        axial_pos_shape=(8, 8),
        feed_forward_size=32,
        hash_seed=0,
        local_attn_chunk_length=4,
        local_num_chunks_after=1,
        lsh_attn_chunk_length=4,
        lsh_num_chunks_after=1,
        note="each forward seeds the global generator; no gradients unless training",
        num_buckets=4,
    ),
    _recipe(
        "rembert",
        variant="masked",
        task="masked-lm",
        input_embedding_size=8,
        output_embedding_size=24,
    ),
    _recipe(
        "roc_bert",
        variant="masked",
        task="masked-lm",
        extra=("input_shape_ids", "input_pronunciation_ids"),
        pronunciation_embed_dim=8,
        pronunciation_vocab_size=32,
        shape_embed_dim=8,
        shape_vocab_size=32,
    ),
    _recipe(
        "xlm",
        variant="masked",
        task="masked-lm",
        extra=("langs",),
        n_langs=3,
    ),
    _recipe(
        "xmod",
        variant="masked",
        task="masked-lm",
        extra=("lang_ids",),
        languages=("en_XX", "de_DE"),
    ),
)

_DISENTANGLED: Final = {
    "max_relative_positions": 8,
    "pos_att_type": ("c2p", "p2c"),
    "position_biased_input": False,
    "relative_attention": True,
}

_OTHERS: Final = (
    _recipe(
        "albert",
        variant="groups",
        task="masked-lm",
        inner_group_num=2,
        num_hidden_groups=2,
        num_hidden_layers=4,
        note="each group of two layers stands twice",
    ),
    _recipe("convbert", task="masked-lm", conv_kernel_size=3),
    _recipe("deberta", task="masked-lm", nested=_DISENTANGLED),
    _recipe(
        "deberta-v2",
        task="masked-lm",
        conv_kernel_size=3,
        norm_rel_ebd="layer_norm",
        position_buckets=4,
        nested=_DISENTANGLED,
    ),
    _recipe(
        "deberta-v2",
        variant="shared_keys",
        task="masked-lm",
        norm_rel_ebd="layer_norm",
        note="positions are projected with the words' own matrices, as DeBERTa-v3",
        position_buckets=4,
        share_att_key=True,
        nested=_DISENTANGLED,
    ),
    _recipe("distilbert", task="masked-lm", hidden_dim=32),
    _recipe("esm", task="masked-lm", note="learned positions, as ESM-1b"),
    _recipe(
        "esm",
        variant="rotary",
        task="masked-lm",
        mask_token_id=3,
        note="as ESM-2",
        position_embedding_type="rotary",
        token_dropout=True,
    ),
    _recipe("esmc", task="masked-lm", mask_token_id=3, num_key_value_heads=4),
    _recipe("flaubert", task="masked-lm", extra=("langs",), n_langs=3),
    _recipe(
        "funnel",
        task="masked-lm",
        architectures=("FunnelModel",),
        block_sizes=(1, 2),
        d_head=4,
        d_inner=32,
        note="the second block sees half as many positions",
    ),
    _recipe(
        "layoutlm", task="masked-lm", extra=("bbox",), max_2d_position_embeddings=32
    ),
    _recipe(
        "longformer",
        task="masked-lm",
        attention_window=(4, 8),
        extra=("global_attention_mask",),
    ),
    _recipe(
        "luke",
        task="masked-lm",
        entity_emb_size=8,
        entity_vocab_size=16,
        extra=("entity_ids", "entity_position_ids"),
    ),
    _recipe("mobilebert", task="masked-lm", intra_bottleneck_size=8),
    _recipe("modernbert", task="masked-lm", local_attention=4),
    _recipe("modernvbert", task="masked-lm", nested={"text_config.local_attention": 4}),
    _recipe(
        "mpnet",
        task="masked-lm",
        note="counts 32 buckets whatever its config says",
        relative_attention_num_buckets=32,
    ),
    _recipe(
        "mra",
        task="masked-lm",
        note="its attention gives 0 where its CUDA kernel is not loaded",
    ),
    _recipe(
        "neomme",
        task="masked-lm",
        embedding_rank=8,
        head_dim=8,
        layer_types=_SLIDING_FULL,
        patch_size=4,
        nested={
            "rope_parameters.full_attention.partial_rotary_factor": 0.5,
            "rope_parameters.full_attention.rope_theta": 10000.0,
            "rope_parameters.full_attention.rope_type": "default",
        },
    ),
    _recipe(
        "nystromformer",
        task="masked-lm",
        conv_kernel_size=3,
        note="as many landmarks as positions: the softmax is exact",
    ),
    _recipe(
        "perceiver",
        task="masked-lm",
        d_latents=24,
        d_model=16,
        max_position_embeddings=16,
        note="logits at all 16 positions, however many tokens there are",
        num_cross_attention_heads=4,
        num_latents=6,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
    ),
    _recipe("squeezebert", task="masked-lm", embedding_size=16),
    _recipe(
        "tapas",
        task="masked-lm",
        extra=("token_type_ids",),
        type_vocab_sizes=(3, 8, 8, 2, 8, 8, 4),
    ),
    _recipe(
        "ultrabert",
        task="masked-lm",
        layer_types=_SLIDING_FULL,
        prediction_head_size=24,
    ),
    _recipe(
        "ultravbert",
        task="masked-lm",
        nested={
            "text_config.layer_types": _SLIDING_FULL,
            "text_config.prediction_head_size": 24,
        },
    ),
)

MASKED: Final[tuple[Recipe, ...]] = (
    *(_recipe(name, variant="masked", task="masked-lm") for name in _PLAIN_TWINS),
    *_TWINS,
    *(_recipe(name, task="masked-lm") for name in _PLAIN),
    *_OTHERS,
)
