"""What was asked of `load`, sorted by who is told about it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import torch

from funlens.builtin import BUILTIN_MODELS, folder
from funlens.errors import LoadError, OptionError

_BUILTIN: Final = "builtin:"
HUB_OPTIONS: Final = frozenset(
    {"cache_dir", "force_download", "local_files_only", "proxies", "subfolder", "token"}
)
MODEL_OPTIONS: Final = frozenset(
    {
        "adapter_kwargs",
        "adapter_name",
        "allow_all_kernels",
        "disable_mmap",
        "distributed_config",
        "experts_implementation",
        "fusion_config",
        "generation_config",
        "ignore_mismatched_sizes",
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
    "trust_remote_code",
)
_REFUSED: Final[Mapping[str, str]] = {
    "config": "give the fields to change by name, such as `sliding_window=128`",
    "gguf_file": "GGUF files are not read; load the safetensors checkpoint",
    "output_loading_info": "missing weights are always an error",
    "state_dict": "load the module yourself and use `funlens.from_module`",
    "use_safetensors": "weights are read from safetensors only, never by pickle",
    "weights_only": "weights are read from safetensors only, never by pickle",
}


@attrs.frozen(kw_only=True, eq=False)
class Request:
    """What was asked for, sorted by who is told about it."""

    name: str
    source: str
    dtype: torch.dtype | str | None
    device: torch.device | None
    device_map: Any
    quantization: Any
    attention: str | None
    trusts_code: bool
    hub: Mapping[str, Any]
    options: Mapping[str, Any]

    @property
    def code(self) -> Mapping[str, Any]:
        """Keywords for the hub and about its code."""
        return {**self.hub, "trust_remote_code": self.trusts_code}


def request_of(
    name: str,
    revision: str | None,
    options: Mapping[str, Any],
    **known: Any,
) -> Request:
    """Sort the options, and find out what the name means."""
    for option, reason in _REFUSED.items():
        if option in options:
            raise OptionError(option, f"it cannot be used here: {reason}")
    source = _source(name)
    if revision is not None and Path(source).is_dir():
        raise OptionError(
            option="revision", problem="a folder has no revisions, so it has no effect"
        )
    if name.startswith(_BUILTIN) and known["dtype"] is None:
        known["dtype"] = torch.float32  # the file holds float16, to be small
    hub = {word: options[word] for word in options if word in HUB_OPTIONS}
    return Request(
        name=name,
        source=source,
        hub=hub if revision is None else {**hub, "revision": revision},
        options={word: options[word] for word in options if word not in hub},
        **known,
    )


def _source(name: str) -> str:
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
