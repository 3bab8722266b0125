"""Latency of small requests and sentences a second: ours, torch and onnxruntime.

    pip install torch transformers onnx onnxruntime
    python scripts/bench/predict.py --model=FOLDER

A request is 1, 8 or 64 texts: all of about 16 tokens, or mixed, most of them short and
some long. All three turn it into mean-pooled vectors, float32, tokenization included;
the peers run it as one batch, padded to its longest text. Requests consist of words of
the model's vocabulary; each encoder gets each of them once before the clock starts
(ours compiles a program a shape then), and they are timed in turn. p50 and p95 are of a
request; ratio is the time of the peer over ours, the median over the requests. FOLDER
is a BERT of Hugging Face's, published or exported by bert_jax.convert.
"""

import argparse
import time

import encode
import jax
import numpy as np

import bert_jax
from bert_jax.inference.model import Model

SHORT = 12  # words of a text of about 16 tokens
LONGEST = 250


def main() -> None:
    """Prints one row for each kind of request and each encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--requests", type=int, default=40, help="of each kind")
    parser.add_argument("--sizes", default="1,8,64", help="texts a request, by commas")
    arguments = parser.parse_args()
    model = bert_jax.load(arguments.model)
    sizes = [int(size) for size in arguments.sizes.split(",")]
    torch_encode, onnx_encode = encode.peers(model, arguments.model, max(sizes))
    encoders = {
        "bert_jax": model.encode,
        "torch": torch_encode,
        "onnxruntime": onnx_encode,
    }
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, "
        f"{arguments.requests} requests of each kind"
    )
    print("texts  lengths  encoder       p50 ms  p95 ms  sentences/s  ratio")
    for size in sizes:
        for lengths in ("short", "mixed"):
            requests = make(model, size, lengths, arguments.requests)
            for line in measure(encoders, requests):
                print(f"{size:5}  {lengths:7}  {line}", flush=True)


def make(model: Model, size: int, lengths: str, count: int) -> list[list[str]]:
    """Returns requests of so many texts."""
    words = [token for token in model.tokenizer.tokens if token.isalpha()]
    rng = np.random.default_rng(size)
    sizes = np.full(size * count, SHORT)
    if lengths == "mixed":
        word_counts = rng.lognormal(3.0, 0.9, size * count)
        sizes = np.clip(word_counts, 4, LONGEST).astype(int)
    texts = [" ".join(rng.choice(words, number)) for number in sizes]
    return [texts[first : first + size] for first in range(0, len(texts), size)]


def measure(encoders: dict[str, encode.Encode], requests: list[list[str]]) -> list[str]:
    """Times the requests in turn, and returns the end of a row for each encoder."""
    for encoder in encoders.values():
        for texts in requests:
            encoder(texts)
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for texts in requests:
        for name, encoder in encoders.items():
            begin = time.perf_counter()
            encoder(texts)
            times[name].append(time.perf_counter() - begin)
    lines = []
    for name, took in times.items():
        middle, high = (1e3 * np.percentile(took, share) for share in (50, 95))
        rate = sum(map(len, requests)) / sum(took)
        ratio = np.median(np.array(took) / np.array(times["bert_jax"]))
        lines.append(
            f"{name:12}  {middle:6.1f}  {high:6.1f}  {rate:11,.0f}  {ratio:5.2f}"
        )
    return lines


if __name__ == "__main__":
    main()
