"""Predicts on texts: answers of the task, guesses for [MASK], or vectors.

python -m bert_jax.predict --model=runs/demo_finetune "这家酒店很好" "房间太小"
python -m bert_jax.predict --model=runs/ner --input=test.conll --format=conll --output=tagged.conll
python -m bert_jax.predict --model=runs/demo "今天天气很[MASK]。"
python -m bert_jax.predict --model=hf:google-bert/bert-base-uncased --task=features --input=lines.txt --output=vectors.npy

`--model` is a run, an export, a folder of Hugging Face's or Google's checkpoint, or
hf:owner/name of the Hugging Face hub. Texts come from the arguments, or from --input, or
else from standard input.

A fine-tuned model answers as its task does (--task=answer): a pair is written
"text<TAB>text", a question "question<TAB>context". --input is a file of the task, labels
or not (TSV, CSV, JSON lines, CoNLL, SQuAD, ...; see --input_format, --header and --columns),
or plain lines (--input_format=lines); files larger than memory are streamed, in order. --format
selects how answers are written: jsonl, tsv, conll, glue, clue or squad.

--task=fill_mask prints one JSON object a text: `text`, and `guesses`, a list for each [MASK].
--task=features writes --output: one vector a text, as the model pools them
(--features=mean, cls, max or pooled choose otherwise), or with --features=tokens the
vectors of all tokens after the layers in --layers. x.npy is an array [texts, D], or
[tokens, layers, D] with x.offsets.npy and x.input_ids.npy next to it; x.jsonl has one JSON
object a text.
"""  # noqa: E501

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from bert_jax import commands, console, errors
from bert_jax.config import finetuning
from bert_jax.data import file_formats, text_files
from bert_jax.data.labeled import table_records
from bert_jax.foundation import hub
from bert_jax.inference import answer, inputs, outputs
from bert_jax.inference.model import Model, load
from bert_jax.text.coverage import Coverage
from bert_jax.training import distributed

logger = logging.getLogger(__name__)

TASKS = ("auto", "answer", "fill_mask", "features")


# Files whose lines are not texts, and their formats.
_RECORDS = {
    "parquet": "a Parquet table",
    "xlsx": "an Excel workbook",
    "jsonl": "JSON lines",
    "json": "JSON",
    "html": "an HTML page",
    "xml": "XML",
}


def _refuse_records(path: Path) -> None:
    """Raises InputError for records of which these tasks would read the source."""
    if not path.is_file():
        return  # a pipe cannot be read twice
    kind = file_formats.kind(text_files.NamedPath(str(path), path))
    if kind in _RECORDS:
        raise errors.InputError(
            f"{path} is {_RECORDS[kind]}, and this task reads plain lines, one text a "
            "line. Write its texts to such a file (the answers of a fine-tuned model, "
            "--task=answer, are for tables too)"
        )
    if kind == "csv":
        logger.warning(
            "%s looks like a table, and this task reads each of its lines as one text, "
            "the header and labels too",
            path,
        )


def _fill_masks(model: Model, texts: Iterator[tuple[int, str, str]]) -> None:
    """Prints the guesses for each text."""
    coverage = Coverage()
    for _, where, text in texts:
        text = text.strip()
        try:
            filled = model.fill_ids(model.ids(text, coverage), flags.FLAGS.top)
        except errors.InputError as error:
            raise errors.InputError(f"{where}: {error}") from None
        guesses = [
            [{"token": token, "probability": round(prob, 6)} for token, prob in best]
            for best in filled
        ]
        line = {"text": text, "guesses": guesses}
        print(json.dumps(line, ensure_ascii=False), flush=True)
    _report(model, coverage)


def _write_features(
    model: Model,
    texts: Iterator[tuple[int, str, str]],
    total: int | None,
    output: Path,
    notes: Counter[str],
) -> None:
    """Writes the vectors of all texts."""
    request = outputs.VectorRequest(
        flags.FLAGS.features,
        _layers(flags.FLAGS.layers),
        flags.FLAGS.normalize,
        flags.FLAGS.prompt_name,
        flags.FLAGS.prompt,
    )
    request.check(model)
    coverage = Coverage()
    with console.Bar(total, "texts", "encoding", is_kept=True) as progress:
        only_texts = (text.strip() for _, _, text in texts)
        outputs.write(model, only_texts, request, output, progress.update, coverage)
    _report(model, coverage, f": {output}", inputs.counts(notes))


def _report(
    model: Model, coverage: Coverage, written: str = "", counted: str = ""
) -> None:
    """Reports the number of texts, and their coverage by the vocabulary."""
    if written or coverage:
        distributed.print_once(
            f"{coverage.texts:,} texts{written} ({coverage.describe()}){counted}"
        )
    model.warn(coverage, flags.FLAGS.input or "the texts")


def _layers(given: list[str]) -> tuple[int, ...]:
    """Returns the numbers in --layers."""
    try:
        return tuple(int(layer) for layer in given)
    except ValueError:
        raise errors.InputError(
            f"--layers is {','.join(given)}: write numbers, as in --layers=-1,-4"
        ) from None


def _count_lines(path: str | None, keeps_blank: bool) -> int | None:
    """Returns the texts of a file, for the ETA; None of a pipe."""
    if path is None or not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        return sum(1 for line in file if keeps_blank or line.strip())


@errors.naming_flags(inputs.FLAGS)
def main(argv: list[str]) -> None:
    """Runs the command."""
    (name,) = commands.required("model")
    if flags.FLAGS.top < 1:
        raise errors.InputError(f"--top is {flags.FLAGS.top}: give at least 1")
    folder = hub.folder(name)
    task = flags.FLAGS.task
    if task == "auto":
        task = "answer" if answer.can_answer(folder) else "fill_mask"
    _refuse_flags_of_other_tasks(task)
    if argv[1:] and flags.FLAGS.input:
        raise errors.InputError(
            f"texts are given as arguments ({argv[1]!r}) and in --input: give one of "
            "them"
        )
    if task == "answer":
        inputs.write(folder, argv[1:], request_of_flags())
        return
    output = None
    if task == "features":
        if not flags.FLAGS.output:
            example = "--output is missing, as in: --output=vectors.npy"
            raise errors.InputError(example)
        output = Path(flags.FLAGS.output)
        outputs.check_output(output)
    model = load(folder, dtype=flags.FLAGS.dtype)
    path, is_repaired = flags.FLAGS.input, flags.FLAGS.repair
    if path is not None:
        _refuse_records(Path(path))
    if output is None:
        _fill_masks(model, inputs.numbered_texts(argv[1:], path))
        return
    notes = table_records.Notes()
    texts = inputs.numbered_texts(
        argv[1:],
        path,
        text_files.Faults.KEEP if is_repaired else text_files.Faults.OFFER,
        notes if is_repaired else None,
        keeps_blank=not is_repaired,
    )
    total = len(argv) - 1 if argv[1:] else _count_lines(path, not is_repaired)
    _write_features(model, texts, total, output, notes)


# Of the flags that not every task has, those of each.
_FLAGS = {
    "answer": {"output", "format", "input_format", "header", "columns", "repair"},
    "fill_mask": {"top"},
    "features": {
        "output",
        "features",
        "layers",
        "normalize",
        "prompt",
        "prompt_name",
        "repair",
    },
}


def _refuse_flags_of_other_tasks(task: str) -> None:
    """Raises InputError for a flag that would do nothing."""
    for name in sorted(set().union(*_FLAGS.values()) - _FLAGS[task]):
        if flags.FLAGS[name].present:
            raise errors.InputError(f"--{name} does nothing with --task={task}")


def define_input_flags() -> None:
    """Defines how a file of examples is read."""
    flags.DEFINE_enum(
        "input_format",
        "auto",
        inputs.INPUT_FORMATS,
        "Of the file; auto: as in training, or by its name and content.",
    )
    flags.DEFINE_enum(
        "header",
        None,
        finetuning.HEADERS,
        "Whether the first line of a table (TSV, CSV, .xlsx) has the names of its "
        "columns; auto: if two are usual names, or one that is given. Default: as in "
        "training.",
        case_sensitive=False,
    )
    flags.DEFINE_list(
        "columns", [], "Columns, as text=sentence,label=2. Default: as in training."
    )
    flags.DEFINE_bool(
        "repair",
        False,
        "Leave out and count broken records (no text, bytes that are not UTF-8); fix "
        "tags that break BIO.",
    )
    commands.show_in_help("input_format", "header", "columns", "repair")


def request_of_flags() -> inputs.AnswerRequest:
    """Returns the request of the flags."""
    given = flags.FLAGS
    output = Path(given.output) if given.output else None
    return inputs.AnswerRequest(
        given.input,
        given.input_format,
        tuple(given.columns),
        given.repair,
        output,
        given.format,
        given.dtype,
        given.header,
    )


if __name__ == "__main__":
    flags.DEFINE_string(
        "model", None, "Folder of the model: a run, an export; or hf:owner/name."
    )
    flags.DEFINE_enum(
        "task",
        "auto",
        TASKS,
        "What to predict; auto: answer if the model is fine-tuned.",
    )
    flags.DEFINE_string("input", None, "File of texts, or of examples of the task.")
    flags.DEFINE_enum("dtype", "float32", ("float32", "bfloat16"), "Of activations.")
    flags.DEFINE_integer("top", 5, "How many guesses for each [MASK].")
    flags.DEFINE_string(
        "output", None, "File of the answers, or of the vectors: x.npy or x.jsonl."
    )
    flags.DEFINE_enum("format", "jsonl", outputs.FORMATS, "Of the answers.")
    define_input_flags()
    flags.DEFINE_enum(
        "features",
        "sentence",
        outputs.KINDS,
        "Which vectors; `sentence` is as the model pools, mean if it has no pooling.",
    )
    flags.DEFINE_list(
        "layers", ["-1"], "Layers of token vectors: 0 = embeddings, -1 = the last."
    )
    flags.DEFINE_bool("normalize", False, "Scale sentence vectors to length 1.")
    # A notebook may run the command twice in one process.
    flags.DEFINE_string(
        "prompt_name",
        None,
        "Prompt of a sentence encoder, written before every text; by default the one "
        "that the model names.",
        allow_override=True,
    )
    flags.DEFINE_string(
        "prompt", None, 'Text written there instead; "" for none.', allow_override=True
    )
    commands.run(main)
