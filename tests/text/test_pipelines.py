"""Our tokenizer.json is the one that `transformers` builds from the same vocabulary."""

import json
from pathlib import Path
from typing import Any

import pytest
import small_tokenizers

from bert_jax.text import pipelines, specials
from bert_jax.text.specials import SpecialTokens

transformers = pytest.importorskip("transformers")

ALBERT = specials.ALBERT


def backend(tokenizer: Any) -> dict[str, Any]:
    """Returns the tokenizer.json that a tokenizer of transformers would save."""
    return json.loads(tokenizer.backend_tokenizer.to_str())


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece(lowercase: bool):
    ids = {piece: index for index, piece in enumerate(small_tokenizers.BERT_TOKENS)}
    theirs = transformers.BertTokenizer(ids, do_lower_case=lowercase)
    ours = pipelines.wordpiece(
        small_tokenizers.BERT_TOKENS,
        specials.BERT,
        lowercase=lowercase,
        strip_accents=lowercase,
    )
    expected = backend(theirs)
    expected["normalizer"]["strip_accents"] = lowercase  # null means the same
    expected["added_tokens"].sort(key=lambda token: token["id"])
    assert ours == expected


def test_wordpiece_of_other_names_and_added_words():
    named = SpecialTokens("the", "cat", "##s", "sat", None)
    word = pipelines.added_token("covid-19", 19, special=False)
    ours = pipelines.wordpiece(
        small_tokenizers.BERT_TOKENS,
        named,
        lowercase=True,
        strip_accents=False,
        split_chinese=False,
        added=[word],
    )
    added = [(token["id"], token["content"]) for token in ours["added_tokens"]]
    assert added == [(5, "the"), (6, "cat"), (7, "##s"), (8, "sat"), (19, "covid-19")]
    assert ours["added_tokens"][-1]["special"] is False
    assert ours["normalizer"] == {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": False,
        "strip_accents": False,
        "lowercase": True,
    }
    rows = pipelines.rows_of_post_processor(ours["post_processor"], "t.json", 20)
    assert rows is not None and rows.build([1], [2]) == (
        *([7, 1, 8, 2, 8], [0, 0, 0, 1, 1]),
    )


@pytest.mark.parametrize("prefix", [True, False])
def test_byte_level(tmp_path: Path, prefix: bool):
    small_tokenizers.write_roberta(tmp_path)
    theirs = transformers.RobertaTokenizer.from_pretrained(
        str(tmp_path), add_prefix_space=prefix
    )
    expected = backend(theirs)
    named = SpecialTokens("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    ours = pipelines.byte_level(
        expected["model"]["vocab"],
        expected["model"]["merges"],
        named,
        add_prefix_space=prefix,
    )
    # The spaces before RoBERTa's mask are its own, as in its published files.
    assert ours["added_tokens"][4].pop("lstrip") is True
    assert expected["added_tokens"][4].pop("lstrip") is False
    # A decoder reads none of its flags.
    assert ours.pop("decoder")["type"] == expected.pop("decoder")["type"]
    assert ours == expected


def _proto(**options: Any) -> bytes:
    """Returns a SentencePiece model of few tokens."""
    import io

    import sentencepiece

    writer = io.BytesIO()
    names = {"pad_piece": "<pad>", "unk_piece": "<unk>", "pad_id": 0, "unk_id": 1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat", "a cat, a dog", "北京大学"] * 9),
        model_writer=writer,
        **{"bos_id": -1, "eos_id": -1, "minloglevel": 2, "hard_vocab_limit": False},
        **(names | {"vocab_size": 40, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"]}),
        **options,
    )
    return writer.getvalue()


@pytest.mark.parametrize("keep", [True, False])
def test_sentencepiece_as_albert(tmp_path: Path, keep: bool):
    content = _proto()
    (tmp_path / "spiece.model").write_bytes(content)
    theirs = transformers.AlbertTokenizer.from_pretrained(
        str(tmp_path), keep_accents=keep
    )
    ours = pipelines.sentencepiece(
        content, ALBERT, lowercase=True, strip_accents=not keep, quotes=True
    )
    expected = backend(theirs)
    assert ours["model"] == expected["model"]
    assert ours["added_tokens"] == expected["added_tokens"]
    assert ours["post_processor"] == expected["post_processor"]
    steps = ours["normalizer"]["normalizers"]
    assert steps[:-2] == expected["normalizer"]["normalizers"]
    assert [step["type"] for step in steps[-2:]] == ["Strip", "Replace"]


def test_sentencepiece_pairs_join_in_the_order_of_scores():
    content = _proto(model_type="bpe")
    ours = pipelines.sentencepiece(
        content, ALBERT, lowercase=False, strip_accents=False, quotes=False
    )
    model = ours["model"]
    assert (model["type"], model["unk_token"]) == ("BPE", "<unk>")
    joined = [model["vocab"]["".join(pair)] for pair in model["merges"]]
    assert joined == sorted(joined) and len(joined) > 3
    assert [step["type"] for step in ours["normalizer"]["normalizers"]] == [
        *("Precompiled", "Strip", "Replace")
    ]


def test_sentencepiece_follows_the_options_of_its_model():
    content = _proto(
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
    )
    ours = pipelines.sentencepiece(
        content, ALBERT, lowercase=True, strip_accents=False, quotes=False
    )
    assert ours["normalizer"]["normalizers"] == [{"type": "Lowercase"}]
    assert ours["pre_tokenizer"]["prepend_scheme"] == "never"
