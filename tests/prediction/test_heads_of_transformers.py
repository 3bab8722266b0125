"""Folders of every head class of transformers answer as transformers computes it.

Models are tiny and random, with a vocabulary of English and Chinese; the expected
values are the logits of transformers' own class, text by text, without padding.
"""

import numpy as np
import pytest
import tiny_tasks

import bert_jax
from bert_jax import convert

tokenizers = pytest.importorskip("tokenizers")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LABELS = {0: "O", 1: "B-猫", 2: "I-猫"}
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
OWN = {
    "Bert": {},
    "Roberta": {
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "max_position_embeddings": 60,
        "num_hidden_layers": 1,
    },
    "Albert": {"embedding_size": 10},
    "Electra": {"embedding_size": 10},
    "DistilBert": {
        "dim": 24,
        "n_layers": 2,
        "n_heads": 3,
        "hidden_dim": 40,
        "max_position_embeddings": 40,
    },
    "ModernBert": {"classifier_pooling": "cls", "local_attention": 4},
    "ModernBert mean": {"classifier_pooling": "mean", "norm_bias": True},
}
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_ALPHABET = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
BYTES = {token: at for at, token in enumerate([*_SPECIAL, *_ALPHABET])}
HAS_TYPES = ("Bert", "Albert", "Electra")
HEADS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
CASES = [(model, head) for model in OWN for head in HEADS]
CASES += [("Bert", "ForNextSentencePrediction")]
# What has layers of its own before the output; all others are `slow`.
SAMPLE = [
    ("ModernBert", "ForTokenClassification"),
    ("ModernBert mean", "ForSequenceClassification"),
    ("Roberta", "ForSequenceClassification"),
]


def write_folder(folder, model, head, **changes):
    """Writes a random model of a class with its tokenizer; returns the model."""
    name = model.split()[0]
    sizes = {} if name == "DistilBert" else SIZES
    vocab = BYTES if name == "Roberta" else tiny_tasks.PIECES
    values = sizes | {"vocab_size": len(vocab)} | OWN[model]
    if name == "ModernBert":
        special = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
        values |= dict.fromkeys(special)
    if head in ("ForSequenceClassification", "ForTokenClassification"):
        values["id2label"] = LABELS
    config = getattr(transformers, f"{name}Config")(**values | changes)
    torch.manual_seed(3)
    made = getattr(transformers, f"{name}{head}")(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight += 0.3 * torch.randn_like(weight)
    made.save_pretrained(folder)
    tokenizer = _tokenizer(name)
    tokenizer.save_pretrained(folder)
    return made, tokenizer


def _tokenizer(name):
    """Returns the tokenizer that models of a name have: bytes for RoBERTa."""
    if name == "Roberta":
        return transformers.RobertaTokenizer(vocab=BYTES, merges=[])
    vocab = {piece: at for at, piece in enumerate(tiny_tasks.PIECES)}
    return transformers.BertTokenizer(vocab=vocab)


def logits_of(made, tokenizer, *texts, **options):
    """Returns the outputs of transformers' model for texts or pairs."""
    inputs = tokenizer(*texts, return_tensors="pt", **options)
    if type(made).__name__.partition("For")[0] not in HAS_TYPES:
        inputs.pop("token_type_ids", None)
    if "MultipleChoice" in type(made).__name__:
        inputs = {name: x[None] for name, x in inputs.items()}
    with torch.no_grad():
        found = made(**inputs)
    return {n: x.double().numpy()[0] for n, x in found.items() if torch.is_tensor(x)}


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


PAIRS = [("a cat sat", "the dog ran home fast"), ("那猫坐这", "狗"), ("a", "fast cat")]
CHOICES = [("a cat", ["sat here", "ran"]), ("那狗", ["跑家", "坐", "the cat ran"])]
QUESTIONS = [
    ("the dog ran ?", "a cat sat here. the dog ran home"),
    ("猫坐?", "那猫坐这"),
]
CLOSE = {"rtol": 0, "atol": 1e-5}


def _check_texts(model, made, tokenizer):
    found = model.predict(PAIRS)
    for pair, answer in zip(PAIRS, found, strict=True):
        wanted = softmax(logits_of(made, tokenizer, *pair)["logits"])
        names = [made.config.id2label[at] for at in range(len(wanted))]
        assert list(answer["probabilities"]) == names
        np.testing.assert_allclose([*answer["probabilities"].values()], wanted, **CLOSE)
        assert answer["label"] == names[int(wanted.argmax())]


def _first_tokens(encoded, text, words):
    """Returns the number of the first token of each word of a text."""
    firsts, end = [], 0
    for word in words:
        start = text.index(word, end)
        end = start + len(word)
        firsts.append(encoded.char_to_token(start))
    return firsts


def _check_tokens(model, made, tokenizer):
    texts = {"the cat ran home": "the cat ran home".split(), "那猫坐": "那猫坐"}
    for (text, words), answer in zip(
        texts.items(), model.predict(list(texts)), strict=True
    ):
        firsts = _first_tokens(tokenizer(text), text, words)
        wanted = softmax(logits_of(made, tokenizer, text)["logits"])[firsts]
        assert answer["tags"] == [LABELS[int(at)] for at in wanted.argmax(-1)]
        np.testing.assert_allclose(answer["probabilities"], wanted.max(-1), **CLOSE)


def _check_choices(model, made, tokenizer):
    for value, answer in zip(CHOICES, model.predict(CHOICES), strict=True):
        context, choices = value
        contexts = [context] * len(choices)
        logits = logits_of(made, tokenizer, contexts, choices, padding=True)["logits"]
        np.testing.assert_allclose(answer["probabilities"], softmax(logits), **CLOSE)
        assert answer["choice"] == choices[int(logits.argmax())]


def _check_spans(model, made, tokenizer):
    for (question, context), answer in zip(
        QUESTIONS, model.predict(QUESTIONS), strict=True
    ):
        out = logits_of(made, tokenizer, question, context)
        encoded = tokenizer(question, context)
        sums = {
            (first, last): out["start_logits"][first] + out["end_logits"][last]
            for first in range(len(encoded["input_ids"]))
            for last in range(first, len(encoded["input_ids"]))
            if encoded.sequence_ids()[first] == encoded.sequence_ids()[last] == 1
        }
        first, last = max(sums, key=lambda span: sums[span])
        start = encoded.token_to_chars(first).start
        end = encoded.token_to_chars(last).end
        assert (answer["start"], answer["end"]) == (start, end)
        assert answer["answer"] == context[start:end]
        np.testing.assert_allclose(answer["score"], sums[first, last], **CLOSE)


CHECKS = {
    "ForSequenceClassification": _check_texts,
    "ForNextSentencePrediction": _check_texts,
    "ForTokenClassification": _check_tokens,
    "ForMultipleChoice": _check_choices,
    "ForQuestionAnswering": _check_spans,
}


@pytest.mark.parametrize(
    ("model", "head"),
    [
        pytest.param(*case, marks=() if case in SAMPLE else pytest.mark.slow)
        for case in CASES
    ],
)
def test_it_answers_as_transformers_computes(model, head, tmp_path):
    made, tokenizer = write_folder(tmp_path / "theirs", model, head)
    loaded = bert_jax.load(tmp_path / "theirs")
    CHECKS[head](loaded, made, tokenizer)
    convert.convert(
        tmp_path / "theirs", tmp_path / "again", convert.Request("huggingface")
    )
    again = type(made).from_pretrained(tmp_path / "again").eval()
    for name, tensor in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    CHECKS[head](bert_jax.load(tmp_path / "again"), again, tokenizer)
