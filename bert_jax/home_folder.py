"""`~` at the beginning of a path is the home folder, also where no shell expands it.

Shells leave the `~` of --workdir=~/runs as it is, and Python never reads it. A leaf
module: paths go through it where they come from a user, and nowhere else.
"""

import os
import re
from pathlib import Path

# The flags of all commands that are paths; --config is read by `recipes.find`.
FLAGS = ("workdir", "model", "input", "output", "data", "store", "label_map")

# Sources are separated by commas, and a kind may come first: text:~/corpus.txt@2.
_IN_SOURCES = re.compile(r"(?:(?<=^)|(?<=[,:\s]))~[^/,@#\s]*(?=/)")


def expanded(path: str) -> str:
    """Returns a path with its `~` or `~user` replaced by the home folder.

    Names as `hf:owner/name`, URLs and paths of unknown users are returned as they are.
    """
    return os.path.expanduser(path)


def path(given: str | Path) -> Path:
    """Returns the path of a folder or file that is given from Python."""
    return Path(expanded(str(given)))


def expanded_in_sources(corpus: str) -> str:
    """Returns `data.corpus` with the home folder in place of each `~`."""
    return _IN_SOURCES.sub(lambda found: expanded(found[0]), corpus)
