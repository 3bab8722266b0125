"""A run's own train step, sharded and compiled for chips that need not be present.

Neither the store nor the devices are needed: a vocabulary still to be learned has its
configured size, and the batch is given as shapes only.
"""

import contextlib
import dataclasses
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from bert_jax import errors
from bert_jax.checkpoints import initial_weights
from bert_jax.config.pretraining import PretrainingConfig
from bert_jax.data.pretraining import instances
from bert_jax.model import config as model_config
from bert_jax.planning import hlo
from bert_jax.planning import topology as topologies
from bert_jax.tasks import pretraining
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import optimizer, sharding, state

_LEARNED_SPECIALS = (0, 1, 2, 3, 4)  # of a vocabulary still to be learned
# For CPU programs that are read but not run: the same HLO in half the compile time.
FAST_COMPILE = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
_MANY_STEPS = 1_000_000  # for runs of epochs; no program depends on the number


@dataclasses.dataclass(frozen=True, eq=False)
class RunLayout:
    """A run laid out on chips: what each of them holds.

    Attributes:
      settings: the run's config.
      bert: the architecture, with the expected vocabulary size.
      topology: the chips.
      task: the pretraining task.
      mesh: the device mesh; abstract unless the layout is to be compiled.
      shapes: the train state as shapes with shardings.
    """

    settings: PretrainingConfig
    bert: model_config.BertConfig
    topology: topologies.Topology
    task: pretraining.Pretraining
    mesh: sharding.AnyMesh
    shapes: state.TrainState

    @property
    def num_params(self) -> int:
        """The number of parameters, including the rows that pad the vocabulary."""
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(self.shapes.params))

    @property
    def params_bytes(self) -> float:
        """Bytes of parameters per chip."""
        return _bytes_per_chip(self.shapes.params)

    @property
    def optimizer_bytes(self) -> float:
        """Bytes of optimizer state per chip."""
        return _bytes_per_chip(self.shapes.opt_state)

    @property
    def chips(self) -> int:
        """The number of chips in the mesh."""
        return self.mesh.size

    @property
    def batch_shards(self) -> int:
        """The number of shards of a batch."""
        return math.prod(self.mesh.shape[axis] for axis in sharding.BATCH_AXES)

    @property
    def tensor(self) -> int:
        """The number of chips that share one shard of the batch."""
        return self.mesh.size // self.batch_shards

    @property
    def micro_batch_rows(self) -> float:
        """Sequences of a micro-batch per chip; chips along `tensor` share them."""
        run = self.settings.run
        return run.batch_size / (self.batch_shards * run.accumulation_steps)


def _bytes_per_chip(tree: PyTree) -> float:
    return float(
        sum(
            np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


def lay_out(
    settings: PretrainingConfig,
    topology: topologies.Topology,
    *,
    for_compiling: bool,
) -> RunLayout:
    """Lays out a run on described devices, or on an abstract mesh of their number.

    Raises:
      InputError: model, vocabulary, batch or mesh do not fit, or the compiler of the
        chips is missing.
    """
    sizes = dataclasses.asdict(settings.mesh)
    if for_compiling:
        devices = topologies.devices(topology)
        mesh = sharding.make_mesh(**sizes, devices=devices)
    else:
        mesh = sharding.make_abstract_mesh(**sizes, num_devices=topology.num_chips)
    run = settings.run
    sharding.check_batch_size(run.batch_size, run.accumulation_steps, mesh)
    bert = settings.bert(initial_weights.expected_vocab_size(settings))
    task = pretraining.make(settings, bert, *_special_ids(settings))
    transformation, _ = _optimizer(settings)
    shapes = state.abstract(task.init, transformation, mesh)
    return RunLayout(settings, bert, topology, task, mesh, shapes)


def _special_ids(
    settings: PretrainingConfig,
) -> tuple[int, tuple[int, ...]]:
    """Returns the id of [MASK], and those of all special tokens."""
    if settings.text.vocab == "learn":
        return _LEARNED_SPECIALS[-1], _LEARNED_SPECIALS
    tokenizer = Tokenizer.load(Path(settings.text.vocab))
    return tokenizer.mask_id, tokenizer.special_ids


def _optimizer(settings: PretrainingConfig) -> Any:
    config, steps = settings.optimizer, settings.run.num_train_steps
    if steps == -1:
        steps = _MANY_STEPS + config.warmup_steps
    schedule = optimizer.learning_rate(config, steps)
    return optimizer.make(config, steps), schedule


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled train step on one chip.

    Attributes:
      arguments_bytes: state and batch.
      temporary_bytes: all other memory, outputs that reuse no argument included.
      cost: FLOPs and traffic of one step.
      collectives: communication in one step.
      seconds: compile time.
      refusal: the compiler's message if the program does not fit; then sizes are 0.
      requested_bytes: the temporary memory that this message reports, or 0.
    """

    arguments_bytes: float = 0.0
    temporary_bytes: float = 0.0
    cost: hlo.HloCost = hlo.HloCost(0.0, 0.0, 0, 0)
    collectives: tuple[hlo.Collective, ...] = ()
    seconds: float = 0.0
    refusal: str = ""
    requested_bytes: float = 0.0

    @property
    def peak_bytes(self) -> float:
        """The peak memory of one chip."""
        return self.arguments_bytes + self.temporary_bytes


def compile_step(layout: RunLayout, length: int, *, read: bool = True) -> CompiledStep:
    """Compiles the step for sequences of this length, as the run would.

    Args:
      layout: laid out `for_compiling`.
      length: tokens per sequence.
      read: whether to read the program as well; otherwise only its memory is known.
    """
    started = time.perf_counter()
    try:
        program = build(layout, length)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split("\n\n")[0].split())
        return CompiledStep(
            seconds=time.perf_counter() - started,
            refusal=reason,
            requested_bytes=_requested(reason),
        )
    seconds = time.perf_counter() - started
    memory = program.memory_analysis()
    if memory is None:
        raise errors.InputError(
            f"the compiler for {layout.topology.name} does not report the memory of a "
            "program: give a topology by name, as in v5e:4x4"
        )
    new_outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    step = CompiledStep(
        arguments_bytes=float(memory.argument_size_in_bytes),
        temporary_bytes=float(memory.temp_size_in_bytes + new_outputs),
        seconds=seconds,
    )
    if not read:
        return step
    text = hlo.parse(program.as_text() or "")
    collectives = tuple(hlo.collectives(text, layout.mesh.size))
    return dataclasses.replace(step, cost=hlo.cost(text), collectives=collectives)


def build(
    layout: RunLayout, length: int, options: dict[str, Any] | None = None
) -> jax.stages.Compiled:
    """Returns the compiled step for sequences of this length.

    Args:
      layout: laid out `for_compiling`.
      length: tokens per sequence.
      options: XLA compiler options, such as `FAST_COMPILE`.

    Raises:
      JaxRuntimeError: the program does not fit into the memory of the chips.
      InputError: CUDA's compiler is not installed and a program for GPUs needs it.
    """
    if layout.topology.name in topologies.HERE:
        return lower(layout, length).compile(compiler_options=options)
    with _uncached():
        lowered = lower(layout, length)
        try:
            return lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if not re.search("PTX compilation provider|libdevice", str(error)):
                raise
            raise errors.missing_extra("nvidia-cuda-nvcc", "gpu-plan") from None


def lower(
    layout: RunLayout, length: int, platforms: tuple[str, ...] | None = None
) -> jax.stages.Lowered:
    """Returns the lowered step for sequences of this length.

    `platforms` are those of JAX if they are not that of the layout, as in `("cuda",)`.
    """
    settings = layout.settings
    transformation, schedule = _optimizer(settings)
    step = state.make_train_step(
        state.StepSpec(
            layout.task.prepare,
            layout.task.weights,
            layout.task.losses,
            accumulation_steps=settings.run.accumulation_steps,
        ),
        transformation,
        schedule,
        layout.shapes,
        seed=settings.run.seed,
    )
    batch = batch_shapes(layout, length)
    with _assumed_cudnn():
        return step.lower(layout.shapes, batch, platforms=platforms)


@contextlib.contextmanager
def _assumed_cudnn() -> Iterator[None]:
    """Lets attention by cuDNN be traced where cuDNN itself is not installed.

    While it traces, JAX asks the library for its version, and has no public way to
    state the version of a described GPU.
    """
    if jax.default_backend() == "gpu":
        yield
        return
    from jax._src.cudnn import fused_attention_stablehlo as fused

    major, minor, patch = topologies.CUDNN_VERSION
    original = fused.check_cudnn_version
    fused.check_cudnn_version = lambda: 10_000 * major + 100 * minor + patch
    try:
        yield
    finally:
        fused.check_cudnn_version = original


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Keeps a program for remote chips out of JAX's compilation cache.

    Without such chips JAX cannot read it back, and warns at each later attempt.
    """
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, before)


def _requested(refusal: str) -> float:
    """Returns the bytes of temporary memory in a compiler's refusal, or 0.

    >>> _requested("the memory required for HLO temporaries (18.50G) exceeds") / 2**30
    18.5
    """
    found = re.search(r"temporaries \(([\d.]+)([KMGT])\)", refusal)
    return float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1) if found else 0.0


def batch_shapes(layout: RunLayout, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the global batch as shapes, sharded by rows.

    Only a store determines how many segments a packed row has: here it is the maximum.
    """
    data, rows = layout.settings.data, layout.settings.run.batch_size
    assert isinstance(layout.mesh, jax.sharding.Mesh), "not laid out for compiling"
    segments = max(1, length // instances.POSITIONS_PER_SEGMENT) if data.pack else 1
    by_row = sharding.batch_sharding(layout.mesh)

    def shaped(columns: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, columns), dtype, sharding=by_row)

    return {
        "input_ids": shaped(length, jnp.int32),
        "token_type_ids": shaped(length, jnp.int32),
        "segment_ids": shaped(length, jnp.int32),
        "position_ids": shaped(length, jnp.int32),
        "word_start": shaped(length, jnp.bool_),
        "cls_positions": shaped(segments, jnp.int32),
        "next_sentence_labels": shaped(segments, jnp.int32),
        "next_sentence_weights": shaped(segments, jnp.float32),
    }
