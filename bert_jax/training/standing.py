"""What a resumed run must know beside its state; saved with it, as JSON."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from bert_jax.training import metrics as sums_and_weights

# A loss is unusual when it is so many deviations above the mean, of which a step
# weighs so much, once so many steps were seen.
SPIKE_DEVIATIONS = 6.0
_WEIGHT = 0.05
_STEPS_SEEN = 50

ALONE = ""  # the name of the one member of a run that is no sweep


@dataclasses.dataclass
class Standing:
    """Where a run stands.

    Attributes:
      interval: the metrics since the last log, as (sum, weight).
      bad_steps: how many steps so far were not finite and left out, by the names of
        the members that have any.
      diverged: members that are out of a sweep, and after which step.
      callbacks_due: whether the callbacks of the last step are still to be called.
      seen, mean, variance: of the losses so far, the newer the more.
    """

    interval: sums_and_weights.Sums = dataclasses.field(default_factory=dict)
    bad_steps: dict[str, int] = dataclasses.field(default_factory=dict)
    diverged: dict[str, int] = dataclasses.field(default_factory=dict)
    callbacks_due: bool = False
    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def is_spike(self, loss: float) -> bool:
        """Returns whether a loss is far above the usual, and learns it if finite."""
        if not math.isfinite(loss):
            return False
        above = loss - self.mean
        enough = self.seen >= _STEPS_SEEN
        spike = enough and above > SPIKE_DEVIATIONS * math.sqrt(self.variance)
        weight = max(_WEIGHT, 1 / (self.seen + 1))
        self.seen += 1
        self.mean += weight * above
        self.variance = (1 - weight) * (self.variance + weight * above * above)
        return spike

    def count_bad(self, member: str) -> int:
        """Counts a step that is left out; returns how many of the member's were."""
        before = self.bad_steps[member] if member in self.bad_steps else 0
        self.bad_steps[member] = before + 1
        return before + 1

    def to_json(self) -> dict[str, Any]:
        """Returns what is saved."""
        return dataclasses.asdict(self)


def from_meta(meta: Mapping[str, Any]) -> Standing:
    """Returns what was saved with a checkpoint; earlier runs saved less.

    The object is under "standing", or only its "interval" is there. "bad_steps" may be
    one number, of the run as a whole.
    """
    saved = meta["standing"] if "standing" in meta else {"interval": meta["interval"]}
    read = {**saved, "interval": sums_and_weights.add({}, saved["interval"])}
    if "bad_steps" in saved and isinstance(bad := saved["bad_steps"], int):
        read["bad_steps"] = {ALONE: bad} if bad else {}
    return Standing(**read)
