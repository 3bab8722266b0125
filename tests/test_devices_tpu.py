"""libtpu that is installed on a machine without TPUs: one line, and no error of its."""

import command_line
import pytest

from bert_jax.foundation import devices, host_memory

LIBRARY = """
import os
os.environ["TPU_LIBRARY_PATH"] = __file__  # as libtpu 0.0.42 does
def get_library_path():
    return __file__
"""
SCRIPT = """
import jax
from bert_jax.training import sharding
for _ in range(2):
    print(sharding.make_mesh(-1, 1, 1).devices.flat[0].platform)
print(jax.config.jax_platforms)
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script beside an installed libtpu; returns its output and its errors."""
    if host_memory.tpu_files() or devices._is_in_pci():
        pytest.skip("this machine has TPUs")
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").write_text(LIBRARY)

    def run(code, **environment):
        return command_line.script(code, tmp_path, **environment)

    return run


def test_a_machine_without_tpus_says_so_once(run):
    out, err = run(SCRIPT)
    assert out == "cpu\ncpu\ncpu\n"
    assert err.startswith("there is no TPU on this machine: libtpu")
    assert len(err.splitlines()) == 1


def test_what_the_environment_asks_for_is_left_to_jax(run):
    out, err = run(SCRIPT, TPU_NAME="somewhere")
    assert out == "cpu\ncpu\nNone\n" and "no TPU" not in err
