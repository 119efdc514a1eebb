"""What was asked of `load`, sorted by who is told about it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import torch

from funlens.adapters._attention import ATTENTION
from funlens.builtin import BUILTIN_MODELS, folder
from funlens.errors import LoadError, OptionError, nearest

_BUILTIN: Final = "builtin:"
HUB_OPTIONS: Final = frozenset(
    {"cache_dir", "force_download", "local_files_only", "proxies", "subfolder", "token"}
)
_CODE_OPTIONS: Final = frozenset({"code_revision"})
_WITH_MAP: Final = frozenset({"max_memory", "offload_buffers", "offload_folder"})
MODEL_OPTIONS: Final = frozenset(
    {
        "adapter_kwargs",
        "adapter_name",
        "allow_all_kernels",
        "disable_mmap",
        "experts_implementation",
        "fusion_config",
        "generation_config",
        "kernel_config",
        "key_mapping",
        "max_memory",
        "offload_buffers",
        "offload_folder",
        "tqdm_class",
        "use_kernels",
        "variant",
    }
)
OWN_OPTIONS: Final = (
    "adapter",
    "attn_implementation",
    "bos",
    "device",
    "device_map",
    "dtype",
    "load_weights",
    "n_ctx",
    "quantization_config",
    "revision",
    "seed",
    "tokenizer",
    "tp_plan",
    "trust_remote_code",
)
_PARALLEL: Final = "`tp_plan` splits a model among the processes that there are"
REFUSED: Final[Mapping[str, str]] = {
    "config": "give the fields to change by name, such as `sliding_window=128`",
    "device_mesh": _PARALLEL,
    "distributed_config": _PARALLEL,
    "gguf_file": "GGUF files are not read; load the safetensors checkpoint",
    "ignore_mismatched_sizes": "weights of another shape would become random ones",
    "output_loading_info": "missing weights are always an error",
    "state_dict": "load the module yourself and use `funlens.from_module`",
    "torch_dtype": "it is called `dtype`",
    "tp_size": _PARALLEL,
    "use_safetensors": "weights are read from safetensors only, never by pickle",
    "weights_only": "weights are read from safetensors only, never by pickle",
}


@attrs.frozen(kw_only=True, eq=False)
class Request:
    """What was asked for, sorted by who is told about it."""

    name: str
    source: str
    dtype: torch.dtype | str | None = None
    device: torch.device | None = None
    device_map: Any = None
    tp_plan: Any = None
    quantization: Any = None
    attention: str | None = None
    trusts_code: bool = False
    hub: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    code: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    options: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


def request_of(
    name: str,
    revision: str | None,
    options: Mapping[str, Any],
    **known: Any,
) -> Request:
    """Sort the options, and find out what the name means."""
    _refuse_idle(options, known)
    source = source_of(name)
    if revision is not None and Path(source).is_dir():
        raise OptionError(
            option="revision", problem="a folder has no revisions, so it has no effect"
        )
    if name.startswith(_BUILTIN) and known["dtype"] is None:
        known["dtype"] = torch.float32  # the file holds float16, to be small
    hub = {word: options[word] for word in options if word in HUB_OPTIONS}
    code = {word: options[word] for word in options if word in _CODE_OPTIONS}
    if revision is not None:
        hub["revision"] = revision
    return Request(
        name=name,
        source=source,
        hub=hub,
        code={**hub, **code, "trust_remote_code": known["trusts_code"]},
        options={w: options[w] for w in options if w not in {*hub, *code}},
        **known,
    )


def elsewhere(request: Request, name: str) -> Request:
    """Ask for another repository or folder, with the same access to the hub."""
    own = {"revision", "subfolder", "code_revision"}
    return attrs.evolve(
        request,
        name=name,
        source=source_of(name),
        hub={word: held for word, held in request.hub.items() if word not in own},
        code={word: held for word, held in request.code.items() if word not in own},
    )


def _refuse_idle(options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse what cannot be used, or would have no effect."""
    for option, reason in REFUSED.items():
        if option in options:
            raise OptionError(option, f"it cannot be used here: {reason}")
    idle = () if known["trusts_code"] else _CODE_OPTIONS
    for option in sorted(options.keys() & idle):
        raise OptionError(option, "it has no effect without `trust_remote_code=True`")
    idle = _WITH_MAP if known["device_map"] is None else ()
    for option in sorted(options.keys() & idle):
        raise OptionError(option, "it has no effect without `device_map`")
    _check_dtype(known["dtype"])
    _check_attention(known["attention"])


def _check_dtype(asked: torch.dtype | str | None) -> None:
    if asked is None or asked == "auto" or isinstance(asked, torch.dtype):
        return
    if not isinstance(getattr(torch, asked, None), torch.dtype):
        near = nearest(asked, ("float32", "bfloat16", "float16", "float64", "auto"))
        raise OptionError("dtype", f"torch has no dtype {asked!r}", near)


def _check_attention(asked: str | None) -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if asked is None or "/" in asked:  # a kernel from the hub
        return
    known = {"eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()} - {ATTENTION}
    if asked not in known:
        problem = f"transformers has no {asked!r}"
        raise OptionError("attn_implementation", problem, nearest(asked, known))


def source_of(name: str) -> str:
    """Say where `from_pretrained` reads a name from."""
    if name.startswith(_BUILTIN):
        word = name.removeprefix(_BUILTIN)
        if word not in BUILTIN_MODELS:
            there = ", ".join(_BUILTIN + one for one in BUILTIN_MODELS)
            raise LoadError(
                name, "there is no such builtin model", f"There is: {there}"
            )
        return str(folder(word))
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise LoadError(name, "it is a file", "Give the folder that it lies in")
    if not name or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise LoadError(
            name,
            "there is no such folder, and it is no hub id",
            "Check the path, or write a hub id such as `openai-community/gpt2`",
        )
    return name


def refuse_without_weights(
    options: Mapping[str, Any], named: Mapping[str, Any]
) -> None:
    """Refuse what is about reading weights where none are read."""
    idle = [option for option, value in named.items() if value is not None]
    idle += [option for option in options if option in MODEL_OPTIONS]
    if idle:
        problem = "it has no effect with `load_weights=False`"
        raise OptionError(idle[0], problem)
