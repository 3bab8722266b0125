"""How far and how fast: tokens per second, utilisation, a bar, the time left."""

import datetime
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType

import jax
import tqdm

from bert_jax.training import chips


class Speed:
    """Measures tokens per second and MFU over whole steps.

    The time before the first step ends (compilation) and the time between `pause` and
    the next `resume` (evaluation, saving) are not counted.
    """

    def __init__(
        self,
        tokens_per_step: int,
        flops_per_token: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        peak_flops: float | None = None,
    ) -> None:
        """Counts `tokens_per_step` of the global batch.

        `flops_per_token` are training FLOPs by the project's formula; `peak_flops` is
        that of all devices together, by default as far as the chip is known.
        """
        self._tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        self._peak_flops = _peak_of_all() if peak_flops is None else peak_flops
        self._clock = clock
        self._started: float | None = None
        self._seconds = 0.0
        self._steps = 0

    def step_done(self) -> None:
        """Counts the step that has just ended, unless its start was not seen."""
        now = self._clock()
        if self._started is not None:
            self._seconds += now - self._started
            self._steps += 1
        self._started = now

    def resume(self) -> None:
        """Starts the clock for the step that begins now."""
        self._started = self._clock()

    def read(self) -> dict[str, float]:
        """Returns the rates since the last reading; empty if nothing was timed."""
        if not self._steps or self._seconds <= 0:
            return {}
        tokens_per_second = self._steps * self._tokens_per_step / self._seconds
        rates = {"tokens_per_second": tokens_per_second}
        if self._peak_flops:
            rates["mfu"] = tokens_per_second * self._flops_per_token / self._peak_flops
        self._seconds, self._steps = 0.0, 0
        return rates

    def seconds_for(self, steps: int, tokens_per_second: float) -> float:
        """Returns the time that so many steps take at this rate."""
        return steps * self._tokens_per_step / tokens_per_second


def _peak_of_all() -> float | None:
    peak = chips.peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else peak * jax.device_count()


class Progress:
    """Shows a bar on a terminal, and elsewhere a line at each logged step (stderr)."""

    def __init__(self, start_step: int, num_train_steps: int, speed: Speed) -> None:
        self._total = num_train_steps
        self._speed = speed
        self._bar: tqdm.tqdm | None = None
        self._shown = jax.process_index() == 0
        if self._shown and sys.stderr.isatty():
            self._bar = tqdm.tqdm(
                total=num_train_steps, initial=start_step, unit="step", smoothing=0.05
            )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """Counts one step more."""
        if self._bar is not None:
            self._bar.update()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Shows the values logged at a step, and the time left."""
        text = "  ".join(_text(name, value) for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._shown:
            left = self._left(step, values)
            print(f"step {step}/{self._total}  {text}{left}", file=sys.stderr)

    def _left(self, step: int, values: Mapping[str, float]) -> str:
        if "tokens_per_second" not in values:
            return ""
        rate = values["tokens_per_second"]
        seconds = round(self._speed.seconds_for(self._total - step, rate))
        return f"  ETA {datetime.timedelta(seconds=seconds)}"


def _text(name: str, value: float) -> str:
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    if name == "mfu":
        return f"MFU {value:.1%}"
    return f"{name} {value:.4g}"
