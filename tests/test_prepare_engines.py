"""prepare's choice of engine: flags that do not fit are refused before work begins."""

import importlib.util
import sys

import command_line
import pytest
import tiny_run


@pytest.fixture
def prepare(tmp_path, monkeypatch, capfd):
    """Runs the command on a small corpus."""
    corpus = tiny_run.write_corpus(tmp_path / "text.txt")
    (tmp_path / "tiny.py").write_text(
        f"import tiny_run\ndef get_config(): return tiny_run.config({str(corpus)!r})\n"
    )

    def run(*arguments):
        where = (f"--config={tmp_path / 'tiny.py'}", f"--store={tmp_path / 's'}")
        return command_line.in_process(
            monkeypatch, capfd, "prepare", *where, *arguments
        )

    return run


def stores(tmp_path):
    return [path for path in tmp_path.iterdir() if path.is_dir()]


def test_beam_that_is_not_installed_is_one_message(prepare, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    done = prepare("--engine=beam", "--", "--direct_num_workers=2")
    assert done.code == 2
    assert 'pip install "bert_jax[beam]", in an environment of its own' in done.message
    assert stores(tmp_path) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--runner=DirectRunner"], "--runner is for --engine=beam"),
        (["--", "--direct_num_workers=2"], "unexpected argument '--direct_num_workers"),
        (["--engine=dask"], "should be one of <local|beam>"),
        (["--engine=beam", "--project=a"], "Unknown command line flag 'project'"),
    ],
)
def test_flags_that_do_not_fit_are_one_message(prepare, tmp_path, arguments, message):
    done = prepare(*arguments)
    assert done.code == 2 and message in done.message
    assert stores(tmp_path) == []


def test_an_object_store_is_no_place_for_a_store(prepare, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = prepare("--store=gs://bucket/zh")
    assert done.code == 2
    assert "gs://bucket/zh is in an object store" in done.message
    assert stores(tmp_path) == []


@pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason='Apache Beam is not installed: pip install -e ".[beam]" elsewhere',
)
@pytest.mark.filterwarnings("ignore")
def test_both_engines_say_and_write_the_same(prepare, tmp_path):
    here = prepare("--engine=local")
    (tmp_path / "s").rename(tmp_path / "here")
    there = prepare("--engine=beam", "--runner=DirectRunner")
    assert (here.code, there.code) == (0, 0), there.err
    assert here.out == there.out
    for path in (tmp_path / "here").iterdir():
        assert path.read_bytes() == (tmp_path / "s" / path.name).read_bytes()
    refused = prepare("--engine=beam", "--", "--direct_num_workrs=2")
    assert "DirectRunner has no option --direct_num_workrs" in refused.message
