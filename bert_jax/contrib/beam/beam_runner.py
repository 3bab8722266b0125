"""Runs the steps of a distributed build as two Apache Beam pipelines.

Any Beam runner can run them: this machine, Dataflow, Flink, Spark. Workers need this
package with its extra `beam`, and must see the corpus and the store under the same
names as this machine. Apache Beam is imported inside.
"""

import contextlib
import importlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from bert_jax import errors
from bert_jax.contrib.beam import beam_engine
from bert_jax.foundation import interrupts

# Their job servers know options that Beam in Python does not.
_PORTABLE = ("PortableRunner", "FlinkRunner", "SparkRunner")


@dataclass(frozen=True)
class BeamRunner:
    """Runs the steps with pipeline options; `name` is the name of Beam's runner."""

    name: str
    options: Any

    def tokenize(self, steps: beam_engine.Steps) -> None:
        """Runs the steps from sources to blocks and duplicates; writes the report."""
        self._run(lambda pipeline: _tokenize(pipeline, steps))

    def write(self, steps: beam_engine.Steps, count: int) -> None:
        """Writes the planned shards."""
        self._run(lambda pipeline: _write(pipeline, steps, count))

    def _run(self, build: Callable[[Any], Any]) -> None:
        """Builds a pipeline, runs it and waits for its end.

        Raises StorageError if it fails.
        """
        pipeline = _import_beam().Pipeline(options=self.options)
        build(pipeline)
        try:
            with _quiet():
                state = _finish(pipeline)
        except Exception as error:  # Runners raise errors of any type.
            raise _cause(error, self.name) from None
        if state != "DONE":
            raise errors.StorageError(
                f"the pipeline on {self.name} ended as {state}. See the runner's log "
                "and start again."
            )


def runner(arguments: Sequence[str]) -> BeamRunner:
    """Returns the runner of arguments like `--runner=NAME --key=value`.

    Raises InputError if Apache Beam is not installed or rejects an argument.
    """
    parse = _import_beam().options.pipeline_options.PipelineOptions
    try:
        with _complaint() as complaint:
            options = parse(list(arguments))
            known = options.get_all_options()
            every = options.get_all_options(retain_unknown_options=True)
    except SystemExit:
        text = complaint.getvalue().strip().rpartition("error: ")[2]
        raise _refused(text) from None
    name = known["runner"] or "DirectRunner"
    unknown = [f"--{key}" for key in every.keys() - known.keys()]
    unknown += [word for word in arguments if not word.startswith("-")]
    if unknown and name not in _PORTABLE:
        raise _refused(f"{name} has no option {min(unknown)}")
    _check(options)
    return BeamRunner(name, options)


def _check(options: Any) -> None:
    """Raises InputError for a runner that does not exist or lacks an option."""
    try:
        with _quiet():
            _import_beam().Pipeline(options=options)
    except Exception as error:  # Runners check their options in their own way.
        raise _refused(" ".join(str(error).split())) from None


def _refused(reason: str) -> errors.InputError:
    """Returns the error for options that Apache Beam rejects."""
    return errors.InputError(
        f"Apache Beam rejects its options: {reason.rstrip('.')}. They are --runner and "
        "the arguments after `--`, in the form --name=value."
    )


def _import_beam() -> Any:
    """Imports Apache Beam, which needs its own environment."""
    try:
        with _quiet():
            importlib.import_module("apache_beam.options.pipeline_options")
            return importlib.import_module("apache_beam")
    except ImportError as error:
        missing = errors.missing_extra("apache_beam", "beam")
        raise errors.InputError(
            f"{missing}, in an environment of its own: its pins on protobuf and "
            f"pyarrow clash with other extras ({error})."
        ) from None


@contextlib.contextmanager
def _complaint() -> Iterator[io.StringIO]:
    """Captures what an option parser prints before it exits."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        yield printed


def _tokenize(pipeline: Any, steps: beam_engine.Steps) -> Any:
    """Adds the steps from sources to blocks and duplicates; returns the report's."""
    beam = _import_beam()

    def only(label: str, kind: Any) -> Any:
        plain = get_origin(kind) or kind
        chosen = beam.Filter(lambda item: isinstance(item, plain))
        return label >> chosen.with_output_types(kind)

    sources = pipeline | beam.Create(range(len(steps.sources)))
    found = sources | "list files" >> beam.FlatMap(steps.parts)
    read = (
        found
        | only("parts", beam_engine.SourcePart)
        | "spread parts" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(steps.chunks)
    )
    tokenized = (
        read
        | only("chunks", beam_engine.NamedChunk)
        | "spread chunks" >> beam.Reshuffle()
        | "tokenize" >> beam.FlatMap(steps.tokenize)
    )
    noted = (
        tokenized
        | only("hashes", tuple[int, beam_engine.Hashes])
        | "by bucket" >> beam.GroupByKey()
        | "repeats" >> beam.FlatMap(lambda item: beam_engine.repeats(item[1]))
        | "by block" >> beam.GroupByKey()
        | "note repeats" >> beam.MapTuple(steps.note_repeats)
    )
    several = [
        pcollection | only(f"reports {label}", beam_engine.BuildReport)
        for label, pcollection in enumerate((found, read, tokenized, noted))
    ]
    return (
        several
        | beam.Flatten()
        | beam.CombineGlobally(beam_engine.merge)
        | "note report" >> beam.Map(steps.note_report)
    )


def _write(pipeline: Any, steps: beam_engine.Steps, count: int) -> Any:
    """Adds the step that writes shards, and returns it."""
    beam = _import_beam()

    return (
        pipeline
        | beam.Create(range(count))
        | beam.Reshuffle()
        | "write shards" >> beam.Map(steps.write)
    )


def _finish(pipeline: Any) -> str:
    """Runs a pipeline and returns its final state; Ctrl-C cancels it."""
    result = interrupts.run_in_thread(pipeline.run)
    try:
        return interrupts.run_in_thread(result.wait_until_finish, waits=True)
    except (KeyboardInterrupt, interrupts.SignalReceived):
        with contextlib.suppress(Exception):
            result.cancel()
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Beam from logging tracebacks of errors that are raised anyway."""
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _cause(error: Exception, name: str) -> errors.BertJaxError:
    """Returns the error of this package that a worker raised, or a StorageError."""
    own = re.findall(r"bert_jax\.errors\.(\w+Error): (.+)", str(error))
    if isinstance(error, errors.BertJaxError):
        own = [(type(error).__name__, str(error))]
    if own:
        kind, text = own[-1]
        return getattr(errors, kind)(re.sub(r" \[while running .*", "", text))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return errors.StorageError(
        f"the pipeline on {name} failed: {type(error).__name__}: {lines[-1]}. See "
        "the runner's log and start again."
    )
