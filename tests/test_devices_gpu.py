"""A GPU that JAX leaves unused is reported with the reason and the fix."""

import importlib.metadata
import os

import command_line
import jax
import pytest

from bert_jax.foundation import devices, host_memory

SCRIPT = """
import logging
logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)  # JAX's own warning
from bert_jax.training import sharding
for _ in range(2):
    print(sharding.make_mesh(-1, 1, 1).devices.flat[0].platform)
"""


@pytest.fixture
def run(tmp_path):
    """Runs a script beside an nvidia-smi; returns its output and its errors."""
    if devices._sign() is not None or jax.default_backend() != "cpu":
        pytest.skip("this machine has a GPU")
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(
        "#!/bin/sh\necho '| Driver Version: 580.1    CUDA Version: 13.0 |'\n"
    )
    smi.chmod(0o755)

    def run(code=SCRIPT, **environment):
        path = f"{smi.parent}:{os.environ['PATH']}"
        return command_line.script(code, tmp_path, **{"PATH": path, **environment})

    return run


def test_a_missing_plugin_is_named_once_with_the_fix(run):
    out, err = run()
    assert out == "cpu\ncpu\n"
    assert err.count("JAX computes on the CPU") == 1
    assert "nvidia-smi): JAX has no CUDA plugin" in err
    version = importlib.metadata.version("jaxlib")
    assert f'pip install "jax[cuda13]=={version}"' in err


def test_a_plugin_of_another_version_is_named(run, tmp_path):
    info = tmp_path / "jax_cuda12_plugin-0.4.1.dist-info"
    info.mkdir()
    about = "Metadata-Version: 2.1\nName: jax-cuda12-plugin\nVersion: 0.4.1\n"
    (info / "METADATA").write_text(about)
    version = importlib.metadata.version("jaxlib")
    err = run()[1]
    assert f"jax-cuda12-plugin 0.4.1 cannot be used with jaxlib {version}" in err
    assert f'pip install "jax[cuda12]=={version}"' in err


def test_a_plugin_that_only_compiles_is_not_started(tmp_path):
    """It has no cuDNN: JAX would log the traceback of its error."""
    if host_memory.gpu_files():
        pytest.skip("this machine has a GPU")
    info = tmp_path / "jax_cuda13_plugin-0.4.1.dist-info"
    info.mkdir()
    about = "Metadata-Version: 2.1\nName: jax-cuda13-plugin\nVersion: 0.4.1\n"
    (info / "METADATA").write_text(about)
    script = f"{SCRIPT}\nimport jax; print(jax.config.jax_platforms)"
    assert command_line.script(script, tmp_path) == ("cpu\ncpu\ncpu\n", "")
    cudnn = tmp_path / "nvidia_cudnn_cu13-9.10.dist-info"
    cudnn.mkdir()
    about = "Metadata-Version: 2.1\nName: nvidia-cudnn-cu13\nVersion: 9.10\n"
    (cudnn / "METADATA").write_text(about)
    out, _ = command_line.script(script, tmp_path)
    assert out == "cpu\ncpu\nNone\n"


def test_a_cpu_that_was_asked_for_is_no_news(run):
    assert run(JAX_PLATFORMS="cpu") == ("cpu\ncpu\n", "")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_is_hidden_is_not_missed(monkeypatch, hidden):
    monkeypatch.setattr(devices.shutil, "which", lambda _: "/bin/nvidia-smi")
    assert devices._sign() is not None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices._sign() is None


def test_a_plugin_that_fits_and_does_not_start_gives_its_reason():
    plugins = {"jax-cuda12-plugin": "0.7.2.post1", "jax-cuda12-pjrt": "0.7.2"}
    why, fix = devices.explain(plugins, "0.7.2", None, lambda: "the driver is too old")
    assert why == "CUDA did not start: the driver is too old"
    assert "driver 525" in fix


@pytest.mark.parametrize(
    ("driver", "extra"), [(12, "cuda12"), (13, "cuda13"), (None, "cuda12")]
)
def test_the_plugin_is_that_of_the_driver(driver, extra):
    fix = devices.explain({}, "0.10.2", driver, None)[1]
    assert f'"jax[{extra}]==0.10.2"' in fix
