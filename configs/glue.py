"""GLUE: nine tasks of understanding English, one table.

    python -m bert_jax.suite --config=configs/glue.py \
        --config.init_from=FOLDER --workdir=runs/glue

FOLDER is a run of `pretrain` or any model that `convert` reads. The data comes from
TFDS, or with `--config.folder=DIR` from the files of gluebenchmark.com: DIR has CoLA/,
SST-2/, MRPC/, STS-B/, QQP/, MNLI/, QNLI/, RTE/ and WNLI/ as they are unpacked.

As Devlin et al. 2018 (arXiv:1810.04805, section 4.1): 3 epochs of batches of 32 rows.
They took the best of four rates for each task; so does
`--config.sweep.learning_rates=2e-5,3e-5,4e-5,5e-5`.
"""

from bert_jax.runs import suite

_FIGURES = (
    "Published: BERT's own scores on the hidden test sets, from the GLUE server "
    "(arXiv:1810.04805, table 1), which are not those of dev; WNLI was left out there, "
    "and QQP and MRPC have F1 alone, STS-B Spearman."
)
_ZIP = "https://dl.fbaipublicfiles.com/glue/data"
_COMMON = {
    "data.columns.id": "none",  # numbers of examples, which the server wants
    "data.max_seq_length": 128,
    "optimizer.learning_rate": 3e-5,
    "run.batch_size": 32,
    "run.num_train_epochs": 3.0,
}
_TSV = {"data.format": "tsv"}
_USUAL = suite.Files("train.tsv", "dev.tsv", recipe=_TSV)


def _classes(*names: str) -> dict:
    labels = ",".join(names)
    return {**_COMMON, "data.task": "classification", "data.labels": labels}


def _tfds(name: str) -> suite.Files:
    return suite.Files(f"tfds:glue/{name}[train]", f"tfds:glue/{name}[validation]")


def _test(folder: str, name: str) -> tuple[suite.Submission, ...]:
    made = suite.Submission(f"{folder}.tsv", ("test.tsv",), f"tfds:glue/{name}[test]")
    return (made,)


COLA = suite.Task(
    name="cola",
    folders=("CoLA",),
    files=(
        # No header: source, label, the author's mark, sentence.
        suite.Files(
            "train.tsv",
            "dev.tsv",
            recipe={
                **_TSV,
                "data.header": "false",
                "data.columns.label": "2",
                "data.columns.text": "4",
            },
        ),
    ),
    tfds=_tfds("cola"),
    download=f"{_ZIP}/CoLA.zip",
    scores=(suite.Score("CoLA", "dev/matthews", ("52.1", "60.5")),),
    recipe=_classes("unacceptable", "acceptable"),
    submissions=_test("CoLA", "cola"),
    numbered=True,
)
SST2 = suite.Task(
    name="sst2",
    folders=("SST-2",),
    files=(_USUAL,),
    tfds=_tfds("sst2"),
    download=f"{_ZIP}/SST-2.zip",
    scores=(suite.Score("SST-2", "dev/accuracy", ("93.5", "94.9")),),
    recipe=_classes("negative", "positive"),
    submissions=_test("SST-2", "sst2"),
    numbered=True,
)
MRPC = suite.Task(
    name="mrpc",
    folders=("MRPC",),
    # Microsoft's own file has no dev part: a tenth is held out, by hash of content.
    files=(_USUAL, suite.Files("msr_paraphrase_train.txt", recipe=_TSV)),
    tfds=_tfds("mrpc"),
    download=(
        "msr_paraphrase_train.txt and msr_paraphrase_test.txt from "
        "https://dl.fbaipublicfiles.com/senteval/senteval_data"
    ),
    scores=(
        suite.Score("MRPC", "dev/f1", ("88.9", "89.3")),
        suite.Score("MRPC", "dev/accuracy"),
    ),
    recipe=_classes("not_equivalent", "equivalent"),
    submissions=(
        suite.Submission(
            "MRPC.tsv", ("test.tsv", "msr_paraphrase_test.txt"), "tfds:glue/mrpc[test]"
        ),
    ),
    numbered=True,
)
STSB = suite.Task(
    name="stsb",
    folders=("STS-B",),
    files=(_USUAL,),
    tfds=_tfds("stsb"),
    download=f"{_ZIP}/STS-B.zip",
    scores=(
        suite.Score("STS-B", "dev/spearman", ("85.8", "86.5")),
        suite.Score("STS-B", "dev/pearson"),
    ),
    recipe={**_COMMON, "data.task": "regression"},
    submissions=_test("STS-B", "stsb"),
)
QQP = suite.Task(
    name="qqp",
    folders=("QQP",),
    files=(_USUAL,),
    tfds=_tfds("qqp"),
    download=f"{_ZIP}/QQP-clean.zip",
    scores=(
        suite.Score("QQP", "dev/f1", ("71.2", "72.1")),
        suite.Score("QQP", "dev/accuracy"),
    ),
    # Some lines of the first release lack columns: they are left out and counted.
    recipe={**_classes("not_duplicate", "duplicate"), "data.repair": True},
    submissions=_test("QQP", "qqp"),
    numbered=True,
)
MNLI = suite.Task(
    name="mnli",
    folders=("MNLI",),
    files=(
        suite.Files("train.tsv", "dev_matched.tsv", "dev_mismatched.tsv", recipe=_TSV),
    ),
    tfds=suite.Files(
        "tfds:glue/mnli[train]",
        "tfds:glue/mnli[validation_matched]",
        "tfds:glue/mnli[validation_mismatched]",
    ),
    download=f"{_ZIP}/MNLI.zip",
    scores=(
        suite.Score("MNLI-m", "dev/accuracy", ("84.6", "86.7")),
        suite.Score("MNLI-mm", "test/accuracy", ("83.4", "85.9")),
    ),
    recipe=_classes("entailment", "neutral", "contradiction"),
    submissions=(
        suite.Submission(
            "MNLI-m.tsv", ("test_matched.tsv",), "tfds:glue/mnli[test_matched]"
        ),
        suite.Submission(
            "MNLI-mm.tsv", ("test_mismatched.tsv",), "tfds:glue/mnli[test_mismatched]"
        ),
        # The diagnostic examples are for a model of MNLI.
        suite.Submission(
            "AX.tsv",
            ("../AX.tsv", "../AX/AX.tsv", "../diagnostic/diagnostic.tsv"),
            "tfds:glue/ax[test]",
        ),
    ),
)
QNLI = suite.Task(
    name="qnli",
    folders=("QNLI",),
    files=(_USUAL,),
    tfds=_tfds("qnli"),
    download=f"{_ZIP}/QNLIv2.zip",
    scores=(suite.Score("QNLI", "dev/accuracy", ("90.5", "92.7")),),
    recipe=_classes("entailment", "not_entailment"),
    submissions=_test("QNLI", "qnli"),
)
RTE = suite.Task(
    name="rte",
    folders=("RTE",),
    files=(_USUAL,),
    tfds=_tfds("rte"),
    download=f"{_ZIP}/RTE.zip",
    scores=(suite.Score("RTE", "dev/accuracy", ("66.4", "70.1")),),
    recipe=_classes("entailment", "not_entailment"),
    submissions=_test("RTE", "rte"),
)
WNLI = suite.Task(
    name="wnli",
    folders=("WNLI",),
    files=(_USUAL,),
    tfds=_tfds("wnli"),
    download=f"{_ZIP}/WNLI.zip",
    scores=(suite.Score("WNLI", "dev/accuracy"),),
    recipe=_classes("not_entailment", "entailment"),
    submissions=_test("WNLI", "wnli"),
    numbered=True,
)
SUITE = suite.Suite(
    title="GLUE",
    tasks=(COLA, SST2, MRPC, STSB, QQP, MNLI, QNLI, RTE, WNLI),
    models=("BERT-base", "BERT-large"),
    about=_FIGURES,
    format="glue",
)


def get_config():
    config = suite.default(SUITE)
    config.sweep.seeds = 3
    return config
