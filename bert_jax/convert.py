"""Converts a model from any format to any other, and reports the source of each parameter.

python -m bert_jax.convert --input=hf:google-bert/bert-base-chinese --output=mine --to=bert_jax --verify
python -m bert_jax.convert --input=runs/demo --output=exported --to=huggingface --verify
python -m bert_jax.convert --input=exported --output=google --to=tensorflow1

Reads runs, exports of bert_jax, folders of Hugging Face's (BERT, RoBERTa, ALBERT, ELECTRA,
DistilBERT, ModernBERT; safetensors or torch files) and Google's TensorFlow 1 checkpoints. What
is missing or left over is an error, unless it is named in --allow_missing or --ignore.
The output folder appears when it is complete, and with --verify verified.
"""  # noqa: E501

import dataclasses
from pathlib import Path

from absl import flags

from bert_jax import checkpoints, commands, console, errors
from bert_jax.checkpoints import (
    card,
    hf_config,
    huggingface,
    mapping,
    native,
    sentence_encoder,
    tensorflow1,
    verify,
    weights,
)
from bert_jax.foundation import files, hub, json_file
from bert_jax.training import distributed

FORMATS = ("huggingface", "tensorflow1", "bert_jax")
RECORD = "conversion.json"


@dataclasses.dataclass(frozen=True)
class Request:
    """The options of a conversion.

    Attributes:
      to: one of `FORMATS`.
      dtype: of the file: `float32` or `bfloat16` (not of TensorFlow 1).
      pooling: of a sentence encoder to write; empty keeps the kind of the input.
      hidden_act: the activation, by its name in transformers; empty keeps that of the
        input.
      separate_head: writes a head that no class of transformers has into a separate
        file, next to the encoder.
      verify: compare the outputs of both sides before the folder appears.
      choice: parts that may be missing or left over.
    """

    to: str
    dtype: str = "float32"
    pooling: str = ""
    hidden_act: str = ""
    separate_head: bool = False
    verify: bool = False
    choice: weights.Choice = weights.WHOLE

    def __post_init__(self) -> None:
        if self.to not in FORMATS:
            raise errors.InputError(
                f"--to is {self.to!r}: use one of {', '.join(FORMATS)}"
            )
        if self.to == "tensorflow1" and self.dtype != "float32":
            raise errors.InputError("Google's format is float32: leave out --dtype")
        if self.to != "huggingface" and self.pooling:
            raise errors.InputError("--pooling is for --to=huggingface")
        if self.to != "huggingface" and self.separate_head:
            raise errors.InputError("--separate_head is for --to=huggingface")
        if self.hidden_act:
            hf_config.activation_of(self.hidden_act)


def convert(source: str | Path, output: Path, request: Request) -> weights.Report:
    """Converts a model folder, and returns the report of its reading.

    A name of the hub is written down with its commit, wherever the source is named.

    The folder `output` must not exist; it has a README.md and conversion.json.

    Raises:
      InputError: the input is incomplete, the format cannot represent it, or the
        outputs before and after differ. No partial folder remains.
      StorageError: the disk refuses it.
    """
    files.check_can_build(output)
    name = hub.pinned(str(source))
    source = hub.folder(name, with_card=True)
    head = native.separate_head(source) if request.separate_head else None
    choice = request.choice
    if head is None:
        found = checkpoints.open(source).read(choice)
    else:
        found = _without_head(source, head, choice)
        choice = dataclasses.replace(choice, ignore=(*choice.ignore, head.part))
    if hub.is_name(name):
        origin = f"{found.report.source}, {name}"
        report = dataclasses.replace(found.report, source=origin)
        found = dataclasses.replace(found, report=report)
    original = found
    if request.hidden_act:
        found = _with_activation(found, hf_config.activation_of(request.hidden_act))
    if request.to == "huggingface":
        found = _as_encoder(found, request)
    if request.to == "tensorflow1":
        tensorflow1.refuse_others(found.weights.config, found.weights.parts)
    with files.building_folder(output) as folder:
        _write(folder, found, request, head)
        has_head = huggingface.head_among(found.weights.parts) != ""
        if request.to != "tensorflow1" and (head or has_head):
            native.write_exported(folder, source)
        card.write(folder, found, source, request.to, head)
        record = found.report.record() | {
            "input": name if hub.is_name(name) else source.name,
            "to": request.to,
        }
        json_file.write(folder / RECORD, record)
        print(load_report(found))
        if request.verify:
            _verify(original, source, choice)
            _verify(found, folder, choice)
    return found.report


def _without_head(
    source: Path, head: huggingface.SeparateHead, choice: weights.Choice
) -> checkpoints.LoadedModel:
    """Reads a model whose head is written to a separate file."""
    ignore = (*choice.ignore, head.part)
    found = checkpoints.open(source).read(dataclasses.replace(choice, ignore=ignore))
    note = f"{head.part}: in {huggingface.SEPARATE_HEAD}"
    report = dataclasses.replace(
        found.report,
        dropped=tuple(x for x in found.report.dropped if x != head.part),
        notes=(*found.report.notes, note),
    )
    return dataclasses.replace(found, report=report)


def _write(
    folder: Path,
    found: checkpoints.LoadedModel,
    request: Request,
    head: huggingface.SeparateHead | None,
) -> None:
    """Writes weights, config and tokenizer."""
    given, tokenizer = found.weights, found.tokenizer
    width = given.config.hidden_size
    if request.to == "huggingface":
        is_encoder = found.pooling.is_sentence_encoder
        if head is not None:
            huggingface.write_separate_head(folder, head)
            given = dataclasses.replace(given, labels=head.labels)
        huggingface.write(
            folder,
            given,
            dtype=request.dtype,
            needs_pooler=not is_encoder and head is None,
        )
        if is_encoder:
            has_pooler = mapping.class_pooler(given.config.model_type) <= {*given.parts}
            sentence_encoder.write(folder, found.pooling, width, has_pooler=has_pooler)
        if tokenizer is not None:
            tokenizer.export(folder, found.max_seq_length)
            if tokenizer.cleaning:
                distributed.print_once(
                    f"the model cleans its texts ({tokenizer.cleaning}); transformers "
                    "cannot: clean them before, as described in README.md"
                )
        return
    if request.to == "tensorflow1":
        tensorflow1.write(folder, given)
    else:
        native.write(folder, given, dtype=request.dtype)
        if found.pooling.is_sentence_encoder:
            sentence_encoder.write(folder, found.pooling, width)
    if tokenizer is not None:
        tokenizer.save(folder, found.max_seq_length)


def _with_activation(
    found: checkpoints.LoadedModel, name: str
) -> checkpoints.LoadedModel:
    """Returns a model that computes another activation with the same parameters."""
    given, before = found.weights, found.weights.config.hidden_act
    if name == before:
        return found
    bert = dataclasses.replace(given.config, hidden_act=name)
    notes = (*found.report.notes, f"hidden_act: {name}, as asked, instead of {before}")
    return dataclasses.replace(
        found,
        weights=dataclasses.replace(given, config=bert),
        report=dataclasses.replace(found.report, notes=notes),
    )


def _as_encoder(
    found: checkpoints.LoadedModel, request: Request
) -> checkpoints.LoadedModel:
    """Returns a model as the sentence encoder that is to be written, if it is one."""
    pooling = found.pooling
    if request.pooling:
        kept = pooling.modes == (request.pooling,)
        pooling = dataclasses.replace(
            pooling,
            mode=request.pooling,
            more=(),
            # What was trained on one way of pooling is for no other.
            modules=pooling.modules if kept else (),
            max_seq_length=found.max_seq_length,
            is_sentence_encoder=True,
        )
    given, report = found.weights, found.report
    is_encoder = pooling.is_sentence_encoder and {*given.parts} == {"encoder", "pooler"}
    if is_encoder and not mapping.class_pooler(given.config.model_type):
        # Its class has none; what a sentence vector needs of it is a module.
        params = {"encoder": given.params["encoder"]}
        given = dataclasses.replace(given, params=params)
        report = dataclasses.replace(report, dropped=(*report.dropped, "pooler"))
    return dataclasses.replace(found, weights=given, report=report, pooling=pooling)


def _verify(
    found: checkpoints.LoadedModel, other: Path, choice: weights.Choice
) -> None:
    """Compares our outputs with those of another side, and prints the table.

    Raises:
      InputError: they differ.
    """
    result = verify.verify(found, other, choice)
    print(result.table())
    if not result.passed:
        first = result.first_differing
        where = f", first at {first.name}" if first else ""
        raise errors.InputError(
            f"{other.name} and our reading of the model differ{where}: see "
            "the table above. Nothing is written; please report the model"
        )


def load_report(found: checkpoints.LoadedModel) -> str:
    """Returns what came from where, as a table for people."""
    report, given = found.report, found.weights
    rows = [("parameter", "shape", "from", "stored as", "dtype", "change")]
    rows += [
        (r.ours, _shape(r.shape), r.theirs, _shape(r.stored), r.dtype, r.change)
        for r in report.rows
    ]
    lines = [f"read: {report.source}"]
    lines += [f"  {name}  sha256 {digest}" for name, digest in report.files.items()]
    lines.append(console.table(rows, left=range(len(rows[0]))))
    lines.append(
        f"parameters: {given.num_parameters:,}, all finite; parts: "
        f"{', '.join(given.parts)}"
    )
    for name, listed in (
        ("missing, allowed", report.missing),
        ("parts left out", report.dropped),
        ("left over, ignored", report.ignored),
        ("notes", report.notes),
    ):
        lines.append(f"{name}: {', '.join(listed) or 'none'}")
    return "\n".join(lines)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    source, output, to = commands.required("input", "output", "to")
    request = Request(
        to,
        flags.FLAGS.dtype,
        flags.FLAGS.pooling,
        flags.FLAGS.hidden_act,
        flags.FLAGS.separate_head,
        flags.FLAGS.verify,
        weights.Choice(
            tuple(flags.FLAGS.allow_missing),
            tuple(flags.FLAGS.ignore),
            flags.FLAGS.head,
            flags.FLAGS.model_type,
        ),
    )
    convert(source, Path(output), request)
    print(f"written: {output}")


if __name__ == "__main__":
    flags.DEFINE_string(
        "input",
        None,
        "Folder (or file of weights) to read; or hf:owner/name.",
    )
    flags.DEFINE_string("output", None, "Folder to write; must not exist.")
    flags.DEFINE_enum("to", None, FORMATS, "Format to write.")
    flags.DEFINE_enum("dtype", "float32", ("float32", "bfloat16"), "Of the file.")
    flags.DEFINE_bool(
        "verify", False, "Run the model before and after, and compare every layer."
    )
    flags.DEFINE_list(
        "allow_missing",
        [],
        "Parts (pooler, mlm_head, ...), tensors or patterns that may be missing; a "
        "part with a missing tensor is ignored. Also: tokenizer.",
    )
    flags.DEFINE_list(
        "ignore",
        [],
        "Parts, tensors or patterns to ignore. Also: vocab_rows, for rows of the "
        "table after the vocabulary.",
    )
    flags.DEFINE_string(
        "head",
        "",
        "Kind of a classifier, if no config defines it: classifier, tagger, ...",
    )
    flags.DEFINE_string(
        "hidden_act",
        "",
        "Activation to write: gelu (by erf), gelu_new (by tanh, as Google's code).",
    )
    flags.DEFINE_bool(
        "separate_head",
        False,
        "Write a head that no class of transformers has to classifier.safetensors.",
    )
    flags.DEFINE_string(
        "model_type",
        "",
        "Type of a Hugging Face model; overrides its config.json: bert, ...",
    )
    flags.DEFINE_string(
        "pooling", "", "Write a sentence encoder that pools by mean, cls or max."
    )
    commands.run(main)
