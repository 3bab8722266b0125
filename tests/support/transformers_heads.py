"""Tiny random models of transformers' classes with their tokenizers, and their logits.

The vocabulary is English and Chinese, for RoBERTa that of bytes.
"""

import numpy as np
import pytest
import tiny_tasks

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
