"""The steps of a distributed build as two Apache Beam pipelines.

Whatever runs Beam can run them: this machine, Dataflow, Flink, Spark. Workers need
this package with its extra `beam`, and see the corpus and the store under the names
that they have here. Apache Beam is imported inside.
"""

import contextlib
import io
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_origin

from bert_jax import errors
from bert_jax.data import distributed_steps, reports

# Their job servers know options that Beam in Python does not, and ask for them.
_PORTABLE = ("PortableRunner", "FlinkRunner", "SparkRunner")


@dataclass(frozen=True)
class Runner:
    """Runs the steps by the options of a pipeline; `name` is that of Beam's runner."""

    name: str
    options: Any

    def tokenise(self, steps: distributed_steps.Steps) -> None:
        """Runs the steps from sources to blocks and repeats, and notes the report."""
        self._run(lambda pipeline: _tokenise(pipeline, steps))

    def write(self, steps: distributed_steps.Steps, count: int) -> None:
        """Writes so many shards, each of which is planned."""
        self._run(lambda pipeline: _write(pipeline, steps, count))

    def _run(self, build: Callable[[Any], None]) -> None:
        """Builds a pipeline, runs it and waits for its end.

        Raises StorageError when it fails.
        """
        import apache_beam as beam

        pipeline = beam.Pipeline(options=self.options)
        build(pipeline)
        try:
            with _quiet():
                state = _finish(pipeline)
        except Exception as error:  # Every runner raises what it likes.
            raise _cause(error, self.name) from None
        if state != "DONE":
            raise errors.StorageError(
                f"the pipeline on {self.name} ended as {state}. Look at the runner's "
                "own log, and start again."
            )


def runner(name: str, arguments: Sequence[str]) -> Runner:
    """Returns the runner of a name with options of its own, as `--key=value`.

    Raises InputError when Apache Beam is not installed or an option is unknown.
    """
    pipeline_options = _import_options()
    try:
        with _complaint() as complaint:
            options = pipeline_options.PipelineOptions([f"--runner={name}", *arguments])
            known = options.get_all_options()
            every = options.get_all_options(retain_unknown_options=True)
    except SystemExit:
        text = complaint.getvalue().strip().rpartition("error: ")[2]
        raise errors.InputError(
            f"Apache Beam refuses an option: {text}. What stands behind `--` goes to it"
        ) from None
    unknown = [f"--{key}" for key in every.keys() - known.keys()]
    unknown += [word for word in arguments if not word.startswith("-")]
    if unknown and name not in _PORTABLE:
        raise errors.InputError(
            f"Apache Beam's {name} has no option {min(unknown)}. What stands behind "
            "`--` goes to it, written --name=value"
        )
    return Runner(name, options)


def _import_options() -> Any:
    """Imports the module of Beam's options."""
    try:
        from apache_beam.options import pipeline_options
    except ImportError as error:
        missing = errors.missing_extra("apache_beam", "beam")
        raise errors.InputError(
            f"{missing} in an environment of its own: its pins on protobuf and pyarrow "
            f"clash with those of other extras ({error})."
        ) from None
    return pipeline_options


@contextlib.contextmanager
def _complaint() -> Iterator[io.StringIO]:
    """Keeps what a parser of options prints before it ends the process."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        yield printed


def _tokenise(pipeline: Any, steps: distributed_steps.Steps) -> None:
    """Adds the steps from sources to blocks, repeats and the report."""
    import apache_beam as beam

    def only(label: str, kind: Any) -> Any:
        plain = get_origin(kind) or kind
        chosen = beam.Filter(lambda item: isinstance(item, plain))
        return label >> chosen.with_output_types(kind)

    sources = pipeline | beam.Create(range(len(steps.sources)))
    found = sources | "list files" >> beam.FlatMap(steps.parts)
    read = (
        found
        | only("parts", distributed_steps.Part)
        | "spread parts" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(steps.chunks)
    )
    tokenised = (
        read
        | only("chunks", distributed_steps.NamedChunk)
        | "spread chunks" >> beam.Reshuffle()
        | "tokenise" >> beam.FlatMap(steps.tokenise)
    )
    noted = (
        tokenised
        | only("hashes", tuple[int, distributed_steps.Hashes])
        | "by bucket" >> beam.GroupByKey()
        | "repeats" >> beam.FlatMap(lambda item: distributed_steps.repeats(item[1]))
        | "by block" >> beam.GroupByKey()
        | "note repeats" >> beam.MapTuple(steps.note_repeats)
    )
    several = [
        pcollection | only(f"reports {label}", reports.Report)
        for label, pcollection in enumerate((found, read, tokenised, noted))
    ]
    (
        several
        | beam.Flatten()
        | beam.CombineGlobally(reports.merge)
        | "note report" >> beam.Map(steps.note_report)
    )


def _write(pipeline: Any, steps: distributed_steps.Steps, count: int) -> None:
    """Adds the writing of shards."""
    import apache_beam as beam

    (
        pipeline
        | beam.Create(range(count))
        | beam.Reshuffle()
        | "write shards" >> beam.Map(steps.write)
    )


def _finish(pipeline: Any) -> str:
    """Runs a pipeline to its end and returns its state; a Ctrl-C ends it too."""
    result = pipeline.run()
    try:
        return result.wait_until_finish()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            result.cancel()
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Beam from logging tracebacks of what is raised as one message."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cause(error: Exception, name: str) -> errors.BertJaxError:
    """Returns our own error that a worker raised, or the last line of another."""
    own = re.findall(r"bert_jax\.errors\.(\w+Error): (.+)", str(error))
    if isinstance(error, errors.BertJaxError):
        own = [(type(error).__name__, str(error))]
    if own:
        kind, text = own[-1]
        return getattr(errors, kind)(re.sub(r" \[while running .*", "", text))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return errors.StorageError(
        f"the pipeline on {name} failed: {type(error).__name__}: {lines[-1]}. Look at "
        "the runner's own log, and start again."
    )
