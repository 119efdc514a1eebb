"""Programs compiled to transformer weights by Tracr, as models.

Tracr (Lindner et al. 2023, arXiv:2301.05062) turns a program written in RASP into the
weights of a transformer in which every residual axis carries a named variable.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from funlens.adapters._registry import from_module
from funlens.adapters._toy import toy_module
from funlens.adapters._tracr_program import PAD, program_of
from funlens.data import ModelSpec
from funlens.errors import InputError, LoadError, UnsupportedConfigError

_File: TypeAlias = str | os.PathLike[str]

_TOKENS: Final = "token_embed|embeddings"
_POSITIONS: Final = "pos_embed|embeddings"
_PLACES: Final[Mapping[str, str]] = {
    "attn/query": "attn.q",
    "attn/key": "attn.k",
    "attn/value": "attn.v",
    "attn/linear": "attn.o",
    "mlp/linear_1": "mlp.up",
    "mlp/linear_2": "mlp.down",
}
_MOST_NAMED: Final = 4


def from_tracr(
    parameters: Mapping[str, Any] | _File, description: Mapping[str, Any] | _File
) -> ModelSpec:
    """Make a model of a program that Tracr compiled.

    It has no norms, ReLU neurons and learned positions, and its unembedding reads the
    axes of the program's output. Its tokenizer takes words with spaces between them
    and puts the beginning-of-sequence word in front of each row. `tracr_outputs` turns
    its logits into what the program gives.

    Args:
        parameters: Arrays under Haiku's names, flat (`"token_embed|embeddings"`) or
            nested (`{"token_embed": {"embeddings": ...}}`), or an `.npz` file of them.
            Residuals kept beside them (`"residual|0|0"`) are passed over.
        description: What the program is, or a JSON file of it: `program`, the name of
            its last step; `vocabulary`, ids of its words; `output`, its words as
            logits are numbered, None for a number; `config`, Tracr's own;
            `residual_labels`, the variable (`a_1`) or its value (`a_1:x`) that each
            residual axis carries.

    Raises:
        InputError: Something is missing, or does not fit the rest.
        OptionError: A size is none.
        UnsupportedConfigError: It has norms, or neurons other than ReLU.
        LoadError: A file cannot be read. Nothing is loaded by pickle.
    """
    facts = description if isinstance(description, Mapping) else _json(description)
    given = parameters if isinstance(parameters, Mapping) else _npz(parameters)
    program = program_of(facts)
    names = _names(program.config.n_layers)
    arrays = _flat(given)
    _check_names(arrays, names)
    n_ctx = len(arrays[_POSITIONS])
    module: Any = toy_module(attrs.evolve(program.config, n_ctx=n_ctx))
    state = {ours: _tensor(name, arrays[name]) for name, ours in names.items()}
    _check_shapes(names, state, module.state_dict())
    unembed = torch.eye(program.config.d_model)[list(program.axes)]
    module.load_state_dict({**state, "unembed.weight": unembed})
    kind = "regression" if program.is_number else "single_label_classification"
    module.config.problem_type = kind
    module.config.id2label = dict(enumerate(program.outputs))
    tokenizer = _tokenizer(program.vocabulary, program.bos)
    return from_module(module, tokenizer, name=program.name, bos="always")


def tracr_outputs(
    spec: ModelSpec, logits: Float[Tensor, "batch pos vocab"]
) -> tuple[tuple[str | float, ...], ...]:
    """Turn logits of a compiled program into what the program gives.

    Args:
        spec: A model made by `from_tracr`.
        logits: Its logits, over rows that are padded on the right or not at all.

    Returns:
        For each row a word or a number at every position after the first, which holds
        the beginning-of-sequence word.

    Raises:
        UnsupportedConfigError: The model is no compiled program.
    """
    config: Any = spec.engine.config
    if config.problem_type is None:
        raise UnsupportedConfigError(
            spec.model_type,
            "it is no compiled program",
            "Make one with `funlens.from_tracr`.",
        )
    after = logits[:, 1:]
    if config.problem_type == "regression":
        numbers = cast("list[list[float]]", after[..., 0].tolist())
        return tuple(tuple(row) for row in numbers)
    chosen = cast("list[list[int]]", after.argmax(-1).tolist())
    words: Mapping[int, str] = config.id2label
    return tuple(tuple(words[at] for at in row) for row in chosen)


def _json(path: _File) -> Mapping[str, Any]:
    try:
        read: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(read, dict):
        raise LoadError(os.fspath(path), "it holds no JSON object", "Check the path")
    return cast("dict[str, Any]", read)


def _npz(path: _File) -> Mapping[str, Any]:
    import numpy as np

    try:
        with Path(path).open("rb") as opened:
            file: Any = np.load(opened, allow_pickle=False)
            if hasattr(file, "files"):
                return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error
    raise LoadError(os.fspath(path), "it holds one array", "Expected an .npz file")


def _unreadable(path: _File, error: Exception) -> LoadError:
    first = str(error).partition("\n")[0].rstrip(". ")
    problem = f"{type(error).__name__}: {first}"
    return LoadError(os.fspath(path), problem, "Check the path and the file")


def _flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Join Haiku's module names with their parameters' names."""
    flat: dict[str, Any] = {}
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            inner = cast("Mapping[str, Any]", value)
            flat |= {f"{name}|{last}": array for last, array in inner.items()}
        elif not name.startswith("residual|"):
            flat[name] = value
    return flat


def _names(n_layers: int) -> dict[str, str]:
    """Say what each of Haiku's names is called here."""
    names = {_TOKENS: "embed.weight", _POSITIONS: "pos_embed.weight"}
    for layer, (theirs, ours) in product(range(n_layers), _PLACES.items()):
        names[f"transformer/layer_{layer}/{theirs}|w"] = f"blocks.{layer}.{ours}.weight"
        names[f"transformer/layer_{layer}/{theirs}|b"] = f"blocks.{layer}.{ours}.bias"
    return names


def _check_names(arrays: Mapping[str, Any], names: Mapping[str, str]) -> None:
    missing = sorted(names.keys() - arrays.keys())
    unknown = sorted(arrays.keys() - names.keys())
    if missing or unknown:
        raise InputError(
            f"missing parameters: {', '.join(missing[:_MOST_NAMED]) or 'none'}; "
            f"unknown ones: {', '.join(unknown[:_MOST_NAMED]) or 'none'}",
            f"the {len(names)} of a program with as many layers",
            "Use parameters and description of one compilation",
        )


def _tensor(name: str, value: Any) -> Tensor:
    """Copy an array of any library; Haiku stores weights input first."""
    import numpy as np

    copied = torch.tensor(np.asarray(value), dtype=torch.float32)
    return copied.mT if name.endswith("|w") else copied


def _check_shapes(
    names: Mapping[str, str], state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> None:
    for theirs, ours in names.items():
        if state[ours].shape != own[ours].shape:
            flip = -1 if theirs.endswith("|w") else 1
            raise InputError(
                f"{theirs} has shape {tuple(state[ours].shape)[::flip]}",
                f"{tuple(own[ours].shape)[::flip]}",
                "Use parameters and description of one compilation",
            )


def _tokenizer(vocabulary: Mapping[str, int], bos: str) -> Any:
    from funlens.adapters._hf_words import word_tokenizer

    return word_tokenizer(vocabulary, bos=bos, pad=PAD)
