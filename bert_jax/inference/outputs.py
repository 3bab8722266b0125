"""The answers of a model, line by line in the requested format.

jsonl   one object an example: its prediction and its texts
tsv     one line an example, with a header; of entities and roles one a span, of other
        tags one a token
conll   a token and its tag a line, a blank line behind each sentence
glue    index and prediction, as the GLUE benchmark takes them
clue    {"id": ..., "label": ...} a line, as CLUE takes them; a label of entities is
        {type: {text: [[first character, last character], ...]}}
squad   one object, id -> answer, as the official script takes it
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float

from bert_jax import errors
from bert_jax.data.labeled import examples as data_examples
from bert_jax.foundation import files
from bert_jax.inference import encode
from bert_jax.inference.model import Model
from bert_jax.tasks import spec
from bert_jax.text.coverage import Coverage

FORMATS = ("jsonl", "tsv", "conll", "glue", "clue", "squad")
_OF_ALL_TASKS = ("jsonl", "tsv")
_ONE_LABEL = ("glue", "clue")

# An example and its prediction.
Predicted = tuple[data_examples.Example, spec.Prediction]


def check(name: str, task: spec.TaskSpec, several_labels: bool = False) -> None:
    """Raises InputError unless predictions of a task have this format."""
    known = [x for x in FORMATS if x in (*_OF_ALL_TASKS, *task.formats)]
    if name not in known:
        raise errors.InputError(
            f"the format {name} is not one of {task.name}, the task of this model: use "
            f"one of {', '.join(known)}"
        )
    if several_labels and name in _ONE_LABEL:
        known = [other for other in known if other not in _ONE_LABEL]
        raise errors.InputError(
            f"the format {name} has one label a text, and this model predicts several: "
            f"use one of {', '.join(known)}"
        )


def lines(
    name: str, task: spec.TaskSpec, predicted: Iterable[Predicted]
) -> Iterator[str]:
    """Yields the lines of a file, in the order of the examples, with line ends."""
    writers = {
        "jsonl": _json_lines,
        "tsv": _tsv,
        "conll": _conll,
        "glue": _glue,
        "clue": _clue,
        "squad": _squad,
    }
    check(name, task)
    return writers[name](task, predicted)


def _json_lines(task: spec.TaskSpec, predicted: Iterable[Predicted]) -> Iterator[str]:
    del task
    for example, result in predicted:
        texts = {n: x for n, x in _texts(example).items() if n not in result}
        line = {"id": result["id"], **texts, **result}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _texts(example: data_examples.Example) -> dict[str, Any]:
    """Returns the texts of an example by their names."""
    if isinstance(example, data_examples.TextExample):
        pair = {"text_pair": example.text_pair} if example.text_pair else {}
        return {"text": example.text, **pair}
    if isinstance(example, data_examples.QuestionExample):
        return {"question": example.question, "context": example.context}
    if isinstance(example, data_examples.ChoiceExample):
        return {"context": example.context, "choices": list(example.choices)}
    return {"text": example.text}


def _tsv(task: spec.TaskSpec, predicted: Iterable[Predicted]) -> Iterator[str]:
    """Yields one line an example, or one a span."""
    yield "\t".join(task.columns) + "\n"
    for example, result in predicted:
        for row in task.rows(example, result):
            yield "\t".join(_cell(row[name]) for name in task.columns) + "\n"


def _cell(value: Any) -> str:
    """Returns a value without what would break the line."""
    text = "" if value is None else str(value)
    return " ".join(text.replace("\t", " ").splitlines())


def _conll(task: spec.TaskSpec, predicted: Iterable[Predicted]) -> Iterator[str]:
    del task
    for example, result in predicted:
        assert isinstance(example, data_examples.TaggedExample)
        words = [example.text[start:end] for start, end in example.tokens]
        tagged = zip(words, result["tags"], strict=True)
        yield "".join(f"{_cell(word)}\t{tag}\n" for word, tag in tagged) + "\n"


def _glue(task: spec.TaskSpec, predicted: Iterable[Predicted]) -> Iterator[str]:
    yield "index\tprediction\n"
    for number, (_, result) in enumerate(predicted):
        yield f"{number}\t{_cell(task.answer(result))}\n"


def _clue(task: spec.TaskSpec, predicted: Iterable[Predicted]) -> Iterator[str]:
    for _, result in predicted:
        number = int(result["id"]) if result["id"].isdecimal() else result["id"]
        line = {"id": number, "label": task.answer(result)}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _squad(task: spec.TaskSpec, predicted: Iterable[Predicted]) -> Iterator[str]:
    """Yields one object, entry by entry: it may be larger than memory."""
    del task
    yield "{"
    for number, (_, result) in enumerate(predicted):
        entry = json.dumps({result["id"]: result["answer"]}, ensure_ascii=False)[1:-1]
        yield (",\n " if number else "\n ") + entry
    yield "\n}\n"


KINDS = ("sentence", *encode.POOLINGS, "tokens")
_WINDOW_TEXTS = 2048
_WINDOW_BYTES = 1 << 28  # of token vectors


@dataclasses.dataclass(frozen=True)
class VectorRequest:
    """Which vectors are wanted.

    Attributes:
      kind: `sentence` (as the model pools), `mean`, `cls`, `max`, `pooled`, `tokens`.
      layers: of `tokens`: from 0 (embeddings), or from the end.
      normalize: scale sentence vectors to length 1.
      prompt_name, prompt: the prefix of every text, as in `Model.encode`.
    """

    kind: str = "sentence"
    layers: tuple[int, ...] = (-1,)
    normalize: bool = False
    prompt_name: str | None = None
    prompt: str | None = None

    def check(self, model: Model) -> None:
        """Raises InputError unless the model can give what is wanted."""
        if self.kind not in KINDS:
            raise errors.InputError(
                f"--features is {self.kind!r}: use one of {', '.join(KINDS)}"
            )
        if self.kind == "pooled" and "pooler" not in model.params:
            raise errors.InputError("this model has no pooler: use --features=mean")
        if self.kind == "tokens" and self.normalize:
            raise errors.InputError("--normalize is for sentence vectors, not tokens")
        if self.kind != "tokens" and self.layers != (-1,):
            raise errors.InputError(
                "--layers is for --features=tokens; sentence vectors are of the last"
            )
        encode.check_layers(self.layers, model.bert)
        self.prompt_of(model)

    def prompt_of(self, model: Model) -> str:
        """Returns the prefix of every text."""
        return model.pooling.prompt(self.prompt_name, self.prompt)


def check_output(output: Path) -> None:
    """Raises InputError unless a file of one of the two formats can have this name."""
    if output.suffix not in (".npy", ".jsonl"):
        raise errors.InputError(f"--output is {output}: end it with .npy or .jsonl")
    if output.is_dir():
        raise errors.InputError(f"--output is {output}, a folder: name a file")
    if not output.parent.is_dir():
        raise errors.InputError(
            f"--output is {output}, but the folder {output.parent} does not exist: "
            "create it"
        )


def write(
    model: Model,
    texts: Iterable[str],
    request: VectorRequest,
    output: Path,
    done: Callable[[int], object] = lambda count: None,
    coverage: Coverage | None = None,
) -> int:
    """Writes the vectors of all texts, in their order, and returns how many there were.

    Calls `done` with the number of texts of each window that is written, and counts
    the tokens of the texts in `coverage`.

    Of `x.npy`, sentence vectors are [n, D] float32. Token vectors are [T, K, D] over
    all tokens, of K layers; `x.input_ids.npy` [T] has the ids of the tokens and
    `x.offsets.npy` [n + 1] the index at which each text begins. `x.jsonl` has one
    object a text.

    Raises:
      InputError: the model cannot give them, or no such file can have this name.
    """
    request.check(model)
    check_output(output)
    names = [output]
    if request.kind == "tokens" and output.suffix == ".npy":
        names += [output.with_suffix(f".{x}.npy") for x in ("input_ids", "offsets")]
    count = 0
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(files.writing(name)) for name in names]
        is_table = output.suffix == ".jsonl"
        writer = (_JsonLines if is_table else _Arrays)(opened, request, model)
        for window, rows in _windows(model, texts, request, coverage):
            writer.add(window, rows, _vectors(model, rows, request))
            count += len(window)
            done(len(window))
            del window, rows  # before the next ones are allocated
        writer.close()
    return count


def _windows(
    model: Model,
    texts: Iterable[str],
    request: VectorRequest,
    coverage: Coverage | None,
) -> Iterator[tuple[list[str], encode.Rows]]:
    """Yields texts and their rows, as many as memory should hold together."""
    prompt = request.prompt_of(model)
    width = 4 * model.bert.hidden_size * len(request.layers)
    most_tokens = _WINDOW_BYTES // width if request.kind == "tokens" else 1 << 62
    window: list[str] = []
    tokens = 0
    for text in texts:
        window.append(text)
        # A text has about a token a byte at most, and rows are cut.
        size = len(text.encode("utf-8", "surrogatepass")) + 2
        tokens += min(size, model.max_seq_length)
        if len(window) == _WINDOW_TEXTS or tokens > most_tokens:
            yield window, model.rows(window, prompt, coverage)
            window, tokens = [], 0
    if window:
        yield window, model.rows(window, prompt, coverage)


def _vectors(model: Model, rows: encode.Rows, request: VectorRequest) -> list[Any]:
    """Returns one array a row."""
    if request.kind == "tokens":
        return encode.token_vectors(
            model.bert, model.params, rows, request.layers, model.execution
        )
    result = model.sentence_vectors(rows, request.kind, request.prompt_of(model))
    return list(encode.normalized(result) if request.normalize else result)


class _JsonLines:
    """One object a text: `text` and `vector`, or `tokens` and `layers`."""

    def __init__(
        self, opened: list[BinaryIO], request: VectorRequest, model: Model
    ) -> None:
        (self._file,) = opened
        self._request, self._tokens = request, model.tokenizer.tokens

    def add(self, texts: list[str], rows: encode.Rows, vectors: list[Any]) -> None:
        """Writes a window."""
        for text, row, vector in zip(texts, rows, vectors, strict=True):
            line: dict[str, Any] = {"text": text}
            if self._request.kind == "tokens":
                line["tokens"] = [self._tokens[i] for i in row]
                line["layers"] = {
                    str(layer): _numbers(vector[:, index])
                    for index, layer in enumerate(self._request.layers)
                }
            else:
                line["vector"] = _numbers(vector)
            # A lone surrogate is written as JSON's own escape.
            spelled = json.dumps(line, ensure_ascii=False) + "\n"
            self._file.write(spelled.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Does nothing: every line is complete."""


class _Arrays:
    """Numpy arrays that grow: the vectors, and of tokens their ids and offsets."""

    def __init__(
        self, opened: list[BinaryIO], request: VectorRequest, model: Model
    ) -> None:
        width = model.bert.hidden_size
        empty = [np.zeros((0, len(request.layers), width), np.float32)]
        if request.kind == "tokens":
            empty += [np.zeros(0, np.int32), np.zeros(1, np.int64)]
        else:
            is_own = request.kind == "sentence"
            empty = [np.zeros((0, model.vector_size if is_own else width), np.float32)]
        self._growing = [*map(_Growing, opened, empty)]
        self._total = 0

    def add(self, texts: list[str], rows: encode.Rows, vectors: list[Any]) -> None:
        """Writes a window."""
        del texts  # the arrays only hold vectors
        if len(self._growing) == 1:
            self._growing[0].append(np.stack(vectors))
            return
        states, ids, offsets = self._growing
        ids.append(np.concatenate(rows).astype(np.int32))
        ends = self._total + np.cumsum([len(row) for row in rows], dtype=np.int64)
        offsets.append(ends)
        states.append(np.concatenate(vectors))
        self._total = int(ends[-1])

    def close(self) -> None:
        """Writes the final counts."""
        for growing in self._growing:
            growing.write_header()


class _Growing:
    """A .npy file whose first axis grows; its header leaves room for the count."""

    def __init__(self, file: BinaryIO, first: np.ndarray) -> None:
        self._file = file
        self._shape, self._dtype = (0, *first.shape[1:]), first.dtype
        self.write_header()
        self.append(first)

    def append(self, rows: np.ndarray) -> None:
        """Adds rows at the end."""
        assert (self._shape[1:], self._dtype) == (rows.shape[1:], rows.dtype)
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self._shape = (self._shape[0] + len(rows), *rows.shape[1:])

    def write_header(self) -> None:
        """Writes the count of rows so far at the head of the file."""
        described = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": self._shape,
        }
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(self._file, described)


def _numbers(vector: Float[np.ndarray, "..."]) -> list[Any]:
    """Returns nested lists of numbers that float32 reads back exactly."""
    if vector.ndim > 1:
        return [_numbers(row) for row in vector]
    return [float(str(x)) for x in vector]
