"""Each recipe of the tables builds a model that runs, and no type is forgotten."""

from collections.abc import Mapping
from typing import Final

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


@attrs.frozen(kw_only=True, eq=False)
class Built:
    """A recipe's model as it was built, and what its forward gives."""

    row: Recipe
    model: nn.Module
    again: nn.Module
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
    output = first_output(run, tiny_inputs(row.name))
    return Built(row=row, model=model, again=again, output=output)


@pytest.mark.architectures
def test_every_output_is_finite(built: Built) -> None:
    """Logits and streams are numbers, and not all the same."""
    assert bool(built.output.isfinite().all())
    assert not is_constant(built.output)


@pytest.mark.architectures
def test_every_output_has_its_shape(built: Built) -> None:
    """A stream has three axes; there is a logit for each word, or for each label."""
    match built.row.task:
        case "base":
            assert 3 == built.output.ndim
        case "token-classification" | "sequence-classification":
            assert 3 == built.output.shape[-1]
        case _:
            vocab = config_of(built.row).get_text_config().vocab_size
            assert vocab == built.output.shape[-1]


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
