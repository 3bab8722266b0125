"""Files of vectors: what numpy and json read back, and what an error leaves behind."""

import functools
import gc
import json
import os
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_weights

from bert_jax import errors
from bert_jax.checkpoints import sentence_encoder
from bert_jax.inference import encode, inputs, outputs
from bert_jax.inference.model import Model
from bert_jax.model import encoder
from bert_jax.text.tokenizer import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz")
TEXTS = ["a b c", "d", "", "e f g h i j k", "c b a", "北京 \ud800 z", "e f g h i j"]


def model_of(*heads: str, **fields) -> Model:
    """Returns a model of two layers and rows of nine tokens."""
    given = small_weights.weights_of(*heads)
    # Larger, so that texts and layers differ.
    params = jax.tree.map(lambda x: jnp.asarray(4 * x), given.params)
    tokenizer = Tokenizer("wordpiece", PIECES, True, True)
    execution = encoder.Execution(vocab_multiple=1)
    return Model(tokenizer, given.config, params, 9, execution=execution, **fields)


@pytest.fixture(scope="module")
def model():
    return model_of()


def write(model, output, texts=TEXTS, kind="sentence", **options):
    """Writes vectors and returns how many texts there were."""
    request = outputs.VectorRequest(kind, **options)
    return outputs.write(model, texts, request, output)


def lines_of(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", ["sentence", "mean"])
def test_sentence_vectors_are_those_of_encode(model, tmp_path, kind, normalize):
    expected = model.encode(TEXTS, normalize=normalize)
    for name in ("x.npy", "x.jsonl"):
        count = write(model, tmp_path / name, kind=kind, normalize=normalize)
        assert count == len(TEXTS)
    found = np.load(tmp_path / "x.npy")
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    lines = lines_of(tmp_path / "x.jsonl")
    assert [line["text"] for line in lines] == TEXTS
    read = np.array([line["vector"] for line in lines], np.float32)
    np.testing.assert_array_equal(read, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.jsonl", "x.npy"]


def test_a_sentence_encoder_is_written_as_it_pools(tmp_path):
    model = model_of(pooling=sentence_encoder.Pooling("max", normalize=True))
    write(model, tmp_path / "x.npy")
    write(model, tmp_path / "y.npy", kind="max")
    write(model, tmp_path / "z.npy", kind="mean")
    found, named, other = (np.load(tmp_path / f"{x}.npy") for x in "xyz")
    np.testing.assert_array_equal(found, model.encode(TEXTS))
    np.testing.assert_array_equal(found, named)
    assert np.abs(found - other).max() > 0.01


def test_token_vectors_come_with_their_ids_and_offsets(model, tmp_path):
    assert write(model, tmp_path / "my.x.npy", kind="tokens", layers=(0, -1)) == 7
    rows = encode.rows_of(model.tokenizer, TEXTS, 9)
    assert rows[0] == [2, 5, 6, 7, 3] and rows[3] == [2, *range(9, 16), 3]
    expected = encode.token_vectors(
        model.bert, model.params, rows, (0, 2), model.execution
    )
    states = np.load(tmp_path / "my.x.npy")
    ids = np.load(tmp_path / "my.x.input_ids.npy")
    offsets = np.load(tmp_path / "my.x.offsets.npy")
    assert (ids.dtype, offsets.dtype) == (np.int32, np.int64)
    assert offsets.tolist() == [0, 5, 8, 10, 19, 24, 30, 38]
    assert states.shape == (38, 2, 12)
    for number, row in enumerate(rows):
        part = slice(offsets[number], offsets[number + 1])
        assert ids[part].tolist() == row
        np.testing.assert_array_equal(states[part], expected[number])


def test_token_vectors_as_json_name_tokens_and_layers(model, tmp_path):
    write(model, tmp_path / "x.jsonl", ["a b", "b"], "tokens", layers=(1, -1))
    write(model, tmp_path / "x.npy", ["a b", "b"], "tokens", layers=(1, 2))
    states = np.load(tmp_path / "x.npy")
    lines = lines_of(tmp_path / "x.jsonl")
    assert [list(line) for line in lines] == [["text", "tokens", "layers"]] * 2
    assert lines[0]["tokens"] == ["[CLS]", "a", "b", "[SEP]"]
    for layer, place in (("1", 0), ("-1", 1)):
        found = [line["layers"][layer] for line in lines]
        assert [len(x) for x in found] == [4, 3]
        read = np.array(found[0] + found[1], np.float32)
        np.testing.assert_array_equal(read, states[:, place])


@pytest.mark.parametrize("kind", ["sentence", "tokens"])
@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_several_windows_write_the_same_bytes_as_one(
    model, tmp_path, monkeypatch, kind, suffix
):
    # One text at a time, in batches of one shape, so that no sum runs otherwise.
    one_by_one = functools.partial(encode.batches, shared=False)
    monkeypatch.setattr(encode, "batches", one_by_one)
    monkeypatch.setattr(encode, "TOKENS_PER_BATCH", 1)
    texts = [" ".join("abcdefghij"[n : n + 5]) for n in (0, 3, 1, 5, 2)]
    one, several = tmp_path / "one", tmp_path / "several"
    for folder in (one, several):
        folder.mkdir()
        if folder == several:
            monkeypatch.setattr(outputs, "_WINDOW_TEXTS", 2)
        counts = []
        request = outputs.VectorRequest(kind)
        outputs.write(model, texts, request, folder / f"x{suffix}", done=counts.append)
        assert counts == ([5] if folder == one else [2, 2, 1])
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in several.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (several / name).read_bytes()


def test_the_header_has_room_for_any_count(tmp_path):
    with (tmp_path / "x").open("wb") as file:
        growing = outputs._Growing(file, np.zeros((0, 3), np.float32))
        at = file.tell()
        growing._shape = (10**15, 3)
        growing.write_header()
        assert file.tell() == at


def test_no_texts_are_empty_arrays(model, tmp_path):
    assert write(model, tmp_path / "x.npy", []) == 0
    assert np.load(tmp_path / "x.npy").shape == (0, 12)
    assert write(model, tmp_path / "t.npy", [], "tokens", layers=(0, 1, 2)) == 0
    assert np.load(tmp_path / "t.npy").shape == (0, 3, 12)
    assert np.load(tmp_path / "t.input_ids.npy").shape == (0,)
    assert np.load(tmp_path / "t.offsets.npy").tolist() == [0]
    assert write(model, tmp_path / "x.jsonl", []) == 0
    assert (tmp_path / "x.jsonl").read_bytes() == b""


@pytest.mark.parametrize("kind", ["sentence", "tokens"])
@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_an_error_in_the_middle_leaves_what_was_there(
    model, tmp_path, monkeypatch, kind, suffix
):
    monkeypatch.setattr(outputs, "_WINDOW_TEXTS", 1)
    lines = tmp_path / "lines.txt"
    lines.write_bytes(b"a b\nc\nd \xff\ne\n")
    output = tmp_path / f"x{suffix}"
    output.write_bytes(b"mine")
    written = []
    texts = (text for _, _, text in inputs.numbered_texts([], str(lines)))
    request = outputs.VectorRequest(kind)
    with pytest.raises(errors.InputError, match=r"lines.txt:3: byte 3 of the line"):
        outputs.write(model, texts, request, output, done=written.append)
    assert written == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lines.txt",
        output.name,
    ]
    assert output.read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_a_disk_that_fills_up_leaves_nothing(model, tmp_path, monkeypatch, suffix):
    def full(old, new):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(errors.StorageError, match="No space left"):
        write(model, tmp_path / f"x{suffix}", kind="tokens")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_replaced(model, tmp_path):
    for texts in (["a b", "c", "d"], ["e"]):
        write(model, tmp_path / "x.npy", texts)
        assert len(np.load(tmp_path / "x.npy")) == len(texts)


class Text(str):
    """A string that can be watched."""


@pytest.mark.parametrize(
    ("kind", "texts", "size"),
    [
        ("sentence", 4, 1 << 28),
        pytest.param("tokens", 999, 48 * 30, marks=pytest.mark.slow),
    ],
)
def test_memory_holds_one_window_of_texts(
    model, tmp_path, monkeypatch, kind, texts, size
):
    monkeypatch.setattr(outputs, "_WINDOW_TEXTS", texts)
    monkeypatch.setattr(outputs, "_WINDOW_BYTES", size)
    alive, most = weakref.WeakSet(), 0

    def watched():
        nonlocal most
        for number in range(40):
            text = Text("a b c d" + " " * number)  # rows of six tokens
            alive.add(text)
            if number % 4 == 0:
                gc.collect()
            most = max(most, len(alive))
            yield text

    assert write(model, tmp_path / "x.npy", watched(), kind) == 40
    # A window, and the text that follows it.
    assert 2 <= most <= 5


WRONG = [
    ("x.txt", {}, "x.txt: end it with .npy or .jsonl"),
    ("x", {}, "x: end it with .npy or .jsonl"),
    ("FOLDER.npy", {}, "a folder: name a file"),
    ("no/x.npy", {}, "no/x.npy"),
    ("x.npy", {"kind": "median"}, "is 'median': use one of sentence, mean, cls, max"),
    ("x.npy", {"kind": "pooled"}, "has no pooler: use --features=mean"),
    ("x.npy", {"kind": "tokens", "layers": (3,)}, "1 to 2 are its layers"),
    ("x.npy", {"kind": "tokens", "layers": (-4, 0)}, "layer -4"),
    ("x.npy", {"kind": "tokens", "layers": ()}, "layer None"),
    ("x.npy", {"kind": "tokens", "normalize": True}, "not tokens"),
    ("x.npy", {"kind": "mean", "layers": (1,)}, "--layers is for --features=tokens"),
]


@pytest.mark.parametrize(("name", "options", "words"), WRONG)
def test_what_cannot_be_written_is_refused_at_once(
    model, tmp_path, name, options, words
):
    (tmp_path / "FOLDER.npy").mkdir()
    with pytest.raises(errors.InputError) as caught:
        write(model, tmp_path / name, iter(()), **options)
    assert words in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["FOLDER.npy"]


def test_a_pooler_gives_pooled_vectors(tmp_path):
    model = model_of("pooler")
    write(model, tmp_path / "x.npy", ["a", "b c"], "pooled")
    found = np.load(tmp_path / "x.npy")
    assert found.shape == (2, 12)
    assert (np.abs(found) < 1).all()  # of tanh
    rows = encode.rows_of(model.tokenizer, ["a", "b c"], 9)
    expected = encode.sentence_vectors(
        model.bert, model.params, rows, "pooled", model.execution
    )
    np.testing.assert_array_equal(found, expected)
