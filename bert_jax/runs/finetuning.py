"""Fine-tuning as a run: data, task, model, optimizer, and the best model kept.

`assemble` returns the run from its settings and its files; `assemble_in` also writes
the record of a workdir, as `train` wants it.
"""

import dataclasses
import functools
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from flax import linen as nn
from jaxtyping import PyTree

from bert_jax import console, errors, tasks
from bert_jax.checkpoints import (
    hf_config,
    huggingface,
    initial_weights,
    mapping,
    native,
    run_folder,
)
from bert_jax.config import finetuning
from bert_jax.data import stream
from bert_jax.data.labeled import example_rows
from bert_jax.foundation import interrupts, json_file
from bert_jax.inference import answer
from bert_jax.metrics import scores as scores_lib
from bert_jax.model import config as model_config
from bert_jax.model import costs, network
from bert_jax.runs import best_model, splits, workdirs
from bert_jax.runs.run import Batch, End, SingleRun, train
from bert_jax.tasks import spec
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

Settings = finetuning.FinetuningConfig
LORA = "lora"
_ADAPTED = ("query", "value")  # as in arXiv:2106.09685, section 5.1
_EMBEDDING = ("encoder", "embeddings", "word_embeddings", "embedding")
_NO_BEST = {"value": None, "step": 0, "without_better": 0, "ended": False}
_EXAMPLE_LENGTH = 40  # characters of a text that is shown as an example


@dataclasses.dataclass(frozen=True)
class Finetuned:
    """What `train` returns.

    Attributes:
      metrics: of the best model, as `dev/accuracy` and `test/accuracy`.
      folder: of the best model; for a URL, in its working copy on this machine.
      example: arguments with which `predict` answers an example like those of `dev`.
    """

    metrics: dict[str, float]
    folder: Path
    example: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class FinetuningRun(SingleRun[Finetuned]):
    """A fine-tuning run, also as a member of a sweep.

    Attributes:
      settings: the configuration.
      start: weights, architecture and tokenizer to start from.
      learned: facts learned from the examples, such as the labels.
      task: the task with its model.
      mesh: mesh of devices.
      train, dev, test: the examples, encoded; `test` may be None.
      workdir: folder of the run.
      in_memory: examples that were passed from Python, by split.
    """

    settings: Settings
    start: initial_weights.Start
    learned: spec.Metadata
    task: spec.FineTuned
    mesh: jax.sharding.Mesh
    train: splits.Split
    dev: splits.Split
    test: splits.Split | None
    workdir: Path
    in_memory: splits.Given | None = None
    best: dict[str, Any] = dataclasses.field(
        default_factory=lambda: dict(_NO_BEST), init=False
    )

    @functools.cached_property
    def shapes(self) -> PyTree:
        """The parameters that are trained, as shapes with shardings."""
        return state.abstract_params(self.init, self.mesh)

    def rows(
        self, seed: int, folds: int = 0, fold: int = 0
    ) -> example_rows.TrainingRows:
        """Returns the training batches of a seed, with one fold held out."""
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

    @functools.cached_property
    def training_rows(self) -> example_rows.TrainingRows:
        """The training batches of this run; of a sweep, those of its first member."""
        data = self.settings.data
        folds = data.folds or self.settings.sweep.folds
        return self.rows(self.settings.run.seed, folds, data.fold)

    @property
    def num_train_steps(self) -> int:
        """Number of steps of the run: as set, or from epochs."""
        run = self.settings.run
        if run.num_train_steps != -1:
            return run.num_train_steps
        steps_per_epoch = self.training_rows.steps_per_epoch
        return max(1, round(run.num_train_epochs * steps_per_epoch))

    def dev_of(self, rows: example_rows.TrainingRows) -> splits.Split:
        """Returns the data on which a run with these training rows is scored."""
        return self.train.part("dev", rows.is_held_out) if rows.folds else self.dev

    def interval(self, name: str) -> int:
        """Returns an interval of group `run` in steps; -1 is an epoch."""
        steps = getattr(self.settings.run, name)
        return self.training_rows.steps_per_epoch if steps == -1 else steps

    def init(self, key: jax.Array) -> PyTree:
        """Returns random parameters of all that is trained: the model, and LoRA."""
        params = self.task.init(key)
        rank = self.settings.recipe.lora_rank
        if not rank:
            return params
        return {
            **params,
            LORA: network.init_lora(key, nn.unbox(params["encoder"]), _ADAPTED, rank),
        }

    def full(self, params: PyTree) -> PyTree:
        """Returns the parameters of the task's model from those that are trained."""
        if LORA not in params:
            return params
        rest = {name: tree for name, tree in params.items() if name != LORA}
        alpha = self.settings.recipe.lora_alpha
        return rest | {
            "encoder": network.merge_lora(rest["encoder"], params[LORA], alpha)
        }

    def losses(self, params: PyTree, batch: Any, key: jax.Array) -> Any:
        """Returns the losses of a batch."""
        return self.task.losses(self.full(params), batch, key)

    def parameters(self, shapes: PyTree, seed: int) -> PyTree:
        """Returns the initial parameters of a seed."""
        params = initial_weights.parameters(self.start, shapes, self.init, seed)
        count = self.settings.recipe.reinit_layers
        if not count:
            return params
        initial = initial_weights.randomly_initialized(
            seed, shapes, self.init, frozenset(shapes)
        )
        layers = self.start.bert.num_hidden_layers
        return optimizer.replace_top_layers(params, initial, count, num_layers=layers)

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

    @property
    def step_spec(self) -> state.StepSpec:
        """What a step of this run computes, whatever its seed and rate."""
        epsilon = self.settings.recipe.adversarial_epsilon
        return state.StepSpec(
            self.task.prepare,
            self.task.weights,
            self.losses,
            accumulation_steps=self.settings.run.accumulation_steps,
            scales=self.scales,
            adversarial=state.Adversarial(_EMBEDDING, epsilon) if epsilon else None,
        )

    def make_optimizer(
        self, num_train_steps: int, peak: Any = None
    ) -> tuple[optax.GradientTransformation, optimizer.Schedule]:
        """Returns the optimizer and its learning rate by step.

        Args:
          peak: of the rate, which may be traced; None is the highest of the config.
        """
        highest = max(self.settings.learning_rates)
        config = self.settings.optimizer.resolved(num_train_steps, highest)
        transformation = optimizer.make(
            config,
            num_train_steps,
            peak=peak,
            scales=self.scales,
            average_decay=self.settings.recipe.average_decay,
        )
        schedule = optimizer.learning_rate(config, num_train_steps, peak=peak)
        return transformation, schedule

    def check_recipe(self) -> None:
        """Raises InputError for a recipe that the model or the run cannot have."""
        self.make_optimizer(self.num_train_steps)
        new = {*self.shapes} - {*self.start.given} if self.start.given else {}
        if self.settings.recipe.lora_rank and "pooler" in new:
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

    def scored(self, now: state.TrainState) -> PyTree:
        """Returns the parameters that are scored and kept: the average, if there is."""
        averaged = optimizer.read_average(now.opt_state)
        return now.params if averaged is None else averaged

    @functools.cached_property
    def predictor(self) -> answer.Predictor:
        """The model that predicts and scores, with its jitted function."""
        return answer.make(
            self.task,
            self.mesh,
            self.settings.run.eval_batch_size,
            self.start.bert.max_length,
            num_lengths=self.settings.data.num_lengths,
            full=self.full,
        )

    def folder(self, params: PyTree, metrics: dict[str, float]) -> native.TaskFolder:
        """Returns a model as it is kept, from parameters on the devices."""
        whole = sharding.whole(self.full(params))
        cut = network.cut_vocabulary(whole, self.start.bert.vocab_size)
        complete = dataclasses.replace(
            self.settings, model=dataclasses.asdict(self.start.bert)
        )
        learned = best_model.tuned(tasks.of(self.settings), self.learned, metrics)
        return native.TaskFolder(
            complete, learned, self.start.bert, cut, self.start.tokenizer, metrics
        )

    def initial_state(self) -> state.TrainState:
        """Returns the given weights, with a randomly initialized head."""
        shapes = self.state_shapes
        params = interrupts.run_interruptible(
            lambda: self.parameters(shapes.params, self.settings.run.seed)
        )
        return state.from_params(params, shapes, self._optimizer[0])

    def batch_at(self, step: int) -> Batch:
        """Returns the rows of a step that this process loads."""
        return self.training_rows.batch_at(step, self.local_rows)

    def names_at(self, step: int, rows: slice = slice(None)) -> list[str]:
        """Names the examples in these rows of the global batch."""
        return self.training_rows.names_at(step, rows)

    def first_step_of_lengths(self, start_step: int) -> dict[int, int]:
        """Returns the first step of each row length that is still to come."""
        return self.training_rows.steps_by_length(start_step, self.num_train_steps)

    @property
    def segments(self) -> list[loop.Segment]:
        """Tokens and FLOPs of a step; padding counts, because it is computed."""
        return self.segments_of(1)

    def segments_of(self, members: int) -> list[loop.Segment]:
        """Returns the segments of a program that trains this many members."""
        tokens = round(self.training_rows.tokens_per_step * members)
        length = self.train.table.lengths.max()
        cost = costs.training_flops_per_token(self.start.bert, int(length), 0.0)
        return [loop.Segment(sys.maxsize, tokens, cost)]

    def meta(self) -> dict[str, Any]:
        """Returns the record of the best model so far."""
        return {"best": self.best}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Takes over the record of the best model."""
        self.best.update(meta["best"])

    @property
    def ended_early(self) -> bool:
        """Whether the run has ended for lack of progress (run.patience)."""
        return self.best["ended"]

    def evaluate(
        self, step: int, state: state.TrainState, guard: guards.NonFiniteGuard
    ) -> loop.Evaluation:
        """Scores `dev`, keeps the best model, and ends a run without progress."""
        del guard  # one member
        params, dev = self.scored(state), self.dev_of(self.training_rows)
        scored, _ = self.predictor.scores(params, dev.examples, dev.table)
        name = best_model.kept_by(self.settings, scored.metrics)
        value = scored.metrics[name]
        is_better = scores_lib.is_better(name, value, self.best["value"])
        summary = _summary(step, name, scored, is_better)
        if is_better:
            self.best.update(value=value, step=step, without_better=0)
            folder = self.folder(params, scored.metrics)
            if distributed.is_first():
                native.write_best(self.workdir, step, folder)
        else:
            self.best["without_better"] += 1
        patience = self.settings.run.patience
        self.best["ended"] = 0 < patience <= self.best["without_better"]
        if self.best["ended"]:
            shown = best_model.shown_metric(self.settings, self.learned.labels, name)
            summary += f"\nno better {shown} in {patience} evaluations: the run ends"
        metrics = {f"eval/{n}": x for n, x in scored.metrics.items()}
        return loop.Evaluation(metrics, summary, self.best["ended"])

    def describe(self) -> str:
        """Describes the run before it starts."""
        bert, settings, rows = self.start.bert, self.settings, self.training_rows
        count = sum(x.size for x in jax.tree.leaves(self.shapes))
        labels = self.learned.labels
        classes = f"{len(labels)} classes, " if labels else ""
        metric = settings.run.keep_best or tasks.of(settings).expected_metric(
            settings, self.learned, self.dev_of(rows).examples
        )
        metric = best_model.shown_metric(settings, labels, metric)
        per_micro_batch = rows.encoded_rows // settings.run.accumulation_steps
        attention = costs.describe(
            bert, settings.execution(), rows.encoded_lengths, per_micro_batch, self.mesh
        )
        steps = self.num_train_steps
        return (
            f"task: {settings.data.task}, {classes}the best model is kept by {metric}\n"
            f"model: {bert.num_hidden_layers} layers of width {bert.hidden_size}, "
            f"{count:,} parameters\n"
            f"{attention}\n"
            f"plan: {steps:,} steps of {settings.run.batch_size} rows {rows.shapes}, "
            f"{steps / rows.steps_per_epoch:.1f} epochs of {rows.num_rows:,} rows"
        )

    def finish(self, copy: remote.WorkingCopy, end: End) -> Finetuned:
        """Scores the best model, and writes its scores and its predictions."""
        del end  # frees the memory of the state
        copy.share()
        return self.score_best(self.dev_of(self.training_rows))

    def score_best(self, dev: splits.Split) -> Finetuned:
        """Scores the best model on `dev` and `test`, next to its baselines."""
        folder, metrics = best_model.score(self, dev, self._train_fresh)
        return Finetuned(metrics, folder, _example(self.settings, dev.examples))

    def _train_fresh(self, settings: Settings) -> dict[str, float]:
        """Trains the baseline of these settings in fresh/; returns its metrics."""
        from bert_jax.runs import sweep  # which imports this module

        assemble = functools.partial(sweep.assemble, settings, self.in_memory, False)
        return train(assemble, self.workdir / "fresh").metrics


def _summary(step: int, name: str, scored: scores_lib.Scores, is_better: bool) -> str:
    """Returns an evaluation in one line, the metric that counts first."""
    metrics, positive = scored.metrics, console.visible(scored.positive)
    others = [other for other in metrics if other != name][:4]
    shown = [
        f"{scores_lib.named(n, positive)} {metrics[n]:.4f}" for n in (name, *others)
    ]
    return f"dev after step {step}: {'  '.join(shown)}{'  (best)' if is_better else ''}"


def _example(settings: Settings, dev: Sequence[Any]) -> str:
    """Returns arguments of `predict`: a text of `dev`; of other tasks, a file."""
    data, first = settings.data, dev[0]
    takes_text = tasks.of(settings).form.required == ("text",)
    if takes_text and getattr(first, "text_pair", None) is None:
        return shlex.quote(first.text.strip()[:_EXAMPLE_LENGTH].lstrip("-"))
    return f"--input={shlex.quote(data.dev or data.train)} --output=answers.jsonl"


def assemble_in(
    settings: Settings,
    in_memory: splits.Given | None,
    allow_changed: bool,
    copy: remote.WorkingCopy,
) -> FinetuningRun:
    """Returns the run of a locked workdir, after writing its record.

    Args:
      in_memory: as for `assemble`.
      allow_changed: resume even if the config changes the result.
    """
    workdir = copy.folder
    distributed.require_same(json.dumps(finetuning.to_dict(settings)), "the config")
    settings = workdirs.pinned(settings, workdir)
    tree = finetuning.to_dict(settings)
    distributed.require_same(json.dumps(tree), "names of the hub")
    run = assemble(settings, workdir, in_memory)
    _record(run, workdir, allow_changed)
    check_exports(settings, run.learned, run.start.bert.model_type)
    return run


def assemble(
    settings: Settings, workdir: Path, in_memory: splits.Given | None = None
) -> FinetuningRun:
    """Reads the data and the weights of a run, and reports what was read.

    Args:
      in_memory: the splits passed from Python; see `splits.from_python`.

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
    elif description := of_run.describe(naming):
        distributed.print_once(description)
    head = of_run.head(settings, learned)
    start = _start(settings, workdir, ("encoder", *head.parts))
    task = of_run.task(
        settings,
        learned,
        start.bert,
        start.tokenizer,
        splits.class_weights(settings, learned, files["train"]),
    )
    read = {
        name: splits.Split(name, examples, splits.table(name, task, examples))
        for name, examples in files.items()
    }
    if not workdirs.is_begun(workdir):
        _report_start(settings, start, ("encoder", *head.parts))
    task.check(files["train"], files["dev"])
    test = read["test"] if "test" in read else None
    assembled = FinetuningRun(
        settings,
        start,
        learned,
        task,
        mesh,
        read["train"],
        read["dev"],
        test,
        workdir,
        in_memory,
    )
    assembled.check_recipe()
    assembled.check_head()
    return assembled


def _start(
    settings: Settings, workdir: Path, wanted: tuple[str, ...]
) -> initial_weights.Start:
    """Reads the weights; of a run that is resumed, only the architecture."""
    if not workdirs.is_begun(workdir):
        return initial_weights.read_start(settings, wanted)
    tokenizer = Tokenizer.load(workdir / run_folder.TOKENIZER, require_mask=False)
    bert = model_config.BertConfig(**recorded(workdir).model)
    return initial_weights.Start(bert, tokenizer, {})


def recorded(workdir: Path) -> Settings:
    """Returns the settings of a resumed run, with its complete architecture.

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


def _report_start(
    settings: Settings, start: initial_weights.Start, wanted: tuple[str, ...]
) -> None:
    """Reports which weights are given, initialized and ignored."""
    if not start.given:
        distributed.print_once("weights: all randomly initialized (init_from is none)")
        return
    initialized = [name for name in wanted if name not in start.given]
    count = sum(x.size for x in mapping.flatten(start.given).values())
    distributed.print_once(
        f"weights: {', '.join(start.given)} of {settings.init_from} ({count:,} "
        f"parameters); randomly initialized: {', '.join(initialized) or 'nothing'}; "
        f"ignored: {', '.join(start.left) or 'nothing'}"
    )


def _record(run: FinetuningRun, workdir: Path, allow_changed: bool) -> None:
    """Writes the settings, the data and the tokenizer of the run."""
    bert = dataclasses.asdict(run.start.bert)
    read = {"train": run.train, "dev": run.dev, "test": run.test}
    examples = {name: x.examples for name, x in read.items() if x is not None}
    workdirs.write_record(
        workdir,
        dataclasses.replace(run.settings, model=bert),
        recorded(workdir) if workdirs.is_begun(workdir) else None,
        run.start.tokenizer,
        data=workdirs.Data(
            splits.data_files(run.settings, examples), list(run.learned.labels)
        ),
        allow_changed=allow_changed,
    )


def check_exports(
    settings: Settings,
    learned: spec.Metadata,
    model_type: str,
) -> None:
    """Reports a head that no class of transformers has, before it is trained.

    A bi-encoder has none there, and is exported for sentence-transformers.
    """
    head = tasks.of(settings).head(settings, learned)
    parts = ("encoder", *head.parts)
    if {*parts} <= {"encoder", "pooler", "recurrent"}:
        return
    try:
        hf_config.class_of(model_type, frozenset(parts))
        return
    except errors.InputError:
        heads = ",".join(sorted({*parts} - {"encoder", "pooler"}))
    way = ""
    if {*parts} == {"encoder", "tagger", "crf"}:
        way = ", --ignore=crf the scores of tokens too"
    elif huggingface.can_separate(parts):
        way = ", --separate_head the head as classifier.safetensors too"
    needs_transform = model_type == "modernbert" and not head.pools
    keys = "head.pooling=cls, " if head.pools else ""
    keys += f"head.transform={str(needs_transform).lower()}, "
    distributed.print_once(
        f"note: transformers has no class with the parts {', '.join(parts)}: convert "
        f"exports the encoder (--ignore={heads}){way}. For a whole export set {keys}"
        "head.recurrent_size=0 and head.crf=false"
    )
