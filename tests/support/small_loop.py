"""What the loop trains and where it writes, for tests: parts that may be replaced."""

import dataclasses
from collections.abc import Callable
from typing import Any

from bert_jax.training import guards, loop


@dataclasses.dataclass
class SmallRun:
    """A `loop.Trainable` made of functions."""

    train_step: Any
    limits: loop.Limits
    evaluation: Callable[[int, Any], Any] = lambda step, state: None
    examples_at: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {guards.SINGLE: lambda step: [f"example {step}"]}
    )
    listed: tuple[loop.Program, ...] = ()
    segments: tuple[loop.Segment, ...] = (loop.Segment(1000, 10, 1.0),)

    def programs(self, start_step):
        return self.listed

    def evaluate(self, step, state, guard):
        ends_run = self.evaluation(step, state)
        return loop.Evaluation({}, "", bool(ends_run))


@dataclasses.dataclass
class SmallRecorder:
    """A `loop.Recorder` made of functions; those that are missing do nothing."""

    log: Callable[[int, dict], None] = lambda step, values: None
    report: Callable[[int, dict], None] = lambda step, event: None
    save: Callable[[int, Any, Any], None] = lambda step, state, loop_state: None
    check_saves: Callable[[], None] = lambda: None

    def evaluated(self, step, evaluation):
        pass
