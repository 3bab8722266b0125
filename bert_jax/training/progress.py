"""What a run shows while it trains: tokens per second, MFU, waiting and the time left.

`ThroughputMeter` times whole steps; `ProgressBar` shows what is logged: on a terminal a
bar, in a log a line at each logged step.
"""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from bert_jax import console
from bert_jax.training import devices


class Segment(NamedTuple):
    """Steps of a run that cost the same.

    Attributes:
      last_step: the last of these steps, counted from 1.
      tokens: tokens of the global batch in one step.
      flops_per_token: training FLOPs a token (see `model.costs`).
    """

    last_step: int
    tokens: int
    flops_per_token: float


@runtime_checkable
class _Computed(Protocol):
    """An array that may still be computed, as `jax.Array`."""

    def is_ready(self) -> bool: ...


class ThroughputMeter:
    """Measures tokens per second, MFU and time spent waiting, over whole steps.

    The time until the first step ends (compilation) and the time before a `resume`
    (evaluation, saving) are not counted.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        *,
        clock: Callable[[], float] = time.perf_counter,
        peak_flops: float | None = None,
    ) -> None:
        """Starts with nothing measured.

        Args:
          segments: segments of the run, in order.
          clock: function that returns seconds.
          peak_flops: FLOP/s of all devices together; by default from the table of
            chips, without MFU for a chip that is not in the table.
        """
        self._segments = segments
        self._peak_flops = _total_peak() if peak_flops is None else peak_flops
        self._clock = clock
        self._started: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._seconds = self._waited = self._saved = self._flops = 0.0
        self._tokens = 0

    def next_batch(self, batches: Iterator[Any], running: Any = None) -> Any:
        """Returns the next batch.

        The time it takes counts as waiting for input, unless the devices are still
        computing when the batch arrives.

        Args:
          batches: iterator of batches.
          running: result of the step before, which may still be being computed.
        """
        started = self._clock()
        batch = next(batches)
        if self._started is not None and _is_done(running):
            self._waited += self._clock() - started
        return batch

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Times the part of a save that the run has to wait for."""
        started = self._clock()
        yield
        self._saved += self._clock() - started

    def step_done(self, step: int) -> None:
        """Counts the step that has just ended, if its start was timed."""
        now = self._clock()
        if self._started is not None:
            segment = next(x for x in self._segments if step <= x.last_step)
            self._seconds += now - self._started
            self._tokens += segment.tokens
            self._flops += segment.tokens * segment.flops_per_token
        self._started = now

    def resume(self) -> None:
        """Restarts the clock for the step that starts now."""
        self._started = self._clock()

    def read(self) -> dict[str, float]:
        """Returns the rates since the last reading; empty if nothing was timed.

        `input_wait` is an upper bound of the fraction of the time in which the devices
        were idle for lack of a batch. `save_wait`, present if the state was saved, is
        the fraction of the time, saving included, that saving took.
        """
        if not self._tokens or self._seconds <= 0:
            return {}
        rates = {"tokens_per_second": self._tokens / self._seconds}
        rates["input_wait"] = self._waited / self._seconds
        if self._saved:
            rates["save_wait"] = self._saved / (self._seconds + self._saved)
        if self._peak_flops:
            rates["mfu"] = self._flops / self._seconds / self._peak_flops
        self._clear()
        return rates

    def seconds_left(
        self, step: int, last_step: int, tokens_per_second: float
    ) -> float:
        """Returns the seconds that the steps after `step` take, at this rate."""
        tokens, before = 0, step
        for segment in self._segments:
            end = min(segment.last_step, last_step)
            tokens += max(0, end - before) * segment.tokens
            before = max(before, end)
        return tokens / tokens_per_second


def _is_done(running: Any) -> bool:
    leaves = jax.tree.leaves(running)
    return all(x.is_ready() for x in leaves if isinstance(x, _Computed))


def _total_peak() -> float | None:
    peak = devices.peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else peak * jax.device_count()


class ProgressBar:
    """Shows a bar, and in a log a line at each logged step; see `console.Bar`."""

    def __init__(
        self, start_step: int, num_train_steps: int, meter: ThroughputMeter
    ) -> None:
        self._total = num_train_steps
        self._meter = meter
        self._bar = console.Bar(
            num_train_steps,
            "steps",
            "training",
            initial=start_step,
            is_kept=True,
            is_shown=jax.process_index() == 0,
        )

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)

    def advance(self) -> None:
        """Counts one more step."""
        self._bar.update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the values logged at a step, and the time left."""
        text = "  ".join(_text(name, value) for name, value in values.items())
        self._bar.note(text)
        self._bar.log(f"step {step}/{self._total}  {text}{self._left(step, values)}")

    def _left(self, step: int, values: Mapping[str, float]) -> str:
        if "tokens_per_second" not in values:
            return ""
        rate = values["tokens_per_second"]
        seconds = round(self._meter.seconds_left(step, self._total, rate))
        return f"  ETA {datetime.timedelta(seconds=seconds)}"


def _text(name: str, value: float) -> str:
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    if name == "mfu":
        return f"MFU {value:.1%}"
    if name in ("input_wait", "save_wait"):
        return f"{name.replace('_', ' ')} {value:.1%}"
    return f"{name} {value:.4g}"
