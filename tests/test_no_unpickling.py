"""Nothing here runs or unpickles data, but for what is named."""

from pathlib import Path

import forbidden_calls
import pytest

ROOT = Path(__file__).resolve().parents[1]
# File -> what it has, and why it may.
EXCEPTIONS = {
    # A config file is a program of the user's own, as ml_collections has it.
    "bert_jax/config/file.py": ["exec_module"],
    # Starts the commands of its own list, as `python -m` does.
    "bert_jax/__main__.py": ["runpy"],
    # Its name is a literal; pyright would want Apache Beam to be installed.
    "bert_jax/contrib/beam/beam_runner.py": ["importlib.import_module"],
    # Makes pickles that run a program, to see that nobody runs it.
    "scripts/reliability/hostile_files_lib.py": ["allow_pickle=", "pickle"],
    # Starts commands in forks; the patch is of resume_lib.py's own table.
    "scripts/reliability/fork_server_lib.py": ["exec", "runpy"],
}
FILES = sorted(
    path
    for room in ("bert_jax", "configs", "scripts")
    for path in (ROOT / room).rglob("*.py")
)


def test_nothing_runs_or_unpickles_data():
    assert len(FILES) > 150
    found = {
        path.relative_to(ROOT).as_posix(): forbidden_calls.forbidden(
            path.read_text(encoding="utf-8")
        )
        for path in FILES
    }
    assert {name: what for name, what in found.items() if what} == EXCEPTIONS


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("import cloudpickle as c", ["cloudpickle"]),
        ("import marshal", ["marshal"]),
        ("import shelve", ["shelve"]),
        ("import dill", ["dill"]),
        ("import joblib", ["joblib"]),
        ("import runpy", ["runpy"]),
        ("eval('1')", ["eval"]),
        ("f = eval", ["eval"]),
        ("exec('1')", ["exec"]),
        ("compile('1', '', 'eval')", ["compile"]),
        ("__import__('x')", ["__import__"]),
        ("np.load(p)", ["np.load without allow_pickle=False"]),
        (
            "np.load(p, allow_pickle=x)",
            ["allow_pickle=", "np.load without allow_pickle=False"],
        ),
        ("np.save(p, x, allow_pickle=True)", ["allow_pickle="]),
        ("torch.load(p)", ["torch.load without weights_only=True"]),
        ("torch.load(p, weights_only=False)", ["torch.load without weights_only=True"]),
        ("from torch import load", ["torch.load"]),
        ("yaml.load(t, Loader=x)", ["yaml.load"]),
        ("importlib.import_module(n)", ["importlib.import_module"]),
        ("from importlib import import_module", ["importlib.import_module"]),
        ("spec.loader.exec_module(m)", ["exec_module"]),
        ("subprocess.run(c, shell=True)", ["shell="]),
        ("subprocess.run(c, shell=s)", ["shell="]),
        ("subprocess.getoutput(c)", ["subprocess.getoutput"]),
        ("os.system(c)", ["os.system"]),
        ("run = os.system", ["os.system"]),
        ("from os import system", ["os.system"]),
        ("os.popen(c)", ["os.popen"]),
        ("tempfile.mktemp()", ["tempfile.mktemp"]),
        ("tar.extractall(p)", ["extractall"]),
        ("shutil.unpack_archive(p)", ["shutil.unpack_archive"]),
        ("getattr(builtins, 'eval')", ["getattr of builtins"]),
    ],
)
def test_the_check_sees_every_form(program, expected):
    assert forbidden_calls.forbidden(program) == expected


def test_what_is_harmless_is_not_found():
    program = (
        "import re, json\nre.compile('a')\nmodel.eval()\njit(f).lower(x).compile()\n"
        "np.load(p, allow_pickle=False)\ntorch.load(p, weights_only=True)\n"
        "ast.literal_eval(t)\nsubprocess.run(['a'], shell=False)\n"
    )
    assert forbidden_calls.forbidden(program) == []
