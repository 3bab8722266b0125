"""Time of `encode` compared with transformers in torch and onnxruntime: same texts.

    pip install torch transformers onnx onnxruntime
    python scripts/bench/encode.py --model=FOLDER
    python scripts/bench/encode.py --model=FOLDER --input=lines.txt

A request is 1, 8 or 64 texts: short ones of 4 to 30 tokens, or mixed ones of up to 250,
most of them short and some long. The last request, `bulk`, is --texts mixed ones or the
lines of --input. All three turn it into mean-pooled vectors, float32, tokenization
included. The peers sort texts by length and run batches padded to their longest text,
as sentence-transformers does (`--batch_size`); onnxruntime runs torch's export with its
own optimisations. Texts consist of the model's own words.

Each encoder gets each request once before the clock starts (ours compiles a program a
shape then), and they are timed in turn. ms is the median, and ratio the time of the
peer over ours, the median over the pairs, because machines drift. FOLDER is a BERT of
Hugging Face's, published or exported by bert_jax.convert.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import jax
import numpy as np

import bert_jax
from bert_jax.inference.model import Model

Encode = Callable[[list[str]], np.ndarray]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PAUSE = 0.02  # seconds before each timing, in which threads of the one before stop


def main() -> None:
    """Prints one row for each kind of request and each encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--input", help="file with one text a line, for `bulk`")
    parser.add_argument("--texts", type=int, default=2000, help="texts of `bulk`")
    parser.add_argument("--sizes", default="1,8,64", help="texts a request, by commas")
    parser.add_argument("--requests", type=int, default=20, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5, help="times `bulk` is timed")
    parser.add_argument("--peers", default="torch,onnxruntime", help="by commas")
    parser.add_argument("--batch_size", type=int, default=32, help="of the peers")
    arguments = parser.parse_args()
    model = bert_jax.load(arguments.model)
    encoders: dict[str, Encode] = {"bert_jax": model.encode}
    found = peers(model, arguments.model, arguments.batch_size)
    encoders |= {name: found[name] for name in arguments.peers.split(",")}
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}"
    )
    print("texts  lengths  encoder           ms  texts/s  ratio  largest difference")
    for size in map(int, filter(None, arguments.sizes.split(","))):
        for lengths in ("short", "mixed"):
            texts = make(model, lengths, size * arguments.requests)
            requests = [texts[i : i + size] for i in range(0, len(texts), size)]
            measure(encoders, requests, f"{size:5}  {lengths:7}")
    if arguments.texts:
        texts = make(model, "mixed", arguments.texts)
        if arguments.input:
            texts = read(arguments.input)[: arguments.texts]
        measure(encoders, [texts] * arguments.rounds, f"{len(texts):5}  bulk   ")
    print("ratio: its time over ours, the median of the pairs")


def measure(encoders: dict[str, Encode], requests: list[list[str]], title: str) -> None:
    """Times the requests in turn, and prints a row for each encoder."""
    vectors = {
        name: np.concatenate([encode(texts) for texts in requests])
        for name, encode in encoders.items()
    }
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for texts in requests:
        for name, encode in encoders.items():
            time.sleep(PAUSE)
            begin = time.perf_counter()
            encode(texts)
            times[name].append(time.perf_counter() - begin)
    for name, took in times.items():
        middle = statistics.median(took)
        rate = len(requests[0]) / middle
        ratio = np.median(np.array(took) / np.array(times["bert_jax"]))
        difference = np.abs(vectors[name] - vectors["bert_jax"]).max()
        print(
            f"{title}  {name:12}  {1e3 * middle:7.1f}  {rate:7,.0f}  {ratio:5.2f}  "
            f"{difference:.1e}",
            flush=True,
        )


def read(path: str) -> list[str]:
    """Returns the lines of a file that are not blank."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def make(model: Model, lengths: str, count: int) -> list[str]:
    """Returns texts of the model's own words, which are one token each."""
    words = [token for token in model.tokenizer.tokens if token.isalpha()]
    rng = np.random.default_rng(count)
    if lengths == "short":
        sizes = rng.integers(4, 29, count)
    else:
        sizes = np.clip(rng.lognormal(3.0, 0.9, count), 4, 248).astype(int)
    return [" ".join(rng.choice(words, size)) for size in sizes]


def peers(model: Model, folder: str, batch_size: int) -> dict[str, Encode]:
    """Returns the encoders of torch and onnxruntime."""
    import onnxruntime
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    bert = transformers.AutoModel.from_pretrained(folder).eval()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        export(folder, path)
        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=["CPUExecutionProvider"]
        )

    def run_torch(inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            given = {name: torch.from_numpy(x) for name, x in inputs.items()}
            return bert(**given).last_hidden_state.numpy()

    def run_onnx(inputs: dict[str, np.ndarray]) -> np.ndarray:
        return session.run(None, inputs)[0]

    def encoder(run: Callable[[dict[str, np.ndarray]], np.ndarray]) -> Encode:
        def encode(texts: list[str]) -> np.ndarray:
            order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
            vectors = np.empty((len(texts), model.bert.hidden_size), np.float32)
            for start in range(0, len(texts), batch_size):
                indices = order[start : start + batch_size]
                encoded = tokenizer(
                    [texts[i] for i in indices],
                    padding=True,
                    truncation=True,
                    max_length=model.max_seq_length,
                    return_tensors="np",
                )
                inputs = {name: np.asarray(encoded[name], np.int64) for name in INPUTS}
                mask = inputs["attention_mask"][..., None].astype(np.float32)
                states = run(inputs)
                vectors[indices] = (states * mask).sum(1) / mask.sum(1)
            return vectors

        return encode

    return {"torch": encoder(run_torch), "onnxruntime": encoder(run_onnx)}


def export(folder: str, path: Path) -> None:
    """Writes the encoder as ONNX with free batch and length."""
    import torch
    import transformers

    bert = transformers.AutoModel.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = bert

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.bert(
                input_ids=input_ids,
                attention_mask=attention_mask,
                token_type_ids=token_type_ids,
            ).last_hidden_state

    example = torch.ones(2, 8, dtype=torch.long)
    axes = {name: {0: "batch", 1: "length"} for name in (*INPUTS, "states")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Encoder(),
            (example,) * 3,
            str(path),
            input_names=list(INPUTS),
            output_names=["states"],
            dynamic_axes=axes,
            dynamo=False,  # the other exporter needs a package more
            opset_version=17,
        )


if __name__ == "__main__":
    main()
