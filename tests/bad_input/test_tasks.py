"""What labelled files and the options of a fine-tuning run can have wrong."""

import gzip

import pytest
import small_place
import tiny_models


@pytest.fixture
def finetune(shell, tasks, tmp_path):
    """Starts a run that must end at once: exit code 2, one message, nothing left."""

    def run(*arguments, config=tasks / "tiny.py"):
        before = small_place.files(tmp_path)
        done = shell(
            "finetune",
            f"--config={config}",
            f"--workdir={tmp_path / 'run'}",
            *arguments,
        )
        assert (done.code, done.out) == (2, ""), done.err
        assert small_place.files(tmp_path) == before
        assert not (tmp_path / "run").exists()
        return done.message

    return run


HEAD = "sentence\tlabel\n"
GOOD = f"{HEAD}a cat\tcat\na dog\tdog\nthe cat\tcat\nthe dog\tdog\n"
# Name, content, task, and what is said of it; FILE stands for its path.
TRAIN = [
    ("a.tsv", f"{GOOD}a\tcat\tx\n", "classification", "FILE:6 has 3 columns, and line"),
    ("a.tsv", f"{GOOD}a cat\n", "classification", "FILE:6 has 1 column, and line 1"),
    ("a.tsv", f"{GOOD}a cat\t\n", "classification", "FILE:6: the label is missing"),
    ("a.tsv", f"{GOOD}\tcat\n", "classification", "FILE:6: the text in 'sentence' is"),
    ("a.tsv", f"{GOOD} \tcat\n", "classification", "FILE:6: the text in 'sentence' is"),
    ("a.tsv", f"{GOOD}a\tbird\n", "classification", "FILE:6: the class 'bird' is seen"),
    ("a.tsv", f"{HEAD}a\tx\nb\tx\n", "classification", "FILE has 1 class (x)"),
    ("a.tsv", HEAD, "classification", "FILE has no example"),
    ("a.tsv", "", "classification", "FILE is empty"),
    (
        "a.tsv",
        f"{GOOD}那只猫很好\tcat\n".encode("gbk"),
        "classification",
        "FILE:6: byte 1 of the line (0xc4) is not UTF-8",
    ),
    ("a.tsv", GOOD.encode("utf-16"), "classification", "FILE is UTF-16. Convert it"),
    (
        "a.tsv",
        gzip.compress(GOOD.encode(), mtime=0)[:-9],
        "classification",
        "FILE is a damaged",
    ),
    (
        "a.tsv",
        "id\tsentence\tlabel\n7\ta\tx\n8\tb\ty\n7\tc\tx\n",
        "classification",
        "FILE:4: the id '7' came before, at FILE:2",
    ),
    (
        "a.tsv",
        "sentence\tsentence\tlabel\na\tb\tx\n",
        "classification",
        "FILE:1: two columns have the name 'sentence'",
    ),
    (
        "a.jsonl",
        '{"phrase": "a", "kind": "b"}\n',
        "classification",
        "FILE:1: which column has the text cannot be told from 'phrase', 'kind'",
    ),
    (
        "a.jsonl",
        '{"text": "a", "label": "x"}\n{"text":\n',
        "classification",
        "FILE:2 is not JSON",
    ),
    ("a.jsonl", '{"text": 3, "label": "x"}\n', "classification", "FILE:1: "),
    ("a.csv", 'text,label\n"a,x\n', "classification", "FILE:2: the row that begins"),
    ("a.txt", "no tab here\n", "classification", "FILE does not show its format"),
    ("a.tsv", "text\tscore\na\tnan\nb\t1\n", "regression", "FILE:2: the score is"),
    ("a.tsv", "text\tscore\na\tinf\nb\t1\n", "regression", "FILE:2: the score is"),
    ("a.tsv", "text\tscore\na\tgood\nb\t1\n", "regression", "FILE:2: the score is"),
    ("a.tsv", "text\tscore\na\t\nb\t1\n", "regression", "FILE:2: the score is missing"),
    (
        "a.tsv",
        "sentence1\tsentence2\tlabel\na\tb\t1\na\tb\t\n",
        "matching",
        "FILE:3: the label is missing, and 1 of 2 examples have one",
    ),
    ("a.conll", "the O\ncat\n\n", "tagging", "FILE:2 has 1 column, and line 1 has 2"),
    (
        "a.conll",
        "the O\ncat B-A\ndog I-B\n",
        "tagging",
        "FILE:1: the tags of token 3 ('dog') of the sentence break BIO: I-B after B-A",
    ),
    ("a.conllu", "1\tcat\t_\n", "srl", "FILE:1: there is no column '11'"),
    (
        "a.json",
        small_place.squad(1),
        "span",
        "(question q1): the answer 'cat' does not stand at",
    ),
    ("a.json", small_place.squad(99), "span", "does not stand at its answer_start 99"),
    ("a.json", small_place.squad(-1), "span", "answer_start"),
    (
        "a.json",
        small_place.squad(4, count=2),
        "span",
        "(question q1): the id 'q1' came before",
    ),
    ("a.json", small_place.squad(4)[:-9], "span", "FILE is not JSON"),
    ("a.json", '{"data": []}', "span", "FILE has no example"),
    (
        "a.jsonl",
        '{"context": "a", "choices": ["b", "c"], "label": 2}\n',
        "multiple_choice",
        "FILE:1: the label '2' is none of the 2 choices",
    ),
    (
        "a.jsonl",
        '{"context": "a", "choices": ["b"], "label": 0}\n',
        "multiple_choice",
        "FILE:1: 'choices' has no list of two or more",
    ),
]


@pytest.mark.parametrize(
    ("name", "content", "task", "words"), TRAIN, ids=[x[3][:50] for x in TRAIN]
)
def test_a_training_file(finetune, tmp_path, name, content, task, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = finetune(f"--config.data.train={path}", f"--config.data.task={task}")
    assert words.replace("FILE", str(path)) in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            f"{HEAD}a\tcat\nb\tbird\n",
            "FILE:3: the label 'bird' is none of the 2 of the",
        ),
        (f"{HEAD}a\t\n", "FILE:2: the label is missing"),
        ("phrase\nthe cat\n", "FILE:1: which column has the label cannot be told from"),
        ("sentence\nthe cat\n", "which column has the label cannot be told from 'sen"),
    ],
)
def test_a_dev_file(finetune, tmp_path, content, words):
    (tmp_path / "d.tsv").write_text(content)
    message = finetune(f"--config.data.dev={tmp_path / 'd.tsv'}")
    assert words.replace("FILE", str(tmp_path / "d.tsv")) in message


def test_columns_that_are_named_wrongly_say_which_exist(finetune, tmp_path):
    (tmp_path / "a.tsv").write_text("phrase\tkind\na cat\tcat\n")
    message = finetune(
        f"--config.data.train={tmp_path / 'a.tsv'}", "--config.data.columns.text=text"
    )
    assert "no column 'text' for data.columns.text, only 'phrase', 'kind'" in message


OPTIONS = [
    (["init_from="], "init_from is empty: name the folder"),
    (["init_from=FOLDER"], "leave model.size and text.vocab at init_from"),
    (["text.vocab=init_from"], "init_from is none: say which architecture and vocab"),
    (["text.vocab=nope.txt"], "nope.txt does not exist. Give the path of a vocab"),
    (["text.vocab=FOLDER"], "holds neither vocab.txt"),
    (["model.size=vast"], "unknown model size 'vast'"),
    (["data.train=FOLDER"], "cannot be read (Is a directory)"),
    (["data.train=nope.tsv"], "nope.tsv does not exist"),
    (["data.train="], "data.train is empty: name a file"),
    (["data.task=clasification"], "use one of classification, regression, tagging"),
    (["data.task=tagging", "data.format=tsv"], "data.format is 'tsv': use one of auto"),
    (["data.format=conll"], "data.format is 'conll': use one of auto, tsv, csv"),
    (["data.trian=x"], "unknown config key data.trian. Did you mean data.train?"),
    (["sweep.seed=3"], "unknown config key sweep.seed. Did you mean sweep.seeds?"),
    (["data.columns.txt=3"], "unknown config key data.columns.txt. Did you mean data"),
    (["data.labels=cat"], "data.labels is 'cat', no file, and names 1 class"),
    (["data.labels=nope.txt"], "data.labels is 'nope.txt', no file, and names 1 class"),
    (["data.labels=cat,cat"], "data.labels names 'cat' twice"),
    (["data.labels=cat,bird"], "the label 'dog' is none of the 2 of the model"),
    (["data.max_seq_length=25"], "exceeds the 24 positions of the model"),
    (["data.truncation=cut"], "use one of longest_first"),
    (["data.dev=", "data.folds=21"], "21 folds are more than the 20 different texts"),
    (["data.dev=", "data.folds=3", "data.fold=3"], "are numbered from 0"),
    (["data.dev=", "sweep.folds=21"], "21 folds are more than the 20 different texts"),
    (["sweep.folds=3"], "sweep.folds scores on parts of data.train"),
    (["sweep.folds=1"], "folds are 2 or more"),
    (["sweep.learning_rates=1e-3"], "has one rate, 0.001"),
    (["sweep.learning_rates=1e-3,1e-3"], "a rate that comes twice"),
    (["sweep.learning_rates=1e-3,fast"], "give numbers with commas"),
    (["sweep.seeds=0"], "sweep.seeds is 0"),
    (["head.objective=simcse"], "which is for matching, and data.task is classif"),
    (["head.temperature=1"], "which is for matching"),
    (["head.crf=true"], "head.crf is True, which is for tagging, srl"),
    (["head.pooling=bilstm"], "set head.recurrent_size"),
    (["head.recurrent_size=8"], "head.pooling 'cls', which does not read the BiLSTM"),
    (["init.head=given"], "init asks for weights to start from"),
    (["recipe.class_weights=1,2,3"], "has 3 numbers, and there are 2 classes (cat"),
    (["recipe.class_weights=nan,1"], "give finite numbers from 0 on"),
    (["recipe.class_weights=0,0"], "and not 0 alone"),
    (["recipe.class_weights=-1,1"], "give finite numbers from 0 on"),
    (["recipe.class_weights=rare"], "give numbers with commas"),
    (
        ["data.task=regression", "recipe.class_weights=balanced"],
        "recipe.class_weights is 'balanced', which is for classification",
    ),
    (["recipe.frozen_layers=3"], "the layers to freeze are 3: this model has 2"),
    (["recipe.reinit_layers=3"], "the layers to draw anew are 3: this model has 2"),
    (["recipe.lora_alpha=8"], "recipe.lora_rank is 0"),
    (["run.keep_best=f2"], "run.keep_best is 'f2': classification has accuracy"),
    (["run.batch_size=0"], "run.batch_size is 0"),
    (["run.batch_size=6", "run.accumulation_steps=4"], "is not a multiple of"),
    (["mesh.data=3"], "3 = mesh.data"),
    (["optimizer.learning_rate=nan"], "at most 1; found nan"),
]


@pytest.mark.parametrize(("changes", "words"), OPTIONS, ids=lambda x: str(x)[:60])
def test_an_option(finetune, tmp_path, changes, words):
    (tmp_path / "folder").mkdir()
    given = [c.replace("FOLDER", str(tmp_path / "folder")) for c in changes]
    assert words in finetune(*(f"--config.{change}" for change in given))


@pytest.fixture
def given(finetune, tmp_path):
    """Starts a run from a folder with weights."""

    def run(folder, *changes):
        (tmp_path / "given.py").write_text(
            "from bert_jax.settings import finetuning_configuration\n"
            "def get_config():\n"
            "    config = finetuning_configuration.default()\n"
            "    config.mesh.data, config.data.max_seq_length = 1, 24\n"
            "    return config\n"
        )
        return finetune(
            f"--config.init_from={folder}",
            *(f"--config.{change}" for change in changes),
            config=tmp_path / "given.py",
        )

    return run


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("nope", [], "nope does not exist: give the folder of a model"),
        ("empty", [], "empty holds no model: expected checkpoints/ of a run"),
        ("span", ["init.head=given"], "span names no classes: give a model for cla"),
        ("span", ["model.num_hidden_layers=3"], "model.num_hidden_layers is 3, and th"),
        ("span", ["data.max_seq_length=32"], "exceeds the 24 positions of the model"),
        ("span", ["recipe.reinit_layers=3"], "this model has 2"),
        ("span", ["recipe.lora_rank=2"], "leaves the pooler as it is, and that of"),
    ],
)
def test_weights_to_start_from(given, tasks, tmp_path, kind, changes, words):
    (tmp_path / "empty").mkdir()
    if kind == "span":
        tiny_models.write_model(tasks, tmp_path / "span", "span")
    files = (f"data.train={tasks / 'train.tsv'}", f"data.dev={tasks / 'dev.tsv'}")
    assert words in given(tmp_path / kind, *files, *changes)
