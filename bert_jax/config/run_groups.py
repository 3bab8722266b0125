"""The groups `mesh` and `run`, which pretraining and fine-tuning have alike."""

import dataclasses

from bert_jax import errors
from bert_jax.config import config_checks
from bert_jax.model import encoder
from bert_jax.training import loop


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices share the batch, the parameters and the matrices (-1 = rest)."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How long and how often.

    Attributes:
      seed: of weights, order, pairs, masks and dropout.
      batch_size: rows a step, over all devices.
      accumulation_steps: parts that a batch is computed in.
      num_train_steps: steps of the run; -1 takes `num_train_epochs`.
      num_train_epochs: passes over the instances; read if `num_train_steps` is -1.
      log_every_steps, eval_every_steps, save_every_steps: intervals.
      keep_checkpoints: newest checkpoints that stay.
      dtype: of activations and products, `float32` or `bfloat16`.
      unroll: layers a loop step; -1 unrolls all (fast to run, slow to compile).
      remat: what the backward pass recomputes: `none`, `dots` or `full`.
      attention: the kernel: `xla`, `cudnn` (NVIDIA GPUs), `splash` (TPUs), or `auto`
        for the fastest that can; the log says which, and why.
      log_examples: write which rows each step saw into `examples-PROCESS.jsonl`.
      max_bad_steps: steps of the run whose loss or gradients are not finite that are
        left out, of a sweep in each member; one more ends it.
      watchdog_seconds: a step that takes longer is reported, with what every thread
        does; 0 = never.
    """

    seed: int = 0
    batch_size: int = 256
    accumulation_steps: int = 1
    num_train_steps: int = 1000000
    num_train_epochs: float = -1.0
    log_every_steps: int = 100
    eval_every_steps: int = 10000
    save_every_steps: int = 10000
    keep_checkpoints: int = 3
    dtype: str = "float32"
    unroll: int = 1
    remat: str = "none"
    attention: str = "auto"
    log_examples: bool = False
    max_bad_steps: int = 0
    watchdog_seconds: int = 600

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation_steps", "keep_checkpoints"):
            config_checks.at_least(f"run.{name}", getattr(self, name), 1)
        for name in ("max_bad_steps", "watchdog_seconds"):
            config_checks.at_least(f"run.{name}", getattr(self, name), 0)
        self._check_intervals()
        config_checks.between("run.seed", self.seed, 0, 2**31 - 1)
        config_checks.count_or_rest("run.num_train_steps", self.num_train_steps)
        if self.num_train_steps == -1 and not self.num_train_epochs > 0:
            raise errors.InputError(
                "run.num_train_steps is -1, so run.num_train_epochs must be above 0; "
                f"found {self.num_train_epochs!r}"
            )
        if self.batch_size % self.accumulation_steps:
            raise errors.InputError(
                f"run.batch_size {self.batch_size} is not a multiple of "
                f"run.accumulation_steps {self.accumulation_steps}"
            )
        self.execution()

    def _check_intervals(self) -> None:
        for name in ("log_every_steps", "eval_every_steps", "save_every_steps"):
            config_checks.at_least(f"run.{name}", getattr(self, name), 1)

    def limits(self, num_train_steps: int, save_every_steps: int = 0) -> loop.Limits:
        """Returns what the loop is told; 0 saves as often as is set."""
        return loop.Limits(
            num_train_steps=num_train_steps,
            log_every_steps=self.log_every_steps,
            save_every_steps=save_every_steps or self.save_every_steps,
            max_bad_steps=self.max_bad_steps,
            watchdog_seconds=self.watchdog_seconds,
        )

    def execution(self, *, packed: bool = True) -> encoder.Execution:
        """Returns how the model runs; `packed` as in `encoder.Execution`."""
        return encoder.Execution(
            self.dtype, self.unroll, self.remat, self.attention, packed
        )
