"""What flows from some arguments of a compiled program into what its chips send.

The values of a program are followed from its entry through tuples, fusions, calls,
branches and loops: of each it is known whether it depends on a marked argument.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from bert_jax.planning import collectives, hlo

# Whether a value depends on a marked argument; of a tuple, whether each part does.
Marks = bool | tuple["Marks", ...]

_INDEX = re.compile(r"\bindex=(\d+)")
_ARGUMENT = re.compile(r'op_name="([^"]*)"')
_WHOLE_TUPLES = ("optimization-barrier", "copy", "bitcast")


class Sent(NamedTuple):
    """An array that chips send each other: the kind, and its form after it."""

    kind: str
    array: hlo.Array


def arguments(program: hlo.Program) -> dict[str, hlo.Array]:
    """Returns what one device holds of each argument, by the name that jax gives it.

    Names are those of the traced function, as in `state.params['pooler']['kernel']`.
    An argument that the program has no use for is not in it.
    """
    found = program.computations[program.entry].instructions.values()
    return {
        name: x.shapes[0]
        for x in found
        if x.opcode == "parameter"
        if (name := _name(x))
    }


def _name(parameter: hlo.Instruction) -> str:
    found = _ARGUMENT.search(parameter.attributes)
    return found[1].replace("\\'", "'") if found else ""


def sent(program: hlo.Program, is_marked: Callable[[str], bool]) -> set[Sent]:
    """Returns what is sent that depends on arguments whose names are marked."""
    return _Flow(program, is_marked).run()


class _Flow:
    """Evaluates computations with marks in place of values."""

    def __init__(self, program: hlo.Program, is_marked: Callable[[str], bool]) -> None:
        self._program = program
        self._is_marked = is_marked
        self._found: set[Sent] = set()

    def run(self) -> set[Sent]:
        self._computation(self._program.entry, None)
        return self._found

    def _computation(self, name: str, given: list[Marks] | None) -> Marks:
        """Returns the marks of the root; those of the entry's inputs go by name."""
        values: dict[str, Marks] = {}
        computation = self._program.computations[name]
        for x in computation.instructions.values():
            if x.opcode != "parameter":
                values[x.name] = self._value(x, [values[y] for y in x.operands])
            elif given is None:
                values[x.name] = self._is_marked(_name(x))
            else:
                values[x.name] = given[int(x.text)]
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
        if x.opcode.removesuffix("-start") in collectives.KINDS:
            return self._collective(x, operands)
        if x.opcode in ("fusion", "call", "async-start") and x.called:
            made = self._computation(x.called[0], operands)
            return _any(made) if x.opcode == "async-start" else made
        return any(map(_any, operands))

    def _loop(self, x: hlo.Instruction, carry: Marks) -> Marks:
        """Returns the marks of what is carried, once another trip adds none."""
        while True:
            after = self._computation(hlo.loop_part(x, "body"), [carry])
            joined = _joined([carry, after])
            if joined == carry:
                return carry
            carry = joined

    def _collective(self, x: hlo.Instruction, operands: list[Marks]) -> Marks:
        kind = x.opcode.removesuffix("-start")
        for array, marks in zip(collectives.results(x), operands, strict=True):
            if _any(marks):
                self._found.add(Sent(kind, array))
        if x.opcode == kind and len(operands) > 1:
            return tuple(operands)
        return any(map(_any, operands))


def _any(marks: Marks) -> bool:
    return any(map(_any, marks)) if isinstance(marks, tuple) else marks


def _part(marks: Marks, x: hlo.Instruction) -> Marks:
    """Returns the marks of one part of a tuple, of which all may be known as one."""
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
