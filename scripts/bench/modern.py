"""The cost of each change of the modern recipe: steps without it and steps with it.

    python scripts/bench/modern.py
    python scripts/bench/modern.py --size=base --rows=16 --length=1024 --text=254

The recipe is configs/pretrain_modern.py, the rows are random tokens. For each
element the config is turned back to BERT's, and the train steps of both
are timed in turn, because machines drift: `ratio` is the time for a real token without
the element over that with it, the median over the turns; above 1, it is faster with it.
Pre-norm, rotary positions and GeGLU come with the layers of ModernBERT; BERT's have an
inner width with as many parameters. Needs no TensorFlow.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import contenders_lib
import jax
import ml_collections
import synthetic_batches_lib
import timing_lib

from bert_jax import console
from bert_jax.config import file as config_file
from bert_jax.config import pretraining
from bert_jax.tasks import pretraining as pretraining_task

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "pretrain_modern.py"
HEADER = ("element", "turned back to", "ms", "tokens/s", "ratio", "first")
_WITH = "the recipe"


def _bert(recipe: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the keys of BERT's layers, with as many parameters in the kernels."""
    return {
        "model.model_type": "bert",
        "model.type_vocab_size": 2,
        "model.layer_norm_eps": 1e-12,
        "model.intermediate_size": recipe.model.intermediate_size * 3 // 2,
    }


def _short(recipe: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the keys of rows that are a quarter as long, and four times as many."""
    return {
        "data.max_seq_length": recipe.data.max_seq_length // 4,
        "run.batch_size": recipe.run.batch_size * 4,
    }


# Element -> what it is turned back to, and the keys that do it. Some take the recipe.
Changes = dict[str, Any] | Callable[[ml_collections.ConfigDict], dict[str, Any]]
ELEMENTS: dict[str, tuple[str, Changes]] = {
    "pre-norm, rotary and GeGLU": ("BERT's layers", _bert),
    "no biases": (
        "biases",
        {f"model.{name}_bias": True for name in ("norm", "attention", "mlp")},
    ),
    "near and far layers": (
        "all far",
        {"model.global_attn_every_n_layers": 1},
    ),
    "30 % masked": ("15 %", {"data.masked_lm_prob": 0.15}),
    "no next sentences": ("NSP", {"data.objective": "nsp"}),
    "packed rows": ("rows of one text", {"data.pack": False}),
    "no dropout": (
        "0.1",
        {
            "model.hidden_dropout_prob": 0.1,
            "model.attention_probs_dropout_prob": 0.1,
        },
    ),
    "StableAdamW": ("AdamW", {"optimizer.name": "adamw"}),
    "WSD schedule": ("linear", {"optimizer.schedule": "linear"}),
    "bfloat16": ("float32", {"run.dtype": "float32"}),
    "long rows": ("a quarter", _short),
}


def main() -> None:
    """Prints one row an element as they are measured, and the table last."""
    given = _arguments()
    recipe = config_file.load(f"{RECIPE}:{given.size}")
    recipe.run.batch_size = given.rows
    recipe.data.max_seq_length = given.length
    recipe.run.unroll = -1
    kind = jax.devices()[0].device_kind
    print(f"{kind}, jax {jax.__version__}; {given.size}, {given.rows} rows of ", end="")
    print(f"{given.length}, vocabulary of {given.vocab}", flush=True)
    whole = ready(recipe, given.vocab, given.text)
    rows = [_row(_WITH, "", whole, _times(whole, given.turns), 1.0)]
    for name in given.elements or ELEMENTS:
        back, changes = ELEMENTS[name]
        without = ready(turned_back(recipe, changes), given.vocab, given.text)
        times, ratio = in_turn(whole, without, given.turns)
        rows.append(_row(name, back, without, times, ratio))
        print("  ".join(rows[-1]), flush=True)
    print(f"\n{console.table([HEADER, *rows])}")
    print("ratio: time a real token without the element, over that with it")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="tiny", help="of the recipe")
    parser.add_argument("--rows", type=int, default=2, help="a step")
    parser.add_argument("--length", type=int, default=256, help="tokens a row")
    parser.add_argument("--vocab", type=int, default=8192, help="pieces")
    parser.add_argument("--text", type=int, default=128, help="tokens of one, in mean")
    parser.add_argument("--turns", type=int, default=15, help="timed pairs of steps")
    parser.add_argument("--elements", nargs="*", choices=ELEMENTS, help="some of them")
    return parser.parse_args()


def turned_back(
    recipe: ml_collections.ConfigDict, changes: Changes
) -> ml_collections.ConfigDict:
    """Returns the recipe without one element."""
    config = recipe.copy_and_resolve_references()
    config.update_from_flattened_dict(changes(recipe) if callable(changes) else changes)
    return config


def ready(
    config: ml_collections.ConfigDict, vocab_size: int, text: int
) -> contenders_lib.Ready:
    """Makes model, batch and train step of a config, and does two steps.

    Args:
      text: tokens of one, in mean.
    """
    settings = pretraining.parse(config)
    bert, packed = settings.bert(vocab_size), settings.data.pack
    length, rows = settings.data.max_seq_length, settings.run.batch_size
    # Without packing, full sentences fill each row to its end.
    fill = min(1.0, text / length) if packed else 1.0
    batch = synthetic_batches_lib.rows(bert, rows, length, fill=fill, packed=packed)
    task = pretraining_task.make(
        settings, bert, synthetic_batches_lib.MASK, synthetic_batches_lib.SPECIAL_IDS
    )
    steps = settings.run.num_train_steps
    return contenders_lib.begun(
        lambda: contenders_lib.our_step(task, batch, settings.optimizer, steps), batch
    )


def in_turn(
    whole: contenders_lib.Ready, without: contenders_lib.Ready, count: int
) -> tuple[list[float], float]:
    """Times both in turn: the seconds of the second, and the ratio a real token."""
    pairs = [
        (timing_lib.timed(whole.step), timing_lib.timed(without.step))
        for _ in range(count)
    ]
    share = whole.tokens / without.tokens
    ratio = statistics.median(share * other / one for one, other in pairs)
    return [other for _, other in pairs], ratio


def _times(one: contenders_lib.Ready, count: int) -> list[float]:
    return [timing_lib.timed(one.step) for _ in range(count)]


def _row(
    name: str, back: str, one: contenders_lib.Ready, seconds: list[float], ratio: float
) -> tuple[str, ...]:
    median = statistics.median(seconds)
    return (
        name,
        back,
        f"{1000 * median:.1f}",
        f"{one.tokens / median:,.0f}",
        f"{ratio:.2f}",
        f"{one.compile_seconds:.1f} s",
    )


if __name__ == "__main__":
    main()
