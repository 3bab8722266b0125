"""What files of elsewhere may not do: be too long, or lead elsewhere."""

import io
import json
import os
import tarfile

import pytest

from bert_jax import errors
from bert_jax.checkpoints import native, sentence_encoder, tensors
from bert_jax.config import pretraining
from bert_jax.data import text_files
from bert_jax.data.corpus import parsing, sources
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


def test_text_that_is_packed_otherwise(tmp_path):
    path = tmp_path / "a.txt"
    for head, name in ((b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")):
        path.write_bytes(head + bytes(9))
        refused(
            lambda: list(text_files.lines(named(path))),
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
    assert list(sources.wikipedia_articles(file)) == []
    (tmp_path / "x.xml").write_text('<?xml version="1.0" encoding="utf-7"?><a/>')
    refused(lambda: list(sources.wikipedia_articles(file)), "damaged")


def test_numbers_of_thousands_of_digits():
    refused(lambda: topology.parse(f"a100:{'9' * 5000}"), "unknown topology")
    refused(lambda: config.BertConfig(pad_token_id=2**31), "2147483647")
    tree = pretraining.default().to_dict()
    refused(lambda: search.variant(tree, "cpu", f"run.seed={'(' * 9999}"), "int")


def test_brackets_are_looked_for_near_by():
    inside = "他说（好的。）然后走了。"
    assert parsing.split_sentences(inside) == [inside]
    far = "他（" + "好" * 3000 + "。）走了。"
    assert parsing.split_sentences(far) == [far[:-3], "走了。"]
