"""Time of `encode` compared with transformers in torch and onnxruntime: same texts.

    pip install torch transformers onnx onnxruntime
    python scripts/bench/encode.py --model=FOLDER
    python scripts/bench/encode.py --model=FOLDER --input=lines.txt

All three turn texts into mean-pooled vectors, float32, tokenization included. The peers
sort texts by length and run batches padded to their longest text, as
sentence-transformers does (`--batch_size`); onnxruntime runs torch's export with its
own optimisations. Rounds are timed in turn, and the ratio is the median over the
rounds, because machines drift. Without --input the texts consist of the model's own
words, 4 to 250 of them. FOLDER is a BERT of Hugging Face's, published or exported by
bert_jax.convert.
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


def main() -> None:
    """Prints one row an encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--input", help="file with one text a line")
    parser.add_argument("--texts", type=int, default=2000, help="how many are encoded")
    parser.add_argument("--batch_size", type=int, default=32, help="of the peers")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each")
    arguments = parser.parse_args()
    model = bert_jax.load(arguments.model)
    texts = read(arguments.input) if arguments.input else make(model, arguments.texts)
    texts = texts[: arguments.texts]
    encoders: dict[str, Encode] = {"bert_jax": model.encode}
    torch_encode, onnx_encode = peers(model, arguments.model, arguments.batch_size)
    encoders |= {"torch": torch_encode, "onnxruntime": onnx_encode}
    report(texts, encoders, model, arguments.rounds)


def report(
    texts: list[str], encoders: dict[str, Encode], model: Model, rounds: int
) -> None:
    """Times all encoders in turn and prints the table."""
    vectors = {name: encode(texts) for name, encode in encoders.items()}
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(rounds):
        for name, encode in encoders.items():
            begin = time.perf_counter()
            encode(texts)
            times[name].append(time.perf_counter() - begin)
    lengths = [len(ids) + 2 for ids in model.tokenizer.encode(texts)]
    tokens = sum(min(length, model.max_seq_length) for length in lengths)
    print(
        f"{len(texts):,} texts, {tokens:,} tokens, median {statistics.median(lengths)} "
        f"and at most {max(lengths)} a text; {jax.devices()[0].device_kind}, "
        f"jax {jax.__version__}"
    )
    print(f"{'':12}  texts/s  tokens/s   ratio  largest difference")
    for name, took in times.items():
        seconds = statistics.median(took)
        pairs = zip(took, times["bert_jax"], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        difference = np.abs(vectors[name] - vectors["bert_jax"]).max()
        print(
            f"{name:12}  {len(texts) / seconds:7,.0f}  {tokens / seconds:8,.0f}  "
            f"{ratio:6.2f}  {difference:.1e}"
        )
    print("ratio: its time over ours, the median of the rounds")


def read(path: str) -> list[str]:
    """Returns the lines of a file that are not blank."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def make(model: Model, count: int) -> list[str]:
    """Returns texts of the model's own words; most are short, some long."""
    words = [token for token in model.tokenizer.tokens if token.isalpha()]
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(3.0, 0.9, count), 4, 250).astype(int)
    return [" ".join(rng.choice(words, length)) for length in lengths]


def peers(model: Model, folder: str, batch_size: int) -> tuple[Encode, Encode]:
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

    return encoder(run_torch), encoder(run_onnx)


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
