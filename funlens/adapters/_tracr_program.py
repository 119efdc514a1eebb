"""What is known of a program that Tracr compiled, checked and sorted."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from funlens.adapters._toy import ToyConfig
from funlens.errors import InputError, UnsupportedConfigError

PAD: Final = "compiler_pad"
_BEGINNINGS: Final = ("BOS", "compiler_bos")
_FACTS: Final = ("program", "vocabulary", "output", "config", "residual_labels")
_SIZES: Final[Mapping[str, str]] = {
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "key_size": "d_head",
    "mlp_hidden_size": "d_mlp",
}


@attrs.frozen(kw_only=True)
class Program:
    """A compiled program, but for its parameters.

    Attributes:
        name: Name of the program.
        vocabulary: The id of each word.
        bos: The word that stands in front of each input.
        outputs: Words of the output in the order of the logits; the variable's name
            where it is a number.
        axes: The residual axis of each output.
        is_number: Whether the output is a number rather than one of some words.
        config: The toy transformer that it runs on, with any context length.
    """

    name: str
    vocabulary: Mapping[str, int]
    bos: str
    outputs: tuple[str, ...]
    axes: tuple[int, ...]
    is_number: bool
    config: ToyConfig


def program_of(facts: Mapping[str, Any]) -> Program:
    """Check a description, and sort it.

    Raises:
        InputError: Something is missing, or does not fit the rest.
        UnsupportedConfigError: It has norms, or neurons other than ReLU.
    """
    _check_keys(facts, _FACTS, "the description")
    vocabulary = _numbered(facts["vocabulary"], "vocabulary")
    labels: Sequence[str] = tuple(facts["residual_labels"])
    variable = _output_variable(facts["program"], labels)
    is_number = facts["output"] is None
    words = () if is_number else tuple(_numbered(facts["output"], "output"))
    outputs = words or (variable,)
    return Program(
        name=facts["program"],
        vocabulary=vocabulary,
        bos=_beginning(vocabulary),
        outputs=outputs,
        axes=_axes(labels, [f"{variable}:{word}" for word in words] or [variable]),
        is_number=is_number,
        config=_config(
            facts["config"],
            d_model=len(labels),
            d_vocab=len(vocabulary),
            d_out=len(outputs),
        ),
    )


def _check_keys(facts: Mapping[str, Any], keys: tuple[str, ...], what: str) -> None:
    if missing := [key for key in keys if key not in facts]:
        raise InputError(
            f"{what} has no {', '.join(missing)}",
            f"all of {', '.join(keys)}",
            "Write down what Tracr's compiler gave",
        )


def _numbered(ids: Mapping[str, int], what: str) -> dict[str, int]:
    """Sort words by their ids, which must be 0, 1, 2 and so on."""
    ordered = dict(sorted(ids.items(), key=lambda pair: pair[1]))
    if [*ordered.values()] != [*range(len(ordered))]:
        raise InputError(
            f"the ids of `{what}` are {[*ordered.values()]}",
            "0, 1, 2 and so on, each once",
            "Number the words from 0",
        )
    return ordered


def _beginning(vocabulary: Mapping[str, int]) -> str:
    bos = next((word for word in _BEGINNINGS if word in vocabulary), None)
    if bos is None or PAD not in vocabulary:
        raise InputError(
            f"the vocabulary is {', '.join(vocabulary)}",
            f"{' or '.join(_BEGINNINGS)}, and {PAD} among its words",
            "Compile the program with these words",
        )
    return bos


def _output_variable(program: str, labels: Sequence[str]) -> str:
    """Find the variable that the program gives: its name with Tracr's number."""
    variables = dict.fromkeys(label.partition(":")[0] for label in labels)
    shape = re.compile(rf"{re.escape(program)}_\d+")
    found = [variable for variable in variables if shape.fullmatch(variable)]
    if len(found) != 1:
        raise InputError(
            f"{len(found)} variables are called {program!r} and a number",
            f"one of {', '.join(variables)}",
            "Give the name of the program's last step as `program`",
        )
    return found[0]


def _axes(labels: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    if missing := [label for label in wanted if label not in labels]:
        raise InputError(
            f"no residual axis carries {', '.join(missing)}",
            "an axis for each word of the output",
            "Compare `output` with `residual_labels`",
        )
    return tuple(labels.index(label) for label in wanted)


def _config(facts: Mapping[str, Any], **sizes: int) -> ToyConfig:
    """Turn Tracr's own config into one of a toy."""
    _check_keys(facts, (*_SIZES, "activation", "layer_norm", "causal"), "its config")
    if facts["layer_norm"] or facts["activation"] != "relu":
        found = f"layer_norm is {facts['layer_norm']}, activation {facts['activation']}"
        advice = "Expected what Tracr compiles: no norms, and ReLU."
        raise UnsupportedConfigError("Tracr", found, advice)
    return ToyConfig(
        **sizes,
        **{ours: facts[theirs] for theirs, ours in _SIZES.items()},
        norm="none",
        activation="relu",
        is_causal=facts["causal"],
    )
