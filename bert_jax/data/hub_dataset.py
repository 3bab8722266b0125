"""Names of datasets of the Hugging Face hub: `hf:owner/name/config@revision[split]`."""

import dataclasses
import re
from typing import NamedTuple

from bert_jax import hub

_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(
    rf"hf:(?P<name>{_PART}(?:/{_PART})?)(?:/(?P<config>[\w.+-]+))?"
    r"(?:@(?P<revision>[^\s@\[\]#]+))?(?:\[(?P<split>[\w.-]+)\])?"
)


class Name(NamedTuple):
    """A dataset, its configuration and its split; empty where none is named."""

    repo: hub.Repo
    config: str
    split: str

    def __str__(self) -> str:
        """Returns how the dataset is written for a user."""
        repo = self.repo
        config = f"/{self.config}" if self.config else ""
        revision = "" if repo.revision == "main" else f"@{repo.revision}"
        split = f"[{self.split}]" if self.split else ""
        return f"{hub.PREFIX}{repo.name}{config}{revision}{split}"


def parse(text: str) -> Name:
    """Reads the name of a dataset; raises InputError for anything else.

    >>> str(parse("hf:nyu-mll/glue/sst2@v1[train]"))
    'hf:nyu-mll/glue/sst2@v1[train]'
    """
    match = _NAME.fullmatch(text)
    if match is None:
        raise hub.not_a_name(text, "dataset")
    repo = hub.Repo("dataset", match["name"], match["revision"] or "main")
    return Name(repo, match["config"] or "", match["split"] or "")


def pinned(text: str, recorded: object = None) -> str:
    """Returns a name with the commit that it stands for; see `hub.pinned`."""
    if not hub.is_name(text):
        return text
    name = parse(text)
    if isinstance(recorded, str) and _NAME.fullmatch(recorded):
        before = parse(recorded)
        at = dataclasses.replace(name.repo, revision=before.repo.revision)
        same = hub.is_same_revision(name.repo, before.repo.revision)
        if same and name._replace(repo=at) == before:
            return recorded
    return str(name._replace(repo=hub.at_commit(name.repo)))
