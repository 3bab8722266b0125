"""Datasets by name: which files a split has, the names of classes, what is fetched."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from bert_jax import errors, tasks
from bert_jax.data import hub_dataset
from bert_jax.data.corpus import readers, sources
from bert_jax.data.labeled import read_examples

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import hub_models  # noqa: E402

NAME, REPO = "hf:owner/data", "datasets/owner/data"
CARD = """---
license: mit
configs:
- config_name: reviews
  default: true
  data_files:
  - split: train
    path: reviews/train-*
  - split: validation
    path: [reviews/dev.csv]
- config_name: tags
  data_files: "tags/**/*.jsonl"
dataset_info:
- config_name: reviews
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names: {'0': neg, '1': pos}
- config_name: tags
  features:
  - name: tokens
    sequence: string
---
# A card
"""


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A hub with an empty cache."""
    yield from hub_models.serve(monkeypatch, tmp_path / "home")


def _parquet(folder: Path, *texts: str, features: object = None) -> bytes:
    """Returns a file of rows (sentence, label 0 or 1 in turn)."""
    numbers = [number % 2 for number in range(len(texts))]
    table = pa.table({"sentence": list(texts), "label": numbers})
    if features is not None:
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    path = folder / "made.parquet"
    parquet.write_table(table, path, row_group_size=2)
    return path.read_bytes()


def _read(text: str, **options) -> list[tuple[str, tuple[str, ...] | None]]:
    request = read_examples.Request(
        text, form=tasks.TASKS["classification"].form, **options
    )
    return [(x.text, x.labels) for x in read_examples.read(request).examples]


def test_shards_of_parquet_are_one_split_with_the_names_of_their_classes(
    served, tmp_path
):
    label = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    served.put(
        REPO,
        {
            "data/train-00000-of-00002.parquet": _parquet(
                tmp_path, "a", "b", "c", features=label
            ),
            "data/train-00001-of-00002.parquet": _parquet(
                tmp_path, "d", "e", features=label
            ),
            "data/test-00000-of-00001.parquet": b"not fetched",
            "README.md": "no front matter",
        },
    )
    found = _read(f"{NAME}[train]")
    assert found == [
        ("a", ("bad",)),
        ("b", ("good",)),
        ("c", ("bad",)),
        ("d", ("bad",)),
        ("e", ("good",)),
    ]
    assert not [x for x in served.fetched() if "test" in x]
    assert sum(x.startswith("GET /api/datasets/") for x in served.requests) == 1


def test_the_card_names_splits_configurations_and_classes(served, tmp_path):
    served.put(
        REPO,
        {
            "README.md": CARD,
            "reviews/train-a.csv": "sentence,label\none,1\ntwo,0\n",
            "reviews/dev.csv": 'sentence,label\n"three, four",-1\nfive,0\n',
            "tags/x/a.jsonl": '{"sentence": "six", "label": "t"}\n',
            "train.csv": "sentence,label\nof no configuration,0\n",
        },
    )
    assert _read(f"{NAME}[train]") == [("one", ("pos",)), ("two", ("neg",))]
    assert _read(f"{NAME}/reviews[train]") == [("one", ("pos",)), ("two", ("neg",))]
    assert _read(f"{NAME}/tags") == [("six", ("t",))]
    asked = read_examples.Request(
        f"{NAME}[dev]", form=tasks.TASKS["classification"].form
    )
    assert [x.labels for x in read_examples.iterate(asked)] == [None, ("neg",)]
    with pytest.raises(errors.InputError, match="reviews, tags"):
        _read(f"{NAME}/other[train]")
    with pytest.raises(errors.InputError, match="train, validation"):
        _read(f"{NAME}[test]")
    with pytest.raises(errors.InputError, match="train, validation"):
        _read(NAME)


@pytest.mark.parametrize(
    "files, splits",
    [
        (["train.csv", "dev.csv", "test.csv"], {"train", "validation", "test"}),
        (["my-training.jsonl", "my_valid.jsonl"], {"train", "validation"}),
        (["testing/0.json", "train/0.json", "train/1.json"], {"train", "test"}),
        (["data/extra.long-00000-of-00001.parquet", "x.parquet"], {"extra.long"}),
        (["a.txt", "b.txt"], {"train"}),
        ([".hidden/a.txt", "__pycache__/b.txt", "dataset_infos.json"], set()),
        (["train.parquet", "train.csv", "test.parquet"], {"train", "test"}),
        (["pretraining.csv", "contest.csv"], {"train"}),
    ],
)
def test_splits_are_told_by_the_names_of_files(files, splits):
    found = hub_dataset._splits({"": ["**"]}, files)
    assert found.keys() == splits
    kinds = {hub_dataset._suffix(x) for several in found.values() for x in several}
    assert len(kinds) <= 1


def test_a_configuration_may_be_a_folder(served):
    files = {"en/train.csv": "text,label\na,x\n", "de/train.csv": "text,label\nb,y\n"}
    served.put(REPO, files)
    assert _read(f"{NAME}/de[train]") == [("b", ("y",))]
    assert served.fetched() == ["de/train.csv"]


def test_a_name_is_pinned_and_its_record_is_taken_again(served):
    commit = served.put(REPO, {"train.csv": "text,label\na,x\n"})
    pinned = hub_dataset.pinned(f"{NAME}[train]")
    assert pinned == f"{NAME}@{commit}[train]"
    served.put(REPO, {"train.csv": "text,label\nchanged,x\n"})
    served.forget()
    assert hub_dataset.pinned(f"{NAME}[train]", pinned) == pinned
    assert not served.requests
    assert _read(pinned) == [("a", ("x",))]
    assert hub_dataset.pinned(f"{NAME}[test]", pinned) != pinned
    assert hub_dataset.pinned(f"{NAME}@main[train]", pinned) == pinned


def test_offline_a_split_is_read_without_a_request(served, monkeypatch):
    served.put(
        REPO, {"train.csv": "text,label\na,x\n", "README.md": "---\na: b\n---\n"}
    )
    found = _read(f"{NAME}[train]")
    served.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert _read(f"{NAME}[train]") == found
    with pytest.raises(errors.InputError, match="HF_HUB_OFFLINE"):
        _read("hf:owner/other[train]")
    assert not served.requests


@pytest.mark.parametrize(
    "files, said",
    [
        ({"data.py": "import os"}, "refs/convert/parquet"),
        ({"image.png": "x"}, "image.png"),
        ({"train.csv": "a,b\n", "README.md": "---\n{: [\n---\n"}, "YAML"),
    ],
)
def test_a_dataset_that_cannot_be_read_is_one_error(served, files, said):
    served.put(REPO, files)
    with pytest.raises(errors.InputError, match=said):
        _read(f"{NAME}[train]")


@pytest.mark.parametrize(
    "name", ["hf:o/n[", "hf:o/n[train:10]", "hf:[train]", "hf:a/b/c/d[x]", "hf:o n"]
)
def test_what_is_no_name_is_refused_with_an_example(name):
    with pytest.raises(errors.InputError, match=r"hf:owner/name\[train\]"):
        hub_dataset.parse(name)


def test_corpora_are_streamed_from_every_kind_of_file(served, tmp_path):
    texts = ("One. Two.", "three.")
    kinds = {
        "p": {"data/train-00000-of-00001.parquet": _parquet(tmp_path, *texts)},
        "j": {"train.jsonl": "".join(f'{{"sentence": "{x}"}}\n' for x in texts)},
        "a": {"train.json": json.dumps([{"sentence": x} for x in texts])},
        "c": {"train.csv": "sentence,n\n" + "".join(f"{x},1\n" for x in texts)},
    }
    for kind, files in kinds.items():
        served.put(f"datasets/owner/{kind}", files)
        source = sources.parse_source(f"hf:owner/{kind}[train]#sentence@2")
        assert (source.field, source.weight) == ("sentence", 2.0)
        made = [x.sentences for x in readers.documents(source)]
        assert made == [("One.", "Two."), ("three.",)], kind
    served.put("datasets/owner/t", {"train.txt": "One.\nTwo.\n\nthree.\n"})
    made = readers.documents(sources.parse_source("hf:owner/t"))
    assert [x.sentences for x in made] == [("One.", "Two."), ("three.",)]


def test_a_field_that_is_not_there_lists_the_fields(served, tmp_path):
    served.put(REPO, {"train.parquet": _parquet(tmp_path, "a")})
    with pytest.raises(errors.InputError, match="'sentence'"):
        list(readers.documents(sources.parse_source(f"{NAME}[train]")))
