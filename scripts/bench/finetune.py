"""Time of an epoch of fine-tuning: texts padded, in buckets of length, and packed.

    pip install torch transformers
    python scripts/bench/finetune.py
    python scripts/bench/finetune.py --size=base --rows=8 --texts=96 --fill=0.3
    python scripts/bench/finetune.py --sides=packed,buckets   # no torch

`padded` has one row length (data.num_lengths=1), `buckets` as many as `finetune` takes
by itself, `packed` rows that texts share (data.pack). `torch` is the classifier of
transformers on the batches of `buckets`, each as long as its longest text. Texts are
random, with lengths uniform around `--fill` of `--length`. All sides see
the same texts in an epoch, are compiled before, and take turns, because machines drift:
`ratio` is texts a second of the first side over those of this one, the median over the
turns. `computed` is how many tokens the encoder computes for one of a text.
"""

import argparse
import dataclasses
import functools
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import synthetic_batches_lib
import timing_lib

from bert_jax import console, errors
from bert_jax.config import finetuning
from bert_jax.data.labeled import example_rows
from bert_jax.runs import finetuning as finetuning_run
from bert_jax.training import sharding, state

sys.path.append(str(Path(__file__).resolve().parents[1] / "compare"))
import torch_finetune_lib  # noqa: E402

WORDS = ("the", "a", "sat", "ran", "home", "fast", "here", "there", "today", "他", "好")
SIDES = {
    "packed": {"data.pack": True},
    "buckets": {},
    "padded": {"data.num_lengths": 1},
    "torch": {},
}
HEADER = ("side", "row lengths", "rows", "computed", "texts/s", "ratio")


@dataclasses.dataclass(frozen=True)
class Side:
    """A way to train: its rows, and what trains on all of them once."""

    name: str
    rows: example_rows.TrainingRows
    epoch: Callable[[], object]


def main() -> None:
    """Prints a line for each side."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="mini", help="published size")
    parser.add_argument("--texts", type=int, default=384, help="of an epoch")
    parser.add_argument("--rows", type=int, default=32, help="texts of a batch")
    parser.add_argument("--length", type=int, default=128, help="of the longest text")
    parser.add_argument("--fill", type=float, default=0.4, help="mean share of it")
    parser.add_argument("--turns", type=int, default=7, help="timed epochs of each")
    parser.add_argument("--sides", default=",".join(SIDES), help="the first is 1.00")
    given = parser.parse_args()
    names = given.sides.split(",")
    if unknown := set(names) - set(SIDES):
        parser.error(f"--sides has {', '.join(sorted(unknown))}, none of {[*SIDES]}")
    with tempfile.TemporaryDirectory() as folder:
        values = _settings(Path(folder), given)
        try:
            sides = [_side(name, values | SIDES[name], Path(folder)) for name in names]
        except errors.InputError as error:
            sys.exit(str(error))
        for side in sides:  # compiles
            side.epoch()
        seconds = [
            [timing_lib.timed(side.epoch) for side in sides] for _ in range(given.turns)
        ]
    print(f"\n{given.texts} texts, {given.size}, {jax.devices()[0].device_kind}")
    print(console.table([HEADER, *_lines(sides, np.array(seconds), given.texts)]))


def _lines(sides: list[Side], seconds: np.ndarray, texts: int) -> list[list[str]]:
    real = sides[0].rows.table.lengths.sum()
    return [
        [
            side.name,
            ", ".join(map(str, side.rows.encoded_lengths)),
            str(side.rows.encoded_rows),
            f"{side.rows.tokens_per_step * side.rows.steps_per_epoch / real:.2f}",
            f"{texts / statistics.median(column):.1f}",
            f"{statistics.median(column / seconds[:, 0]):.2f}",
        ]
        for side, column in zip(sides, seconds.T, strict=True)
    ]


def _settings(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Writes texts of two classes, and returns the settings that train on them."""
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "dog", *WORDS)
    vocabulary = "".join(f"{piece}\n" for piece in pieces)
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    rng = np.random.default_rng(0)
    lengths = synthetic_batches_lib.sequence_lengths(rng, given.length, given.fill)
    lines = ["sentence\tlabel"]
    for length in lengths[: given.texts]:
        animal = ("cat", "dog")[rng.integers(2)]
        others = rng.choice(WORDS, int(length) - 3)  # in addition: [CLS] and [SEP]
        lines.append(f"{' '.join([animal, *others])}\t{animal}")
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "init_from": "none",
        "model.size": given.size,
        "text.vocab": str(folder / "vocab.txt"),
        "data.train": str(folder / "train.tsv"),
        "data.dev": str(folder / "dev.tsv"),
        "data.max_seq_length": given.length,
        "mesh.data": 1,
        "run.batch_size": given.rows,
        "run.unroll": -1,
    }


def _side(name: str, values: dict[str, Any], folder: Path) -> Side:
    config = finetuning.default()
    config.update_from_flattened_dict(values)
    run = finetuning_run.assemble(finetuning.parse(config), folder)
    rows = run.rows(0)
    batches = [rows.batch_at(step) for step in range(rows.steps_per_epoch)]
    train = _torch(run, batches) if name == "torch" else _ours(run, batches)
    return Side(name, rows, train)


def _ours(
    run: finetuning_run.FinetuningRun, batches: list[Any]
) -> Callable[[], object]:
    transformation, schedule = run.make_optimizer(1000)
    shapes = state.abstract(run.init, transformation, run.mesh)
    params = run.parameters(shapes.params, 0)
    states = [state.from_params(params, shapes, transformation)]
    train_step = state.make_train_step(
        run.step_spec, transformation, schedule, shapes, seed=0
    )
    on_device = [sharding.to_devices(batch, run.mesh) for batch in batches]

    def epoch() -> None:
        for batch in on_device:
            states[0], _ = train_step(states[0], batch)
        jax.block_until_ready(states)

    return epoch


def _torch(
    run: finetuning_run.FinetuningRun, batches: list[Any]
) -> Callable[[], object]:
    torch = torch_finetune_lib.import_torch()
    import transformers

    ours = run.start.bert
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    same = {name: getattr(ours, name) for name in (*names, "intermediate_size")}
    config = transformers.BertConfig(**same, attn_implementation="sdpa")
    model = transformers.BertForSequenceClassification(config).train()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    adamw = torch.optim.AdamW(
        torch_finetune_lib.groups(model, run.settings.optimizer), lr=1e-5
    )
    cut = [_as_short_as_can_be(torch_finetune_lib.inputs(batch)) for batch in batches]
    given = [
        {
            name: torch.as_tensor(x, dtype=torch.int64).to(model.device)
            for name, x in inputs.items()
        }
        for inputs in cut
    ]
    clip = functools.partial(
        torch.nn.utils.clip_grad_norm_, max_norm=run.settings.optimizer.max_grad_norm
    )

    def epoch() -> None:
        for batch in given:
            adamw.zero_grad(set_to_none=True)
            model(**batch).loss.backward()
            clip(model.parameters())
            adamw.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return epoch


def _as_short_as_can_be(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cuts a batch where its longest text ends."""
    longest = int(batch["attention_mask"].sum(axis=1).max())
    return {name: x[:, :longest] if x.ndim > 1 else x for name, x in batch.items()}


if __name__ == "__main__":
    main()
