"""How far and how fast: tokens per second, utilisation, a bar, the time left."""

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from bert_jax import console
from bert_jax.training import chips


class Stretch(NamedTuple):
    """Steps of a run that cost the same.

    Attributes:
      last_step: the last of them, steps being counted from 1.
      tokens: of the global batch, a step.
      flops_per_token: of training, by the project's formula.
    """

    last_step: int
    tokens: int
    flops_per_token: float


@runtime_checkable
class _Computed(Protocol):
    """An array that may still be computed, as `jax.Array`."""

    def is_ready(self) -> bool: ...


class Speed:
    """Measures tokens per second, MFU and the share of waiting, over whole steps.

    The time before the first step ends (compilation) and that before a `resume`
    (evaluation, saving) are not counted.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        *,
        clock: Callable[[], float] = time.perf_counter,
        peak_flops: float | None = None,
    ) -> None:
        """Takes the stretches of the run in their order.

        `peak_flops` is that of all devices together, by default as far as the chip is
        known.
        """
        self._stretches = stretches
        self._peak_flops = _peak_of_all() if peak_flops is None else peak_flops
        self._clock = clock
        self._started: float | None = None
        self._clear()

    def _clear(self) -> None:
        self._seconds = self._waited = self._saved = self._flops = 0.0
        self._tokens = 0

    def next_of(self, batches: Iterator[Any], running: Any = None) -> Any:
        """Returns the next batch.

        The time that it takes is waiting for the input, unless the devices still
        compute when it is there.

        Args:
          batches: where it comes from.
          running: what the step before returned, which may still be computed.
        """
        started = self._clock()
        batch = next(batches)
        if self._started is not None and _is_done(running):
            self._waited += self._clock() - started
        return batch

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Measures a save, or what of it the run has to wait for."""
        started = self._clock()
        yield
        self._saved += self._clock() - started

    def step_done(self, step: int) -> None:
        """Counts the step that has just ended, unless its start was not seen."""
        now = self._clock()
        if self._started is not None:
            of_step = next(x for x in self._stretches if step <= x.last_step)
            self._seconds += now - self._started
            self._tokens += of_step.tokens
            self._flops += of_step.tokens * of_step.flops_per_token
        self._started = now

    def resume(self) -> None:
        """Starts the clock for the step that begins now."""
        self._started = self._clock()

    def read(self) -> dict[str, float]:
        """Returns the rates since the last reading; empty if nothing was timed.

        `input_wait` is the share of the time in which the devices had nothing to do
        for want of a batch, at most. `save_wait`, which is there if the state was
        saved, is the share of the time, with saving, that this took.
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
        """Returns the time of the steps after `step`, at this rate."""
        tokens, before = 0, step
        for stretch in self._stretches:
            end = min(stretch.last_step, last_step)
            tokens += max(0, end - before) * stretch.tokens
            before = max(before, end)
        return tokens / tokens_per_second


def _is_done(running: Any) -> bool:
    leaves = jax.tree.leaves(running)
    return all(x.is_ready() for x in leaves if isinstance(x, _Computed))


def _peak_of_all() -> float | None:
    peak = chips.peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else peak * jax.device_count()


class Progress:
    """Shows a bar, and in a log a line at each logged step; see `console.Bar`."""

    def __init__(self, start_step: int, num_train_steps: int, speed: Speed) -> None:
        self._total = num_train_steps
        self._speed = speed
        self._bar = console.Bar(
            num_train_steps,
            "steps",
            "training",
            initial=start_step,
            smoothing=0.05,
            is_kept=True,
            is_shown=jax.process_index() == 0,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)

    def advance(self) -> None:
        """Counts one step more."""
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
        seconds = round(self._speed.seconds_left(step, self._total, rate))
        return f"  ETA {datetime.timedelta(seconds=seconds)}"


def _text(name: str, value: float) -> str:
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    if name == "mfu":
        return f"MFU {value:.1%}"
    if name in ("input_wait", "save_wait"):
        return f"{name.replace('_', ' ')} {value:.1%}"
    return f"{name} {value:.4g}"
