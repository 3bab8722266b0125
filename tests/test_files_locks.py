"""A file that one process holds, and disks that cannot be written."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bert_jax import errors
from bert_jax.foundation import files

HOLD = """
import sys
from pathlib import Path
from bert_jax.foundation import files
with files.locked(Path(sys.argv[1]), "in use"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def lock(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def other(lock):
    """Another process, which holds the file until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_file_is_there_while_it_is_held(lock):
    for _ in range(2):
        with files.locked(lock, "in use"):
            assert lock.is_file()
        assert not lock.exists()
    with pytest.raises(KeyError):
        with files.locked(lock, "in use"):
            raise KeyError
    assert not lock.exists()


def test_another_process_is_refused_until_the_first_has_ended(lock, other):
    for _ in range(2):  # who was refused has not let anyone in
        with pytest.raises(errors.InputError, match="^in use$"):
            with files.locked(lock, "in use"):
                pass
    assert lock.exists()
    other.communicate("")
    assert not lock.exists()
    with files.locked(lock, "in use"):
        pass


def test_a_lock_goes_with_its_process(lock, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert lock.exists()
    with files.locked(lock, "in use"):
        pass
    assert not lock.exists()


def test_what_is_locked_is_what_nfs_shares_between_machines(lock, monkeypatch):
    """Linux sends a flock to the server for a file that is open for writing alone."""
    seen, flock = [], fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda *x: seen.append(x) or flock(*x))
    with files.locked(lock, "in use"):
        ((descriptor, how),) = seen
        assert stat.S_ISREG(os.fstat(descriptor).st_mode)
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    assert (mode, how) == (os.O_RDWR, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("is_remade", [False, True])
@pytest.mark.parametrize("failure", [None, errno.ESTALE])
def test_a_file_that_was_removed_meanwhile_is_not_taken(
    lock, monkeypatch, is_remade, failure
):
    """The first process ends between our opening its file and our locking it."""
    flock, tried = fcntl.flock, []

    def late(descriptor, how):
        tried.append(descriptor)
        if len(tried) == 1:
            lock.unlink()
            if is_remade:
                lock.touch()
            if failure:
                raise OSError(failure, os.strerror(failure))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with files.locked(lock, "in use"):
        monkeypatch.undo()
        with pytest.raises(errors.InputError):
            with files.locked(lock, "in use"):
                pass
    assert len(tried) == 2 and not lock.exists()


def test_a_disk_without_locks_is_a_warning(lock, monkeypatch, caplog):
    def none(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with files.locked(lock, "in use"):
        pass
    expected = f"{lock.parent} cannot be locked (No locks available)"
    assert caplog.text.count(expected) == 1


def test_what_the_mode_forbids_is_not_what_a_read_only_disk_is(tmp_path, monkeypatch):
    files.check_writable(tmp_path, "no")
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(errors.InputError, match="^no$"):
        files.check_writable(tmp_path, "no")
    flags = os.ST_RDONLY | os.ST_NOSUID
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=flags))
    with pytest.raises(errors.StorageError, match="read-only"):
        files.check_writable(tmp_path, "no")


@pytest.fixture
def read_only(tmp_path):
    """A disk that was mounted read-only."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,ro", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine may not mount a tmpfs")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_that_is_mounted_read_only(read_only):
    with pytest.raises(errors.StorageError, match="read-only"):
        files.check_writable(read_only, "no")
    with pytest.raises(OSError, match="Read-only file system"):
        with files.locked(read_only / ".lock", "in use"):
            pass
