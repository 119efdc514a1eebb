"""What one of several processes does: a model split among them, beside a whole one.

Started by `torchrun`; arguments are folders made by `save_pretrained`. Each process
writes what it found beside them.
"""

import copy
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

import funlens as fl
from funlens.errors import FunlensError, UnsupportedConfigError
from funlens.testing import verify

LOOKS: Final = (fl.W_E, fl.W_U, fl.W_Q, fl.W_K, fl.W_V, fl.W_O, fl.W_in, fl.W_out)
TOKENS: Final = torch.tensor([[3, 4, 5, 6, 7, 8, 9], [20, 11, 12, 13, 14, 15, 16]])
VECTOR: Final = torch.linspace(-1.0, 1.0, 16)
EDITS: Final = (fl.Zero(fl.z(1, head=2)), fl.Add(fl.resid_pre(1), VECTOR))


def apart(one: Tensor, other: Tensor) -> float:
    """Give the largest difference, relative to the largest value above 1.

    It is infinite where shapes differ.
    """
    if one.shape != other.shape:
        return float("inf")
    expected, found = one.detach().double(), other.detach().double()
    size = max(1.0, float(expected.abs().max()))
    return float((expected - found).abs().max()) / size


def metric(logits: Tensor) -> Tensor:
    """Weigh the logits unevenly."""
    weight = torch.linspace(-1.0, 1.0, logits.shape[-1])
    return (logits.log_softmax(-1) @ weight).sum()


def met(whole: fl.ModelSpec, split: fl.ModelSpec) -> dict[str, dict[str, float]]:
    """Compare what both meet at each site, and what it is to put it back."""
    every = [info.site for info in whole.sites]
    expected = fl.run_with_cache(whole, TOKENS, capture=every)
    found = fl.run_with_cache(split, TOKENS, capture=every)
    backs = {str(site): fl.Patch(site, found.cache) for site in smooth(whole)}
    return {
        "logits": {"run": apart(fl.run(whole, TOKENS), fl.run(split, TOKENS))},
        "captures": {
            str(site): apart(expected.cache[site], found.cache[site]) for site in every
        },
        "own values": {
            site: apart(found.logits, fl.run(split, TOKENS, [back]))
            for site, back in backs.items()
        },
    }


def done(whole: fl.ModelSpec, split: fl.ModelSpec) -> dict[str, dict[str, float]]:
    """Compare what edits do, gradients, weights and generated text."""
    edits = {str(site): fl.Scale(site, 1.5) for site in smooth(whole)}
    grads = [
        fl.run_with_grads(
            spec, TOKENS, metric, interventions=EDITS, capture=smooth(whole)
        ).grads
        for spec in (whole, split)
    ]
    text = [fl.generate(s, TOKENS, EDITS, max_new_tokens=4) for s in (whole, split)]
    return {
        "edits": {
            site: apart(fl.run(whole, TOKENS, [edit]), fl.run(split, TOKENS, [edit]))
            for site, edit in edits.items()
        },
        "grads": {
            str(site): apart(grads[0][site], grads[1][site]) for site in smooth(whole)
        },
        "weights": {look.__name__: apart(look(whole), look(split)) for look in LOOKS},
        "generated": {"tokens": apart(*text)},
    }


def smooth(spec: fl.ModelSpec) -> list[fl.Site]:
    """List the sites whose values are no whole numbers."""
    return [i.site for i in spec.sites if not i.site.part.endswith("indices")]


def refused(split: fl.ModelSpec, folder: str) -> dict[str, str]:
    """Ask for what cannot be done, and give what was answered."""
    name, weight = next(iter(split.module.named_parameters()))
    value = torch.zeros(weight.shape)

    def logit(vector: Tensor) -> Tensor:
        return fl.run(split, TOKENS, [fl.Add(fl.resid_pre(1), vector)])[0, -1, 3]

    asked: Mapping[str, Callable[[], Any]] = {
        "torch.func": lambda: torch.func.grad(logit)(VECTOR),
        "params": lambda: fl.run(split, TOKENS, params={name: value}),
        "with_weights": lambda: fl.with_weights(split, {name: value}),
        "fold_layer_norm": lambda: fl.fold_layer_norm(split),
        "dry_run": lambda: fl.dry_run(split, TOKENS),
        "a style": lambda: fl.load(folder, tp_plan={"model.norm": "sequence_parallel"}),
        "another way": lambda: fl.from_module(spread(folder, fsdp_size=2)),
    }
    answers: dict[str, str] = {}
    for what, ask in asked.items():
        try:
            ask()
        except FunlensError as error:
            answers[what] = str(error)
    return answers


def spread(folder: str, **plan: Any) -> Any:
    """Let transformers spread a model over the processes."""
    config = DistributedConfig(**plan)
    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder, distributed_config=config).eval()


def owned(folder: str) -> dict[str, float]:
    """Describe a module that transformers split, and compare it before and after."""
    module = spread(folder, tp_plan="auto")
    before = {name: dict(vars(part)) for name, part in module.named_modules()}
    held = {
        name: copy.copy(part._forward_hooks) for name, part in module.named_modules()
    }
    with torch.no_grad():
        expected = module(TOKENS).logits
    spec = fl.from_module(module)
    ours = fl.run(spec, TOKENS)
    fl.run_with_cache(spec, TOKENS, EDITS)
    with torch.no_grad():
        after = module(TOKENS).logits
    same = all(
        dict(vars(part)).keys() == before[name].keys()
        and vars(part).get("forward") is before[name].get("forward")
        and part._forward_hooks == held[name]
        for name, part in module.named_modules()
    )
    return {
        "ours": apart(expected, ours),
        "its own, afterwards": apart(expected, after),
        "its parts": 0.0 if same else 1.0,
    }


def write(folder: str, found: Mapping[str, Any]) -> None:
    """Write what this process found."""
    Path(folder, f"found-{dist.get_rank()}.json").write_text(json.dumps(found))


def main() -> None:
    """Compare each folder's model, split and whole; after `--brief` less of it."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    is_brief = "--brief" in sys.argv
    for folder in (word for word in sys.argv[1:] if word != "--brief"):
        # attention runs as it does where it is looked into, so that bits can be equal
        try:
            split = fl.load(folder, tp_plan="auto", attn_implementation="eager")
        except UnsupportedConfigError as error:
            write(folder, {"refused": error.problem})
            continue
        whole = fl.load(folder, attn_implementation="eager", device="cpu")
        shapes = [[(str(i.site), i.shape) for i in s.sites] for s in (whole, split)]
        found: dict[str, Any] = {
            **met(whole, split),
            "owner": owned(folder),
            "shapes": shapes[0] == shapes[1],
            "refused": refused(split, folder),
        }
        if not is_brief:
            rows = verify(split, TOKENS).rows
            found |= done(whole, split)
            found["broken"] = [row.law for row in rows if not row.holds]
            found["left out"] = {r.law: r.note for r in rows if not r.applies}
        write(folder, found)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
