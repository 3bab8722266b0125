"""Time of a pretraining step beside transformers' in torch, same work, same run.

    pip install torch transformers
    python scripts/bench_train.py
    python scripts/bench_train.py --cases=mini:32:128:float32,base:8:128:bfloat16

Both train BertForPreTraining on the same rows: 15 % of the tokens masked, NSP, dropout
0.1, clipping, AdamW. Ours is the train step of `bert_jax.pretrain` with unrolled layers
(masks drawn inside the step); torch's is eager mode (on CPUs here faster than
`torch.compile`), with autocast for bfloat16. Steps are timed in turn, ours, theirs, and
the ratio is the median over the pairs, because machines drift. Needs no TensorFlow.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from bert_jax import objectives
from bert_jax.model import config, encoder, heads
from bert_jax.tasks import pretraining
from bert_jax.training import optimizer, sharding, state

CASES = (
    "mini:32:128:float32,base:8:128:float32,mini:32:128:bfloat16,base:8:128:bfloat16"
)
MASKED_LM_PROB = 0.15
SPECIAL_IDS = (0, 100, 101, 102, 103)  # of the published English vocabulary
HEADER = ("model", "rows", "L", "dtype", "ours ms", "torch ms", "tokens/s", "ratio")


def main() -> None:
    """Prints one row a case, and the table again at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=CASES, help="size:rows:length:dtype,...")
    parser.add_argument("--pairs", type=int, default=7, help="timed steps of each")
    parser.add_argument("--alone", action="store_true", help="leave torch out")
    arguments = parser.parse_args()
    rows = [HEADER]
    for case in arguments.cases.split(","):
        size, batch_size, length, dtype = case.split(":")
        rows.append(
            measure(
                size,
                int(batch_size),
                int(length),
                dtype,
                arguments.pairs,
                alone=arguments.alone,
            )
        )
        print("  ".join(rows[-1]), flush=True)
    print(f"\n{jax.devices()[0].device_kind}, jax {jax.__version__}")
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    for row in rows:
        print("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)))
    print("ratio: torch's time over ours, the median of the pairs")


def measure(
    size: str, batch_size: int, length: int, dtype: str, pairs: int, *, alone: bool
) -> tuple[str, ...]:
    """Returns the row of one case."""
    bert = config.published(size)
    batch = make_batch(bert, batch_size, length)
    ours = our_step(bert, batch, dtype)
    theirs = None if alone else torch_step(bert, batch, dtype)
    for step in (ours, theirs):
        if step is not None:
            step(), step()
    times: list[tuple[float, float]] = []
    for _ in range(pairs):
        times.append((timed(ours), timed(theirs) if theirs else float("nan")))
    our_time = statistics.median(t for t, _ in times)
    their_time = statistics.median(t for _, t in times)
    ratio = statistics.median(theirs / ours for ours, theirs in times)
    return (
        size,
        str(batch_size),
        str(length),
        dtype,
        f"{1000 * our_time:.1f}",
        f"{1000 * their_time:.1f}",
        f"{batch_size * length / our_time:,.0f}",
        f"{ratio:.2f}",
    )


def timed(step: Callable[[], None]) -> float:
    """Returns the seconds of one step, until its results are there."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def make_batch(
    bert: config.BertConfig, batch_size: int, length: int
) -> dict[str, np.ndarray]:
    """Makes rows without padding: [CLS] A [SEP] B [SEP]."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, bert.vocab_size, (batch_size, length), dtype=np.int32)
    ids[:, 0], ids[:, length // 2], ids[:, -1] = 101, 102, 102
    columns = np.arange(length, dtype=np.int32)
    return {
        "input_ids": ids,
        "token_type_ids": np.tile(
            (columns > length // 2).astype(np.int32), (batch_size, 1)
        ),
        "segment_ids": np.ones_like(ids),
        "position_ids": np.tile(columns, (batch_size, 1)),
        "word_start": ids >= 1000,
        "cls_positions": np.zeros((batch_size, 1), np.int32),
        "next_sentence_labels": rng.integers(0, 2, (batch_size, 1), dtype=np.int32),
        "next_sentence_weights": np.ones((batch_size, 1), np.float32),
    }


def our_step(
    bert: config.BertConfig, batch: dict[str, np.ndarray], dtype: str
) -> Callable[[], None]:
    """Returns a function that runs one train step of this package."""
    batch_size, length = batch["input_ids"].shape
    masking = objectives.Masking(
        masked_lm_prob=MASKED_LM_PROB,
        max_predictions=-(-length * 15 // 100),
        max_seq_length=length,
        whole_word=False,
        max_ngram=1,
        mask_id=103,
        special_ids=SPECIAL_IDS,
        vocab_size=bert.vocab_size,
    )
    execution = encoder.Execution(dtype=dtype, unroll=-1)
    model = heads.BertForPreTraining(bert, execution)
    task = pretraining.Pretraining(model, masking, masking)
    mesh = sharding.make_mesh(1, 1, 1)
    settings = optimizer.OptimizerConfig(learning_rate=1e-4)
    transformation = optimizer.make(settings, 1000)
    key = jax.random.key(0)
    shapes = state.abstract(task.init, transformation, mesh)
    train_step = state.make_train_step(
        task.prepare,
        task.weights,
        task.losses,
        transformation,
        shapes,
        seed=0,
        accumulation_steps=1,
        schedule=optimizer.learning_rate(settings, 1000),
    )
    now = state.create(task.init, key, transformation, mesh)
    placed = sharding.place(batch, mesh)

    def step() -> None:
        nonlocal now
        now, metrics = train_step(now, placed)
        jax.block_until_ready((now, metrics))

    return step


def torch_step(
    bert: config.BertConfig, batch: dict[str, np.ndarray], dtype: str
) -> Callable[[], None]:
    """Returns a function that runs one train step of transformers' model in torch."""
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.BertForPreTraining(
        transformers.BertConfig(
            vocab_size=bert.vocab_size,
            hidden_size=bert.hidden_size,
            num_hidden_layers=bert.num_hidden_layers,
            num_attention_heads=bert.num_attention_heads,
            intermediate_size=bert.intermediate_size,
        )
    )
    model = model.to(device).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    ids = torch.tensor(batch["input_ids"], device=device).long()
    masked = torch.rand(ids.shape, device=device) < MASKED_LM_PROB
    inputs = {
        "input_ids": torch.where(masked, 103, ids),
        "token_type_ids": torch.tensor(batch["token_type_ids"], device=device).long(),
        "attention_mask": torch.ones_like(ids),
        "labels": torch.where(masked, ids, -100),
        "next_sentence_label": torch.tensor(
            batch["next_sentence_labels"][:, 0], device=device
        ).long(),
    }

    def step() -> None:
        adamw.zero_grad(set_to_none=True)
        half = dtype == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        loss.item()  # waits for the device

    return step


if __name__ == "__main__":
    main()
