"""Corpora of every kind of file in both languages, with repeats within and across."""

import bz2
import gzip
import json
import random
import sys

from bert_jax.data.corpus import sources

ENGLISH = "abc bad cab dab fad jab hag big dig fig egg ".split()
CHINESE = ["北京大学", "新年好", "的人", "好人", "学生", "生的好", "大的北京"]

_BUILD = """
import functools, sys
from pathlib import Path
from bert_jax.contrib.beam import beam_engine
from bert_jax.data.corpus import sources, store, store_build
from bert_jax.text.tokenizer import Tokenizer
place = Path(sys.argv[1])
beam_engine._CHUNK_CHARACTERS = 500
store_build.build(
    place / "s",
    sources=sources.parse_sources(str(place / "text" / "text")),
    tokenizer=Tokenizer.load(place / "v"),
    options=store.StoreOptions(0.2, True, "none", "none"),
    engine=functools.partial(beam_engine.fill_distributed, runner=runner),
    shard_tokens=900,
)
"""


def write(folder, seed=5):
    """Writes text, paragraphs and JSON lines, plain and compressed; returns sources."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    texts = [_document(draw) for _ in range(160)]
    again = texts[10:40]
    plain, packed = "\n\n".join(texts[:70] + again), "\n\n".join(again + texts[70:110])
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text(plain + "\n", encoding="utf-8")
    (folder / "text" / "b.txt.gz").write_bytes(gzip.compress(packed.encode()))
    prose = "\n\n\n".join(texts[110:130] + again[:9])
    (folder / "p.bz2").write_bytes(bz2.compress(prose.encode()))
    rows = [{"body": text} for text in texts[130:] + texts[:20] + ["", "\u200b"]]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "j.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    names = [
        f"{folder}/text",
        f"paragraphs:{folder}/*.bz2",
        f"{folder}/j.jsonl.gz#body@2.5",
        f"{folder}/text/a.txt",
    ]
    return sources.parse_sources(names)


def builder(folder, runner):
    """Returns a command that builds the store `s` beside the corpus and vocabulary.

    It is a process, to be killed; `runner` is the Python that makes the runner.
    """
    return [sys.executable, "-c", f"{runner}\n{_BUILD}", str(folder)]


def _document(draw):
    """Returns the lines of a document in one of the languages."""
    words, joint, end = draw.choice([(ENGLISH, " ", "."), (CHINESE, "", "。")])
    count = draw.randint(1, 6)
    lines = [
        joint.join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(count)
    ]
    return "\n".join(line + end for line in lines)
