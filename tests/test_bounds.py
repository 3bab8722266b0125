"""What files of elsewhere may not do: be too long, too deep, or lead elsewhere."""

import gzip
import hashlib
import io
import json
import os
import tarfile

import pyarrow as pa
import pytest

from bert_jax import errors
from bert_jax.checkpoints import native, sentence_encoder, tensors
from bert_jax.data import text_files
from bert_jax.data.corpus import sentences as sentence_rules
from bert_jax.data.corpus import sources, store
from bert_jax.data.labeled import tables
from bert_jax.foundation import files
from bert_jax.model import config
from bert_jax.planning import search, topology
from bert_jax.training import checkpoint, logs


def named(path):
    return text_files.NamedPath(path.name, path)


def refused(call, *words, kind=errors.InputError):
    with pytest.raises(kind) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_file_is_regular_and_not_too_long(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read(tmp_path / "a", 5) == b"12345"
    refused(lambda: files.read(tmp_path / "a", 4), "is longer than")
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: files.read(tmp_path / "pipe", 5), "regular file")
    (tmp_path / "zero").symlink_to("/dev/zero")
    refused(lambda: files.read(tmp_path / "zero", 5), "regular file")
    refused(lambda: files.read(tmp_path / "a\0b", 5), "null byte")


def test_text_that_unpacks_to_more_than_text_does(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress((b"a b " * 250 + b"\n") * 32000, 9))

    def read():
        return sum(1 for _ in text_files.lines(named(path), text_files.Tally()))

    refused(read, "unpacks to more than 100 times")


def test_a_file_of_nothing_but_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n" * 1_000_001)
    refused(
        lambda: list(text_files.lines(named(path), text_files.Tally())),
        "a.txt:1000001:",
    )


def test_text_that_is_packed_otherwise(tmp_path):
    path = tmp_path / "a.txt"
    for head, name in ((b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")):
        path.write_bytes(head + bytes(9))
        refused(
            lambda: list(text_files.lines(named(path), text_files.Tally())),
            f"compressed with {name}",
        )


def test_a_document_that_memory_should_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_DOCUMENT", 1 << 20)
    path = tmp_path / "a.json"
    path.write_bytes(b"[" + b" " * (1 << 20) + b"]")
    refused(lambda: tables.c3_documents(named(path)), "is longer than 1 MiB")


def test_a_header_is_short(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((1 << 25).to_bytes(8, "little") + b" " * (1 << 25))
    refused(lambda: tensors.read(path), "model.safetensors")


def test_a_tar_is_not_unpacked(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "pytorch_model.bin"
    with tarfile.open(path, "w") as made:
        made.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    refused(lambda: tensors.read(path), "pytorch_model.bin")
    assert os.listdir(tmp_path) == ["pytorch_model.bin"]


@pytest.fixture
def small_store(tmp_path):
    store.write_ids(tmp_path / "s", [[[5, 6], [7]], [[8] * 9]], vocab_size=9)
    return tmp_path / "s"


def change(folder, **changes):
    """Changes the entry of the shard, and puts its sum and size right."""
    tree = json.loads((folder / "manifest.json").read_text())
    content = (folder / "train-00000.arrow").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    tree["shards"][0] |= {"sha256": digest, "bytes": len(content), **changes}
    (folder / "manifest.json").write_text(json.dumps(tree))


@pytest.mark.parametrize(
    "changes",
    [{"name": "../x"}, {"name": "/etc/passwd"}, {"split": "x"}, {"tokens": 1.5}],
)
def test_a_manifest_names_files_of_its_folder(small_store, changes):
    change(small_store, **changes)
    refused(lambda: store.open_store(small_store), "is damaged")


def test_a_shard_whose_offsets_lead_out_of_it(small_store):
    path = small_store / "train-00000.arrow"
    content = path.read_bytes()
    offsets = b"".join(x.to_bytes(4, "little") for x in (0, 2, 3, 12))
    assert content.count(offsets) == 2
    path.write_bytes(content.replace(offsets, offsets[:8] + b"\xff\xff\xff\x7f" * 2))
    change(small_store)
    refused(lambda: store.open_store(small_store), "damaged", kind=errors.StorageError)


def test_a_shard_that_is_compressed(small_store):
    path = small_store / "train-00000.arrow"
    batch = pa.ipc.open_file(path).get_batch(0)
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(path, batch.schema, options=options) as made:
        made.write_batch(batch)
    change(small_store)
    refused(
        lambda: store.open_store(small_store), "compressed", kind=errors.StorageError
    )


def test_folders_that_are_no_steps(tmp_path):
    for name in ("4", "²", "٣", "007", "9" * 30):
        (tmp_path / name).mkdir()
    assert checkpoint.steps(tmp_path) == [4]
    (tmp_path / "best" / "²").mkdir(parents=True)
    assert native.best(tmp_path) is None


def test_modules_of_a_sentence_encoder_lie_in_its_folder(tmp_path):
    for place in ("../x", "/etc", "a\0b"):
        modules = [{"type": "a.Pooling", "path": place}]
        (tmp_path / "modules.json").write_text(json.dumps(modules))
        refused(lambda: sentence_encoder.read(tmp_path), "folder of the model")


@pytest.mark.parametrize("line", ['{"step": 1e400}', "[1]"])
def test_metrics_that_nobody_wrote(tmp_path, line):
    (tmp_path / "m").write_text(f"{line}\n")
    refused(lambda: logs.read(tmp_path / "m"), "m:1 is not a JSON object")


def test_a_dump_of_wikipedia_without_a_title(tmp_path):
    page = "<page><ns>0</ns><revision><text>a</text></revision></page>"
    (tmp_path / "x.xml").write_text(f"<mediawiki>{page}</mediawiki>")
    file = named(tmp_path / "x.xml")
    assert list(sources.wikipedia_articles(file, text_files.Tally())) == []
    (tmp_path / "x.xml").write_text('<?xml version="1.0" encoding="utf-7"?><a/>')
    refused(
        lambda: list(sources.wikipedia_articles(file, text_files.Tally())), "damaged"
    )


def test_numbers_of_thousands_of_digits():
    refused(lambda: topology.parse(f"a100:{'9' * 5000}"), "unknown topology")
    refused(lambda: config.BertConfig(pad_token_id=2**31), "2147483647")
    tree = {"run": {"seed": 1}}
    refused(lambda: search.variant(tree, "cpu", f"run.seed={'(' * 9999}"), "int")


def test_brackets_are_looked_for_near_by():
    inside = "他说（好的。）然后走了。"
    assert sentence_rules.split_sentences(inside) == [inside]
    far = "他（" + "好" * 3000 + "。）走了。"
    assert sentence_rules.split_sentences(far) == [far[:-3], "走了。"]
