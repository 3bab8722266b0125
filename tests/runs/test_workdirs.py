"""One run at a time in a workdir."""

import pytest

from bert_jax import errors
from bert_jax.runs import workdirs
from bert_jax.training import distributed, remote


@pytest.fixture(params=["folder", "url"])
def copy(tmp_path, monkeypatch, request):
    """A workdir that is a folder, or one in a store that has a working copy."""
    if request.param == "folder":
        return remote.WorkingCopy(tmp_path / "run")
    monkeypatch.setattr(remote.tempfile, "gettempdir", lambda: str(tmp_path))
    return remote.WorkingCopy(f"memory://{tmp_path.name}/run")


def test_a_second_run_is_refused_while_the_first_is_at_work(copy):
    second = remote.WorkingCopy(copy.name)
    with workdirs.locked(copy), copy.fetched():  # fetching empties a working copy
        (copy.folder / "metrics.jsonl").write_text("{}\n")
        with pytest.raises(errors.InputError, match="another process trains in .*run:"):
            with workdirs.locked(second):
                pass
        assert (copy.folder / "metrics.jsonl").exists()
    with workdirs.locked(second):
        pass


def test_nothing_of_the_lock_stays_or_is_uploaded(copy):
    with workdirs.locked(copy), copy.fetched():
        (copy.folder / "metrics.jsonl").write_text("{}\n")
        assert list(copy.folder.parent.rglob(workdirs.LOCK)) != []
        copy.push()
    assert list(copy.folder.parent.rglob(workdirs.LOCK)) == []
    if copy.is_remote:
        names = {path.rpartition("/")[2] for path in copy._system.find(copy._root)}
        assert names == {"metrics.jsonl", ".owner.json"}


def test_a_new_folder_in_which_nothing_was_put_is_removed(copy):
    with workdirs.locked(copy):
        assert copy.folder.is_dir()
    assert not copy.folder.exists()


def test_one_of_several_processes_holds_the_workdir(copy, monkeypatch):
    second = remote.WorkingCopy(copy.name)
    with workdirs.locked(copy):
        monkeypatch.setattr(distributed, "is_first", lambda: False)
        with workdirs.locked(second):
            pass
        assert (copy.common / workdirs.LOCK).exists()
