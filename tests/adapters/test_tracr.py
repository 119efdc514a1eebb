"""Tracr's programs do what they were compiled to do, step by step."""

import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch

import funlens as fl
from funlens.errors import (
    InputError,
    LoadError,
    OptionError,
    TokenizerError,
    UnsupportedConfigError,
)

PROGRAMS: Final = ("frac_prevs", "hist", "pair_balance", "reverse")
# Scores reach 45, of which float32 knows 3e-6: so well a pattern is known, and the
# values that it mixes are at most 1.
CLOSE: Final = 1e-5

WORDS: Final = {"BOS": 0, "a": 1, "b": 2, "compiler_pad": 3}
LABELS: Final = (
    "indices:0", "indices:1", "indices:2", "indices:3", "previous_1:a",
    "previous_1:b", "swapped_2:a", "swapped_2:b", "tokens:BOS", "tokens:a",
    "tokens:b", "tokens:compiler_pad",
)  # fmt: skip
AXIS: Final = {label: at for at, label in enumerate(LABELS)}
SHARP: Final = 200.0  # scores of 0 and 100, over two square roots of the head's width


def matrix(rows: int, columns: int, *, at: Iterable[tuple[int, int]]) -> np.ndarray:
    """Zeros, but for some ones."""
    made = np.zeros((rows, columns), dtype=np.float32)
    for row, column in at:
        made[row, column] = 1.0
    return made


def swap() -> tuple[dict[str, Any], dict[str, Any]]:
    """A program in Tracr's form, compiled by hand: b for each a before, and back.

    Attention reads the word before, where BOS counts as a; neurons swap the two.
    """
    places = [(AXIS[f"indices:{at}"], at) for at in range(4)]
    earlier = [(axis, at - 1) for axis, at in places[1:]]
    values = [(AXIS["tokens:BOS"], 0), (AXIS["tokens:a"], 0), (AXIS["tokens:b"], 1)]
    before = [(0, AXIS["previous_1:a"]), (1, AXIS["previous_1:b"])]
    swapped = [(0, AXIS["swapped_2:b"]), (1, AXIS["swapped_2:a"])]
    width, layer = len(LABELS), "transformer/layer_0"
    weights = {
        "attn/query": SHARP * matrix(width, 4, at=earlier),
        "attn/key": matrix(width, 4, at=places),
        "attn/value": matrix(width, 4, at=values),
        "attn/linear": matrix(4, width, at=before),
        "mlp/linear_1": matrix(2, width, at=before).T,
        "mlp/linear_2": matrix(2, width, at=swapped),
    }
    named = [(at, AXIS[f"tokens:{word}"]) for word, at in WORDS.items()]
    parameters: dict[str, Any] = {
        "token_embed|embeddings": matrix(4, width, at=named),
        "pos_embed|embeddings": matrix(width, 4, at=places).T,
    }
    for name, weight in weights.items():
        parameters[f"{layer}/{name}|w"] = weight
        parameters[f"{layer}/{name}|b"] = np.zeros(weight.shape[1], dtype=np.float32)
    description: dict[str, Any] = {
        "program": "swapped",
        "vocabulary": WORDS,
        "output": {"a": 0, "b": 1},
        "config": {
            "num_heads": 1, "num_layers": 1, "key_size": 4, "mlp_hidden_size": 2,
            "dropout_rate": 0.0, "activation": "relu", "layer_norm": False,
            "causal": False,
        },
        "residual_labels": list(LABELS),
    }  # fmt: skip
    return parameters, description


def share() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same program, read off where it is a number: whether b stands before."""
    parameters, description = swap()
    labels = [{"previous_1:b": "share_1"}.get(label, label) for label in LABELS]
    return parameters, {
        **description,
        "program": "share",
        "output": None,
        "residual_labels": labels,
    }


def inputs() -> list[tuple[str, ...]]:
    """Every input of one to three words."""
    return [words for n in (1, 2, 3) for words in product("ab", repeat=n)]


@pytest.mark.parametrize("words", inputs(), ids=" ".join)
def test_a_compiled_program_gives_what_it_should(words: tuple[str, ...]) -> None:
    """Words come out, one for each that went in."""
    spec = fl.from_tracr(*swap())
    logits = fl.run(spec, " ".join(words))
    expected = tuple({"a": "b", "b": "a"}[word] for word in ("a", *words[:-1]))
    assert (expected,) == fl.tracr_outputs(spec, logits)


@pytest.mark.parametrize("words", inputs(), ids=" ".join)
def test_a_program_may_give_numbers(words: tuple[str, ...]) -> None:
    """An output without words is read off as it is."""
    spec = fl.from_tracr(*share())
    ((*numbers,),) = fl.tracr_outputs(spec, fl.run(spec, " ".join(words)))
    expected = [float(word == "b") for word in ("a", *words[:-1])]
    assert numbers == pytest.approx(expected, abs=CLOSE)


def test_each_step_stands_on_its_own_axes() -> None:
    """The stream carries what the labels say, and nothing is overwritten."""
    spec = fl.from_tracr(*swap())
    _, cache = fl.run_with_cache(spec, "b a")

    def carried(site: fl.Site) -> list[set[str]]:
        return [
            {LABELS[at] for at in row.nonzero().flatten().tolist()}
            for row in cache[site][0].round(decimals=4)
        ]

    embedded = [
        {"indices:0", "tokens:BOS"},
        {"indices:1", "tokens:b"},
        {"indices:2", "tokens:a"},
    ]
    assert embedded == carried(fl.resid_pre(0))
    assert embedded[2] | {"previous_1:b"} == carried(fl.resid_mid(0))[2]
    expected = embedded[2] | {"previous_1:b", "swapped_2:a"}
    assert expected == carried(fl.resid_post(0))[2]


def test_shorter_rows_are_not_changed_by_padding() -> None:
    """Words that fill up are not looked at."""
    spec = fl.from_tracr(*swap())
    tokens = fl.to_tokens(spec, ["b b a", "b"])
    assert [[0, 2, 2, 1], [0, 2, 3, 3]] == tokens.tolist()
    alone = fl.run(spec, "b")
    together = fl.run(spec, tokens)[1:, :2]
    torch.testing.assert_close(alone, together, atol=CLOSE, rtol=0)


def test_the_first_word_is_not_doubled() -> None:
    """Tracr's own inputs begin with BOS; they are taken as they stand."""
    spec = fl.from_tracr(*swap())
    expected = fl.to_tokens(spec, "a b").tolist()
    assert expected == fl.to_tokens(spec, "BOS a b").tolist() == [[0, 1, 2]]
    assert "BOS a b" == fl.to_string(spec, [0, 1, 2])


def test_unknown_words_are_refused() -> None:
    """The nearest known ones are named."""
    spec = fl.from_tracr(*swap())
    with pytest.raises(TokenizerError, match="'c' is not in the vocabulary"):
        fl.to_tokens(spec, ["a b", "a c"])


def test_haikus_own_nesting_is_read() -> None:
    """Parameters as Haiku gives them, and residuals kept beside them."""
    parameters, description = swap()
    nested: dict[str, Any] = {"residual|0|0": np.zeros((3, 12))}
    for name, array in parameters.items():
        module, _, last = name.partition("|")
        nested.setdefault(module, {})[last] = array
    specs = [fl.from_tracr(each, description) for each in (parameters, nested)]
    first, second = (fl.run(spec, "a b a") for spec in specs)
    assert torch.equal(first, second)


def test_the_arrays_stay_their_owners() -> None:
    """A model made of them neither changes them nor sees later changes."""
    parameters, description = swap()
    kept = {name: array.copy() for name, array in parameters.items()}
    spec = fl.from_tracr(parameters, description)
    before = fl.run(spec, "a b")
    for name, array in parameters.items():
        assert np.array_equal(kept[name], array)
        np.copyto(array, 7.0)
    assert torch.equal(before, fl.run(spec, "a b"))


def without(facts: dict[str, Any], key: str) -> dict[str, Any]:
    """Leave one entry out."""
    return {name: value for name, value in facts.items() if name != key}


@pytest.mark.parametrize(
    ("changed", "fragment"),
    [
        ({"vocabulary": {"a": 0, "b": 1, "compiler_pad": 2}}, "the vocabulary is"),
        ({"vocabulary": {"BOS": 0, "a": 1, "b": 2, "c": 3}}, "the vocabulary is"),
        ({"vocabulary": {**WORDS, "a": 7}}, "the ids of `vocabulary` are [0, 2, 3, 7]"),
        ({"output": {"a": 1, "b": 2}}, "the ids of `output` are [1, 2]"),
        ({"output": {"a": 0, "z": 1}}, "no residual axis carries swapped_2:z"),
        ({"output": None}, "no residual axis carries swapped_2"),
        ({"program": "sort"}, "0 variables are called 'sort'"),
        ({"residual_labels": [*LABELS, "swapped_3:a"]}, "2 variables are called"),
    ],
)
def test_a_description_must_hang_together(
    changed: dict[str, Any], fragment: str
) -> None:
    """What does not fit is said, before any model is built."""
    parameters, description = swap()
    with pytest.raises(InputError) as caught:
        fl.from_tracr(parameters, {**description, **changed})
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    "key", ["program", "vocabulary", "output", "config", "residual_labels"]
)
def test_a_description_must_be_whole(key: str) -> None:
    """What is missing is named."""
    parameters, description = swap()
    with pytest.raises(InputError, match=f"the description has no {key}"):
        fl.from_tracr(parameters, without(description, key))


@pytest.mark.parametrize("key", ["num_heads", "activation", "causal"])
def test_a_config_must_be_whole(key: str) -> None:
    """What is missing in Tracr's config is named."""
    parameters, description = swap()
    config = without(description["config"], key)
    with pytest.raises(InputError, match=f"its config has no {key}"):
        fl.from_tracr(parameters, {**description, "config": config})


def test_sizes_must_be_sizes() -> None:
    """Tracr's sizes are checked as a toy's."""
    parameters, description = swap()
    config = {**description["config"], "num_layers": 0}
    with pytest.raises(OptionError) as caught:
        fl.from_tracr(parameters, {**description, "config": config})
    assert "n_layers" == caught.value.option


@pytest.mark.parametrize("changed", [{"layer_norm": True}, {"activation": "gelu"}])
def test_what_tracr_does_not_compile_is_refused(changed: dict[str, Any]) -> None:
    """Norms and smooth neurons are not guessed at."""
    parameters, description = swap()
    config = {**description["config"], **changed}
    with pytest.raises(UnsupportedConfigError):
        fl.from_tracr(parameters, {**description, "config": config})


def test_parameters_must_be_complete_and_known() -> None:
    """Both kinds of strangeness are named at once."""
    parameters, description = swap()
    strange = {**without(parameters, "pos_embed|embeddings"), "norm|scale": np.ones(3)}
    with pytest.raises(InputError) as caught:
        fl.from_tracr(strange, description)
    assert "missing parameters: pos_embed|embeddings" in str(caught.value)
    assert "unknown ones: norm|scale" in str(caught.value)


def test_parameters_must_have_the_described_shapes() -> None:
    """Shapes are named as Haiku has them, input first."""
    parameters, description = swap()
    name = "transformer/layer_0/mlp/linear_1|w"
    with pytest.raises(InputError) as caught:
        fl.from_tracr({**parameters, name: np.ones((12, 3))}, description)
    assert f"{name} has shape (12, 3). Expected (12, 2)" in str(caught.value)


def written(folder: Path) -> tuple[Path, Path]:
    """Write the program to two files."""
    parameters, description = swap()
    arrays, facts = folder / "swap.npz", folder / "swap.json"
    np.savez(arrays, **parameters)
    facts.write_text(json.dumps(description))
    return arrays, facts


def test_files_give_the_same_model(tmp_path: Path) -> None:
    """Paths in place of what they hold."""
    expected = fl.run(fl.from_tracr(*swap()), "b a b")
    assert torch.equal(expected, fl.run(fl.from_tracr(*written(tmp_path)), "b a b"))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """An array of objects, which only pickle reads, is refused."""
    _, facts = written(tmp_path)
    np.savez(tmp_path / "objects.npz", weights=np.array([{}, None], dtype=object))
    with pytest.raises(LoadError, match="allow_pickle"):
        fl.from_tracr(tmp_path / "objects.npz", facts)


def test_files_that_hold_something_else_are_refused(tmp_path: Path) -> None:
    """Missing, damaged, or of another kind: each with its path."""
    arrays, facts = written(tmp_path)
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "damaged.npz").write_bytes(arrays.read_bytes()[:100])
    pairs = (
        (arrays, tmp_path / "none.json"),
        (arrays, tmp_path / "list.json"),
        (arrays, tmp_path / "damaged.json"),
        (tmp_path / "none.npz", facts),
        (tmp_path / "one.npy", facts),
        (tmp_path / "damaged.npz", facts),
    )
    for one, other in pairs:
        with pytest.raises(LoadError) as caught:
            fl.from_tracr(one, other)
        assert caught.value.name in {str(one), str(other)}


def test_only_programs_have_outputs() -> None:
    """Logits of another model are not read off."""
    spec = fl.toy(fl.ToyConfig())
    with pytest.raises(UnsupportedConfigError, match="no compiled program"):
        fl.tracr_outputs(spec, torch.zeros(1, 2, 32))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_step_of_tracrs_programs_is_reproduced(
    name: str, fixtures_folder: Path
) -> None:
    """Ids, every residual, and the outputs are those that Tracr itself gave."""
    stem = fixtures_folder / "tracr" / name
    arrays, facts = stem.with_suffix(".npz"), stem.with_suffix(".json")
    spec = fl.from_tracr(arrays, facts)
    stored = np.load(arrays, allow_pickle=False)
    for at, example in enumerate(json.loads(facts.read_text())["examples"]):
        tokens = fl.to_tokens(spec, " ".join(example["input"]))
        assert [example["ids"]] == tokens.tolist()
        logits, cache = fl.run_with_cache(spec, tokens)
        looked_up = stored["token_embed|embeddings"][example["ids"]]
        placed = looked_up + stored["pos_embed|embeddings"][: len(looked_up)]
        assert np.array_equal(placed, cache[fl.resid_pre(0)][0].numpy())
        assert np.array_equal(looked_up, cache["embed"][0].numpy())
        for step in range(2 * spec.n_layers):
            site = (fl.resid_post if step % 2 else fl.resid_mid)(step // 2)
            expected = torch.from_numpy(stored[f"residual|{at}|{step}"])
            torch.testing.assert_close(expected, cache[site][0], atol=CLOSE, rtol=0)
        ((*outputs,),) = fl.tracr_outputs(spec, logits)
        for expected, found in zip(example["decoded"][1:], outputs, strict=True):
            if isinstance(expected, str):
                assert expected == found
            else:  # words of numbers are written as text
                assert expected == pytest.approx(float(found), abs=CLOSE)
