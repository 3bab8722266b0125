"""A pretraining run, assembled from its settings and its store alone."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import optax

from bert_jax import errors
from bert_jax.config.pretraining import PretrainingConfig, RunConfig
from bert_jax.data import stream
from bert_jax.data.corpus import manifest, store
from bert_jax.data.pretraining import instances
from bert_jax.data.pretraining import phases as phase_rows
from bert_jax.model import config as model_config
from bert_jax.model import costs, heads
from bert_jax.tasks import pretraining
from bert_jax.tasks.masking import Masking
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import loop, optimizer, sharding, state


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The parts of a run, made from its settings and its store alone."""

    settings: PretrainingConfig
    tokenizer: Tokenizer
    bert: model_config.BertConfig
    task: pretraining.Pretraining
    store_folder: Path
    mesh: jax.sharding.Mesh

    def place(self, batch: dict[str, Any]) -> Any:
        """Puts this process's rows of a batch onto the mesh."""
        return sharding.place(batch, self.mesh, self.settings.run.batch_size)

    @property
    def local_rows(self) -> slice:
        """The rows of a global batch that this process makes."""
        return sharding.local_rows(self.settings.run.batch_size, self.mesh)

    def phases(self) -> list[phase_rows.Phase]:
        """Makes the tables of training rows: one, or a first one of shorter rows."""
        data = self.settings.data
        made = functools.cache(functools.partial(self._rows, self._train))
        return phase_rows.plan(
            made,
            self.num_train_steps(made(data.max_seq_length).num_rows),
            data.max_seq_length,
            data.first_seq_length,
            self.settings.first_steps,
        )

    @functools.cached_property
    def _train(self) -> store.Store:
        """The training documents, whose sums are looked at once."""
        return store.open_store(self.store_folder, "train")

    def _rows(self, opened: store.Store, length: int) -> instances.Instances:
        data = self.settings.data
        return instances.Instances(
            opened,
            objective=data.objective,
            max_seq_length=length,
            short_seq_prob=data.short_seq_prob,
            seed=self.settings.run.seed,
            cls_id=self.tokenizer.cls_id,
            sep_id=self.tokenizer.sep_id,
            pack=data.pack,
        )

    def held_out(self) -> pretraining.HeldOut:
        """Opens the held-out documents and scores the baselines on them."""
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
        special_ids = self.tokenizer.special_ids
        return pretraining.HeldOut(
            self.task,
            rows,
            pretraining.count_tokens(
                self._train, self.tokenizer.vocab_size, special_ids
            ),
            batch_size=self.settings.run.batch_size,
            local_rows=self.local_rows,
            evaluate=functools.partial(loop.evaluate, eval_step),
            place=self.place,
        )

    def optimizer(
        self, num_train_steps: int
    ) -> tuple[optax.GradientTransformation, optimizer.Schedule]:
        """Returns the optimizer and its learning rate by step."""
        config = self.settings.optimizer
        schedule = optimizer.learning_rate(config, num_train_steps)
        return optimizer.make(config, num_train_steps), schedule

    def speed(self, of_run: list[phase_rows.Phase]) -> loop.Speed:
        """Returns the meter of tokens per second and utilisation."""
        data, size = self.settings.data, self.settings.run.batch_size
        share = data.num_predictions / data.max_seq_length
        stretches = []
        for phase in of_run:
            attended = phase.rows.effective_length
            cost = costs.training_flops_per_token(self.bert, attended, share)
            tokens = size * phase.length
            stretches.append(loop.Stretch(phase.last_step, tokens, cost))
        return loop.Speed(stretches)

    def num_train_steps(self, rows: int) -> int:
        """Returns the steps of the run: as set, or from epochs of so many rows."""
        run = self.settings.run
        if run.num_train_steps != -1:
            return run.num_train_steps
        return max(1, round(run.num_train_epochs * rows / run.batch_size))


def check(settings: PretrainingConfig) -> None:
    """Checks what can be known without a store, which may take hours to build.

    Raises:
      InputError: devices, batch, model, vocabulary, schedule or loader do not fit, or
        nothing is held out.
    """
    data, run = settings.data, settings.run
    mesh = sharding.make_mesh(**dataclasses.asdict(settings.mesh))
    sharding.check_batch_size(run.batch_size, run.accumulation_steps, mesh)
    settings.bert(expected_vocab_size(settings))
    if run.num_train_steps != -1:
        optimizer.learning_rate(settings.optimizer, run.num_train_steps)
    stream.check_loader(data.loader)
    if not data.held_out_fraction:
        raise errors.InputError(
            "data.held_out_fraction is 0: training is evaluated on documents that are "
            "held out, so set it above 0, as in 0.01"
        )


def expected_vocab_size(settings: PretrainingConfig) -> int:
    """Returns how many pieces the vocabulary has, or will have at most.

    One that is learned may become smaller: `assemble` looks again.
    """
    if settings.text.vocab != "learn":
        return Tokenizer.load(Path(settings.text.vocab)).vocab_size
    given = "vocab_size" in settings.model
    return settings.model["vocab_size"] if given else settings.text.vocab_size


def assemble(settings: PretrainingConfig, store_folder: Path) -> Experiment:
    """Makes the parts of a run for a store that is there.

    Raises:
      InputError: the vocabulary, the model, the batch and the mesh do not fit.
    """
    tokenizer = Tokenizer.load(store_folder)
    built = manifest.read(store_folder)
    cut_with = built.tokenizer, built.vocab_size
    if cut_with != (tokenizer.fingerprint, tokenizer.vocab_size):
        raise errors.InputError(
            f"the store {store_folder} holds another tokenizer than the one that its "
            "documents were cut with: it was changed. Delete it and build it again"
        )
    bert = settings.bert(tokenizer.vocab_size)
    run = settings.run
    mesh = sharding.make_mesh(**dataclasses.asdict(settings.mesh))
    sharding.check_batch_size(run.batch_size, run.accumulation_steps, mesh)
    task = make_task(settings, bert, tokenizer.mask_id, tokenizer.special_ids)
    return Experiment(settings, tokenizer, bert, task, store_folder, mesh)


def make_task(
    settings: PretrainingConfig,
    bert: model_config.BertConfig,
    mask_id: int,
    special_ids: tuple[int, ...],
) -> pretraining.Pretraining:
    """Returns what the run of these settings learns, with the vocabulary of `bert`."""
    data = settings.data
    model = heads.BertForPreTraining(
        bert,
        settings.run.execution(packed=data.pack),
        data.objective != "full_sentences",
    )
    masking = Masking(
        masked_lm_prob=data.masked_lm_prob,
        max_predictions=data.num_predictions,
        max_seq_length=data.max_seq_length,
        whole_word=data.whole_word,
        max_ngram=data.max_ngram,
        mask_id=mask_id,
        special_ids=special_ids,
        vocab_size=bert.vocab_size,
    )
    evaluation = pretraining.eval_masking(masking, data.max_seq_length)
    return pretraining.Pretraining(model, masking, evaluation)


def make_train_step(
    run: RunConfig,
    task: pretraining.Pretraining,
    shapes: state.TrainState,
    transformation: optax.GradientTransformation,
    schedule: optimizer.Schedule,
) -> sharding.OnMesh:
    """Returns the jitted step of a run, for states of these shapes."""
    return state.make_train_step(
        task.prepare,
        task.weights,
        task.losses,
        transformation,
        shapes,
        seed=run.seed,
        accumulation_steps=run.accumulation_steps,
        schedule=schedule,
    )
