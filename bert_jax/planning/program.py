"""The very train step of a run, for chips that may be elsewhere: laid out, compiled.

It needs neither the store nor the devices: a vocabulary that is still to be learned has
the size that is asked for, and the batch is shapes alone.
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

from bert_jax import errors, experiments
from bert_jax.data import instances
from bert_jax.model import config as model_config
from bert_jax.planning import collectives, hlo, hlo_costs
from bert_jax.planning import topology as topologies
from bert_jax.settings import configuration
from bert_jax.tasks import pretraining
from bert_jax.text import tokenizer as tokenizers
from bert_jax.training import optimizer, sharding, state

_LEARNED_SPECIALS = (0, 1, 2, 3, 4)  # of a vocabulary that is not there yet
# For programs of CPUs that are read and not run: the same, compiled in half the time.
TO_READ = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
_MANY_STEPS = 1_000_000  # where the epochs decide, which no program depends on


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """A run on some chips: what every one of them holds.

    Attributes:
      settings: of the run.
      bert: its architecture, with the vocabulary that is expected.
      topology: its chips.
      mesh: abstract unless the layout is to be compiled.
      shapes: the train state, and how it is cut.
    """

    settings: configuration.PretrainingConfig
    bert: model_config.BertConfig
    topology: topologies.Topology
    task: pretraining.Pretraining
    mesh: sharding.AnyMesh
    shapes: state.TrainState

    @property
    def num_params(self) -> int:
        """All parameters, with the rows that pad the vocabulary."""
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(self.shapes.params))

    @property
    def params_bytes(self) -> float:
        """Parameters on one chip."""
        return _bytes_a_chip(self.shapes.params)

    @property
    def optimizer_bytes(self) -> float:
        """Optimizer state on one chip."""
        return _bytes_a_chip(self.shapes.opt_state)

    @property
    def chips(self) -> int:
        """The chips that the mesh uses."""
        return self.mesh.size

    @property
    def row_parts(self) -> int:
        """Into how many parts the mesh cuts the rows of a batch."""
        return math.prod(self.mesh.shape[axis] for axis in sharding.BATCH_AXES)

    @property
    def tensor(self) -> int:
        """The chips that share the rows of a part of the batch."""
        return self.mesh.size // self.row_parts

    @property
    def rows_a_chip(self) -> float:
        """Rows of a micro-batch on one chip; those along `tensor` share them."""
        run = self.settings.run
        return run.batch_size / (self.row_parts * run.accumulation_steps)


def _bytes_a_chip(tree: PyTree) -> float:
    return float(
        sum(
            np.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves(tree)
        )
    )


def lay_out(
    settings: configuration.PretrainingConfig,
    topology: topologies.Topology,
    *,
    for_compiling: bool,
) -> Layout:
    """Lays a run out on chips, real descriptions of them or only their number.

    Raises:
      InputError: model, vocabulary, batch or mesh do not fit, or libtpu is missing.
    """
    sizes = dataclasses.asdict(settings.mesh)
    if for_compiling:
        devices = topologies.devices(topology)
        mesh = sharding.make_mesh(**sizes, devices=devices)
    else:
        mesh = sharding.make_abstract_mesh(**sizes, num_devices=topology.num_chips)
    run = settings.run
    sharding.check_batch_size(run.batch_size, run.accumulation_steps, mesh)
    bert = settings.bert(experiments.expected_vocab_size(settings))
    task = experiments.make_task(settings, bert, *_pieces(settings))
    transformation, _ = _optimizer(settings)
    shapes = state.abstract(task.init, transformation, mesh)
    return Layout(settings, bert, topology, task, mesh, shapes)


def _pieces(
    settings: configuration.PretrainingConfig,
) -> tuple[int, tuple[int, ...]]:
    """Returns the ids of [MASK] and of all special pieces."""
    if settings.text.vocab == "learn":
        return _LEARNED_SPECIALS[-1], _LEARNED_SPECIALS
    tokenizer = tokenizers.load(Path(settings.text.vocab))
    return tokenizer.mask_id, tokenizer.special_ids


def _optimizer(settings: configuration.PretrainingConfig) -> Any:
    config, steps = settings.optimizer, settings.run.num_train_steps
    if steps == -1:
        steps = _MANY_STEPS + config.warmup_steps
    schedule = optimizer.learning_rate(config, steps)
    return optimizer.make(config, steps), schedule


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled step on one chip.

    Attributes:
      arguments_bytes: the state and the batch.
      temporary_bytes: what the step needs beside them, and what it returns anew.
      cost: work and traffic of one step.
      talk: what the chips send each other in one step.
      reported_flops, reported_bytes: XLA's own account, which counts loops once.
      unknown_loops: loops whose trips are not known, counted once.
      seconds: that compiling took.
      refusal: the compiler's words if the program does not fit; then sizes are 0.
      wanted_bytes: what it says then that it wanted beside the arguments, if it does.
    """

    arguments_bytes: float = 0.0
    temporary_bytes: float = 0.0
    cost: hlo_costs.Cost = hlo_costs.Cost(0.0, 0.0, 0.0, 0)
    talk: tuple[collectives.Collective, ...] = ()
    reported_flops: float = 0.0
    reported_bytes: float = 0.0
    unknown_loops: int = 0
    seconds: float = 0.0
    refusal: str = ""
    wanted_bytes: float = 0.0

    @property
    def peak_bytes(self) -> float:
        """What one chip must hold."""
        return self.arguments_bytes + self.temporary_bytes


def compile_step(layout: Layout, length: int, *, read: bool = True) -> Compiled:
    """Compiles the step of rows of so many tokens, as the run would.

    Args:
      layout: made `for_compiling`.
      read: whether to read the program, too; without, only its memory is known.
    """
    started = time.perf_counter()
    try:
        program = build(layout, length)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split("\n\n")[0].split())
        return Compiled(
            seconds=time.perf_counter() - started,
            refusal=reason,
            wanted_bytes=_wanted(reason),
        )
    seconds = time.perf_counter() - started
    memory = program.memory_analysis()
    if memory is None:
        raise errors.InputError(
            f"the compiler for {layout.topology.name} does not tell the memory that a "
            "program needs: plan for a topology by its name"
        )
    anew = memory.output_size_in_bytes - memory.alias_size_in_bytes
    made = Compiled(
        arguments_bytes=float(memory.argument_size_in_bytes),
        temporary_bytes=float(memory.temp_size_in_bytes + anew),
        seconds=seconds,
    )
    return _with_costs(made, program, layout.mesh.size) if read else made


def build(
    layout: Layout, length: int, options: dict[str, Any] | None = None
) -> jax.stages.Compiled:
    """Returns the compiled step of rows of so many tokens.

    Args:
      layout: made `for_compiling`.
      options: of XLA's compiler, as `TO_READ`.

    Raises:
      JaxRuntimeError: the compiler takes the program for too large for its chips.
    """
    settings = layout.settings
    transformation, schedule = _optimizer(settings)
    step = experiments.make_train_step(
        settings.run, layout.task, layout.shapes, transformation, schedule
    )
    is_here = layout.topology.name in topologies.HERE
    with contextlib.nullcontext() if is_here else _unkept():
        lowered = step.lower(layout.shapes, batch_shapes(layout, length))
        return lowered.compile(compiler_options=options)


@contextlib.contextmanager
def _unkept() -> Iterator[None]:
    """Keeps a program for chips elsewhere out of JAX's cache of programs.

    Without such chips JAX cannot read it back, and says so at every later attempt.
    """
    name = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.values[name]
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, before)


def _wanted(refusal: str) -> float:
    """Returns the bytes that a compiler's refusal speaks of, or 0.

    >>> _wanted("the memory required for HLO temporaries (18.50G) exceeds") / 2**30
    18.5
    """
    found = re.search(r"temporaries \(([\d.]+)([KMGT])\)", refusal)
    return float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1) if found else 0.0


def _with_costs(made: Compiled, program: Any, num_devices: int) -> Compiled:
    text = hlo.read(program.as_text())
    reported = program.cost_analysis() or {}
    return dataclasses.replace(
        made,
        cost=hlo_costs.cost(text),
        talk=tuple(collectives.collect(text, num_devices)),
        reported_flops=float(reported["flops"]) if "flops" in reported else 0.0,
        reported_bytes=float(reported["bytes accessed"])
        if "bytes accessed" in reported
        else 0.0,
        unknown_loops=text.unknown_loops,
    )


def batch_shapes(layout: Layout, length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the global batch as shapes, cut by rows.

    How many sequences packed rows hold is known from a store alone: here the most.
    """
    data, rows = layout.settings.data, layout.settings.run.batch_size
    assert isinstance(layout.mesh, jax.sharding.Mesh), "laid out for no compiling"
    segments = max(1, length // instances.PLACES_OF_SEGMENT) if data.pack else 1
    place = sharding.batch_sharding(layout.mesh)

    def shaped(columns: int, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((rows, columns), dtype, sharding=place)

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
