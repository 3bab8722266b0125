"""What each line of the modern recipe costs: steps without it beside steps with it.

    python scripts/bench_modern.py
    python scripts/bench_modern.py --size=base --rows=16 --length=1024 --text=254

The recipe is configs/pretrain_modern.py, the rows are made of random tokens. Of each
element alone the config is turned back to what BERT has, and the train steps of both
are timed in turn, because machines drift: `ratio` is the time for a real token without
the element over that with it, the median over the turns; above 1, it is faster with it.
Pre-norm, rotary positions and GeGLU come with the layers of ModernBERT; BERT's have an
inner width with as many parameters. Needs no TensorFlow.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import made_rows
import ml_collections

from bert_jax import objectives
from bert_jax.model import config as model_config
from bert_jax.model import heads
from bert_jax.settings import config_file, configuration
from bert_jax.tasks import pretraining
from bert_jax.training import optimizer, sharding, state

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "pretrain_modern.py"
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


@dataclasses.dataclass(frozen=True, eq=False)
class Ready:
    """A step that can be timed.

    Attributes:
      step: does one, and returns when its results are there.
      tokens: real ones of its batch.
      first_seconds: until the first step was done.
    """

    step: Callable[[], None]
    tokens: int
    first_seconds: float


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
    print(f"\n{_table(rows)}")
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
    made = recipe.copy_and_resolve_references()
    made.update_from_flattened_dict(changes(recipe) if callable(changes) else changes)
    return made


def ready(config: ml_collections.ConfigDict, vocab_size: int, text: int) -> Ready:
    """Makes model, batch and train step of a config, and does two steps.

    Args:
      text: tokens of one, in mean.
    """
    settings = configuration.parse(config)
    bert = settings.bert(vocab_size)
    task, made = _task(settings, bert), settings.optimizer
    length, rows = settings.data.max_seq_length, settings.run.batch_size
    packed = settings.data.pack
    # Without packing, full sentences fill each row to its end.
    fill = min(1.0, text / length) if packed else 1.0
    batch = made_rows.rows(bert, rows, length, fill=fill, packed=packed)
    mesh, steps = sharding.make_mesh(1, 1, 1), settings.run.num_train_steps
    transformation = optimizer.make(made, steps)
    start = time.perf_counter()
    train_step = state.make_train_step(
        task.prepare,
        task.weights,
        task.losses,
        transformation,
        state.abstract(task.init, transformation, mesh),
        seed=0,
        accumulation_steps=1,
        schedule=optimizer.learning_rate(made, steps),
    )
    now = state.create(task.init, jax.random.key(0), transformation, mesh)
    placed = sharding.place(batch, mesh)

    def step() -> None:
        nonlocal now
        now, metrics = train_step(now, placed)
        jax.block_until_ready((now, metrics))

    step()
    seconds = time.perf_counter() - start
    step()
    return Ready(step, int((batch["segment_ids"] > 0).sum()), seconds)


def _task(
    settings: configuration.PretrainingConfig, bert: model_config.BertConfig
) -> pretraining.Pretraining:
    data = settings.data
    masking = objectives.Masking(
        masked_lm_prob=data.masked_lm_prob,
        max_predictions=data.num_predictions,
        max_seq_length=data.max_seq_length,
        whole_word=False,
        max_ngram=1,
        mask_id=made_rows.MASK,
        special_ids=made_rows.SPECIAL_IDS,
        vocab_size=bert.vocab_size,
    )
    execution = settings.run.execution(packed=data.pack)
    pairs = data.objective != "full_sentences"
    model = heads.BertForPreTraining(bert, execution, pairs)
    return pretraining.Pretraining(model, masking, masking)


def in_turn(whole: Ready, without: Ready, turns: int) -> tuple[list[float], float]:
    """Times both in turn: the seconds of the second, and the ratio a real token."""
    pairs = [(_timed(whole.step), _timed(without.step)) for _ in range(turns)]
    share = whole.tokens / without.tokens
    ratio = statistics.median(share * other / one for one, other in pairs)
    return [other for _, other in pairs], ratio


def _times(one: Ready, turns: int) -> list[float]:
    return [_timed(one.step) for _ in range(turns)]


def _timed(step: Callable[[], None]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def _row(
    name: str, back: str, one: Ready, seconds: list[float], ratio: float
) -> tuple[str, ...]:
    median = statistics.median(seconds)
    return (
        name,
        back,
        f"{1000 * median:.1f}",
        f"{one.tokens / median:,.0f}",
        f"{ratio:.2f}",
        f"{one.first_seconds:.1f} s",
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    """Returns rows below their header, in aligned columns."""
    cells = [HEADER, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            x.ljust(width) if number < 2 else x.rjust(width)
            for number, (x, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


if __name__ == "__main__":
    main()
