"""Sentence encoders in both directions: vectors as sentence-transformers gives them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import tiny_tasks

import bert_jax
from bert_jax import checkpoints, convert, errors
from bert_jax.inference import outputs

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, ":", "猫", "狗"]
PIECES += [f"##{letter}" for letter in LETTERS]
TEXTS = ["a", "the cat sat", "x y z " * 30, "", "The CAT 猫狗", "q w e r t y"]
WIDTH, LONGEST = 12, 19
CLOSE = {"rtol": 0, "atol": 3e-6}


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("torch")
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def base(tmp_path_factory, library) -> Path:
    """A BERT as transformers writes it, without a limit of its tokenizer."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("base")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(PIECES),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=17,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def build(base: Path, folder: Path, pooling: Any, *after, longest=LONGEST, **options):
    """Saves a sentence encoder and returns it as the library loads it."""
    import sentence_transformers
    from sentence_transformers.sentence_transformer import modules

    include = options.pop("include_prompt", True)
    parts = [
        modules.Transformer(str(base), max_seq_length=longest),
        modules.Pooling(WIDTH, pooling_mode=pooling, include_prompt=include),
        *after,
    ]
    made = sentence_transformers.SentenceTransformer(
        modules=parts, device="cpu", **options
    )
    made.save(str(folder))
    return load_theirs(folder)


def load_theirs(folder: Path):
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def dense(inputs: int, outputs: int, activation: str, **options):
    import torch
    from sentence_transformers.sentence_transformer import modules

    function = getattr(torch.nn, activation)()
    return modules.Dense(inputs, outputs, activation_function=function, **options)


def older(folder: Path) -> None:
    """Rewrites a folder in the layout of version 3, with the encoder in a folder."""
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in [*folder.iterdir()]:
        if path.is_file() and not path.name.startswith(("modules", "config_sent")):
            path.rename(inner / path.name)
    config = inner / "tokenizer_config.json"
    tree = json.loads(config.read_text())
    longest = {"max_seq_length": tree["model_max_length"], "do_lower_case": False}
    (inner / "sentence_bert_config.json").write_text(json.dumps(longest))
    config.write_text(json.dumps(tree | {"model_max_length": 512}))
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        kind = module["type"].rpartition(".")[2]
        module["type"] = f"sentence_transformers.models.{kind}"
    modules[0]["path"] = inner.name
    (folder / "modules.json").write_text(json.dumps(modules))
    path = folder / "1_Pooling" / "config.json"
    tree = json.loads(path.read_text())
    modes = tree.pop("pooling_mode")
    names = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"]
    names += ["weightedmean_tokens", "lasttoken"]
    short = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
    short |= {"weightedmean_tokens": "weightedmean"}
    for name in names:
        mode = short.get(name, name)
        tree[f"pooling_mode_{name}"] = mode in (
            [modes] if str(modes) == modes else modes
        )
    tree["word_embedding_dimension"] = tree.pop("embedding_dimension")
    path.write_text(json.dumps(tree))


def compare(theirs, folder: Path, **options) -> bert_jax.inference.model.Model:
    """Compares the vectors of both libraries, and returns our model."""
    ours = bert_jax.load(folder)
    found = ours.encode(TEXTS, ours.pooling.normalize, **options)
    assert found.shape[1] == ours.vector_size
    np.testing.assert_allclose(found, theirs.encode(TEXTS, **options), **CLOSE)
    return ours


PROMPTS = {
    "prompts": {"query": "query: ", "other": "o "},
    "default_prompt_name": "query",
}
POOLED = ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def several(kept, every):
    """Returns parameters of which the default suite runs those that are kept."""
    slow = [pytest.param(x, marks=pytest.mark.slow) for x in every if x not in kept]
    return [*kept, *slow]


@pytest.mark.parametrize("layout", ["new", "old"])
@pytest.mark.parametrize("pooling", several(["mean"], [*POOLED, ["cls", "mean"]]))
def test_vectors_are_those_of_the_library(base, tmp_path, pooling, layout):
    folder = tmp_path / "folder"
    count = 2 if isinstance(pooling, list) else 1
    theirs = build(base, folder, pooling, dense(count * WIDTH, 7, "GELU"))
    if layout == "old":
        older(folder)
    ours = compare(theirs, folder)
    assert (ours.max_seq_length, ours.vector_size) == (LONGEST, 7)
    compare(theirs, folder, prompt="a b : ")


@pytest.mark.parametrize("include_prompt", several([False], [True, False]))
def test_prompts_are_written_before_texts(base, tmp_path, include_prompt):
    folder = tmp_path / "folder"
    options = PROMPTS | {"include_prompt": include_prompt}
    theirs = build(base, folder, ["max", "mean", "cls"], **options)
    ours = compare(theirs, folder)
    plain = ours.encode(TEXTS, prompt="")
    assert np.abs(ours.encode(TEXTS) - plain).max() > 0.01
    for chosen in ({"prompt": ""}, {"prompt_name": "other"}, {"prompt": "a " * 40}):
        compare(theirs, folder, **chosen)
    request = outputs.VectorRequest(prompt_name="other")
    outputs.write(ours, TEXTS, request, tmp_path / "x.npy")
    found = np.load(tmp_path / "x.npy")
    np.testing.assert_array_equal(found, ours.encode(TEXTS, prompt_name="other"))
    for wrong in ({"prompt_name": "absent"}, {"prompt_name": "other", "prompt": "x"}):
        with pytest.raises(errors.InputError):
            ours.encode(TEXTS, **wrong)


def test_all_modules_come_back_from_an_export(base, tmp_path):
    from sentence_transformers.sentence_transformer import modules

    after = [
        dense(2 * WIDTH, 9, "Tanh", bias=False),
        modules.LayerNorm(9),
        modules.Normalize(),
        dense(9, 9, "ReLU", use_residual=True),
        dense(9, 5, "Identity", use_residual=True),
        modules.Dropout(0.3),
        modules.Normalize(),
    ]
    theirs = build(base, tmp_path / "theirs", ["mean", "cls"], *after, **PROMPTS)
    compare(theirs, tmp_path / "theirs")
    for to in ("huggingface", "bert_jax"):
        convert.convert(tmp_path / "theirs", tmp_path / to, convert.Request(to))
        ours = compare(theirs, tmp_path / to)
        assert ours.pooling.prompts["other"] == "o "
    again = load_theirs(tmp_path / "huggingface")
    np.testing.assert_allclose(again.encode(TEXTS), theirs.encode(TEXTS), **CLOSE)


def test_text_is_lowered_where_the_library_does(base, tmp_path):
    folder = tmp_path / "folder"
    build(base, folder, "mean")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text(encoding="utf-8")
        for key in ("lowercase", "do_lower_case"):
            text = text.replace(f'"{key}": true', f'"{key}": false')
        (folder / name).write_text(text, encoding="utf-8")
    cased = bert_jax.load(folder).encode(TEXTS)
    path = folder / "sentence_bert_config.json"
    tree = json.loads(path.read_text()) | {"do_lower_case": True}
    path.write_text(json.dumps(tree))
    ours = compare(load_theirs(folder), folder)
    assert np.abs(ours.encode(TEXTS) - cased).max() > 0.01
    convert.convert(folder, tmp_path / "out", convert.Request("huggingface"))
    compare(load_theirs(tmp_path / "out"), tmp_path / "out")


@pytest.mark.parametrize(
    ("stated", "longest"),
    [(None, 40), (1e30, 40), (10**30, 40), (23, 23), (23.0, 23), (512, 40)],
)
def test_the_longest_row_of_an_ordinary_folder(base, tmp_path, stated, longest):
    convert.convert(base, tmp_path / "out", convert.Request("huggingface"))
    path = tmp_path / "out" / "tokenizer_config.json"
    tree = json.loads(path.read_text()) | {"model_max_length": stated}
    path.write_text(json.dumps(tree))
    assert checkpoints.open(tmp_path / "out").read().max_seq_length == longest
    for wrong in ("512", True, -1, 12.5):
        path.write_text(json.dumps(tree | {"model_max_length": wrong}))
        with pytest.raises(errors.InputError, match="model_max_length is"):
            checkpoints.open(tmp_path / "out").read()


BI_ENCODERS: dict[str, dict[str, Any]] = {
    "mean": {},
    "cls": {"head__pooling": "cls"},
    "max": {"head__pooling": "max"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    tiny_tasks.write_vocab(folder)
    return folder


LONG = ["a cat sat", "那狗跑", "the dog ran home fast " * 9, ""]


@pytest.mark.parametrize("kind", several(["cls"], BI_ENCODERS))
def test_a_trained_encoder_gives_its_vector_everywhere(place, tmp_path, kind):
    run = tmp_path / "run"
    changes = {"data__max_seq_length": 14} | BI_ENCODERS[kind]
    best = tiny_models.write_model(place, run / "best" / "5", "matching", **changes)
    ours = bert_jax.load(run)
    expected = ours.encode(LONG)
    assert ours.max_seq_length == 14
    # The task's own cosine is that of these vectors.
    scaled = ours.encode(LONG, normalize=True)
    said = ours.predict([(LONG[0], LONG[1]), (LONG[0], LONG[2])])
    for row, number in zip(said, (1, 2), strict=True):
        assert abs(row["similarity"] - scaled[0] @ scaled[number]) < 1e-5
    convert.convert(run, tmp_path / "hf", convert.Request("huggingface"))
    convert.convert(best, tmp_path / "own", convert.Request("bert_jax"))
    convert.convert(
        tmp_path / "own", tmp_path / "again", convert.Request("huggingface")
    )
    for folder in (best, tmp_path / "hf", tmp_path / "own", tmp_path / "again"):
        model = bert_jax.load(folder)
        assert model.max_seq_length == 14
        np.testing.assert_allclose(model.encode(LONG), expected, **CLOSE)
    for path in ("config.json", "model.safetensors", "modules.json"):
        one, other = (tmp_path / name / path for name in ("hf", "again"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("kind", several(["mean"], BI_ENCODERS))
def test_the_library_reads_a_trained_encoder(library, place, tmp_path, kind):
    run = tmp_path / "run"
    changes = {"data__max_seq_length": 14} | BI_ENCODERS[kind]
    tiny_models.write_model(place, run / "best" / "5", "matching", **changes)
    request = convert.Request("huggingface", verify=True)
    convert.convert(run, tmp_path / "hf", request)
    theirs = load_theirs(tmp_path / "hf")
    assert (theirs.max_seq_length, theirs.similarity_fn_name) == (14, "cosine")
    found = bert_jax.load(run).encode(LONG)
    np.testing.assert_allclose(theirs.encode(LONG), found, **CLOSE)


@pytest.mark.parametrize("pooling", several(["bilstm"], ["bilstm", "mean", "max"]))
def test_a_bi_encoder_with_a_bilstm(place, tmp_path, pooling):
    changes = {"head__pooling": pooling, "head__recurrent_size": 5}
    changes["data__truncation"] = "head_tail"
    run = tiny_models.write_model(place, tmp_path / "run", "matching", **changes)
    ours = bert_jax.load(run)
    scaled = ours.encode(LONG, normalize=True)
    assert scaled.shape[1] == ours.vector_size == 10
    (said,) = ours.predict([(LONG[0], LONG[2])])
    assert abs(said["similarity"] - scaled[0] @ scaled[2]) < 1e-5
    outputs.write(ours, LONG, outputs.VectorRequest(), tmp_path / "x.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), ours.encode(LONG))
    with pytest.raises(errors.InputError, match="recurrent"):
        convert.convert(run, tmp_path / "out", convert.Request("huggingface"))
