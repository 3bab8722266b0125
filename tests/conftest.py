"""Strict settings for every test, and the fixtures that several files share."""

import importlib.metadata
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Most of the time would go into machine code that runs once: a quarter of it is enough
# to make slower code of the same programs. Other versions may not know the flags, and
# XLA ends a process that is given one of those.
if importlib.metadata.version("jaxlib").startswith(("0.7.2", "0.10.")):
    hurry = (
        "--xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true "
        "--xla_cpu_use_fusion_emitters=false"
    )
    os.environ.setdefault("XLA_FLAGS", hurry)

import jax  # noqa: E402
import pytest  # noqa: E402

# The folders' own conftest files hold no doctests, and share one module name.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

CACHE = Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture
def key() -> jax.Array:
    """A key for tests that draw random numbers."""
    return jax.random.key(20180)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside a developer's checkout; absent elsewhere."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data of the development machines is not beside this")
    return folder
