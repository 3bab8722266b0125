"""Speed and memory of building a store.

    python scripts/bench/store.py --vocab=vocab.txt --text=some.txt --sizes=100,1000

Writes synthetic text (sentences of --text sampled by a seed), builds a store of
each size in MB in a process of its own, and prints megabytes a second end to end
next to bare `tokenizers.encode_batch_fast` on the same text and cores in the same
run, and the peak resident memory of the parent and of the largest worker.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import tokenizers

from bert_jax.data.corpus import sources, store, store_build
from bert_jax.text.tokenizer import Tokenizer

_DOCUMENT_BYTES = 3000
_ALONE_MB = 20
_BATCH_SENTENCES = 1000


def main() -> None:
    """Runs the benchmark, or, as its own child, one build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="UTF-8, one sentence a line")
    parser.add_argument("--sizes", default="100,1000", help="in MB")
    parser.add_argument("--workers", type=int, help="one for every core by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:
        text, folder = arguments.build
        print(build(arguments.vocab, text, folder, arguments.workers))
        return
    if arguments.text is None:
        parser.error("--text is needed")
    sentences = [s for s in arguments.text.read_text("utf-8").split("\n") if s.strip()]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, arguments.sizes.split(",")):
            text = Path(folder) / f"{size}.txt"
            _write_text(text, sentences, size, arguments.seed)
            bare = _bare(arguments.vocab, text)
            seconds, parent, worker = _measure(arguments, text, Path(folder) / "store")
            rows.append((size, size / seconds, bare, parent, worker))
    _print_table(rows)


def _print_table(rows: list[tuple[int, float, float, float, float]]) -> None:
    """Prints one line for every size."""
    print("| text MB | build MB/s | encode_batch_fast MB/s | ratio | parent | worker |")
    print("|---|---|---|---|---|---|")
    for size, speed, bare, parent, worker in rows:
        print(
            f"| {size} | {speed:.2f} | {bare:.2f} | {speed / bare:.2f} "
            f"| {parent:.0f} MiB | {worker:.0f} MiB |"
        )


def _write_text(path: Path, sentences: list[str], size: int, seed: int) -> None:
    """Writes documents of randomly sampled sentences, `size` MB in all."""
    rng = random.Random(seed)
    written = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < size * 10**6:
            document: list[str] = []
            length = 0
            while length < _DOCUMENT_BYTES:
                document.append(rng.choice(sentences))
                length += len(document[-1].encode()) + 1
            file.write("\n".join(document) + "\n\n")
            written += length + 1


def _bare(vocab: Path, text: Path) -> float:
    """Returns the MB/s of `encode_batch_fast` on the beginning of the text."""
    tokens = Tokenizer.load(vocab).tokens
    rust = tokenizers.BertWordPieceTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}
    )
    with open(text, encoding="utf-8") as file:
        sentences = file.read(_ALONE_MB * 10**6).split("\n")
    size = sum(len(s.encode()) for s in sentences) / 1e6
    start = time.perf_counter()
    for first in range(0, len(sentences), _BATCH_SENTENCES):
        batch = sentences[first : first + _BATCH_SENTENCES]
        rust._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
    return size / (time.perf_counter() - start)


def build(vocab: Path, text: Path, folder: Path, workers: int | None) -> float:
    """Builds one store, and returns the seconds that it took."""
    loaded = Tokenizer.load(vocab)
    start = time.perf_counter()
    store_build.build(
        folder,
        sources=[sources.Source("text", str(text))],
        tokenizer=loaded,
        options=store.StoreOptions(0.01, True, "none", "none"),
        workers=workers,
    )
    return time.perf_counter() - start


def _measure(
    arguments: argparse.Namespace, text: Path, folder: Path
) -> tuple[float, float, float]:
    """Returns seconds and the peak MiB of parent and largest worker of a build."""
    command = [sys.executable, __file__, f"--vocab={arguments.vocab}"]
    if arguments.workers:
        command.append(f"--workers={arguments.workers}")
    command += ["--build", str(text), f"{folder}-{text.stem}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peaks: dict[int, float] = {}
    watcher = threading.Thread(target=_watch, args=(process, peaks))
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    if process.returncode:
        sys.exit(process.returncode)
    parent = peaks.pop(process.pid)
    return float(output), parent, max(peaks.values(), default=0.0)


def _watch(process: subprocess.Popen[str], peaks: dict[int, float]) -> None:
    """Notes the highest resident memory of a process and its children in MiB."""
    while process.poll() is None:
        task = Path(f"/proc/{process.pid}/task")
        try:
            lists = [path.read_text() for path in task.glob("*/children")]
        except OSError:
            lists = []
        for pid in [process.pid, *(int(p) for pids in lists for p in pids.split())]:
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            if "VmHWM:" in status:
                peaks[pid] = int(status.split("VmHWM:")[1].split()[0]) / 1024
        time.sleep(0.1)


if __name__ == "__main__":
    main()
