"""What the tests of checkpoint files share: the damage that the fuzzer does."""

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fuzz_checkpoints.py"


@pytest.fixture(scope="session")
def fuzzer() -> dict[str, Any]:
    """The names of scripts/fuzz_checkpoints.py and of the damage that it does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as Python does that runs the script
        names = runpy.run_path(str(SCRIPT))
    return vars(names["damage"]) | names
