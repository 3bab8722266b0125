"""What the tests of checkpoint files share: the damage that the fuzzer does."""

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fuzz_checkpoints.py"


@pytest.fixture(scope="session")
def fuzzer() -> dict[str, Any]:
    """The names of scripts/fuzz_checkpoints.py, which is no module."""
    return runpy.run_path(str(SCRIPT))
