"""What a run may start from, and what must be asked for."""

import json

import jax
import numpy as np
import pytest
import tiny_run

from bert_jax import checkpoints, errors, pretrain
from bert_jax.checkpoints import huggingface, initial_weights, weights
from bert_jax.model import config, network
from bert_jax.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny_run.write_corpus(tmp_path_factory.mktemp("corpus") / "text.txt")


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A run of one step, with NSP, of another seed than those that go on."""
    workdir = tmp_path_factory.mktemp("first")
    return pretrain.train(tiny_run.config(corpus, run__seed=3, **ONE_STEP), workdir)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Its model as a folder of Hugging Face's."""
    folder = tmp_path_factory.mktemp("exported")
    found = checkpoints.open(trained.workdir).read()
    huggingface.write(folder, found.weights, dtype="float32")
    found.tokenizer.save(folder)
    return folder


ONE_STEP = {
    "run__num_train_steps": 1,
    "optimizer__warmup_steps": 0,
    "optimizer__learning_rate": 1e-9,
}
TAKEN = {"model__size": "init_from", "text__vocab": "init_from"}


def _continue(corpus, folder, workdir, **changes):
    config = tiny_run.config(
        corpus, init_from=str(folder), **ONE_STEP | TAKEN | changes
    )
    return pretrain.train(config, workdir)


def test_an_export_starts_a_run_with_the_same_parameters(
    trained, exported, corpus, tmp_path
):
    continued = _continue(corpus, exported, tmp_path)
    pieces = Tokenizer.load(exported).vocab_size
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-7),
        network.cut_vocabulary(continued.state.params, pieces),
        network.cut_vocabulary(trained.state.params, pieces),
    )
    record = json.loads((tmp_path / "init.json").read_text())
    assert record["source"] == "Hugging Face, BertForPreTraining"
    assert list(record["files"]) == ["model.safetensors"]
    assert len(record["files"]["model.safetensors"]) == 64
    assert record["drawn"] == []


def test_a_run_resumes_without_the_folder_it_started_from(corpus, exported, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    for file in exported.iterdir():
        (gone / file.name).write_bytes(file.read_bytes())
    _continue(corpus, gone, tmp_path / "run")
    for file in gone.iterdir():
        file.unlink()
    again = _continue(corpus, gone, tmp_path / "run")
    assert int(again.state.step) == 1


@pytest.mark.slow
def test_parts_that_are_missing_are_drawn_only_by_name(corpus, exported, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    choice = weights.Choice(ignore=("mlm_head", "nsp_head"))
    found = checkpoints.open(exported).read(choice)
    huggingface.write(bare, found.weights, dtype="float32")
    found.tokenizer.save(bare)
    with pytest.raises(errors.InputError, match="init.fresh=mlm_head,nsp_head"):
        _continue(corpus, bare, tmp_path / "refused")
    made = _continue(
        corpus, bare, tmp_path / "run", init__fresh="mlm_head,nsp_head"
    ).state.params
    fresh = pretrain.train(
        tiny_run.config(corpus, text__vocab=str(bare), **ONE_STEP), tmp_path / "fresh"
    ).state.params
    # Drawn as a fresh run of this seed draws them, and the others as they were.
    for name in ("mlm_head", "nsp_head"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-7),
            made[name],
            fresh[name],
        )
    assert not np.allclose(
        made["pooler"]["dense"]["kernel"], fresh["pooler"]["dense"]["kernel"]
    )
    record = json.loads((tmp_path / "run" / "init.json").read_text())
    assert record["drawn"] == ["mlm_head", "nsp_head"]


def test_parts_that_the_run_lacks_are_left_behind_only_by_name(
    corpus, exported, tmp_path
):
    with pytest.raises(errors.InputError, match="init.ignore=nsp_head,pooler"):
        _continue(
            corpus, exported, tmp_path / "refused", data__objective="full_sentences"
        )
    made = _continue(
        corpus,
        exported,
        tmp_path / "run",
        data__objective="full_sentences",
        init__ignore="nsp_head,pooler",
    )
    assert set(made.state.params) == {"encoder", "mlm_head"}


@pytest.mark.slow
def test_a_longer_position_table_is_made_only_on_request(corpus, exported, tmp_path):
    longer = {"model__max_position_embeddings": 31, "data__max_seq_length": 31}
    with pytest.raises(errors.InputError, match="init.positions=repeat"):
        _continue(corpus, exported, tmp_path / "refused", **longer)
    made = _continue(
        corpus, exported, tmp_path / "run", init__positions="repeat", **longer
    )
    table = made.state.params["encoder"]["embeddings"]["position_embeddings"]
    table = np.asarray(table["embedding"])
    assert table.shape == (31, 32)
    np.testing.assert_allclose(table[24:], table[:7], atol=1e-7)


def test_positions_repeat_or_interpolate_behind_the_rows_that_are_none():
    table = np.array([[9.0], [8.0], [0.0], [2.0], [4.0]], np.float32)
    repeated = initial_weights.extend_positions(table, 9, 2, "repeat")
    assert repeated[:, 0].tolist() == [9, 8, 0, 2, 4, 0, 2, 4, 0]
    between = initial_weights.extend_positions(table, 7, 2, "interpolate")
    assert between[:, 0].tolist() == [9, 8, 0, 1, 2, 3, 4]
    one = initial_weights.extend_positions(table[:3], 5, 2, "interpolate")
    assert one[:, 0].tolist() == [9, 8, 0, 0, 0]


@pytest.mark.parametrize(("rows", "how"), [(4, "repeat"), (7, "same")])
def test_positions_never_shrink_nor_grow_unasked(rows, how):
    table = np.zeros((5, 3), np.float32)
    with pytest.raises(errors.InputError, match="5 rows"):
        initial_weights.extend_positions(table, rows, 0, how)


def test_new_tokens_begin_at_the_mean_of_their_pieces_only_on_request(
    trained, corpus, exported, tmp_path
):
    old = Tokenizer.load(exported)
    ending = next(token[2:] for token in old.tokens if token.startswith("##"))
    word = f"a{ending}"
    pieces = [*old.tokens[:5], word, *old.tokens[5:]]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    grown = {"text__vocab": str(tmp_path / "vocab.txt")}
    with pytest.raises(errors.InputError, match="1 of its .* pieces are new"):
        _continue(corpus, exported, tmp_path / "refused", **grown)
    made = _continue(
        corpus,
        exported,
        tmp_path / "run",
        init__new_tokens="mean_of_pieces",
        **grown,
    ).state.params
    before = trained.state.params
    (ids,) = old.encode([word])
    assert len(ids) == 2
    for path in (
        ("encoder", "embeddings", "word_embeddings", "embedding"),
        ("mlm_head", "bias"),
    ):
        new, source = _leaf(made, path), _leaf(before, path)
        np.testing.assert_allclose(new[5], source[ids].mean(0), atol=1e-7)
        np.testing.assert_allclose(new[:5], source[:5], atol=1e-7)
        last = len(old.tokens)
        np.testing.assert_allclose(new[6 : last + 1], source[5:last], atol=1e-7)


def _leaf(tree, path):
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


def test_a_vocabulary_is_not_learned_for_given_weights(corpus, exported, tmp_path):
    with pytest.raises(errors.InputError, match="text.vocab=init_from"):
        _continue(corpus, exported, tmp_path / "run", text__vocab="learn")
    assert not (tmp_path / "run").exists()


def test_a_model_of_rotary_positions_has_no_table_to_extend():
    bert = config.BertConfig(
        hidden_size=12,
        num_attention_heads=2,
        type_vocab_size=0,
        model_type="modernbert",
    )
    flat = {"encoder/final_layer_norm/scale": np.ones(12)}
    assert initial_weights.with_positions(flat, bert, "same") == flat
    with pytest.raises(errors.InputError, match="init.positions is repeat"):
        initial_weights.with_positions(flat, bert, "repeat")
