"""Files of a run in an object store: what is fetched, uploaded, and in which order.

fsspec's file system in memory stands for gs:// and s3://.
"""

import os
import shutil

import fsspec
import pytest

from bert_jax import errors
from bert_jax.training import remote


@pytest.fixture
def url(tmp_path, monkeypatch):
    """An empty place in a store of this test alone; working copies lie in tmp_path."""
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(tmp_path))
    return f"memory://{tmp_path.name}/runs/zh"


@pytest.fixture
def there(url):
    """Reads and writes the store beside the code under test."""
    system, root = fsspec.core.url_to_fs(url)

    class There:
        def write(self, name, content=b"x"):
            system.pipe_file(f"{root}/{name}", content)

        def read(self, name):
            return system.cat_file(f"{root}/{name}")

        def names(self):
            found = {path[len(root) + 1 :] for path in system.find(root)}
            return found - {".owner.json"}

    return There()


@pytest.fixture
def copy(url):
    made = remote.WorkingCopy(url)
    made.folder.mkdir(parents=True)
    return made


def write(folder, **contents):
    """Writes files; `a__b` is a/b."""
    for name, content in contents.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_a_push_does_not_look_where_a_save_renames_folders(copy, there, monkeypatch):
    write(copy.folder, checkpoints__4__array="1", tensorboard__events="2")
    look = os.scandir

    def renaming(path="."):
        if "checkpoints" in str(path):
            raise FileNotFoundError(path)
        return look(path)

    monkeypatch.setattr(os, "scandir", renaming)
    copy.push()
    assert there.names() == {"tensorboard/events"}


def test_parts_are_left_to_their_own_copies(url, there):
    there.write("suite.json")
    there.write("cola/config.json")
    copy = remote.WorkingCopy(url, parts=["cola"])
    copy.folder.mkdir(parents=True)
    copy.fetch()
    assert [path.name for path in copy.folder.iterdir()] == ["suite.json"]
    write(copy.folder, results__cola="1", cola__best__model="2")
    write(copy.common, data__cola="joined")
    copy.push()
    assert there.names() == {"suite.json", "cola/config.json", "results/cola"}


def recorded(copy, monkeypatch):
    """Returns a list that grows by each object that is written or deleted."""
    calls = []
    for verb in ("put_file", "rm_file"):
        real = getattr(copy._system, verb)

        def call(*arguments, verb=verb, real=real):
            calls.append((verb, arguments[-1].rpartition("/zh/")[2]))
            return real(*arguments)

        monkeypatch.setattr(copy._system, verb, call)
    return calls


def test_a_folder_of_this_machine_is_used_itself(tmp_path):
    copy = remote.WorkingCopy(tmp_path / "run")
    write(copy.folder, metrics="1")
    with copy.fetched():
        copy.push()
        copy.push_folder(copy.folder, "store")
    assert copy.folder == tmp_path / "run"
    assert [path.name for path in copy.folder.iterdir()] == ["metrics"]


def test_the_copy_of_another_url_lies_elsewhere(url, copy):
    other = remote.WorkingCopy(url.replace("runs/zh", "others/zh"))
    assert other.folder != copy.folder
    assert remote.WorkingCopy(url + "/").folder == copy.folder


def test_fetching_makes_the_copy_equal_to_the_store(copy, there):
    write(copy.folder, stale="old", metrics="old", compilation_cache__a="kept")
    there.write("metrics", b"new")
    there.write("tokenizer/vocab.txt", b"a\nb\n")
    copy.fetch()
    found = {p.name: p.read_text() for p in copy.folder.rglob("*") if p.is_file()}
    assert found == {"metrics": "new", "vocab.txt": "a\nb\n", "a": "kept"}


def test_folders_without_their_manifest_are_not_there(copy, there):
    there.write("checkpoints/4/params/0")
    there.write("checkpoints/4/manifest.json", b"{}")
    there.write("checkpoints/8/params/0")
    there.write("store/train.arrow")
    copy.fetch()
    names = {str(p.relative_to(copy.folder)) for p in copy.folder.rglob("*.*")}
    assert names == {"checkpoints/4/manifest.json"}
    assert (copy.folder / "checkpoints" / "4" / "params" / "0").is_file()
    assert not (copy.folder / "checkpoints" / "8").exists()


def test_a_store_that_is_here_already_is_not_fetched_again(copy, there):
    write(copy.folder, store__manifest="", store__train="here")
    (copy.folder / "store" / "manifest.json").write_text("{1}")
    there.write("store/manifest.json", b"{1}")
    there.write("store/train", b"there")
    copy.fetch()
    assert (copy.folder / "store" / "train").read_text() == "here"
    there.write("store/manifest.json", b"{2}")
    copy.fetch()
    assert (copy.folder / "store" / "train").read_text() == "there"


def test_only_what_has_changed_is_uploaded(copy, there, monkeypatch):
    there.write("metrics", b"1")
    there.write("gone", b"1")
    copy.fetch()
    calls = recorded(copy, monkeypatch)
    write(copy.folder, config="{}", half__a="b", checkpoints__4__x="-", store__x="-")
    (copy.folder / "curves.png.tmp").touch()
    (copy.folder / "gone").unlink()
    copy.push()
    assert calls == [
        ("put_file", "config"),
        ("put_file", "half/a"),
        ("rm_file", "gone"),
    ]
    copy.push()
    assert len(calls) == 3


def test_a_manifest_is_uploaded_last_and_deleted_first(copy, there, monkeypatch):
    calls = recorded(copy, monkeypatch)
    there.write("checkpoints/4/left", b"of a killed upload")
    folder = copy.folder / "4.orbax-checkpoint-tmp"
    write(folder, params__0="p", zeta="z")
    (folder / "manifest.json").write_text("{}")
    copy.push_folder(folder, "checkpoints/4")
    assert calls == [
        ("rm_file", "checkpoints/4/left"),
        ("put_file", "checkpoints/4/params/0"),
        ("put_file", "checkpoints/4/zeta"),
        ("put_file", "checkpoints/4/manifest.json"),
    ]
    copy.push_folder(folder, "checkpoints/4")  # the same one is there
    copy.keep_only("checkpoints", ["8"])
    assert [name for _, name in calls[4:]] == [
        "checkpoints/4/manifest.json",
        "checkpoints/4/params/0",
        "checkpoints/4/zeta",
    ]
    assert there.names() == set()


def test_a_best_model_is_there_when_its_task_is(copy, there, monkeypatch):
    there.write("best/4/model.json")
    there.write("best/4/task.json")
    there.write("best/8/model.json", b"of a killed upload")
    copy.fetch()
    assert sorted(p.name for p in (copy.folder / "best").iterdir()) == ["4"]
    calls = recorded(copy, monkeypatch)
    shutil.rmtree(copy.folder / "best" / "4")
    write(copy.folder, best__8__vocab="v", best__8__model="m")
    (copy.folder / "best" / "8" / "task.json").write_text("{}")
    copy.push()
    assert calls == [
        ("put_file", "best/8/model"),
        ("put_file", "best/8/vocab"),
        ("put_file", "best/8/task.json"),
        ("rm_file", "best/4/task.json"),
        ("rm_file", "best/4/model.json"),
    ]


def test_names_that_begin_alike_are_other_folders(copy, there):
    there.write("checkpoints/4/manifest.json")
    there.write("checkpoints/40/manifest.json")
    copy.delete_folder("checkpoints/4")
    assert there.names() == {"checkpoints/40/manifest.json"}


def test_what_changed_is_uploaded_after_an_error_too(copy, there):
    with pytest.raises(KeyError), copy.fetched():
        write(copy.folder, events="it failed")
        raise KeyError
    assert there.read("events") == b"it failed"


def test_the_first_error_is_the_one_that_is_raised(copy, monkeypatch, caplog):
    def fail(*_):
        raise OSError("no route")

    with pytest.raises(KeyError), copy.fetched():
        monkeypatch.setattr(copy._system, "put_file", fail)
        write(copy.folder, events="it failed")
        raise KeyError
    assert "cannot write" in caplog.text


def test_of_two_runs_the_later_one_goes_on(url, copy, there):
    copy.fetch()
    write(copy.folder, metrics="1")
    copy.push()
    later = remote.WorkingCopy(url)  # as on another machine
    later.folder = copy.folder.parent / "elsewhere"
    later.folder.mkdir()
    later.fetch()
    write(copy.folder, metrics="1, 2")
    copy.push()  # the later one has uploaded nothing yet
    write(later.folder, metrics="1, 3")
    later.push()
    there.write("checkpoints/4/manifest.json")
    write(copy.folder, metrics="1, 2, 4", store__train="x")
    (copy.folder / "store" / "manifest.json").write_text("{}")
    for upload in (
        copy.push,
        lambda: copy.push_folder(copy.folder / "store", "store"),
        lambda: copy.keep_only("checkpoints", []),
    ):
        with pytest.raises(errors.InputError, match='another run .*"host".* one run'):
            upload()
    assert there.names() == {"metrics", "checkpoints/4/manifest.json"}
    assert there.read("metrics") == b"1, 3"
    write(later.folder, metrics="1, 3, 5")
    later.push()
    assert there.read("metrics") == b"1, 3, 5"
    assert [path.name for path in later.folder.iterdir()] == ["metrics"]


def test_a_run_that_changes_nothing_takes_nothing_over(url, copy, there):
    write(copy.folder, metrics="1")
    copy.push()
    looks = remote.WorkingCopy(url)
    with pytest.raises(KeyError), looks.fetched():
        raise KeyError
    write(copy.folder, metrics="1, 2")
    copy.push()
    assert there.read("metrics") == b"1, 2"


def test_a_name_outside_of_the_folder_is_refused(copy, monkeypatch):
    root = copy._root
    monkeypatch.setattr(copy._system, "find", lambda _: [f"{root}/../evil"])
    with pytest.raises(errors.StorageError, match=r"'\.\./evil'"):
        copy.fetch()
    assert not (copy.folder.parent / "evil").exists()


def test_a_store_that_does_not_answer(copy, monkeypatch):
    def fail(*_):
        raise TimeoutError

    monkeypatch.setattr(copy._system, "find", fail)
    with pytest.raises(errors.StorageError, match="cannot list memory://.*TimeoutErr"):
        copy.fetch()


def test_a_kind_of_url_that_nobody_knows():
    with pytest.raises(errors.InputError, match="--workdir is ftpx://a/b: Protocol"):
        remote.WorkingCopy("ftpx://a/b")


def test_a_package_that_is_missing(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install gcsfs to access GCS")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(errors.InputError, match=r'gcsfs.*install "bert_jax\[cloud\]"'):
        remote.WorkingCopy("gs://bucket/run")
