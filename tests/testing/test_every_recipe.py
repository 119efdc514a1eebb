"""Each recipe of the tables builds a model that runs, and no type is forgotten."""

from collections.abc import Mapping
from math import prod
from typing import Any, Final

import attrs
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM
from transformers.models.auto import modeling_auto

from funlens.testing import (
    RECIPES,
    Recipe,
    head_recipes,
    tiny_hf_model,
    tiny_inputs,
    variants_of,
)
from funlens.testing._recipes_config import config_of
from funlens.testing._recipes_heads import LEFT_OUT
from funlens.testing._recipes_record import Task, recipe
from tests.testing.test_recipes import same_bits

MAPPINGS: Final[Mapping[Task, str]] = {
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "masked-lm": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "seq2seq-lm": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "base": "MODEL_MAPPING_NAMES",
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
}
# How many types of model have a recipe with each head.
COUNTS: Final[Mapping[Task, int]] = {
    "causal-lm": 189 - 3,
    "masked-lm": 51,
    "seq2seq-lm": 37,
}
CLASSIFIERS: Final[tuple[Task, ...]] = (
    "token-classification",
    "sequence-classification",
)

# A few heads of each kind: decoders, an encoder, encoder-decoders, a part of a config.
SOME_HEADS: Final = (
    "bart-seq2seq-base",
    "bart-seq2seq-sequence-classification",
    "bert-token-classification",
    "llama-base",
    "mixtral-sequence-classification",
    "musicgen-base",
    "t5-token-classification",
)
READS_MORE: Final = [
    (row.name, extra) for row in RECIPES for extra in row.extra if extra != "input_ids"
]


@attrs.frozen(kw_only=True)
class Refusal:
    """Why a type of model has no recipe: what transformers says of an attempt."""

    attempt: Recipe
    error: type[Exception]
    said: str


NO_PRODUCER: Final = "layer types producing a cache is different"
NOT_BUILT: Final = (
    # Its vision tower is timm's, which is no dependency of ours.
    Refusal(attempt=recipe("gemma3n"), error=ImportError, said="timm"),
    # The config demands that all layers share keys, the model that some do not.
    Refusal(
        attempt=recipe(
            "gemma4_assistant",
            nested={
                "text_config.hidden_size_per_layer_input": 0,
                "text_config.vocab_size_per_layer_input": 0,
            },
        ),
        error=ValueError,
        said=NO_PRODUCER,
    ),
    Refusal(
        attempt=recipe("gemma4_unified_assistant"), error=ValueError, said=NO_PRODUCER
    ),
)

ROWS: Final = 6  # no other axis has so many

# The axes of what a forward gives: names of sizes that all recipes share, numbers where
# one fixes another. Patches and frames are cut out of a picture or a sound by each
# family in its own way.
SIZES: Final[Mapping[str, int]] = {"batch": ROWS, "vocab": 32, "d_model": 16}
FREE: Final = frozenset({"column", "frame", "patch", "row"})
AXES: Final[Mapping[Task, str]] = {
    "causal-lm": "batch pos vocab",
    "masked-lm": "batch pos vocab",
    "seq2seq-lm": "batch pos vocab",
    "image-text": "batch pos vocab",
    "speech": "batch pos vocab",
    "ctc": "batch frame vocab",
    "token-classification": "batch pos 3",
    "sequence-classification": "batch 3",
    "image-classifier": "batch 2",
    "audio-classifier": "batch 2",
    "base": "batch pos d_model",
}
UNREAD: Final = "batch patch d_model"  # by a base model that reads no words
HEADED: Final = "batch pos vocab"  # what transformers calls a base has a head
GRID: Final = "batch d_model row column"
TWO_TOWERS: Final = (
    "aimv2-base",
    "altclip-base",
    "blip-base",
    "chinese_clip-base",
    "clip-base",
    "metaclip_2-base",
    "siglip-base",
    "siglip2-base",
    "tipsv2-base",
)
OTHER_AXES: Final[Mapping[str, str]] = {
    **dict.fromkeys(TWO_TOWERS, "batch batch"),  # each picture with each text
    **dict.fromkeys(("cvt-base", "pvt_v2-base", "segformer-base", "vitdet-base"), GRID),
    **dict.fromkeys(
        ("fsmt-base", "llama4-base", "seamless_m4t-base", "seamless_m4t_v2-base"),
        HEADED,
    ),
    "dia-speech": "batch*3 pos vocab",  # a row for each code that stands at a position
    "flava-base": UNREAD,  # its picture comes before its text
    "git-image": "batch 5+pos vocab",  # the picture's patches stand before the text
    "levit-base": "batch patch 24",
    "musicgen": "batch*4 pos vocab",  # a row for each codebook
    "musicgen_melody": "batch*4 5+pos vocab",  # the melody stands before the codes
    "musicgen_melody-base": "batch 5+pos d_model",
    "opt-post_norm-base": "batch pos 8",  # projected down to its embedding's width
    "perceiver": "batch 16 vocab",  # a query for each position that there can be
    "perceiver-base": "batch 4 d_model",  # its latents
    "pi0-image": "batch 3 8",  # three steps of a robot
    "pixtral-base": "1 patch d_model",  # all pictures in one row
    "radio-base": "batch 32",  # two of its class tokens
    "reformer-masked-base": "batch pos 32",  # two streams side by side
}


@attrs.frozen(kw_only=True, eq=False)
class Built:
    """A recipe's model as it was built, and what its forward gives for some rows."""

    row: Recipe
    model: nn.Module
    again: nn.Module
    given: Mapping[str, Tensor]
    output: Tensor


def rows_of(task: Task) -> set[str]:
    """Give the types of model for which there is a recipe with a head."""
    rows = (*RECIPES, *head_recipes())
    return {row.model_type for row in rows if row.task == task}


def types_of(task: Task) -> set[str]:
    """Give the types of model for which transformers has a head."""
    return set(getattr(modeling_auto, MAPPINGS[task]))


def first_output(model: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
    """Give the logits of a forward, or the stream where there are none."""
    with torch.no_grad():
        output = model(**given)
    logits = getattr(output, "logits", None)
    return output[0] if logits is None else logits


def is_constant(weight: Tensor) -> bool:
    """Say whether all of several numbers are the same."""
    return weight.numel() > 1 and bool((weight == weight.flatten()[0]).all())


@pytest.mark.parametrize("task", COUNTS)
def test_no_language_model_is_forgotten(task: Task) -> None:
    """Each type that transformers has is built, or listed with the reason."""
    refused = {
        each.attempt.model_type for each in NOT_BUILT if each.attempt.task == task
    }
    assert refused == types_of(task) - rows_of(task)
    assert COUNTS[task] == len(rows_of(task))


@pytest.mark.parametrize("task", ["base", *CLASSIFIERS])
def test_no_head_of_a_language_model_is_forgotten(task: Task) -> None:
    """Each type with a recipe has one without a head, and one with each classifier."""
    language = set.union(*(rows_of(each) for each in COUNTS))
    left_out = {name for name, of in LEFT_OUT if of == task}
    assert left_out - rows_of(task) == (types_of(task) & language) - rows_of(task)


@pytest.mark.parametrize("each", NOT_BUILT, ids=lambda each: each.attempt.name)
def test_what_is_not_built_cannot_be(each: Refusal) -> None:
    """Transformers itself refuses what has no recipe, for the reason that is given."""
    config = config_of(each.attempt)
    with pytest.raises(each.error, match=each.said):
        AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", [name for name, _ in LEFT_OUT])
def test_a_base_model_that_is_left_out_reads_no_tokens(name: str) -> None:
    """Its forward has no place for token ids, or misses what they stand beside."""
    row = next(row for row in RECIPES if row.name == name)
    model = AutoModel.from_config(config_of(row))
    with pytest.raises((AttributeError, TypeError)):
        model(input_ids=tiny_inputs(name)["input_ids"])


@pytest.mark.parametrize("name", SOME_HEADS)
def test_a_head_builds_a_model_that_runs(name: str) -> None:
    """What the forward gives is finite."""
    assert bool(first_output(tiny_hf_model(name), tiny_inputs(name)).isfinite().all())


@pytest.mark.parametrize(("name", "extra"), READS_MORE)
def test_what_a_model_reads_beside_ids_matters(name: str, extra: str) -> None:
    """With nothing in its place the output is another."""
    given = tiny_inputs(name)
    without = given | {extra: torch.zeros_like(given[extra])}
    assert not torch.equal(
        first_output(tiny_hf_model(name), given),
        first_output(tiny_hf_model(name), without),
    )


def test_variants_differ_from_their_recipe_in_the_head_alone() -> None:
    """Name, task and the number of labels are all that changes."""
    row = next(row for row in RECIPES if row.name == "gpt2")
    base, tokens, sequences = variants_of(row)
    assert attrs.evolve(row, name="gpt2-base", task="base") == base
    for variant, task in zip((tokens, sequences), CLASSIFIERS, strict=True):
        labels = (("num_labels", 3),)
        expected = attrs.evolve(row, name=f"gpt2-{task}", task=task, config=labels)
        assert expected == variant


def test_the_fullest_recipe_of_a_type_gives_its_heads() -> None:
    """The base model of BART is the whole of it, not its decoder."""
    rows = [row for row in head_recipes() if row.model_type == "bart"]
    assert {"bart-seq2seq-base", "bart-seq2seq-sequence-classification"} == {
        row.name for row in rows
    }


@pytest.fixture(
    scope="module", params=(*RECIPES, *head_recipes()), ids=lambda row: row.name
)
def built(request: pytest.FixtureRequest) -> Built:
    """Build a recipe's model twice, and run a third."""
    row: Recipe = request.param
    model, again, run = (tiny_hf_model(row.name, seed=1) for _ in range(3))
    given = tiny_inputs(row.name, batch=ROWS)
    output = first_output(run, given)
    return Built(row=row, model=model, again=again, given=given, output=output)


@pytest.mark.architectures
def test_every_output_is_finite(built: Built) -> None:
    """Logits and streams are numbers, and not all the same."""
    assert bool(built.output.isfinite().all())
    assert not is_constant(built.output)


def axes_of(row: Recipe, given: Mapping[str, Tensor]) -> list[str]:
    """Name the axes of what a recipe's model gives."""
    reads = "input_ids" in given or "decoder_input_ids" in given
    usual = UNREAD if row.task == "base" and not reads else AXES[row.task]
    return OTHER_AXES.get(row.name, usual).split()


def size_of(axis: str, given: Mapping[str, Tensor]) -> int:
    """Read a number, a name, or a sum or a product of two."""
    for sign, together in (("+", sum), ("*", prod)):
        if sign in axis:
            return together(size_of(part, given) for part in axis.split(sign))
    if axis == "pos":
        reads = "decoder_input_ids" if "decoder_input_ids" in given else "input_ids"
        return given[reads].shape[1]
    return int(axis) if axis.isdigit() else SIZES[axis]


@pytest.mark.architectures
def test_every_output_has_its_shape(built: Built) -> None:
    """There is a logit for each word or label, and a stream is as wide as its model."""
    axes, shape = axes_of(built.row, built.given), tuple(built.output.shape)
    assert len(axes) == len(shape)
    expected = tuple(
        size if axis in FREE else size_of(axis, built.given)
        for axis, size in zip(axes, shape, strict=True)
    )
    assert expected == shape


@pytest.mark.parametrize("name", TWO_TOWERS)
def test_two_towers_give_a_vector_for_each_picture_and_each_text(name: str) -> None:
    """Both in the same space; more pictures than texts give a wide table of scores."""
    given = tiny_inputs(name, batch=ROWS)
    given["input_ids"] = given["input_ids"][:4]
    model: Any = tiny_hf_model(name)
    with torch.no_grad():
        output = model(**given)
    width = output.image_embeds.shape[1]
    assert (ROWS, width) == output.image_embeds.shape
    assert (4, width) == output.text_embeds.shape
    assert (ROWS, 4) == output.logits_per_image.shape


def test_every_other_shape_is_of_a_recipe() -> None:
    """None is left of a recipe that is gone."""
    assert set(OTHER_AXES) <= {row.name for row in (*RECIPES, *head_recipes())}


@pytest.mark.architectures
def test_every_seed_fixes_every_weight(built: Built) -> None:
    """The same seed gives the same bits."""
    assert same_bits(built.model, built.again)


@pytest.mark.architectures
def test_no_weight_is_constant(built: Built) -> None:
    """A mistake about a weight cannot hide in its values."""
    constant = [
        name
        for name, weight in built.model.named_parameters()
        if weight.is_floating_point() and is_constant(weight)
    ]
    assert [] == constant
