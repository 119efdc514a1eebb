"""Tiny models that see or hear are built, and run on inputs of their own."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final

import pytest
import torch
from torch import Tensor, nn
from transformers.models.auto import modeling_auto

from funlens.testing._recipes import tiny_hf_model, tiny_inputs
from funlens.testing._recipes_config import config_of, special_ids
from funlens.testing._recipes_drawing import Known, Marks, PerToken, Text
from funlens.testing._recipes_modal_sizes import IMAGE
from funlens.testing._recipes_multimodal import MULTIMODAL
from funlens.testing._recipes_record import Recipe, Task

VOCAB: Final = 32
ATTENTION_ATOL: Final = 1e-4  # sums in another order, in float32 and through layers

# One of each way to be shown something, and of each head; the rest are run by
# `nox -s architectures`.
A_FEW: Final = {
    "audio-spectrogram-transformer-base",
    "clip-base",
    "dia-speech",
    "gemma4-image",
    "hubert-audio_classifier",
    "idefics-image",
    "idefics3-image",
    "llava-image",
    "minicpmv4_7-image",
    "molmo2-image",
    "pix2struct-image",
    "qwen2_vl-image",
    "swin-image_classifier",
    "voxtral_realtime-speech",
    "wav2vec2-ctc",
    "whisper-speech",
}

_TIMM: Final = "timm builds what it sees with"
_CONVOLUTION: Final = "convolutions, and no transformer"
_POOLING: Final = "blocks like a transformer's, with something else for attention"

# Types without a recipe, and why.
MISSING: Final[Mapping[Task, Mapping[str, str]]] = {
    "image-text": {
        "evolla": "is shown a protein; HuggingFace's auto class does not find it",
        "gemma3n": _TIMM,
    },
    "speech": {},
    "ctc": {},
    "image-classifier": {
        "bit": _CONVOLUTION,
        "convnext": _CONVOLUTION,
        "convnextv2": _CONVOLUTION,
        "dinat": "natten computes its attention",
        "efficientnet": _CONVOLUTION,
        "focalnet": _POOLING,
        "hgnet_v2": _CONVOLUTION,
        "mobilenet_v1": _CONVOLUTION,
        "mobilenet_v2": _CONVOLUTION,
        "mobilevit": "noise for weights lets no picture through its convolutions",
        "mobilevitv2": _POOLING,
        "poolformer": _POOLING,
        "pp_lcnet": _CONVOLUTION,
        "regnet": _CONVOLUTION,
        "resnet": _CONVOLUTION,
        "swiftformer": _POOLING,
        "textnet": _CONVOLUTION,
        "timm_wrapper": _TIMM,
    },
    "audio-classifier": {},
}

# How many types of each task have a recipe at least.
AT_LEAST: Final[Mapping[Task, int]] = {
    "image-text": 95,
    "speech": 21,
    "ctc": 13,
    "image-classifier": 24,
    "audio-classifier": 12,
    "base": 60,
}

MAPPINGS: Final[Mapping[Task, Mapping[str, object]]] = {
    "image-text": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    "speech": modeling_auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    "ctc": modeling_auto.MODEL_FOR_CTC_MAPPING_NAMES,
    "image-classifier": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "audio-classifier": modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
}

RECIPE: Final = {row.name: row for row in MULTIMODAL}

every_recipe: Final = pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            row.name, marks=[] if row.name in A_FEW else pytest.mark.architectures
        )
        for row in MULTIMODAL
    ],
)


@cache
def built(name: str) -> nn.Module:
    """Build a model once for all tests."""
    return tiny_hf_model(name)


def floats_in(found: object) -> Iterator[Tensor]:
    """Find the tensors of numbers in the output of a model."""
    if isinstance(found, Tensor):
        if found.is_floating_point():
            yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from floats_in(value)
    elif isinstance(found, (tuple, list)):
        for value in found:
            yield from floats_in(value)


def outputs_of(name: str, given: Mapping[str, Tensor]) -> list[Tensor]:
    """Run a model, and list the tensors of its output."""
    with torch.no_grad():
        return list(floats_in(built(name)(**given)))


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    """Say whether two outputs are equal to the bit."""
    return len(left) == len(right) and all(map(torch.equal, left, right))


def types_of(task: Task) -> set[str]:
    """List the types of a task that have a recipe."""
    return {row.model_type for row in MULTIMODAL if row.task == task}


@every_recipe
def test_a_recipe_builds_a_model_that_runs(name: str) -> None:
    """The outputs are finite, and there are some."""
    outputs = outputs_of(name, tiny_inputs(name))
    assert outputs
    assert all(bool(values.isfinite().all()) for values in outputs)
    assert not built(name).training


@every_recipe
def test_every_input_reaches_the_output(name: str) -> None:
    """The model sees its picture, hears its sound and reads its text."""
    given, other = tiny_inputs(name, seed=0), tiny_inputs(name, seed=1)
    outputs = outputs_of(name, given)
    drawn = [key for key in given if not torch.equal(given[key], other[key])]
    assert drawn
    for key in drawn:
        changed = outputs_of(name, {**given, key: other[key]})
        assert not same(outputs, changed), key


@every_recipe
def test_equal_seeds_give_equal_bits(name: str) -> None:
    """So do the weights, the inputs and the outputs, whatever was drawn before."""
    first = outputs_of(name, tiny_inputs(name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = tiny_hf_model(name)
        with torch.no_grad():
            second = list(floats_in(again(**tiny_inputs(name))))
    assert all(map(torch.equal, built(name).parameters(), again.parameters()))
    assert same(first, second)


@every_recipe
def test_eager_attention_gives_the_same(name: str) -> None:
    """What HuggingFace chooses by itself agrees with attention written out."""
    given = tiny_inputs(name)
    eager = tiny_hf_model(name, attn_implementation="eager")
    with torch.no_grad():
        first = next(floats_in(eager(**given)))
    torch.testing.assert_close(
        first, outputs_of(name, given)[0], atol=ATTENTION_ATOL, rtol=ATTENTION_ATOL
    )


@every_recipe
def test_another_seed_gives_other_weights(name: str) -> None:
    """No matrix is left as it was."""
    other = tiny_hf_model(name, seed=1)
    first = dict(built(name).named_parameters())
    for key, weight in other.named_parameters():
        assert not weight.requires_grad or not torch.equal(first[key], weight), key


@pytest.mark.parametrize("row", MULTIMODAL, ids=lambda row: row.name)
def test_words_have_no_meaning_of_their_own(row: Recipe) -> None:
    """No id that is drawn is special, but for those that stand for what is shown."""
    drawn = tiny_inputs(row.name, batch=3, pos=20)
    special = set(special_ids(config_of(row).to_dict()))
    for key, how in row.inputs:
        assert key in drawn
        if isinstance(how, Text):
            ids = set(drawn[key].flatten().tolist())
            assert (3, 20 - how.fewer + len(how.placeholders)) == drawn[key].shape[:2]
            assert ids <= set(range(VOCAB))
            assert set(how.placeholders) <= ids
            assert not (ids - set(how.placeholders)) & special


@every_recipe
def test_each_example_gets_its_share(name: str) -> None:
    """Twice the batch is twice the numbers, and a longer text is no other picture."""
    few, many = (tiny_inputs(name, batch=batch) for batch in (2, 4))
    longer = tiny_inputs(name, pos=9)
    for key, how in dict(RECIPE[name].inputs).items():
        assert 2 * few[key].numel() == many[key].numel()
        if isinstance(how, Known):
            assert torch.equal(few[key], longer[key])
        elif isinstance(how, (Marks, PerToken)):
            assert longer["input_ids"].shape == longer[key].shape[:2]


def test_indices_count_through_all_examples() -> None:
    """Each next example of packed patches begins where the last one ended."""
    first, second = tiny_inputs("molmo2-image")["image_token_pooling"].split(4)
    assert torch.equal(first + 16, second)


def test_marks_stand_at_placeholders() -> None:
    """What tells pictures from words agrees with the ids."""
    drawn = tiny_inputs("qwen2_vl-image")
    assert torch.equal(drawn["input_ids"] == IMAGE, drawn["mm_token_type_ids"] == 1)
    assert 8 == drawn["mm_token_type_ids"].sum()


def test_patches_know_their_place() -> None:
    """Rows and columns count from 1, as padding is 0."""
    places = tiny_inputs("pix2struct-image")["flattened_patches"][0, :, :2]
    assert [[1, 1], [1, 2], [2, 1], [2, 2]] == places.tolist()


@pytest.mark.parametrize("task", list(MAPPINGS))
def test_every_type_has_a_recipe_or_a_reason(task: Task) -> None:
    """Of the types that HuggingFace lists, none is forgotten."""
    assert set(MAPPINGS[task]) - types_of(task) == set(MISSING[task])


@pytest.mark.parametrize("task", list(MAPPINGS))
def test_no_recipe_is_of_another_task(task: Task) -> None:
    """HuggingFace lists each type that has a recipe."""
    assert types_of(task) <= set(MAPPINGS[task])


@pytest.mark.parametrize("task", list(AT_LEAST))
def test_there_are_so_many_types(task: Task) -> None:
    """The table does not shrink unseen."""
    assert len(types_of(task)) >= AT_LEAST[task]


def test_nearly_all_are_shown_something() -> None:
    """One type that HuggingFace lists with those that see only reads."""
    blind = {
        row.model_type
        for row in MULTIMODAL
        if row.task == "image-text" and not set(dict(row.inputs)) - {"input_ids"}
    }
    assert {"mistral4"} == blind
