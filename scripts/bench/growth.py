"""What grows with what: rows, layers and corpora, each as a table and a picture.

    python scripts/bench/growth.py --out=growth
    python scripts/bench/growth.py --out=growth --only=length --size=base --tokens=65536

`length`: the time of a train step and the memory it takes, of as many tokens in rows of
64 to 1,024. `layers`: how long a step takes to compile, its layers as a loop and
unrolled. `corpus`: how long a store takes to build and its rows to be numbered, of one
corpus once, twice, four and eight times. Every time is the least of several, measured
in turn; pictures are PNG files in --out.
"""

import argparse
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import contenders_lib
import jax
import numpy as np
import store
import timing_lib
import train

from bert_jax import console
from bert_jax.data.corpus import store as stores
from bert_jax.data.pretraining import instances

LENGTHS = (64, 128, 256, 512, 1024)
LAYERS = (2, 4, 8, 12, 24)
TIMES = (1, 2, 4, 8)
Rows = list[dict[str, float]]


def main() -> None:
    """Measures, prints and plots the requested growth."""
    given = _arguments()
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    kinds: dict[str, Callable[[argparse.Namespace], Rows]] = {
        "length": by_length,
        "layers": by_layers,
        "corpus": by_corpus,
    }
    tables = []
    for name in given.only.split(","):
        rows = kinds[name](given)
        tables.append(f"{name}\n{_table(rows)}")
        _draw(rows, given.out / f"{name}.png")
    print("\n" + "\n\n".join(tables))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--only", default="length,layers,corpus")
    parser.add_argument("--size", default="tiny", help="of the model, for length")
    parser.add_argument("--tokens", type=int, default=8192, help="a step, for length")
    parser.add_argument("--side", default="ours+dropout=0", help="as of train")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--words", type=int, default=300_000, help="of the corpus, once"
    )
    return parser.parse_args()


def by_length(given: argparse.Namespace) -> Rows:
    """Times steps of as many tokens in rows of each length."""
    cases = [
        train.Case(given.size, given.tokens // length, length) for length in LENGTHS
    ]
    contender = contenders_lib.side(given.side)
    ready = [
        contenders_lib.ready(contender, x.bert, x.rows, x.length, 1.0) for x in cases
    ]
    best = _in_turn([one.step for one in ready], given.turns)
    base = best[LENGTHS.index(128)]
    return [
        {
            "L": case.length,
            "ms": 1000 * seconds,
            "of 128": seconds / base,
            "MB": (one.temporaries or 0) / 1e6,
        }
        for case, one, seconds in zip(cases, ready, best, strict=True)
    ]


def by_layers(given: argparse.Namespace) -> Rows:
    """Times the compilation of models of each depth."""
    rows: Rows = []
    for layers in LAYERS:
        bert = dataclasses.replace(
            train.Case("tiny", 8, 64).bert, num_hidden_layers=layers
        )
        row: dict[str, float] = {"layers": layers}
        for name, unroll in (("loop", 1), ("unrolled", -1)):
            contender = contenders_lib.side(f"ours+unroll={unroll}")
            jax.clear_caches()
            one = contenders_lib.ready(contender, bert, 8, 64, 1.0)
            row[f"{name}, s"] = one.compile_seconds
        rows.append(row)
    return rows


def by_corpus(given: argparse.Namespace) -> Rows:
    """Times the store of a corpus and the numbering of its rows."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [f"w{number}" for number in range(5000)]
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
        (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
        for times in TIMES:
            text, store_folder = folder / f"{times}.txt", folder / f"store{times}"
            write_text(text, words, given.words * times)
            built = store.build(folder / "vocab.txt", text, store_folder, 1)
            opened = stores.open_store(store_folder)
            works = [
                functools.partial(instances_of, opened, pack=pack)
                for pack in (False, True)
            ]
            plain, packed = _in_turn(works, given.turns)
            rows.append(
                {
                    "words": given.words * times,
                    "store, s": built,
                    "rows, ms": 1000 * plain,
                    "packed rows, ms": 1000 * packed,
                }
            )
    return rows


def write_text(path: Path, words: Sequence[str], count: int) -> None:
    """Writes documents of 20 sentences of 1 to 49 words."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        while count > 0:
            for size in rng.integers(1, 50, 20):
                numbers = rng.integers(len(words), size=size)
                file.write(" ".join(words[number] for number in numbers) + "\n")
                count -= size
            file.write("\n")


def instances_of(opened: stores.Store, *, pack: bool = False) -> instances.Instances:
    """Numbers the rows of a store: pairs for NSP, of 128 tokens."""
    return instances.Instances(
        opened,
        objective="nsp",
        max_seq_length=128,
        short_seq_prob=0.1,
        seed=0,
        special_ids=(2, 3),
        pack=pack,
    )


def _in_turn(works: Sequence[Callable[[], object]], count: int) -> list[float]:
    """Returns the least seconds of each, over turns in which all are done."""
    found = [[timing_lib.timed(work) for work in works] for _ in range(count)]
    return [min(column) for column in zip(*found, strict=True)]


def _table(rows: Rows) -> str:
    cells = [[f"{value:,.4g}" for value in row.values()] for row in rows]
    return console.table([list(rows[0]), *cells])


def _draw(rows: Rows, path: Path) -> None:
    """Plots every column over the first, each relative to its least value."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first, *others = rows[0]
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    along = [row[first] for row in rows]
    for name in (x for x in others if not x.startswith("of ")):
        values = [row[name] for row in rows]
        axes.plot(along, [x / values[0] for x in values], marker="o", label=name)
    axes.set(xlabel=first, ylabel=f"times that of {first} = {along[0]:,g}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(along, [f"{x:,.0f}" for x in along])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
