"""Every key of a config is known, typed and in range before work begins."""

import ml_collections
import pytest

from bert_jax import errors
from bert_jax.config import pretraining
from bert_jax.model import config as model_config


def _changed(**keys):
    config = pretraining.default()
    with config.unlocked():
        for key, value in keys.items():
            config.update_from_flattened_dict({key.replace("__", "."): value})
    return config.to_dict()


def test_the_defaults_are_the_published_recipe():
    parsed = pretraining.parse(pretraining.default())
    assert parsed.bert(30522) == model_config.published("base")
    assert parsed.optimizer.learning_rate == 1e-4
    assert parsed.run.batch_size == 256
    assert parsed.data.num_predictions == 20


def test_parse_reads_back_what_to_dict_writes():
    parsed = pretraining.parse(_changed(model__hidden_size=36, run__seed=7))
    assert parsed.model == {"hidden_size": 36}
    assert pretraining.parse(pretraining.to_dict(parsed)) == parsed


def test_model_keys_override_the_size_and_the_vocabulary_gives_its_own():
    changes = {"model__size": "tiny", "model__num_attention_heads": 8}
    bert = pretraining.parse(_changed(**changes)).bert(77)
    assert (bert.hidden_size, bert.num_attention_heads) == (128, 8)
    assert bert.vocab_size == 77


WRONG = [
    ("optimizer.learning_rate", float("nan"), "learning_rate"),
    ("optimizer.learning_rate", -5.0, "learning_rate"),
    ("optimizer.name", "sgd", "adamw"),
    ("optimizer.weight_decay", "0.1", "expected float"),
    ("model.size", "huge", "use one of"),
    ("model.hidden_size", 100, "not a multiple"),
    ("model.hidden_dropout_prob", 1.5, "0.999"),
    ("text.tokenizer", "bpe", "wordpiece"),
    ("text.segmenter", "hanlp", "jieba"),
    ("text.segmenter_fallback", "corpus", "jieba"),
    ("text.vocab_size", 5, "at least 6"),
    ("data.objective", "mlm", "full_sentences"),
    ("data.loader", "grain", "thread"),
    ("data.masked_lm_prob", 0.0, "0.001 to 0.9"),
    ("data.masked_lm_prob", float("nan"), "0.001 to 0.9"),
    ("run.num_train_epochs", float("inf"), "finite"),
    ("data.first_seq_length", 129, "max_seq_length 128"),
    ("text.clean", "html,lower", "simplified"),
    ("mesh.data", 0, "or -1"),
    ("data.held_out_fraction", 0.9, "0.0 to 0.5"),
    ("data.short_seq_prob", -0.1, "0.0 to 1.0"),
    ("data.max_seq_length", 4, "at least 8"),
    ("data.max_seq_length", 128.0, "expected int"),
    ("data.max_ngram", 0, "at least 1"),
    ("data.max_predictions_per_seq", 0, "at least 1, or -1"),
    ("data.workers", -2, "at least 1, or -1"),
    ("data.whole_word", 1, "expected bool"),
    ("run.batch_size", 0, "at least 1"),
    ("run.batch_size", True, "expected int"),
    ("run.accumulation_steps", 3, "not a multiple"),
    ("run.num_train_steps", 0, "at least 1, or -1"),
    ("run.num_train_steps", -1, "num_train_epochs"),
    ("run.save_every_steps", 0, "at least 1"),
    ("run.keep_checkpoints", 0, "at least 1"),
    ("run.seed", -1, "2147483647"),
    ("run.dtype", "float16", "bfloat16"),
    ("run.remat", "all", "dots"),
    ("run.unroll", 0, "or -1"),
    ("run.attention", "flash", "use one of auto, xla, cudnn, splash"),
    ("init_from", 3, "expected str"),
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(key, value, words):
    tree = pretraining.default().to_dict()
    group, _, name = key.rpartition(".")
    (tree[group] if group else tree)[name] = value
    with pytest.raises(errors.InputError, match=words) as caught:
        pretraining.parse(tree)
    assert key in str(caught.value) or name in str(caught.value)


def test_a_misspelled_key_is_refused_with_the_nearest_one():
    tree = pretraining.default().to_dict()
    tree["run"]["num_train_step"] = 3
    with pytest.raises(errors.InputError, match="Did you mean run.num_train_steps"):
        pretraining.parse(tree)


def test_a_missing_key_is_named():
    tree = pretraining.default().to_dict()
    del tree["data"]["objective"]
    with pytest.raises(errors.InputError, match="data.objective is missing"):
        pretraining.parse(tree)


def test_the_default_is_locked():
    with pytest.raises(AttributeError):
        pretraining.default().run.num_train_stepz = 3
    assert isinstance(pretraining.default(), ml_collections.ConfigDict)


def test_a_vocabulary_of_another_size_than_the_model_is_refused():
    parsed = pretraining.parse(_changed(model__vocab_size=30522))
    with pytest.raises(errors.InputError, match="vocab_size .* 21128"):
        parsed.bert(21128)


def test_rows_longer_than_the_position_table_are_refused():
    parsed = pretraining.parse(_changed(data__max_seq_length=513))
    with pytest.raises(errors.InputError, match="max_position_embeddings 512"):
        parsed.bert(30522)


@pytest.mark.parametrize(
    ("length", "share", "steps"), [(0, 0.9, 0), (64, 0.9, 90), (64, 0.0, 0)]
)
def test_the_first_steps_are_a_share_of_all(length, share, steps):
    config = pretraining.default()
    config.data.first_seq_length = length
    config.data.first_steps_share = share
    config.run.num_train_steps = 100
    assert pretraining.parse(config).first_steps == steps


def test_a_share_of_the_steps_needs_their_number():
    config = pretraining.default()
    config.data.first_seq_length = 64
    config.run.num_train_steps, config.run.num_train_epochs = -1, 3.0
    with pytest.raises(errors.InputError, match="set run.num_train_steps"):
        pretraining.parse(config)
