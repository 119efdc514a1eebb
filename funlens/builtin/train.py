"""Train the embedded model: `python -m funlens.builtin.train --text FOLDER`."""

import argparse
import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import attrs
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from funlens.builtin import BUILTIN_MODELS
from funlens.builtin._batches import (
    BOS_SHARE,
    FIRST,
    IGNORED,
    ROW_KINDS,
    SECOND,
    Batch,
    Source,
    draw_batch,
)
from funlens.builtin._corpus import BOOKS, SOURCE, Corpus, read_corpus
from funlens.builtin._evaluate import evaluate, samples, text_losses
from funlens.builtin._heads import head_scores
from funlens.builtin._model import new_model, read, read_tokenizer, save
from funlens.builtin._tokenizer import N_SPECIAL, train_tokenizer

LOG: Final = logging.getLogger("funlens.builtin.train")
EVALUATION_SEED: Final = 1_000_003
LOG_EVERY: Final = 100


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that a training run depends on, but for the text.

    Attributes:
        seed: Seed of the weights, the tokenizer's templates and the batches.
        steps: Optimizer steps.
        first_steps: How many of them draw from the first mixture.
        rate: Highest learning rate of the blocks' matrices, reached after the warmup.
        embedding_rate: The same for embedding, unembedding and norms.
        warmup: Steps until then.
        decay: Decoupled weight decay of the same matrices.
        threads: Threads; another number changes the order of sums, and so the result.
    """

    seed: int = 0
    steps: int = 3400
    first_steps: int = 1100
    rate: float = 3e-3
    embedding_rate: float = 2e-3
    warmup: int = 100
    decay: float = 0.1
    threads: int = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, save, measure what was saved, and write `training.json`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _options(arguments)
    settings = Settings(seed=options.seed, steps=options.steps, threads=options.threads)
    torch.set_num_threads(settings.threads)
    _be_deterministic()
    start = time.perf_counter()
    corpus = read_corpus(options.text)
    tokenizer = train_tokenizer(corpus, seed=settings.seed)
    model = new_model(tokenizer, seed=settings.seed)
    curve = _train(model, tokenizer, corpus, settings=settings)
    save(model, tokenizer, folder=options.out)
    trained = time.perf_counter()
    report = _report(corpus, options.out)
    report["run"] = {
        **attrs.asdict(settings),
        "parameters": model.num_parameters(),
        "training seconds": round(trained - start),
        "total seconds": round(time.perf_counter() - start),
        "torch": torch.__version__,
    }
    report["training loss"] = curve
    text = json.dumps(report, indent=2) + "\n"
    (options.out / "training.json").write_text(text, encoding="utf-8")
    LOG.info(text)


def _be_deterministic() -> None:
    """Refuse operations of random outcome, without the costly filling of new memory."""
    torch.use_deterministic_algorithms(True)  # noqa: FBT003 -- torch's own signature
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010 -- torch makes it a property of the module, which type checkers cannot see


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m funlens.builtin.train", description=__doc__
    )
    parser.add_argument(
        "--text", type=Path, required=True, help="folder of the unpacked text package"
    )
    parser.add_argument(
        "--out", type=Path, default=BUILTIN_MODELS["tiny"], help="folder to write"
    )
    parser.add_argument("--seed", type=int, default=Settings().seed)
    parser.add_argument("--steps", type=int, default=Settings().steps)
    parser.add_argument("--threads", type=int, default=Settings().threads)
    return parser.parse_args(arguments)


def _train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    corpus: Corpus,
    *,
    settings: Settings,
) -> dict[int, dict[str, float]]:
    """Run all steps; give the mean loss of each 100, by kind of row."""
    source = _source(tokenizer, corpus, seed=settings.seed)
    optimizers = _optimizers(model, settings)
    recent: list[Tensor] = []
    curve: dict[int, dict[str, float]] = {}
    for step in range(settings.steps):
        mixture = FIRST if step < settings.first_steps else SECOND
        losses = _losses(model, draw_batch(source, mixture))
        loss, count = losses.sum(dim=0)
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["highest"] * _schedule(step, settings)
            optimizer.step()
            optimizer.zero_grad()
        recent.append(losses.detach())
        if (step + 1) % LOG_EVERY == 0 or step + 1 == settings.steps:
            curve[step + 1] = _means(torch.stack(recent).sum(dim=0))
            LOG.info("step %d loss %s", step + 1, curve[step + 1])
            recent.clear()
    return curve


def _source(tokenizer: PreTrainedTokenizerFast, corpus: Corpus, *, seed: int) -> Source:
    generator = torch.Generator().manual_seed(seed)
    text = tokenizer.backend_tokenizer.encode(corpus.training, add_special_tokens=False)
    n_words = len(tokenizer) - N_SPECIAL
    return Source(
        text=torch.tensor(text.ids),
        shuffled=N_SPECIAL + torch.randperm(n_words, generator=generator),
        tokenizer=tokenizer,
        generator=generator,
    )


def _losses(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Sum the loss and count its tokens for each kind of row, `[kind, 2]`.

    Logits are made for the tokens that count only.
    """
    states = model.model(batch.tokens, use_cache=False).last_hidden_state[:, :-1]
    targets = batch.labels[:, 1:]
    counted = targets != IGNORED
    losses = functional.cross_entropy(
        model.lm_head(states[counted]), targets[counted], reduction="none"
    )
    kinds = batch.kinds[:, None].expand_as(targets)[counted]
    member = functional.one_hot(kinds, len(ROW_KINDS)).to(losses.dtype)
    return torch.stack([losses @ member, member.sum(dim=0)], dim=1)


def _means(losses: Tensor) -> dict[str, float]:
    """Turn sums and counts into mean losses, in nats per token."""
    means = cast("list[float]", (losses[:, 0] / losses[:, 1]).tolist())
    return {kind: round(mean, 4) for kind, mean in zip(ROW_KINDS, means, strict=True)}


def _optimizers(
    model: LlamaForCausalLM, settings: Settings
) -> tuple[torch.optim.Optimizer, ...]:
    """Make Muon for the matrices of the blocks, and AdamW for all other weights."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim > 1]
    of_blocks = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in of_blocks]
    muon = torch.optim.Muon(
        [{"params": matrices, "highest": settings.rate}],
        weight_decay=settings.decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adam = torch.optim.AdamW(
        [{"params": others, "highest": settings.embedding_rate}],
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    return muon, adam


def _schedule(step: int, settings: Settings) -> float:
    """Rise linearly, then fall along half a cosine to 2% of the highest rate."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * share)) / 2


def _report(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Read the model back from disk and measure it."""
    model, tokenizer = read(folder), read_tokenizer(folder)
    return {
        "text": {"source": SOURCE, "books": BOOKS, "sha256": corpus.digest},
        "mixture": {
            "kinds of row": ROW_KINDS,
            "first": attrs.asdict(FIRST),
            "second": attrs.asdict(SECOND),
            "share of rows that start with BOS": BOS_SHARE,
        },
        "validation loss": text_losses(model, tokenizer, corpus.validation),
        "accuracy": evaluate(model, tokenizer, seed=EVALUATION_SEED),
        "heads": head_scores(model, seed=EVALUATION_SEED),
        "samples": samples(model, tokenizer),
    }


if __name__ == "__main__":
    main()
