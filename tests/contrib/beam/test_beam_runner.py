"""Apache Beam's direct runner: the bytes of one machine, and errors in one message.

What needs Apache Beam is skipped where it is not installed: it wants an environment of
its own (`pip install -e ".[beam]" pytest pytest-xdist`).
"""

import functools
import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import mixed_corpus
import pytest
import small_corpus

from bert_jax import errors
from bert_jax.contrib.beam import beam_engine, beam_runner
from bert_jax.data.corpus import sources, store, store_build

SPLIT = store.StoreOptions(0.2, True, "none", "none")
DIRECT = "--runner=DirectRunner"
TWO = ("--direct_num_workers=2", "--direct_running_mode=multi_processing")

with_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason='Apache Beam is not installed: pip install -e ".[beam]" elsewhere',
)
# Its own modules warn of each other while they are imported.
beam_warns = pytest.mark.filterwarnings("ignore")


def build(folder, several, tokenizer, *arguments):
    """Builds a store by Beam with these arguments, or without any on this machine."""
    engine = None
    if arguments:
        runner = beam_runner.runner(arguments)
        engine = functools.partial(beam_engine.fill_distributed, runner=runner)
    store_build.build(
        folder,
        sources=several,
        tokenizer=tokenizer,
        options=SPLIT,
        workers=1,
        progress=False,
        engine=engine,
        shard_tokens=900,
    )
    return small_corpus.bytes_of(folder)


@with_beam
@beam_warns
@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), TWO])
def test_every_file_is_that_of_one_machine(tmp_path, tokenizer, monkeypatch, workers):
    monkeypatch.setattr(beam_engine, "_CHUNK_CHARACTERS", 500)
    several = mixed_corpus.write(tmp_path / "text")
    expected = build(tmp_path / "local", several, tokenizer)
    assert build(tmp_path / "beam", several, tokenizer, DIRECT, *workers) == expected


@with_beam
@beam_warns
@pytest.mark.parametrize("workers", [(), TWO])
def test_a_bad_record_is_the_error_and_nothing_stays(tmp_path, tokenizer, workers):
    (tmp_path / "c.jsonl").write_text('{"text": "ab"}\n' * 9 + "{\n")
    several = sources.parse_sources(f"{tmp_path}/c.jsonl")
    with pytest.raises(errors.InputError, match=r"c\.jsonl:10:"):
        build(tmp_path / "s", several, tokenizer, DIRECT, *workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "v"]


@with_beam
@beam_warns
@pytest.mark.parametrize("workers", [(), TWO])
def test_an_error_in_a_worker_is_one_message(tmp_path, tokenizer, monkeypatch, workers):
    several = mixed_corpus.write(tmp_path / "text")

    def hidden(steps):
        steps.scratch.folder.rename(tmp_path / "away")
        return tokenize(steps)

    runner = beam_runner.runner([DIRECT, *workers])
    tokenize = runner.tokenize
    monkeypatch.setattr(
        beam_runner.BeamRunner, "tokenize", lambda _, steps: hidden(steps)
    )
    with pytest.raises(errors.StorageError) as caught:
        build(tmp_path / "s", several, tokenizer, DIRECT, *workers)
    assert "does not see" in str(caught.value)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


@with_beam
@beam_warns
@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            [DIRECT, "--direct_num_workrs=2"],
            "DirectRunner has no option --direct_num_w",
        ),
        ([DIRECT, "--direct_num_workers=two"], "invalid int value: 'two'"),
        ([DIRECT, "workers"], "has no option workers"),
        (["--runner=DirektRunner"], "DirektRunner"),
        (["--runner=DataflowRunner"], "Missing required option: project"),
    ],
)
def test_options_that_beam_does_not_take_are_refused(arguments, message, capfd):
    with pytest.raises(errors.InputError, match=message) as caught:
        beam_runner.runner(arguments)
    assert str(caught.value).startswith("Apache Beam rejects its options: ")
    assert "\n" not in str(caught.value)
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err and printed.out == ""


@with_beam
@beam_warns
def test_job_servers_have_options_of_their_own():
    runner = beam_runner.runner(["--runner=PortableRunner", "--made_up=1"])
    assert runner.name == "PortableRunner"


def test_without_beam_the_extra_and_its_environment_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(errors.InputError) as caught:
        beam_runner.runner([DIRECT])
    message = str(caught.value)
    assert 'pip install "bert_jax[beam]", in an environment of its own' in message
    assert "pins on protobuf and pyarrow clash" in message


@with_beam
@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), TWO])
@pytest.mark.parametrize("seen", ["blocks/train-*", "plan/*", "shards/*.arrow"])
def test_a_killed_build_leaves_no_store_and_the_next_one_is_whole(
    tmp_path, tokenizer, seen, workers
):
    mixed_corpus.write(tmp_path / "text")
    several = sources.parse_sources(f"{tmp_path}/text/text")
    runner = f"""from bert_jax.contrib.beam import beam_runner
runner = beam_runner.runner({[DIRECT, *workers]})"""
    program = mixed_corpus.builder(tmp_path, runner)
    process = subprocess.Popen(program, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(f".s.building/scratch-*/{seen}")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / ".s.building" / store.MANIFEST).exists()
    expected = build(tmp_path / "local", several, tokenizer)
    subprocess.run(program, check=True, stderr=subprocess.DEVNULL)
    assert small_corpus.bytes_of(tmp_path / "s") == expected
    left = sorted(path.name for path in Path(tmp_path).iterdir())
    assert left == ["local", "s", "text", "v"]
