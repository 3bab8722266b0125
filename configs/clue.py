"""CLUE: ten tasks of understanding Chinese, one table.

    python -m bert_jax.suite --config=configs/clue.py --config.folder=DIR \
        --config.init_from=FOLDER --workdir=runs/clue

FOLDER is a run of `pretrain` or any model that `convert` reads. TFDS has no CLUE: DIR
has what CLUE's archives hold, each unpacked into a folder of its own, named as the task
or as the archive (afqmc/ or afqmc_public/, ...).

Left out: ChID, whose answers are in a second file that no reader joins.

Rates, epochs and row lengths are those of CLUE's own scripts for BERT
(github.com/CLUEbenchmark/CLUE, baselines/models_pytorch).
"""

from bert_jax.runs import suite

_FIGURES = (
    "Published: BERT-base on the hidden test sets, from the README of "
    "github.com/CLUEbenchmark/CLUE (arXiv:2004.05986); OCNLI from that of "
    "github.com/CLUEbenchmark/OCNLI (arXiv:2010.05444; 74.5 on dev). They are not "
    "those of dev. The board has none for DRCD."
)
_ZIP = "https://storage.googleapis.com/cluebenchmark/tasks"
_USUAL = suite.Files("train.json", "dev.json")
_COMMON = {
    "data.columns.id": "none",  # only some of the files number their examples
    "data.format": "jsonl",
    "data.max_seq_length": 128,
    "optimizer.learning_rate": 2e-5,
    "run.batch_size": 16,
    "run.num_train_epochs": 3.0,
}
_NLI = {
    **_COMMON,
    "data.task": "classification",
    "data.labels": "entailment,neutral,contradiction",
    "data.skip_labels": "-",  # the annotators did not agree
    "optimizer.learning_rate": 3e-5,
}
_ANSWERS = {
    "data.task": "span",
    "data.format": "squad",
    "data.max_seq_length": 512,
    "data.max_answer_length": 50,
    "data.repair": True,  # some answers stand a few characters elsewhere
    "optimizer.learning_rate": 3e-5,
    "run.batch_size": 32,
    "run.num_train_epochs": 2.0,
}


def _classes(names) -> dict:
    labels = ",".join(str(name) for name in names)
    return {**_COMMON, "data.task": "classification", "data.labels": labels}


def _newest(name: str, plain: str) -> tuple[suite.Submission, ...]:
    """Test files of version 1.1, or else of 1.0, whose answers are named apart."""
    return (
        suite.Submission(f"{name}11_predict.json", ("test1.1.json", plain)),
        suite.Submission(f"{name}10_predict.json", ("test1.0.json",)),
    )


AFQMC = suite.Task(
    name="afqmc",
    folders=("afqmc", "afqmc_public"),
    files=(_USUAL,),
    download=f"{_ZIP}/afqmc_public.zip",
    scores=(suite.Score("AFQMC", "dev/accuracy", ("73.70",)),),
    recipe=_classes((0, 1)),
    submissions=(suite.Submission("afqmc_predict.json", ("test.json",)),),
)
TNEWS = suite.Task(
    name="tnews",
    folders=("tnews", "tnews_public"),
    files=(_USUAL,),
    download=f"{_ZIP}/tnews_public.zip",
    scores=(suite.Score("TNEWS", "dev/accuracy", ("56.58",)),),
    recipe=_classes(x for x in range(100, 117) if x not in (105, 111)),
    submissions=_newest("tnews", "test.json"),
)
IFLYTEK = suite.Task(
    name="iflytek",
    folders=("iflytek", "iflytek_public"),
    files=(_USUAL,),
    download=f"{_ZIP}/iflytek_public.zip",
    scores=(suite.Score("IFLYTEK", "dev/accuracy", ("60.29",)),),
    recipe=_classes(range(119)),
    submissions=(suite.Submission("iflytek_predict.json", ("test.json",)),),
)
CMNLI = suite.Task(
    name="cmnli",
    folders=("cmnli", "cmnli_public"),
    files=(_USUAL,),
    download=f"{_ZIP}/cmnli_public.zip",
    scores=(suite.Score("CMNLI", "dev/accuracy", ("79.69",)),),
    recipe=_NLI,
    submissions=(suite.Submission("cmnli_predict.json", ("test.json",)),),
)
OCNLI = suite.Task(
    name="ocnli",
    folders=("ocnli", "ocnli_public"),
    files=(suite.Files("train.50k.json", "dev.json"), _USUAL),
    download=f"{_ZIP}/ocnli_public.zip",
    scores=(suite.Score("OCNLI", "dev/accuracy", ("72.2",)),),
    recipe={**_NLI, "run.num_train_epochs": 2.0},
    submissions=(suite.Submission("ocnli_50k_predict.json", ("test.json",)),),
)
WSC = suite.Task(
    name="wsc",
    folders=("wsc", "cluewsc2020", "cluewsc2020_public"),
    files=(_USUAL,),
    download=f"{_ZIP}/cluewsc2020_public.zip",
    scores=(suite.Score("CLUEWSC2020", "dev/accuracy", ("62.0",)),),
    recipe={
        **_classes(("false", "true")),
        "optimizer.learning_rate": 1e-5,
        "run.num_train_epochs": 50.0,
    },
    submissions=_newest("cluewsc", "test.json"),
)
CSL = suite.Task(
    name="csl",
    folders=("csl", "csl_public"),
    files=(_USUAL,),
    download=f"{_ZIP}/csl_public.zip",
    scores=(suite.Score("CSL", "dev/accuracy", ("80.36",)),),
    recipe={
        **_classes((0, 1)),
        "data.columns.text": "keyword",
        "data.columns.text_pair": "abst",
        "data.max_seq_length": 256,
        "optimizer.learning_rate": 1e-5,
        "run.batch_size": 8,
        "run.num_train_epochs": 5.0,
    },
    submissions=(suite.Submission("csl_predict.json", ("test.json",)),),
)
CMRC = suite.Task(
    name="cmrc2018",
    folders=("cmrc2018", "cmrc2018_public", "cmrc", "CMRC2018"),
    files=(
        _USUAL,
        suite.Files("cmrc2018_train.json", "cmrc2018_dev.json"),
    ),
    download=f"{_ZIP}/cmrc2018_public.zip",
    scores=(
        suite.Score("CMRC2018", "dev/exact_match", ("71.60",)),
        suite.Score("CMRC2018", "dev/f1"),
    ),
    recipe=_ANSWERS,
    submissions=(
        suite.Submission(
            "cmrc2018_predict.json", ("cmrc2018_test_2k.json", "test.json")
        ),
    ),
)
DRCD = suite.Task(
    name="drcd",
    folders=("drcd", "drcd_public", "DRCD"),
    files=(_USUAL, suite.Files("DRCD_training.json", "DRCD_dev.json")),
    download=f"{_ZIP}/drcd_public.zip",
    scores=(
        suite.Score("DRCD", "dev/exact_match"),
        suite.Score("DRCD", "dev/f1"),
    ),
    recipe=_ANSWERS,
)
C3 = suite.Task(
    name="c3",
    folders=("c3", "c3_public"),
    # Dialogues and other texts, as both c3-d-train.json and d-train.json are named.
    files=(
        suite.Files("d-train.json+m-train.json", "d-dev.json+m-dev.json"),
        suite.Files("c3-d-train.json+c3-m-train.json", "c3-d-dev.json+c3-m-dev.json"),
    ),
    download=f"{_ZIP}/c3_public.zip",
    scores=(suite.Score("C3", "dev/accuracy", ("64.50",)),),
    recipe={
        "data.task": "multiple_choice",
        "data.columns.id": "none",
        "data.format": "c3",
        "data.max_seq_length": 512,
        "data.truncation": "only_first",
        "optimizer.learning_rate": 2e-5,
        "run.batch_size": 24,
        "run.num_train_epochs": 8.0,
    },
    submissions=_newest("c3", "test.json"),
)
SUITE = suite.Suite(
    title="CLUE",
    tasks=(AFQMC, TNEWS, IFLYTEK, CMNLI, OCNLI, WSC, CSL, CMRC, DRCD, C3),
    models=("BERT-base",),
    about=_FIGURES,
    format="clue",
)


def get_config():
    config = suite.default(SUITE)
    config.sweep.seeds = 3
    return config
