"""Models by name from a small hub on 127.0.0.1: what is fetched, kept and refused."""

import json
import sys
from pathlib import Path

import command_line
import hub_models
import hub_server
import numpy as np
import pytest
import small_weights

import bert_jax
from bert_jax import convert, errors
from bert_jax.checkpoints import huggingface, tensors
from bert_jax.foundation import hub
from bert_jax.text.tokenizer import Tokenizer

NAME, REPO = hub_models.NAME, hub_models.REPO


@pytest.fixture
def served(monkeypatch, tmp_path):
    """A hub with an empty cache."""
    yield from hub_models.serve(monkeypatch, tmp_path / "home")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model as it is before it is uploaded."""
    return hub_models.write_model(tmp_path_factory.mktemp("model") / "tiny")


def _put(served: hub_server.Hub, folder: Path, **others: bytes) -> str:
    return served.put(
        REPO,
        {x.name: x.read_bytes() for x in folder.iterdir()} | hub_models.OTHERS | others,
    )


def test_a_name_loads_what_its_folder_loads_and_fetches_nothing_else(served, folder):
    _put(served, folder)
    by_name, by_path = bert_jax.load(NAME), bert_jax.load(folder)
    texts = ["the cat sat", "那猫跑"]
    assert np.array_equal(by_name.encode(texts), by_path.encode(texts))
    assert sorted(served.fetched()) == sorted(
        path.name for path in folder.iterdir() if path.name != "README.md"
    )
    assert served.fetched()[-1] == "model.safetensors"


def test_a_second_load_makes_one_request_and_one_offline_none(
    served, folder, monkeypatch
):
    _put(served, folder)
    first = hub.folder(NAME)
    served.forget()
    assert hub.folder(NAME) == first
    assert served.asked() == ["GET /api/models/owner/tiny/revision/main"]
    served.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert bert_jax.load(NAME).bert.hidden_size == 12
    assert not served.requests


def test_offline_what_is_not_there_is_said_without_a_request(
    served, folder, monkeypatch
):
    _put(served, folder)
    hub.folder(NAME, vocabulary_only=True)
    served.forget()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (NAME, "hf:owner/other", f"{NAME}@v1"):
        with pytest.raises(errors.InputError, match="HF_HUB_OFFLINE"):
            bert_jax.load(name)
    assert not served.requests


def test_without_safetensors_the_torch_file_is_fetched(served):
    names = ("pytorch_model.bin", "tf_model.h5", "config.json", "vocab.txt")
    served.put(REPO, dict.fromkeys(names, b"{}"))
    home = hub.folder(NAME)
    assert sorted(x.name for x in home.iterdir()) == [
        "config.json",
        "pytorch_model.bin",
        "vocab.txt",
    ]


def test_shards_are_those_of_the_index_and_may_be_links_of_the_cache(served, tmp_path):
    folder = tmp_path / "sharded"
    hub_models.write_model(folder)
    whole = tensors.read(folder).arrays
    (folder / "model.safetensors").unlink()
    small_weights.write_shards(folder, *small_weights.halves(whole))
    (folder / "model-00009-of-00009.safetensors").write_bytes(b"of no index")
    served.put_folder(REPO, folder)
    home = hub.folder(NAME)
    assert "model-00009-of-00009.safetensors" not in served.fetched()
    assert tensors.read(home).arrays.keys() == whole.keys()
    assert (home / "model.safetensors.index.json").is_symlink()


def test_a_shard_may_be_in_the_store_that_a_cache_shares(tmp_path):
    repo = tmp_path / "hub" / "models--owner--tiny"
    home = repo / "snapshots" / ("a" * 40) / "0_Transformer"
    shared = tmp_path / "hub" / "blobs" / "ab" / ("ab" * 32)
    for path in (home / "x", repo / "blobs" / "x", shared):
        path.parent.mkdir(parents=True, exist_ok=True)
    shared.write_bytes(b"a shard")
    (repo / "blobs" / "etag").symlink_to(shared)
    (home / "model-1.safetensors").symlink_to(repo / "blobs" / "etag")
    index = home / f"model.safetensors{tensors.INDEX}"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert [x.name for x in tensors.read_index(index)] == ["model-1.safetensors"]


def test_files_of_sentence_transformers_come_with_a_model(served, folder):
    names = (
        "modules.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
        "2_Dense/pytorch_model.bin",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "openvino/config.json",
    )  # the contents differ: equal ones are fetched once
    modules = {name: b" " * n + b"[]" for n, name in enumerate(names)}
    _put(served, folder, **modules)
    hub.folder(NAME)
    unread = {"2_Dense/pytorch_model.bin", "openvino/config.json"}
    assert {x for x in served.fetched() if x in modules} == modules.keys() - unread


def test_a_vocabulary_is_fetched_without_weights(served, folder):
    _put(served, folder)
    found = Tokenizer.load(Path(NAME))
    assert found.tokens == Tokenizer.load(folder).tokens
    assert not [x for x in served.fetched() if "model" in x]


def test_a_revision_is_a_branch_a_tag_or_a_commit(served, folder):
    old = _put(served, folder, **{"vocab.txt": b"[PAD]\n"})
    served.repos[REPO]["refs/pr/1"] = served.repos[REPO]["main"]
    new = _put(served, folder)
    for revision in ("refs/pr/1", old):
        assert hub.folder(f"{NAME}@{revision}").name == old
    assert hub.folder(NAME).name == new != old


def test_a_conversion_writes_down_the_commit_and_carries_the_license(
    served, folder, tmp_path
):
    commit = _put(served, folder)
    convert.convert(NAME, tmp_path / "made", convert.Request("bert_jax"))
    record = json.loads((tmp_path / "made" / "conversion.json").read_text())
    assert record["input"] == f"{NAME}@{commit}"
    card = (tmp_path / "made" / "README.md").read_text()
    assert f"{NAME}@{commit}" in card and "license: apache-2.0" in card


@pytest.mark.parametrize(
    "status, code, kind",
    [
        (401, "RepoNotFound", errors.InputError),
        (401, "", errors.InputError),
        (403, "GatedRepo", errors.InputError),
        (401, "GatedRepo", errors.InputError),
        (404, "RepoNotFound", errors.InputError),
        (404, "RevisionNotFound", errors.InputError),
        (429, "", errors.StorageError),
        (500, "", errors.StorageError),
        (503, "", errors.StorageError),
    ],
)
def test_what_the_hub_refuses_is_one_error(served, folder, status, code, kind):
    _put(served, folder)
    served.status, served.code = {"/api/": status}, code
    with pytest.raises(kind, match=str(status)):
        hub.folder(NAME)


def test_a_gated_file_names_the_page_with_its_conditions(served, folder):
    _put(served, folder)
    served.status, served.code = {"model.safetensors": 403}, "GatedRepo"
    with pytest.raises(errors.InputError, match=f"{served.url}/owner/tiny"):
        hub.folder(NAME)


def test_a_file_that_is_cut_is_resumed(served, folder, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    module = pytest.importorskip("huggingface_hub.file_download")
    monkeypatch.setattr(module, "DOWNLOAD_CHUNK_SIZE", 1000, raising=False)  # of 0.2x
    _put(served, folder)
    served.cut = {"model.safetensors": [5000]}
    home = hub.folder(NAME)
    assert [x.split()[0] for x in served.ranges] == ["model.safetensors"]
    same = (home / "model.safetensors").read_bytes()
    assert same == (folder / "model.safetensors").read_bytes()


@pytest.mark.slow  # the library tries five times
def test_a_file_that_stays_cut_is_an_error_and_is_not_kept(served, folder, tmp_path):
    _put(served, folder)
    served.cut = {"model.safetensors": [5000] + [0] * 20}
    with pytest.raises(errors.StorageError, match="model.safetensors"):
        hub.folder(NAME)
    assert not list((tmp_path / "home").rglob("model.safetensors"))
    served.cut = {}
    assert bert_jax.load(NAME).bert.hidden_size == 12


def test_a_hub_that_hangs_or_is_not_there_is_an_error(served, folder, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    _put(served, folder)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    served.hangs = ("/api/",)
    with pytest.raises(errors.StorageError, match=served.url):
        hub.folder(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(errors.StorageError, match="HF_ENDPOINT"):
        hub.folder(NAME)


def test_a_hub_that_is_gone_later_names_what_the_cache_has(served, folder, monkeypatch):
    _put(served, folder)
    hub.folder(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(errors.StorageError, match="HF_HUB_OFFLINE=1"):
        hub.folder(NAME)


def test_a_repository_without_weights_lists_what_it_has(served):
    served.put(REPO, {"config.json": "{}", "model.gguf": "x"})
    with pytest.raises(errors.InputError, match="model.gguf"):
        hub.folder(NAME)
    assert not served.fetched()


@pytest.mark.parametrize(
    "name", ["hf:", "hf:a/b/c", "hf:a b", "hf:/etc", "hf:../x", "hf:a@", "hf://a/b"]
)
def test_what_is_no_name_is_refused_with_an_example(name):
    with pytest.raises(errors.InputError, match="hf:owner/name@revision"):
        hub.folder(name)


def test_a_bare_name_is_answered_with_both_ways(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for asking in (
        lambda: bert_jax.load("bert-base-chinese"),
        lambda: Tokenizer.load(Path("bert-base-chinese")),
        lambda: convert.convert(
            Path("bert-base-chinese"), tmp_path / "x", convert.Request("bert_jax")
        ),
    ):
        with pytest.raises(errors.InputError, match="hf:bert-base-chinese"):
            asking()
    url = "https://huggingface.co/owner/tiny/tree/main"
    with pytest.raises(errors.InputError, match="hf:owner/tiny "):
        bert_jax.load(url)


def test_without_the_extra_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(errors.InputError, match=r"bert_jax\[hub\]"):
        bert_jax.load(NAME)


def test_predict_fills_masks_by_name(served, folder, monkeypatch, capfd):
    _put(served, folder)
    done = command_line.in_process(
        monkeypatch, capfd, "predict", f"--model={NAME}", "--top=2", "the [MASK] sat"
    )
    assert done.code == 0
    assert len(json.loads(done.out)["guesses"][0]) == 2
    done = command_line.in_process(
        monkeypatch, capfd, "predict", f"--model={NAME}", "--input=hf:owner/data[test]"
    )
    assert done.code == 2 and "one text a line" in done.message
    served.status = {"/api/": 503}
    done = command_line.in_process(
        monkeypatch, capfd, "predict", f"--model={NAME}", "the [MASK] sat"
    )
    assert done.code == 5 and "503" in done.err


def test_every_small_file_that_a_reader_opens_is_fetched(served, folder, monkeypatch):
    """A reader that opens another file must add it to the list."""
    opened: set[str] = set()
    real = Path.is_file

    def is_file(path: Path, *args, **kwargs) -> bool:
        if path.parent == folder:
            opened.add(path.name)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "is_file", is_file)
    bert_jax.load(folder)
    known = {*hub.SMALL, *tensors.WEIGHTS, "parameters.safetensors"}
    assert opened and opened <= known


def test_what_is_fetched_is_what_huggingface_writes(tmp_path):
    given = small_weights.weights_of("pooler", "classifier", labels=("a", "b"))
    huggingface.write(tmp_path, given, dtype="float32")
    written = {x.name for x in tmp_path.iterdir()}
    assert written <= {*hub.SMALL, *tensors.WEIGHTS}
