"""What the tests of checkpoint files share: the damage that fuzz_files.py does."""

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = (
    Path(__file__).resolve().parents[2]
    / "scripts"
    / "reliability"
    / "damaged_checkpoints_lib.py"
)


@pytest.fixture(scope="session")
def fuzzer() -> dict[str, Any]:
    """The names of scripts/reliability/damaged_checkpoints_lib.py."""
    return runpy.run_path(str(SCRIPT))
