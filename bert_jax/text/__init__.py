"""From characters to ids: tokenizers, vocabularies and word boundaries."""

from typing import Literal

VocabularyKind = Literal["wordpiece", "sentencepiece-unigram", "sentencepiece-bpe"]
SEGMENTERS = ("none", "jieba", "corpus")  # of Chinese words
