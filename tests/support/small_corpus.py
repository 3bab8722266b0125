"""A vocabulary of letters and a corpus of every kind, for the tests of the store."""

import json

from bert_jax.data.corpus import sources, store
from bert_jax.text.tokenizer import Tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij.。"]
PIECES += [f"##{c}" for c in "abcdefghij"] + list("北京大学好的生新年人")

NONE = store.StoreOptions(0.0, False, "none", "none")


def small_tokenizer(folder, pieces=PIECES):
    """Returns a WordPiece tokenizer of single characters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return Tokenizer.load(folder, lowercase=True)


def write_mixed(folder, documents=400):
    """Writes text and JSON lines with duplicates and blanks; returns the sources."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghij"
    texts = []
    for i in range(documents):
        word = "".join(letters[int(digit)] for digit in str(i * i))
        texts.append(f"{word} 北京{word}\n{letters[i % 7]}\n")
    texts += texts[3:50]
    (folder / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    rows = [{"text": f"ab 好。{'c' * (i % 9)} d."} for i in range(30)]
    rows += [{"text": ""}, {"text": ["\u200b", "a"]}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "b.jsonl").write_text(lines, encoding="utf-8")
    return sources.parse_sources([f"{folder}/a.txt", f"{folder}/b.jsonl@2.5"])


def documents_of(folder, split="train"):
    """Returns the ids of every sentence of every document of a store."""
    documents = []
    for shard in store.open_store(folder, split).shards:
        for d in range(shard.num_documents):
            first, last = shard.document_offsets[d : d + 2]
            edges = shard.sentence_offsets[first : last + 1]
            documents.append(
                [
                    shard.tokens[a:b].tolist()
                    for a, b in zip(edges[:-1], edges[1:], strict=True)
                ]
            )
    return documents


def bytes_of(folder):
    """Returns the content of every file of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
