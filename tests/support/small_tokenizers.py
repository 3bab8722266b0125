"""Small tokenizers of the kinds that Hugging Face's folders hold."""

import copy
import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

BERT_TOKENS = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat"),
    *("北", "京", "naive", "!", "Cat", "[", "]", "mask", "un", "##able"),
)
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
TEXTS = ["the cat sat on the mat", "the cats are naïve", "北京大学 is in 北京"] * 5

# BertTokenizer's own file for ten pieces, as `transformers` 4 saved it.
BERT_JSON: dict[str, Any] = {
    "version": "1.0",
    "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [
        {
            "id": index,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, content in enumerate(BERT_TOKENS[:5])
    ],
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {
        "type": "BertProcessing",
        "sep": ["[SEP]", 3],
        "cls": ["[CLS]", 2],
    },
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {piece: index for index, piece in enumerate(BERT_TOKENS)},
    },
}


def bert_json() -> dict[str, Any]:
    """A tokenizer.json of BERT's that a test may change."""
    return copy.deepcopy(BERT_JSON)


def write_json(folder: Path, tree: Any, name: str = "tokenizer.json") -> Path:
    """Writes a JSON file and returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(tree), encoding="utf-8")
    return folder


def write_roberta(folder: Path) -> Path:
    """Learns byte-level BPE and writes vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    rust = tokenizers.Tokenizer(models.BPE())
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=ROBERTA_SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    rust.train_from_iterator(TEXTS, trainer)
    rust.model.save(str(folder))
    return folder
