"""A fine-tuning run, assembled from its settings: data, task, model, optimizer."""

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import jax
import optax
from flax import linen as nn
from jaxtyping import PyTree

from bert_jax import commands, errors, json_file, tasks
from bert_jax.checkpoints import initial_weights, mapping, run_folder, task_folders
from bert_jax.config import finetuning
from bert_jax.data import stream
from bert_jax.data.labeled import example_rows
from bert_jax.model import config as model_config
from bert_jax.model import costs, lora, parts, task_model
from bert_jax.runs import predictor, splits, task_setup
from bert_jax.tasks import spec
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import logs, loop, optimizer, saved_steps, sharding, state

Settings = finetuning.FinetuningConfig
LORA = "lora"
_ADAPTED = ("query", "value")  # as in arXiv:2106.09685, section 5.1
_EMBEDDING = ("encoder", "embeddings", "word_embeddings", "embedding")


@dataclasses.dataclass(frozen=True, eq=False)
class FinetuningRun:
    """The parts of a run, made from its settings and its files alone."""

    settings: Settings
    start: initial_weights.Start
    learned: spec.Metadata
    task: spec.FineTuned
    mesh: jax.sharding.Mesh
    train: splits.Split
    dev: splits.Split
    test: splits.Split | None

    @functools.cached_property
    def shapes(self) -> PyTree:
        """The parameters that are trained, as shapes with shardings."""
        return state.abstract_params(self.init, self.mesh)

    def rows(
        self, seed: int, folds: int = 0, fold: int = 0
    ) -> example_rows.TrainingRows:
        """Returns the batches of training with a seed, one fold left out."""
        run, data = self.settings.run, self.settings.data
        return example_rows.TrainingRows(
            self.train.table,
            run.batch_size,
            seed,
            data.num_lengths,
            folds,
            fold,
            pack=data.pack,
            multiple=sharding.row_shards(self.mesh),
        )

    def num_train_steps(self, rows: example_rows.TrainingRows) -> int:
        """Returns the steps of the run: as set, or from epochs."""
        run = self.settings.run
        if run.num_train_steps != -1:
            return run.num_train_steps
        return max(1, round(run.num_train_epochs * rows.steps_per_epoch))

    def dev_of(self, rows: example_rows.TrainingRows) -> splits.Split:
        """Returns what a run with these training rows is scored on."""
        return self.train.part("dev", rows.is_held_out) if rows.folds else self.dev

    def interval(self, every_steps: int, rows: example_rows.TrainingRows) -> int:
        """Returns an interval in steps; -1 is an epoch."""
        return rows.steps_per_epoch if every_steps == -1 else every_steps

    def init(self, key: jax.Array) -> PyTree:
        """Draws all that is trained: the task's model, and what LoRA adds."""
        params = self.task.init(key)
        rank = self.settings.recipe.lora_rank
        if not rank:
            return params
        return {
            **params,
            LORA: lora.init(key, nn.unbox(params["encoder"]), _ADAPTED, rank),
        }

    def full(self, params: PyTree) -> PyTree:
        """Returns the parameters of the task's model from those that are trained."""
        if LORA not in params:
            return params
        rest = {name: tree for name, tree in params.items() if name != LORA}
        alpha = self.settings.recipe.lora_alpha
        return rest | {"encoder": lora.merge(rest["encoder"], params[LORA], alpha)}

    def losses(self, params: PyTree, batch: Any, key: jax.Array) -> Any:
        """Returns the losses of a batch."""
        return self.task.losses(self.full(params), batch, key)

    def parameters(self, shapes: PyTree, seed: int) -> PyTree:
        """Returns the parameters that a seed begins with."""
        params = initial_weights.parameters(self.start, shapes, self.init, seed)
        count = self.settings.recipe.reinit_layers
        if not count:
            return params
        drawn = initial_weights.drawn(seed, shapes, self.init, frozenset(shapes))
        layers = self.start.bert.num_hidden_layers
        return optimizer.replace_top_layers(params, drawn, count, num_layers=layers)

    @functools.cached_property
    def scales(self) -> PyTree | None:
        """What each parameter's update is multiplied by, or None for one."""
        recipe = self.settings.recipe
        heads = tuple(n for n in self.shapes if n not in ("encoder", "pooler"))
        if recipe.layer_decay == 1.0 and recipe.frozen_layers < 0:
            if not recipe.lora_rank:
                return None
        return optimizer.layer_scales(
            self.shapes,
            num_layers=self.start.bert.num_hidden_layers,
            below=("encoder", "embeddings"),
            layer_decay=recipe.layer_decay,
            frozen_layers=max(recipe.frozen_layers, 0),
            freeze_below=recipe.frozen_layers >= 0,
            trained_parts=heads if recipe.lora_rank else (),
        )

    def train_step(
        self,
        transformation: optax.GradientTransformation,
        shapes: state.TrainState,
        schedule: optimizer.Schedule,
    ) -> Any:
        """Returns the jitted step of this run, from what `optimizer` made."""
        return state.make_train_step(
            self.task.prepare,
            self.task.weights,
            self.losses,
            transformation,
            shapes,
            seed=self.settings.run.seed,
            accumulation_steps=self.settings.run.accumulation_steps,
            schedule=schedule,
            scales=self.scales,
            adversarial=self.adversarial(),
        )

    def optimizer(
        self, num_train_steps: int, peak: Any = None
    ) -> tuple[optax.GradientTransformation, optimizer.Schedule]:
        """Returns the optimizer and its learning rate by step.

        Args:
          peak: of the rate, which may be traced; None takes the highest of the config.
        """
        highest = max(self.settings.learning_rates)
        config = self.settings.optimizer.resolved(num_train_steps, highest)
        made = optimizer.make(
            config,
            num_train_steps,
            peak=peak,
            scales=self.scales,
            average_decay=self.settings.recipe.average_decay,
        )
        return made, optimizer.learning_rate(config, num_train_steps, peak=peak)

    def check_recipe(self) -> None:
        """Raises InputError for a recipe that the model or the run cannot have."""
        folds = self.settings.data.folds or self.settings.sweep.folds
        rows = self.rows(self.settings.run.seed, folds, self.settings.data.fold)
        self.optimizer(self.num_train_steps(rows))
        drawn = {*self.shapes} - {*self.start.given} if self.start.given else {}
        if self.settings.recipe.lora_rank and "pooler" in drawn:
            raise errors.InputError(
                "recipe.lora_rank leaves the pooler as it is, and that of "
                f"{self.settings.init_from} is not there: set head.pooling=mean"
            )
        count = self.settings.recipe.reinit_layers
        if count:
            layers = self.start.bert.num_hidden_layers
            replace = functools.partial(
                optimizer.replace_top_layers, count=count, num_layers=layers
            )
            jax.eval_shape(replace, self.shapes, self.shapes)

    def check_head(self) -> None:
        """Raises InputError for a given head that is not the one of the task."""
        heads = {*self.start.given} - {"encoder", "pooler"}
        wanted = mapping.flatten({name: self.shapes[name] for name in heads})
        given = mapping.flatten({name: self.start.given[name] for name in heads})
        for name, x in given.items():
            if name not in wanted or wanted[name].shape != x.shape:
                raise errors.InputError(
                    f"init.head is given, and {name} of {self.settings.init_from} has "
                    f"the shape {list(x.shape)}, which is not that of this task: name "
                    "its classes in data.labels, or leave init.head out"
                )

    def adversarial(self) -> state.Adversarial | None:
        """Returns the step against the model that the recipe asks for."""
        epsilon = self.settings.recipe.adversarial_epsilon
        return state.Adversarial(_EMBEDDING, epsilon) if epsilon else None

    def scored(self, now: state.TrainState) -> PyTree:
        """Returns the parameters that are scored and kept: the average, if there is."""
        averaged = optimizer.read_average(now.opt_state)
        return now.params if averaged is None else averaged

    def predictor(self) -> predictor.Predictor:
        """Returns what runs the model over data sets."""
        return predictor.make(
            self.task,
            self.mesh,
            self.settings.run.eval_batch_size,
            self.start.bert.max_length,
            num_lengths=self.settings.data.num_lengths,
            full=self.full,
        )

    def folder(
        self, params: PyTree, metrics: dict[str, float]
    ) -> task_folders.TaskFolder:
        """Returns a model as it is kept, from parameters on the devices."""
        whole = sharding.whole(self.full(params))
        cut = parts.cut_vocabulary(whole, self.start.bert.vocab_size)
        complete = dataclasses.replace(
            self.settings, model=dataclasses.asdict(self.start.bert)
        )
        learned = task_setup.tuned(tasks.of(self.settings), self.learned, metrics)
        return task_folders.TaskFolder(
            complete, learned, self.start.bert, cut, self.start.tokenizer, metrics
        )

    def batches(
        self,
        rows: example_rows.TrainingRows,
        start_step: int,
        num_train_steps: int,
        examples: logs.ExampleLog = logs.OFF,
    ) -> Any:
        """Makes batches ahead of the devices, this process's rows of each."""
        size = self.settings.run.batch_size
        local = sharding.local_rows(size, self.mesh)
        placed = stream.batches(
            lambda step: rows.batch_at(step, local),
            start_step,
            num_train_steps - start_step,
            loader=self.settings.data.loader,
            place=examples.placing(lambda x: sharding.place(x, self.mesh, size)),
        )
        return examples.following(
            placed, start_step, lambda step: rows.names_at(step, local)
        )

    def programs(
        self,
        train_step: sharding.OnMesh,
        rows: example_rows.TrainingRows,
        start_step: int,
        num_train_steps: int,
    ) -> list[loop.Program]:
        """Returns the programs of the steps to come, one for each length of rows."""
        size = self.settings.run.batch_size
        local = sharding.local_rows(size, self.mesh)

        def compile_for(step: int, state: Any) -> None:
            batch = sharding.place(rows.batch_at(step, local), self.mesh, size)
            train_step.compile(state, batch)

        return [
            loop.Program(f"rows of {length} tokens", functools.partial(compile_for, at))
            for length, at in rows.steps_by_length(start_step, num_train_steps).items()
        ]

    def speed(self, rows: example_rows.TrainingRows, members: int = 1) -> loop.Speed:
        """Returns the meter of tokens per second: padding counts, as it is computed."""
        tokens = round(rows.tokens_per_step * members)
        length = self.train.table.lengths.max()
        cost = costs.training_flops_per_token(self.start.bert, int(length), 0.0)
        return loop.Speed([loop.Stretch(sys.maxsize, tokens, cost)])


def assemble(
    settings: Settings, workdir: Path, in_memory: splits.Given | None = None
) -> FinetuningRun:
    """Reads the data and the weights of a run, and says what was read.

    Args:
      in_memory: the splits that Python hands over; see `splits.from_python`.

    Raises:
      InputError: something does not fit; nothing has been written then.
    """
    mesh = sharding.make_mesh(**dataclasses.asdict(settings.mesh))
    run = settings.run
    sharding.check_batch_size(run.batch_size, run.accumulation_steps, mesh)
    stream.check_loader(settings.data.loader)
    files = splits.read(settings, in_memory)
    given = initial_weights.given_head(settings, workdir)
    naming = splits.that_name_labels(settings, files)
    of_run = tasks.of(settings)
    learned = of_run.learn(settings, naming, given)
    if given is not None:
        files = {n: of_run.named(x, learned.labels) for n, x in files.items()}
    elif told := of_run.describe(naming):
        commands.say(told)
    head = of_run.head(settings, learned)
    start = _start(settings, workdir, task_model.parts(head))
    made = of_run.task(
        settings,
        learned,
        start.bert,
        start.tokenizer,
        task_setup.class_weights(settings, learned, files["train"]),
    )
    read = {
        name: splits.Split(name, examples, splits.table(name, made, examples))
        for name, examples in files.items()
    }
    is_resumed = bool(saved_steps.steps(workdir / run_folder.CHECKPOINTS))
    _say_start(settings, start, task_model.parts(head), is_resumed)
    made.check(files["train"], files["dev"])
    test = read["test"] if "test" in read else None
    assembled = FinetuningRun(
        settings, start, learned, made, mesh, read["train"], read["dev"], test
    )
    assembled.check_recipe()
    assembled.check_head()
    return assembled


def _start(
    settings: Settings, workdir: Path, wanted: tuple[str, ...]
) -> initial_weights.Start:
    """Reads the weights; of a run that is resumed, only what it is made of."""
    if not saved_steps.steps(workdir / run_folder.CHECKPOINTS):
        return initial_weights.read_start(settings, wanted)
    tokenizer = Tokenizer.load(workdir / run_folder.TOKENIZER, require_mask=False)
    bert = model_config.BertConfig(**recorded(workdir).model)
    return initial_weights.Start(bert, tokenizer, {})


def recorded(workdir: Path) -> Settings:
    """Returns the settings of a run that is resumed, the whole architecture in them.

    Raises:
      InputError: there are none, or they are of another command.
    """
    path = workdir / run_folder.CONFIG
    tree = json_file.read_object(path)
    if "recipe" not in tree:
        raise errors.InputError(
            f"{workdir} is the workdir of another command than finetune: name another"
        )
    try:
        settings = tasks.check(finetuning.parse_record(tree))
    except errors.InputError as error:
        raise errors.InputError(
            f"{path} was written by another version or changed by hand: {error}"
        ) from None
    complete = dataclasses.asdict(model_config.BertConfig(**settings.model))
    return dataclasses.replace(settings, model=complete)


def _say_start(
    settings: Settings,
    start: initial_weights.Start,
    wanted: tuple[str, ...],
    is_resumed: bool,
) -> None:
    """Reports which weights are given, initialized and ignored; of a new run only."""
    if is_resumed:
        return
    if not start.given:
        commands.say("weights: all randomly initialized (init_from is none)")
        return
    drawn = [name for name in wanted if name not in start.given]
    count = sum(x.size for x in mapping.flatten(start.given).values())
    commands.say(
        f"weights: {', '.join(start.given)} of {settings.init_from} ({count:,} "
        f"parameters); randomly initialized: {', '.join(drawn) or 'nothing'}; "
        f"ignored: {', '.join(start.left) or 'nothing'}"
    )
