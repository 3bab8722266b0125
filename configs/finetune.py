"""Fine-tuning, one recipe a task; the data from TFDS, or from files that you name.

    python -m bert_jax.finetune --config=configs/finetune.py:sst2 \
        --config.init_from=FOLDER --workdir=runs/sst2
    python -m bert_jax.finetune --config=configs/finetune.py:conll2003 \
        --config.init_from=FOLDER --config.data.train=train.txt \
        --config.data.dev=valid.txt --workdir=runs/ner

FOLDER is a run of `pretrain` or any model that `convert` reads. Of the named data sets
the columns of the publisher's own files are set; for any other file take the name of
the task (`classification`, `pair`, `regression`, `tagging`, `srl`, `span`,
`multiple_choice`, `matching`, `simcse`) and set `--config.data.columns.*` where its
names are not the usual ones.

Rates and epochs are those of Devlin et al. 2018 (arXiv:1810.04805, appendix A.3): 2e-5
to 5e-5, 16 or 32 rows, 2 to 4 epochs. Small models want more: see the table in
README.md and `scripts/compare/finetune.py`, which made it.
"""

from bert_jax.config import finetuning

# Name -> what differs from the default, as `group.key`.
_CLASSES = {"data.task": "classification"}
_PAIRS = {"data.task": "classification", "run.num_train_epochs": 3.0}
_TAGS = {"data.task": "tagging", "optimizer.learning_rate": 5e-5}
_ANSWERS = {
    "data.task": "span",
    "data.max_seq_length": 384,
    "run.num_train_epochs": 2.0,
    "run.batch_size": 16,
}
_ROLES = {"data.task": "srl", "optimizer.learning_rate": 5e-5}

OPTIONS = {
    # Any files.
    "classification": _CLASSES,
    "pair": _PAIRS,
    "regression": {"data.task": "regression"},
    "tagging": _TAGS,
    "srl": _ROLES,
    "span": _ANSWERS,
    "multiple_choice": {"data.task": "multiple_choice", "run.batch_size": 16},
    "matching": {"data.task": "matching", "head.pooling": "mean"},
    "simcse": {
        "data.task": "matching",
        "head.pooling": "mean",
        "head.objective": "simcse",
        "run.batch_size": 64,
        "run.num_train_epochs": 1.0,
    },
    # English.
    "sst2": {
        **_CLASSES,
        "data.train": "tfds:glue/sst2[train]",
        "data.dev": "tfds:glue/sst2[validation]",
        "data.max_seq_length": 64,
    },
    "cola": {
        **_CLASSES,
        "data.train": "tfds:glue/cola[train]",
        "data.dev": "tfds:glue/cola[validation]",
        "data.max_seq_length": 64,
        "run.keep_best": "matthews",
    },
    "mrpc": {
        **_PAIRS,
        "data.train": "tfds:glue/mrpc[train]",
        "data.dev": "tfds:glue/mrpc[validation]",
    },
    "sick": {
        "data.task": "regression",
        "data.columns.text": "sentence_A",
        "data.columns.text_pair": "sentence_B",
        "data.columns.score": "relatedness_score",
        "data.max_seq_length": 96,
    },
    "conll2003": {
        **_TAGS,
        "data.train": "tfds:conll2003[train]",
        "data.dev": "tfds:conll2003[dev]",
    },
    "squad": {
        **_ANSWERS,
        "data.train": "tfds:squad/v1.1[train]",
        "data.dev": "tfds:squad/v1.1[validation]",
    },
    "squad2": {
        **_ANSWERS,
        "data.train": "tfds:squad/v2.0[train]",
        "data.dev": "tfds:squad/v2.0[validation]",
    },
    # Chinese: the publishers' files, one folder each.
    "topic": {
        **_CLASSES,
        "data.train": "train.txt",
        "data.dev": "dev.txt",
        "data.format": "tsv",
        "data.header": "false",
        "data.columns.text": "1",
        "data.columns.label": "2",
        "data.labels": "class.txt",
        "data.max_seq_length": 48,
    },
    "lcqmc": {
        **_PAIRS,
        "data.train": "train.tsv",
        "data.dev": "dev.tsv",
        "data.columns.text": "1",
        "data.columns.text_pair": "2",
        "data.columns.label": "3",
        "data.max_seq_length": 64,
    },
    "weibo_ner": {
        **_TAGS,
        "data.train": "weiboNER_2nd_conll.train",
        "data.dev": "weiboNER_2nd_conll.dev",
        "data.format": "conll",
        "data.strip_digit": True,
        "data.repair": True,  # ten tags of the training file break BIO
        "data.max_seq_length": 192,
        "run.num_train_epochs": 10.0,
    },
    "cluener": {
        **_TAGS,
        "data.train": "train.json",
        "data.dev": "dev.json",
        "data.format": "spans",
        "data.repair": True,  # entities of its training split overlap
    },
    "cmrc2018": {
        **_ANSWERS,
        "data.train": "cmrc2018_train.json",
        "data.dev": "cmrc2018_dev.json",
        "data.repair": True,  # some answers stand elsewhere in their context
        "data.max_answer_length": 200,  # whole sentences are asked for
    },
    "drcd": {
        **_ANSWERS,
        "data.train": "DRCD_training.json",
        "data.dev": "DRCD_dev.json",
        "data.max_answer_length": 50,
    },
}


def get_config(name: str):
    if name not in OPTIONS:
        raise ValueError(
            f"configs/finetune.py:{name}: write one of {', '.join(sorted(OPTIONS))}"
        )
    config = finetuning.default()
    config.update_from_flattened_dict(OPTIONS[name])
    return config
