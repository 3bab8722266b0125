"""Files of JSON whose content is invalid."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def manifest(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Returns a function that edits the JSON object of a file."""

    def forge(path: Path) -> None:
        tree = json.loads(path.read_text())
        edit(tree)
        path.write_text(json.dumps(tree))

    return forge
