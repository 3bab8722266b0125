"""Time of a pretraining step, ours and transformers' in torch: same work, same run.

    pip install torch transformers
    python scripts/bench/train.py
    python scripts/bench/train.py --cases=mini:32:128 --fill=0.5 \
        --sides=ours+packed,ours,sdpa
    python scripts/bench/train.py --cases=base:64:512 --batches=16,32,64,128 \
        --sides=ours+bfloat16+dropout=0,compile+bfloat16+dropout=0

A case is size:rows:length. A side is `ours` or one of torch's `eager`, `sdpa` and
`compile`, with options after plus signs: bfloat16, dropout=0 and, of ours, packed,
remat=full, unroll=1, attention=xla, rbg, unsafe_rbg. All train BertForPreTraining on
the same rows with 15 % of the tokens masked, NSP, clipping and AdamW; ours samples its
masks inside the step. First both compute the loss of the same weights, which must
agree. The steps of all sides are timed in turn, because machines drift: `ratio` is real
tokens a second of the first side over those of this one, the median over the turns.
With --batches each side is measured with all of them, and the last table has each at
its best. MFU is by the formula of `bert_jax.model.costs`, and for chips whose peak is
known. Needs no TensorFlow.
"""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Sequence

import contenders_lib
import jax
import jax.numpy as jnp
import timing_lib

from bert_jax import console, errors
from bert_jax.foundation import devices
from bert_jax.model import config, costs

CASES = "mini:32:128,base:8:128"
SIDES = "ours,sdpa,eager,ours+bfloat16,sdpa+bfloat16"
HEADER = ("model", "rows", "L", "side", "ms", "tokens/s", "MFU", "ratio", "first", "MB")
_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and its rows."""

    size: str
    rows: int
    length: int

    @property
    def bert(self) -> config.BertConfig:
        """The architecture; of more than 512 positions where rows are longer."""
        found = config.published(self.size)
        most = max(self.length, found.max_position_embeddings)
        return dataclasses.replace(found, max_position_embeddings=most)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was seen of a side.

    Attributes:
      seconds: of each turn, or none where it did not fit into memory.
      ratio: of the first side's tokens a second to its own.
    """

    case: Case
    side: str
    seconds: tuple[float, ...]
    ready: contenders_lib.Ready | None
    ratio: float

    @property
    def tokens_per_second(self) -> float:
        """Real tokens; 0 where it did not fit."""
        if self.ready is None:
            return 0.0
        return self.ready.tokens / statistics.median(self.seconds)

    def row(self) -> tuple[str, ...]:
        """Returns the cells of `HEADER`."""
        case = self.case
        first = (case.size, str(case.rows), str(case.length), self.side)
        if self.ready is None:
            return (*first, "does not fit", "", "", "", "", "")
        temporaries = self.ready.temporaries
        return (
            *first,
            f"{1000 * statistics.median(self.seconds):.1f}",
            f"{self.tokens_per_second:,.0f}",
            self._utilization(),
            f"{self.ratio:.2f}",
            f"{self.ready.compile_seconds:.1f} s",
            "" if temporaries is None else f"{temporaries / 1e6:,.0f}",
        )

    def _utilization(self) -> str:
        peak = devices.peak_flops(jax.devices()[0].device_kind)
        if peak is None or self.ready is None:
            return ""
        length = self.ready.effective_length
        share = contenders_lib.MASKED_LM_PROB
        cost = costs.training_flops_per_token(self.case.bert, length, share)
        return f"{100 * self.tokens_per_second * cost / peak:.1f} %"


def main() -> None:
    """Prints one row a side as they are measured, and the tables at the end."""
    given = _arguments()
    cases = [_case(text) for text in given.cases.split(",")]
    sides = given.sides.split(",")
    try:
        contenders = [contenders_lib.side(text) for text in sides]
        if any(side.name != contenders_lib.OURS for side in contenders):
            _check_losses(cases[0])
    except errors.InputError as error:
        sys.exit(str(error))
    kind = jax.devices()[0].device_kind
    print(f"{kind}, jax {jax.__version__}; {_ceiling()}", flush=True)
    batches = [int(x) for x in given.batches.split(",")] if given.batches else []
    cases = [
        dataclasses.replace(case, rows=rows)
        for case in cases
        for rows in batches or [case.rows]
    ]
    found: list[Measured] = []
    for case in cases:
        for one in measure(case, sides, given.fill, given.turns):
            print("  ".join(one.row()), flush=True)
            found.append(one)
    print(f"\n{console.table([HEADER, *(one.row() for one in found)])}")
    if batches:
        fastest = [HEADER, *(one.row() for one in best(found))]
        print(f"\neach at its best\n{console.table(fastest)}")
    print("ratio: tokens/s of the first side over those of this one; first: seconds")
    print("until the first step was done; MB: what the step needs in addition to its")
    print("arguments")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", default=CASES, help="size:rows:length,...")
    parser.add_argument("--sides", default=SIDES, help="ours+option,sdpa,...")
    parser.add_argument("--turns", type=int, default=7, help="timed steps of each")
    parser.add_argument(
        "--fill", type=float, default=1.0, help="mean length of sequences, of L"
    )
    parser.add_argument("--batches", default="", help="rows to try, with commas")
    return parser.parse_args()


def _case(text: str) -> Case:
    size, rows, length = text.split(":")
    return Case(size, int(rows), int(length))


def _check_losses(case: Case) -> None:
    """Ends the process unless both sides compute the same loss."""
    ours, theirs = contenders_lib.losses(case.bert, case.length)
    print(f"loss of the same weights: ours {ours:.6f}, torch {theirs:.6f}")
    if abs(ours - theirs) > _TOLERANCE * abs(theirs):
        sys.exit("the losses differ: the work is not the same")


def _ceiling() -> str:
    """Measures a large product of matrices, which no step can exceed."""
    on_cpu = jax.default_backend() == "cpu"
    width, dtype = (2048, jnp.float32) if on_cpu else (8192, jnp.bfloat16)
    x = jnp.ones((width, width), dtype)
    product = jax.jit(lambda x: x @ x)
    jax.block_until_ready(product(x))
    seconds = [
        timing_lib.timed(lambda: jax.block_until_ready(product(x))) for _ in range(5)
    ]
    rate = 2 * width**3 / min(seconds) / 1e12
    name = jnp.dtype(dtype).name
    return f"matmul {width} x {width} {name}: {rate:.2f} TFLOP/s"


def measure(
    case: Case, sides: Sequence[str], fill: float, count: int
) -> list[Measured]:
    """Times the steps of all sides in turn."""
    contenders = {name: _ready(name, case, fill) for name in sides}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(count):
        for name, one in contenders.items():
            if one is not None:
                times[name].append(timing_lib.timed(one.step))
    first = contenders[sides[0]]
    return [
        Measured(
            case,
            name,
            tuple(times[name]),
            one,
            _ratio(first, times[sides[0]], one, times[name]),
        )
        for name, one in contenders.items()
    ]


def _ready(name: str, case: Case, fill: float) -> contenders_lib.Ready | None:
    """Returns the step of a side, or None if it does not fit into memory."""
    side = contenders_lib.side(name)
    try:
        return contenders_lib.ready(side, case.bert, case.rows, case.length, fill)
    except Exception as error:
        message = f"{type(error).__name__} {error}"
        if "RESOURCE_EXHAUSTED" in message or "OutOfMemory" in message:
            return None
        raise


def _ratio(
    first: contenders_lib.Ready | None,
    of_first: Sequence[float],
    one: contenders_lib.Ready | None,
    of_one: Sequence[float],
) -> float:
    if first is None or one is None:
        return float("nan")
    share = first.tokens / one.tokens
    return statistics.median(
        share * b / a for a, b in zip(of_first, of_one, strict=True)
    )


def best(found: Sequence[Measured]) -> list[Measured]:
    """Returns each side of a model and length with the batch that is fastest for it."""
    groups: dict[tuple[str, int], dict[str, Measured]] = {}
    for one in found:
        group = groups.setdefault((one.case.size, one.case.length), {})
        before = group.get(one.side)
        if before is None or before.tokens_per_second < one.tokens_per_second:
            group[one.side] = one
    rows = []
    for group in groups.values():
        first = next(iter(group.values())).tokens_per_second
        for one in group.values():
            speed = one.tokens_per_second
            ratio = first / speed if speed else float("nan")
            rows.append(dataclasses.replace(one, ratio=ratio))
    return rows


if __name__ == "__main__":
    main()
