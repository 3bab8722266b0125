"""Pretraining as a run, assembled from a corpus store and the configuration.

`assemble` returns the run; `pretrain.train` builds the store first.
"""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import optax
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.checkpoints import initial_weights
from bert_jax.config.pretraining import PretrainingConfig
from bert_jax.data import stream
from bert_jax.data.corpus import store
from bert_jax.data.pretraining import instances
from bert_jax.foundation import interrupts
from bert_jax.model import config as model_config
from bert_jax.model import costs
from bert_jax.runs.run import Batch, End, SingleRun
from bert_jax.tasks import pretraining
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import (
    distributed,
    guards,
    loop,
    optimizer,
    remote,
    sharding,
    state,
)

_ON_ACCURACY = (
    "mlm_accuracy is higher in training than in evaluations: training leaves 10 % of "
    "the tokens to predict unchanged, evaluations replace all of them by [MASK]"
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `pretrain.train` returns.

    Attributes:
      state: the last state.
      metrics: metrics of the last evaluation.
      workdir: folder of the run; for a URL, its working copy on this machine.
    """

    state: state.TrainState
    metrics: dict[str, float]
    workdir: Path

    def __repr__(self) -> str:
        """Returns the step and the metrics, without the arrays of the state."""
        count = sum(int(x.size) for x in jax.tree.leaves(self.state.params))
        shown = {name: round(value, 4) for name, value in self.metrics.items()}
        return (
            f"Trained(workdir={str(self.workdir)!r}, step={int(self.state.step)}, "
            f"parameters={count:,}, metrics={shown})"
        )


@dataclasses.dataclass(frozen=True, eq=False)
class PretrainingRun(SingleRun[Trained]):
    """A pretraining run.

    Attributes:
      settings: the configuration.
      tokenizer: the store's tokenizer.
      bert: the architecture, with the vocabulary of the tokenizer.
      task: masked tokens and sentence pairs.
      store_folder: folder of the corpus store.
      mesh: mesh of devices.
      workdir: folder of the run.
    """

    settings: PretrainingConfig
    tokenizer: Tokenizer
    bert: model_config.BertConfig
    task: pretraining.Pretraining
    store_folder: Path
    mesh: jax.sharding.Mesh
    workdir: Path
    _last: dict[str, float] = dataclasses.field(default_factory=dict, init=False)

    @functools.cached_property
    def phases(self) -> list[instances.Phase]:
        """Tables of training sequences: one, or a first one of shorter sequences."""
        data = self.settings.data
        instances_of = functools.cache(self._instances)
        return instances.plan_phases(
            instances_of,
            self._steps(instances_of(data.max_seq_length).num_rows),
            data.max_seq_length,
            data.first_seq_length,
            self.settings.first_steps,
        )

    @functools.cached_property
    def _train_split(self) -> store.Store:
        """The training documents, whose checksums are verified once."""
        return store.open_store(self.store_folder, "train")

    def _instances(self, length: int) -> instances.Instances:
        data = self.settings.data
        return instances.Instances(
            self._train_split,
            objective=data.objective,
            max_seq_length=length,
            short_seq_prob=data.short_seq_prob,
            seed=self.settings.run.seed,
            special_ids=(self.tokenizer.cls_id, self.tokenizer.sep_id),
            pack=data.pack,
        )

    def _steps(self, sequences: int) -> int:
        """Returns the steps of the run: as set, or from epochs of this many."""
        run = self.settings.run
        if run.num_train_steps != -1:
            return run.num_train_steps
        return max(1, round(run.num_train_epochs * sequences / run.batch_size))

    @property
    def num_train_steps(self) -> int:
        """Total number of steps of the run."""
        return self.phases[-1].last_step

    def init(self, key: jax.Array) -> PyTree:
        """Returns random parameters of the encoder and its heads."""
        return self.task.init(key)

    def make_optimizer(
        self, num_train_steps: int
    ) -> tuple[optax.GradientTransformation, optimizer.Schedule]:
        """Returns the optimizer and its learning rate by step."""
        config, steps = self.settings.optimizer, num_train_steps
        return optimizer.make(config, steps), optimizer.learning_rate(config, steps)

    @property
    def step_spec(self) -> state.StepSpec:
        """What a step computes, whatever its seed and rate."""
        task = self.task
        return state.StepSpec(
            task.prepare,
            task.weights,
            task.losses,
            accumulation_steps=self.settings.run.accumulation_steps,
        )

    def initial_state(self) -> state.TrainState:
        """Returns a randomly initialized state, or the weights of `init_from`."""
        settings, init = self.settings, self.task.init
        transformation = self._optimizer[0]
        if settings.init_from == "none":
            distributed.print_once("weights: randomly initialized (init_from is none)")
            key = jax.random.key(settings.run.seed)
            return interrupts.run_interruptible(
                lambda: state.create(init, key, transformation, self.mesh)
            )
        distributed.print_once(f"weights: {settings.init_from}")
        shapes = self.state_shapes
        params = initial_weights.read(
            settings, self.bert, self.tokenizer, shapes.params, init, self.workdir
        )
        return state.from_params(params, shapes, transformation)

    def batch_at(self, step: int) -> Batch:
        """Returns the sequences of a step that this process loads."""
        phase = instances.phase_at(self.phases, step)
        return phase.batch_at(step, self.settings.run.batch_size, self.local_rows)

    def names_at(self, step: int, rows: slice = slice(None)) -> list[str]:
        """Names the instances in these rows of the global batch."""
        phase = instances.phase_at(self.phases, step)
        return phase.names_at(step, self.settings.run.batch_size, rows)

    def first_step_of_lengths(self, start_step: int) -> dict[int, int]:
        """Returns the first step of each sequence length that is still to come."""
        return {
            phase.length: phase.first_step
            for phase in self.phases
            if start_step < phase.last_step
        }

    @property
    def segments(self) -> list[loop.Segment]:
        """Tokens and FLOPs of the steps, one segment a sequence length."""
        data, size = self.settings.data, self.settings.run.batch_size
        predicted = data.num_predictions / data.max_seq_length
        segments = []
        for phase in self.phases:
            attended = phase.rows.effective_length
            cost = costs.training_flops_per_token(self.bert, attended, predicted)
            tokens = size * phase.length
            segments.append(loop.Segment(phase.last_step, tokens, cost))
        return segments

    @functools.cached_property
    def held_out(self) -> pretraining.HeldOut:
        """The held-out documents, with the scores of the baselines on them."""
        data = self.settings.data
        rows = pretraining.held_out_rows(
            store.open_store(self.store_folder, "heldout"),
            data.objective,
            data.max_seq_length,
            self.tokenizer,
        )
        eval_step = sharding.jit(
            self.task.evaluate, self.mesh, out_shardings=sharding.replicated(self.mesh)
        )
        vocab_size, special_ids = self.tokenizer.vocab_size, self.tokenizer.special_ids
        return pretraining.HeldOut(
            self.task,
            rows,
            pretraining.count_tokens(self._train_split, vocab_size, special_ids),
            batch_size=self.settings.run.batch_size,
            local_rows=self.local_rows,
            evaluate=functools.partial(loop.evaluate, eval_step),
            to_devices=self.put,
        )

    def describe(self) -> str:
        """Describes the run: model, data and number of steps."""
        count = sum(
            math.prod(x.shape) for x in jax.tree.leaves(self.state_shapes.params)
        )
        run, bert = self.settings.run, self.bert
        attention = costs.describe(
            bert,
            run.execution(packed=self.settings.data.pack),
            [phase.length for phase in self.phases],
            run.batch_size // run.accumulation_steps,
            self.mesh,
        )
        lines = [
            f"model: {bert.num_hidden_layers} layers of width {bert.hidden_size}, "
            f"{count:,} parameters (vocabulary padded), {run.dtype}, on "
            f"{self.mesh.size} x {jax.devices()[0].device_kind}",
            attention,
            *(_describe_phase(phase, run.batch_size) for phase in self.phases),
            _ON_ACCURACY,
        ]
        return "\n".join(lines)

    def evaluate(
        self, step: int, state: state.TrainState, guard: guards.NonFiniteGuard
    ) -> loop.Evaluation:
        """Scores the held-out documents."""
        del guard  # one member
        metrics = self.held_out.metrics(state.params)
        self._last.clear()
        self._last.update(metrics)
        return loop.Evaluation(metrics, _summary(step, metrics))

    def finish(self, copy: remote.WorkingCopy, end: End) -> Trained:
        """Returns the last state and its evaluation."""
        metrics = self._last or self.held_out.metrics(end.state.params)
        return Trained(end.state, metrics, copy.folder)


def _describe_phase(phase: instances.Phase, batch_size: int) -> str:
    """Returns for how long sequences of one length are seen, and what they hold."""
    rows, steps = phase.rows, phase.last_step - phase.first_step
    epochs = steps * batch_size / rows.num_rows
    packed = ""
    if rows.fill is not None:
        packed = (
            f"{rows.num_instances:,} instances packed into {rows.num_rows:,} rows, at "
            f"most {rows.num_segments} in one, {rows.fill:.1%} of the positions used; "
        )
    return (
        f"plan: {steps:,} steps of {batch_size} rows of {phase.length} tokens, "
        f"{epochs:.1f} epochs of {rows.num_rows:,} rows\n"
        f"rows: {packed}{rows.num_long_sentences:,} sentences are longer than a row "
        "and are split"
    )


def _summary(step: int, metrics: dict[str, float]) -> str:
    """Returns an evaluation in one line."""
    names = ("mlm_loss", "mlm_accuracy", "nsp_accuracy", "unigram_accuracy")
    shown = [
        f"{name} {metrics[f'eval/{name}']:.4f}"
        for name in names
        if f"eval/{name}" in metrics
    ]
    return f"evaluation after step {step}: {'  '.join(shown)}"


def check(settings: PretrainingConfig) -> None:
    """Checks what does not need the store, which may take hours to build.

    Raises:
      InputError: devices, batch, model, vocabulary, schedule or loader do not fit, or
        nothing is held out.
    """
    data, run = settings.data, settings.run
    mesh = sharding.make_mesh(**dataclasses.asdict(settings.mesh))
    sharding.check_batch_size(run.batch_size, run.accumulation_steps, mesh)
    settings.bert(initial_weights.expected_vocab_size(settings))
    if run.num_train_steps != -1:
        optimizer.learning_rate(settings.optimizer, run.num_train_steps)
    stream.check_loader(data.loader)
    if not data.held_out_fraction:
        raise errors.InputError(
            "data.held_out_fraction is 0: training is evaluated on documents that are "
            "held out, so set it above 0, as in 0.01"
        )


def assemble(
    settings: PretrainingConfig, store_folder: Path, workdir: Path
) -> PretrainingRun:
    """Returns the run of a store that is built.

    Raises:
      InputError: the vocabulary, the model, the batch and the mesh do not fit.
    """
    tokenizer = Tokenizer.load(store_folder)
    built = store.read_manifest(store_folder)
    tokenized_with = built.tokenizer, built.vocab_size
    if tokenized_with != (tokenizer.fingerprint, tokenizer.vocab_size):
        raise errors.InputError(
            f"the store {store_folder} has another tokenizer than the one that its "
            "documents were tokenized with. Delete the store and build it again"
        )
    bert = settings.bert(tokenizer.vocab_size)
    run = settings.run
    mesh = sharding.make_mesh(**dataclasses.asdict(settings.mesh))
    sharding.check_batch_size(run.batch_size, run.accumulation_steps, mesh)
    task = pretraining.make(settings, bert, tokenizer.mask_id, tokenizer.special_ids)
    return PretrainingRun(settings, tokenizer, bert, task, store_folder, mesh, workdir)
