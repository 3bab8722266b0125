"""The command that writes vectors: its flags, files, progress and exit codes."""

import json

import command_line
import jax
import numpy as np
import pytest
import small_weights

from bert_jax.checkpoints import huggingface, native, weights
from bert_jax.inference.model import load
from bert_jax.text.tokenizer import Tokenizer

BERT_TOKENS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyz",
)
# Another order of the special pieces, whose padding is not 0, as RoBERTa's.
ROBERTA_PIECES = (
    "[CLS]",
    "[PAD]",
    "[SEP]",
    "[UNK]",
    *"abcdefghijklmnopqrstuvwxyz",
    "[MASK]",
)
MODELS = {
    "bert": (BERT_TOKENS, ("pooler", "mlm_head", "nsp_head"), {}),
    "roberta": (
        ROBERTA_PIECES,
        ("mlm_head",),
        {
            "model_type": "roberta",
            "type_vocab_size": 1,
            "pad_token_id": 1,
            "max_position_embeddings": 11,
        },
    ),
    "distilbert": (
        BERT_TOKENS,
        ("mlm_head",),
        {"model_type": "distilbert", "type_vocab_size": 0},
    ),
}


def _folder(folder, model_type, write):
    pieces, heads, keys = MODELS[model_type]
    folder.mkdir()
    given = small_weights.weights_of(*heads, **keys)
    larger = jax.tree.map(lambda x: 4 * x, given.params)
    write(folder, weights.Weights(given.config, larger), dtype="float32")
    Tokenizer("wordpiece", pieces, True, True).save(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of Hugging Face's for each kind of model, and one of ours."""
    place = tmp_path_factory.mktemp("models")
    made = {name: _folder(place / name, name, huggingface.write) for name in MODELS}
    return made | {"ours": _folder(place / "ours", "bert", native.write)}


@pytest.fixture
def features(monkeypatch, capfd, tmp_path, models):
    """Writes vectors with a model into a file of a new folder."""
    (tmp_path / "out").mkdir()

    def run(model, name, *arguments, stdin=b""):
        return command_line.in_process(
            monkeypatch,
            capfd,
            "predict",
            f"--model={models[model]}",
            "--task=features",
            f"--output={tmp_path / 'out' / name}",
            *arguments,
            stdin=stdin,
        )

    return run


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


LINES = "a b c\n\n  北 \r\n" + "d " * 40 + "\ne\n"
TEXTS = ["a b c", "", "北", ("d " * 40).strip(), "e"]


@pytest.mark.parametrize("model", ["bert", "roberta", "distilbert", "ours"])
def test_the_vectors_of_a_file_are_those_of_encode(features, models, tmp_path, model):
    (tmp_path / "lines.txt").write_text("\ufeff" + LINES, encoding="utf-8")
    done = features(model, "x.npy", f"--input={tmp_path / 'lines.txt'}")
    assert (done.code, done.out) == (0, "")
    assert f"5 texts: {tmp_path / 'out' / 'x.npy'}" in done.err
    assert "5 of 5 texts (100%)" in done.err and "texts/s" in done.err  # the progress
    assert left(tmp_path) == ["x.npy"]
    found = np.load(tmp_path / "out" / "x.npy")
    loaded = load(models[model])
    np.testing.assert_array_equal(found, loaded.encode(TEXTS))
    assert np.abs(found[0] - found[4]).max() > 0.01
    assert loaded.max_seq_length == 9


def test_our_own_folder_gives_the_vectors_of_hugging_faces(features, tmp_path):
    for model in ("bert", "ours"):
        assert features(model, f"{model}.npy", "a b", "c").code == 0
    one, other = (np.load(tmp_path / "out" / f"{x}.npy") for x in ("bert", "ours"))
    np.testing.assert_array_equal(one, other)


def test_texts_come_from_a_pipe_whose_end_is_unknown(features, tmp_path):
    done = features("bert", "x.jsonl", "--normalize", stdin=LINES.encode())
    assert done.code == 0
    lines = (tmp_path / "out" / "x.jsonl").read_text(encoding="utf-8").splitlines()
    made = [json.loads(line) for line in lines]
    assert [line["text"] for line in made] == TEXTS
    lengths = [np.linalg.norm(line["vector"]) for line in made]
    np.testing.assert_allclose(lengths, 1, atol=1e-6)


def test_tokens_of_several_layers(features, tmp_path):
    done = features("bert", "x.npy", "--features=tokens", "--layers=0,-1", "a b", "c")
    assert done.code == 0
    assert left(tmp_path) == ["x.input_ids.npy", "x.npy", "x.offsets.npy"]
    assert np.load(tmp_path / "out" / "x.npy").shape == (7, 2, 12)
    ids = np.load(tmp_path / "out" / "x.input_ids.npy")
    assert ids.tolist() == [2, 5, 6, 3, 2, 7, 3]
    assert np.load(tmp_path / "out" / "x.offsets.npy").tolist() == [0, 4, 7]


WRONG = [
    (("--top=3", "a"), b"", "--top does nothing with --task=features"),
    (("--features=tokens", "--layers=1,x", "a"), b"", "--layers is 1,x: write numbers"),
    (("--features=tokens", "--layers=3", "a"), b"", "layer 3"),
    (("--features=tokens", "--normalize", "a"), b"", "not tokens"),
    (("--layers=1", "a"), b"", "--layers is for --features=tokens"),
    (("--features=median", "a"), b"", "--features=median"),
    (("--dtype=float16", "a"), b"", "--dtype=float16"),
    (("--input=nope.txt",), b"", "nope.txt cannot be read"),
    (("--input=x.jsonl",), b"", "x.jsonl is JSON lines"),
    (("--input=x.html",), b"", "x.html is an HTML page"),
    ((), b"", "standard input has no text"),
    ((), b" \n", "standard input has no text"),
    ((), b"a\nb\nc\xff\n", "standard input:3: byte 2 of the line is not UTF-8"),
]


@pytest.mark.parametrize(("arguments", "stdin", "words"), WRONG)
def test_what_can_be_wrong_leaves_no_file(
    features, tmp_path, monkeypatch, arguments, stdin, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (tmp_path / "x.html").write_text("<html><body>a</body></html>\n")
    done = features("bert", "x.npy", *arguments, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert words in done.message
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.csv", "end it with .npy or .jsonl"),
        ("no/x.npy", "no/x.npy"),
        (".", "end it with .npy"),
    ],
)
def test_the_name_of_the_file_is_looked_at_before_the_model_is_loaded(
    features, monkeypatch, name, words
):
    monkeypatch.setattr("bert_jax.inference.model.load", None)
    done = features("bert", name, "a")
    assert done.code == 2
    assert words in done.message


def test_the_output_must_be_named(monkeypatch, capfd, models):
    model = f"--model={models['bert']}"
    done = command_line.in_process(
        monkeypatch, capfd, "predict", model, "--task=features", "a"
    )
    assert done.code == 2
    assert "--output is missing" in done.message


def test_a_model_without_a_pooler_has_no_pooled_vectors(features, tmp_path):
    done = features("distilbert", "x.npy", "--features=pooled", "a")
    assert done.code == 2
    assert "has no pooler: use --features=mean" in done.message
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "flag", ["output=x.npy", "features=cls", "layers=0", "normalize"]
)
def test_filling_masks_takes_no_flag_of_vectors(monkeypatch, capfd, models, flag):
    model = f"--model={models['bert']}"
    done = command_line.in_process(
        monkeypatch, capfd, "predict", model, f"--{flag}", "a [MASK]"
    )
    assert (done.code, done.out) == (2, "")
    name = flag.partition("=")[0]
    assert f"--{name} does nothing with --task=fill_mask" in done.message


@pytest.mark.parametrize("model", ["bert", "roberta", "distilbert"])
def test_masks_are_filled_by_every_kind_of_model(monkeypatch, capfd, models, model):
    where = f"--model={models[model]}"
    done = command_line.in_process(
        monkeypatch, capfd, "predict", where, "--top=2", "a [MASK] c"
    )
    assert done.code == 0, done.err
    line = json.loads(done.out)
    assert line["text"] == "a [MASK] c"
    ((first, second),) = line["guesses"]
    assert 1 > first["probability"] >= second["probability"] > 0
    assert {first["token"], second["token"]} < set("abcdefghijklmnopqrstuvwxyz")
