"""How a mesh shards the train state, and what a step sends: from a compiled step.

A mesh saves what it should if parameters and optimizer state per device fall as 1 / n,
where n is the number of devices they are sharded over, and if the optimizer state is
never gathered. To show the latter, the values of the program are followed from its
entry through tuples, fusions, calls, branches and loops: for each it is known whether
it depends on a marked argument.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from bert_jax.planning import hlo
from bert_jax.training import state

# Whether a value depends on a marked argument; for a tuple, whether each part does.
Marks = bool | tuple["Marks", ...]

_PARAMS, _OPTIMIZER = "state.params", "state.opt_state"
_KEY = re.compile(r"\['([^']*)'\]")
_INDEX = re.compile(r"\bindex=(\d+)")
_ARGUMENT = re.compile(r'op_name="([^"]*)"')
_WHOLE_TUPLES = ("optimization-barrier", "copy", "bitcast")


class Sent(NamedTuple):
    """The result of a collective: its kind, and the array."""

    kind: str
    array: hlo.Array


@dataclasses.dataclass(frozen=True)
class ShardingReport:
    """The train state on one device, and what a step sends.

    Attributes:
      params_bytes, optimizer_bytes: on one device, by the arguments of the program.
      whole_params_bytes, whole_optimizer_bytes: of the unsharded state.
      parts: devices that share one copy of the state; there are `data` copies.
      peak_bytes: peak memory of one device in a step.
      replicated: names of the parameters that each device holds as a whole.
      collectives: all communication.
      moments: the part of it that depends on the optimizer state.
    """

    params_bytes: int
    optimizer_bytes: int
    whole_params_bytes: int
    whole_optimizer_bytes: int
    parts: int
    peak_bytes: int
    replicated: frozenset[str]
    collectives: tuple[hlo.Collective, ...]
    moments: frozenset[Sent]

    @property
    def params_fraction(self) -> float:
        """The fraction of the parameters on one device; at least 1 / parts."""
        return self.params_bytes / self.whole_params_bytes

    @property
    def optimizer_fraction(self) -> float:
        """The fraction of the optimizer state on one device; at least 1 / parts."""
        return self.optimizer_bytes / self.whole_optimizer_bytes


def measure(shapes: state.TrainState, compiled: Any) -> ShardingReport:
    """Returns what a compiled step holds and sends.

    Args:
      shapes: the abstract state that it was compiled for.
      compiled: the result of `program.build`, for any devices.
    """
    mesh = state.mesh_of(shapes)
    program = hlo.parse(compiled.as_text())
    arrays = arguments(program)
    memory = compiled.memory_analysis()
    new_outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes + new_outputs
    return ShardingReport(
        params_bytes=_bytes_of(arrays, _PARAMS),
        optimizer_bytes=_bytes_of(arrays, _OPTIMIZER),
        whole_params_bytes=_whole(shapes.params),
        whole_optimizer_bytes=_whole(shapes.opt_state),
        parts=mesh.shape["fsdp"] * mesh.shape["tensor"],
        peak_bytes=peak,
        replicated=_replicated(arrays, shapes.params),
        collectives=tuple(hlo.collectives(program, mesh.size)),
        moments=frozenset(sent(program, is_moment)),
    )


def is_moment(argument: str) -> bool:
    """Reports whether an argument is optimizer state of a parameter, not a counter."""
    return argument.startswith(_OPTIMIZER) and "['" in argument


def _bytes_of(arrays: dict[str, hlo.Array], prefix: str) -> int:
    return sum(array.bytes for name, array in arrays.items() if name.startswith(prefix))


def _whole(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _replicated(arrays: dict[str, hlo.Array], params: Any) -> frozenset[str]:
    """Returns the names of parameters that the program takes as a whole."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    whole = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}
    found = {"/".join(_KEY.findall(n)): x for n, x in arrays.items() if _PARAMS in n}
    return frozenset(name for name, x in found.items() if x.dims == whole[name].shape)


def arguments(program: hlo.HloProgram) -> dict[str, hlo.Array]:
    """Returns the array that one device holds of each argument, by JAX's name of it.

    Names are those of the traced function, as in `state.params['pooler']['kernel']`.
    Arguments that the program does not use are left out.
    """
    instructions = program.computations[program.entry].instructions.values()
    return {
        name: x.shapes[0]
        for x in instructions
        if x.opcode == "parameter"
        if (name := _name(x))
    }


def _name(parameter: hlo.Instruction) -> str:
    found = _ARGUMENT.search(parameter.attributes)
    return found[1].replace("\\'", "'") if found else ""


def sent(program: hlo.HloProgram, is_marked: Callable[[str], bool]) -> set[Sent]:
    """Returns what is sent that depends on arguments whose names are marked."""
    return _Flow(program, is_marked).run()


class _Flow:
    """Evaluates computations with marks instead of values."""

    def __init__(
        self, program: hlo.HloProgram, is_marked: Callable[[str], bool]
    ) -> None:
        self._program = program
        self._is_marked = is_marked
        self._found: set[Sent] = set()

    def run(self) -> set[Sent]:
        self._computation(self._program.entry, None)
        return self._found

    def _computation(self, name: str, inputs: list[Marks] | None) -> Marks:
        """Returns the marks of the root; inputs of the entry are marked by name."""
        values: dict[str, Marks] = {}
        computation = self._program.computations[name]
        for x in computation.instructions.values():
            if x.opcode != "parameter":
                values[x.name] = self._value(x, [values[y] for y in x.operands])
            elif inputs is None:
                values[x.name] = self._is_marked(_name(x))
            else:
                values[x.name] = inputs[int(x.text)]
        return values[computation.root.name]

    def _value(self, x: hlo.Instruction, operands: list[Marks]) -> Marks:
        if x.opcode == "tuple":
            return tuple(operands)
        if x.opcode == "get-tuple-element":
            return _part(operands[0], x)
        if x.opcode == "while":
            return self._loop(x, operands[0])
        if x.branches:
            parts = zip(x.branches, operands[1:], strict=True)
            return _joined([self._computation(name, [one]) for name, one in parts])
        if x.opcode in _WHOLE_TUPLES:
            return operands[0]
        if hlo.collective_kind(x):
            return self._collective(x, operands)
        if x.opcode in ("fusion", "call", "async-start") and x.called:
            result = self._computation(x.called[0], operands)
            return _any(result) if x.opcode == "async-start" else result
        return any(map(_any, operands))

    def _loop(self, x: hlo.Instruction, carry: Marks) -> Marks:
        """Returns the marks of the carry, once another trip adds none."""
        while True:
            after = self._computation(hlo.loop_part(x, "body"), [carry])
            joined = _joined([carry, after])
            if joined == carry:
                return carry
            carry = joined

    def _collective(self, x: hlo.Instruction, operands: list[Marks]) -> Marks:
        kind = hlo.collective_kind(x)
        for array, marks in zip(hlo.results(x), operands, strict=True):
            if _any(marks):
                self._found.add(Sent(kind, array))
        if x.opcode == kind and len(operands) > 1:
            return tuple(operands)
        return any(map(_any, operands))


def _any(marks: Marks) -> bool:
    return any(map(_any, marks)) if isinstance(marks, tuple) else marks


def _part(marks: Marks, x: hlo.Instruction) -> Marks:
    """Returns the marks of one part of a tuple; one mark may describe all parts."""
    if not isinstance(marks, tuple):
        return marks
    index = _INDEX.search(x.attributes)
    assert index is not None, x.attributes
    return marks[int(index[1])]


def _joined(several: list[Marks]) -> Marks:
    """Returns the marks of a value that is one of several."""
    tuples = [marks for marks in several if isinstance(marks, tuple)]
    if len(tuples) < len(several):
        return any(map(_any, several))
    return tuple(_joined(list(parts)) for parts in zip(*tuples, strict=True))
