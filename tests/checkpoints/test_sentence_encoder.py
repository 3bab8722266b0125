"""What sentence-transformers writes beside a model, and every way it can be wrong."""

import json

import pytest

from bert_jax import errors
from bert_jax.checkpoints import sentence_encoder

PACKAGE = "sentence_transformers.models."


def module(number, kind, path):
    return {"idx": number, "name": str(number), "path": path, "type": PACKAGE + kind}


# As in the folder of all-MiniLM-L6-v2.
MODULES = [
    module(0, "Transformer", ""),
    module(1, "Pooling", "1_Pooling"),
    module(2, "Normalize", "2_Normalize"),
]
POOLING = {
    "word_embedding_dimension": 384,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}
TRANSFORMER = {"max_seq_length": 256, "do_lower_case": False}


@pytest.fixture
def write(tmp_path):
    """Writes the three files; None leaves one out, text is written as it is."""

    def files(modules=MODULES, pooling=POOLING, transformer=TRANSFORMER):
        (tmp_path / "1_Pooling").mkdir()
        for name, tree in (
            ("modules.json", modules),
            ("1_Pooling/config.json", pooling),
            ("sentence_bert_config.json", transformer),
        ):
            text = tree if isinstance(tree, str) else json.dumps(tree)
            if tree is not None:
                (tmp_path / name).write_text(text)
        return tmp_path

    return files


def test_a_published_sentence_encoder(write):
    assert sentence_encoder.read(write()) == sentence_encoder.Pooling(
        "mean", normalize=True, max_seq_length=256, is_sentence_encoder=True
    )


@pytest.mark.parametrize(
    ("key", "mode"),
    [("mean_tokens", "mean"), ("cls_token", "cls"), ("max_tokens", "max")],
)
def test_each_way_of_pooling(write, key, mode):
    set_to = {name: name == f"pooling_mode_{key}" for name in POOLING}
    read = sentence_encoder.read(write(MODULES[:2], set_to))
    assert read == sentence_encoder.Pooling(mode, False, 256, True)


def test_a_folder_without_the_files_takes_the_mean(tmp_path):
    assert sentence_encoder.read(tmp_path) == sentence_encoder.Pooling()
    assert sentence_encoder.Pooling().mode == "mean"
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"a cls": true}')
    assert sentence_encoder.read(tmp_path).is_sentence_encoder is False


def test_pooling_is_read_where_the_modules_say(write):
    folder = write([MODULES[0], module(1, "Pooling", "elsewhere")])
    (folder / "1_Pooling").rename(folder / "elsewhere")
    assert sentence_encoder.read(folder).mode == "mean"


@pytest.mark.parametrize(
    ("transformer", "longest"),
    [(None, 0), ({}, 0), ({"max_seq_length": None}, 0), ({"max_seq_length": 3}, 3)],
)
def test_the_longest_row_may_be_missing(write, transformer, longest):
    assert sentence_encoder.read(write(transformer=transformer)).max_seq_length == (
        longest
    )


@pytest.mark.parametrize("model", ["roberta", "distilbert", "albert"])
def test_older_versions_name_the_longest_row_by_the_model(write, model):
    folder = write(transformer=None)
    path = folder / f"sentence_{model}_config.json"
    path.write_text('{"max_seq_length": 128}')
    assert sentence_encoder.read(folder).max_seq_length == 128


DENSE = module(2, "Dense", "2_Dense")
CNN = module(3, "CNN", "3_CNN")
OWN = MODULES[0] | {"type": "custom_st.Transformer"}
WRONG = [
    ({"modules": [*MODULES, DENSE]}, "config.json does not exist"),
    ({"modules": [*MODULES, CNN]}, "modules.json: the module CNN is not supported"),
    ({"modules": [MODULES[0], CNN, MODULES[1]]}, "the module CNN is not supported"),
    (
        {"modules": [*MODULES[:1], DENSE, MODULES[1]]},
        "the modules are Transformer, Dense, Pooling",
    ),
    ({"modules": [OWN, MODULES[1]]}, "the module custom_st.Transformer is not"),
    ({"modules": "{"}, "modules.json is not the list of"),
    ({"modules": {}}, "modules.json: the modules are"),
    ({"modules": {"0": MODULES[0]}}, "modules.json is not the list of"),
    ({"modules": [3]}, "modules.json is not the list of"),
    ({"modules": [{"type": "a.Pooling"}]}, "(KeyError: 'path'): is the file whole?"),
    ({"modules": MODULES[:1]}, "the modules are Transformer, and"),
    ({"modules": [*MODULES, MODULES[1]]}, "Normalize, Pooling, and"),
    ({"modules": [module(1, "Pooling", "../1_Pooling")]}, "folder of the model"),
    ({"modules": [module(1, "Pooling", "/1_Pooling")]}, "folder of the model"),
    ({"pooling": None}, "config.json does not exist"),
    ({"pooling": "[]"}, "config.json is not a JSON object"),
    ({"pooling": {}}, "config.json: no pooling is set"),
    ({"pooling": {"pooling_mode": "median"}}, "pooling_mode 'median' is set"),
    ({"pooling": {"pooling_mode": ["mean", 3]}}, "pooling_mode ['mean', 3] is set"),
    ({"pooling": {"pooling_mode": [["mean"]]}}, "pooling_mode"),
    (
        {"pooling": {"pooling_mode": "mean", "include_prompt": "false"}},
        "include_prompt is 'false'",
    ),
    ({"transformer": {"modality_config": ["text"]}}, "modality_config"),
    ({"transformer": {"transformer_task": "fill-mask"}}, "transformer_task is 'fill-"),
    (
        {"transformer": {"modality_config": {"text": {"method": "get_text_features"}}}},
        "the text of modality_config is",
    ),
    ({"transformer": {"max_seq_length": 2}}, "max_seq_length is 2: write a count"),
    ({"transformer": {"max_seq_length": "128"}}, "max_seq_length is '128'"),
    ({"transformer": '{"max_seq_length": 1'}, "sentence_bert_config.json is not JSON"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_what_can_be_wrong_is_one_message(write, changes, words):
    with pytest.raises(errors.InputError) as caught:
        sentence_encoder.read(write(**changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("mode", sentence_encoder.MODES)
def test_what_is_written_is_what_sentence_transformers_writes(
    tmp_path, mode, normalize
):
    given = sentence_encoder.Pooling(mode, normalize, 128, True)
    sentence_encoder.write(tmp_path, given, 36)
    assert sentence_encoder.read(tmp_path) == given
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert modules == MODULES[: 2 + normalize]
    pooling = json.loads((tmp_path / "1_Pooling" / "config.json").read_text())
    key = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}[mode]
    assert pooling["word_embedding_dimension"] == 36
    assert [k for k, v in pooling.items() if v is True] == [f"pooling_mode_{key}"]
    assert set(POOLING) < set(pooling)
    longest = json.loads((tmp_path / "sentence_bert_config.json").read_text())
    assert longest == {"max_seq_length": 128, "do_lower_case": False}


def test_an_unknown_longest_row_stays_unknown(tmp_path):
    sentence_encoder.write(tmp_path, sentence_encoder.Pooling("cls"), 12)
    assert sentence_encoder.read(tmp_path).max_seq_length == 0
    text = (tmp_path / "sentence_bert_config.json").read_text()
    assert json.loads(text)["max_seq_length"] is None


def test_an_unknown_way_of_pooling_is_named():
    with pytest.raises(errors.InputError, match="'median': use one of mean, cls, max"):
        sentence_encoder.Pooling("median")


NEW = {"embedding_dimension": 384, "pooling_mode": "max", "include_prompt": False}


def test_the_layout_of_version_5_4(write):
    transformer = {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        },
        "module_output_name": "token_embeddings",
    }
    folder = write(pooling=NEW, transformer=transformer)
    expected = sentence_encoder.Pooling("max", True, 0, True, include_prompt=False)
    assert sentence_encoder.read(folder) == expected


@pytest.mark.parametrize(
    ("pooling", "modes"),
    [
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode": ["lasttoken"]}, ("lasttoken",)),
        # The older layout joins them in its own order.
        (POOLING | {"pooling_mode_cls_token": True}, ("cls", "mean")),
        (POOLING | {"pooling_mode_lasttoken": True}, ("mean", "lasttoken")),
    ],
)
def test_several_ways_of_pooling(write, pooling, modes, tmp_path):
    found = sentence_encoder.read(write(pooling=pooling))
    assert found.modes == modes
    (tmp_path / "again").mkdir()
    sentence_encoder.write(tmp_path / "again", found, 384)
    assert sentence_encoder.read(tmp_path / "again") == found


def test_prompts(write):
    folder = write()
    path = folder / "config_sentence_transformers.json"
    tree = {
        "prompts": {"query": "q: ", "document": None},
        "default_prompt_name": "query",
    }
    path.write_text(json.dumps(tree))
    found = sentence_encoder.read(folder)
    assert found.prompts == {"query": "q: ", "document": ""}
    assert (found.prompt(), found.prompt("document"), found.prompt(text="x")) == (
        *("q: ", "", "x"),
    )
    for wrong in (
        {"prompts": ["a"]},
        {"prompts": {"a": 3}},
        {"default_prompt_name": "x"},
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(errors.InputError, match="prompt"):
            sentence_encoder.read(folder)


def test_a_cross_encoder_is_no_sentence_encoder(write):
    folder = write(MODULES[:1])
    path = folder / "config_sentence_transformers.json"
    path.write_text('{"model_type": "CrossEncoder"}')
    assert sentence_encoder.read(folder) == sentence_encoder.Pooling()
