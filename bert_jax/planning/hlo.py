"""Reads the text of a compiled program: its instructions, and how often each runs.

XLA's own account (`cost_analysis`) counts the body of a loop once, whatever the number
of its trips. Here every computation knows how often it runs, so that layers in a scan,
micro-batches and parts of the logits count as often as they happen.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_SHAPE = re.compile(
    r"\b([a-z]+\d*[a-z\d]*)\[([\d,<=]*)\](?:\{[^}]*?(?:S\((\d+)\)[^}]*)?\})?"
)
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*-> .*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
_OPCODE = re.compile(r"([\w\-]+)\(")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLS = re.compile(r"(?:calls|to_apply|called_computations)=\{?([^\s,}]+)")
_BRANCHES = re.compile(
    r"(?:branch_computations=\{([^}]*)\}|true_computation=(\S+), "
    r"false_computation=(\S+?),)"
)
_ELEMENT = "get-tuple-element"
# Computations that these instructions apply to single elements are no calls.
_APPLY = ("reduce", "reduce-window", "scatter", "sort", "map", "select-and-scatter")


class Array(NamedTuple):
    """An array on one device.

    Attributes:
      dtype: as XLA writes it.
      dims: its sizes.
      space: the memory it lies in: 0 is the main one, others are on the chip.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> int:
        """What it takes in memory, without padding."""
        bits = re.search(r"\d+", self.dtype)
        width = 8 if self.dtype == "pred" else int(bits[0]) if bits else 0
        return -(-math.prod(self.dims) * width // 8)

    @property
    def main_bytes(self) -> int:
        """What it takes in the main memory."""
        return 0 if self.space else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a computation.

    Attributes:
      shapes: of its result, several for a tuple.
      operands: names of the instructions whose results it takes.
      attributes: what stands behind the operands.
    """

    name: str
    opcode: str
    shapes: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    text: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """The size of its result."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def main_bytes(self) -> int:
        """The size of its result in the main memory."""
        return sum(shape.main_bytes for shape in self.shapes)

    @property
    def called(self) -> tuple[str, ...]:
        """The computation that it runs as a whole: of a fusion, a call, a wrapper."""
        if self.opcode in _APPLY or self.opcode.startswith(("all-reduce", "reduce-")):
            return ()
        return tuple(name.lstrip("%") for name in _CALLS.findall(self.attributes))

    @property
    def branches(self) -> tuple[str, ...]:
        """The computations of a conditional, of which it runs one."""
        found = _BRANCHES.search(self.attributes)
        if self.opcode != "conditional" or found is None:
            return ()
        return tuple(_NAME.findall(" ".join(x for x in found.groups() if x)))


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in their order."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction whose result is that of the computation."""
        return next(x for x in self.instructions.values() if x.is_root)


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program of one device.

    Attributes:
      entry: the computation that is run.
      times: how often each computation runs, trips of loops multiplied.
      counted: how often `cost_analysis` counts it: every loop has one trip.
      unknown_loops: loops whose trips the text does not tell; they count once.
    """

    computations: dict[str, Computation]
    entry: str
    times: dict[str, int]
    counted: dict[str, int]
    unknown_loops: int

    def runs(self) -> Iterator[tuple[Instruction, int, str]]:
        """Yields all instructions, how often they run, and in which computation."""
        for name, times in self.times.items():
            for instruction in self.computations[name].instructions.values():
                yield instruction, times, name


def read(text: str) -> Program:
    """Returns the program of `compiled.as_text()`.

    Raises ValueError if there is no entry computation in the text.
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = Computation(head[2], {})
            computations[head[2]] = current
            entry = head[2] if head[1] else entry
        elif current is not None and (made := _instruction(line)) is not None:
            current.instructions[made.name] = made
    if entry is None:
        raise ValueError("the text has no entry computation")
    walk = _Walk(computations)
    walk.run(entry, 1, 1)
    return Program(computations, entry, walk.times, walk.counted, len(walk.unknown))


def _instruction(line: str) -> Instruction | None:
    head = _INSTRUCTION.match(line)
    if head is None:
        return None
    shape_end = _closing(line, head.end()) if line[head.end()] == "(" else head.end()
    opcode = _OPCODE.search(line, line.index(" ", shape_end))
    if opcode is None:
        return None
    end = _closing(line, opcode.end() - 1)
    shapes = _SHAPE.findall(line[head.end() : opcode.start()])
    inside = line[opcode.end() : end - 1]
    return Instruction(
        head[2],
        opcode[1],
        tuple(Array(dtype, _dims(d), int(space or 0)) for dtype, d, space in shapes),
        tuple(_NAME.findall(inside)),
        line[end:],
        inside,
        head[1] is not None,
    )


def _dims(text: str) -> tuple[int, ...]:
    return tuple(int(size.lstrip("<=")) for size in text.split(",") if size)


def _closing(line: str, start: int) -> int:
    """Returns the place behind the bracket that closes the one at `start`."""
    depth = 0
    for place in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if not depth:
            return place + 1
    return len(line)


class _Walk:
    """Follows the calls from the entry, and adds up how often each is made."""

    def __init__(self, computations: dict[str, Computation]) -> None:
        self._computations = computations
        self.times: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.unknown: set[str] = set()

    def run(self, name: str, times: int, counted: int) -> None:
        self.times[name] = self.times.get(name, 0) + times
        self.counted[name] = self.counted.get(name, 0) + counted
        for instruction in self._computations[name].instructions.values():
            if instruction.opcode == "while":
                trips = self._trips(instruction)
                self.run(loop_part(instruction, "body"), times * trips, counted)
            for called in (*instruction.called, *instruction.branches):
                self.run(called, times, counted)

    def _trips(self, loop: Instruction) -> int:
        """Returns the trips of a loop that counts from 0, as those of `scan` do."""
        if known := _TRIPS.search(loop.attributes):
            return int(known[1])
        condition = self._computations[loop_part(loop, "condition")]
        compared = condition.root
        limits = [
            int(x.text)
            for x in condition.instructions.values()
            if x.opcode == "constant" and x.text.lstrip("-").isdigit()
        ]
        if "direction=LT" not in self._innermost(compared).attributes:
            limits = []
        if len(limits) != 1:
            self.unknown.add(loop.name)
            return 1
        return -(-limits[0] // self._stride(loop, condition))

    def _stride(self, loop: Instruction, condition: Computation) -> int:
        """Returns what a trip adds to the count: 2 where XLA talks in both directions.

        A sum that is hidden in a fusion adds 1, as that of `scan` does.
        """
        read = [x for x in condition.instructions.values() if x.opcode == _ELEMENT]
        place = re.search(r"index=(\d+)", read[0].attributes) if read else None
        body = self._computations[loop_part(loop, "body")]
        if place is None or int(place[1]) >= len(body.root.operands):
            return 1
        counted = body.instructions[body.root.operands[int(place[1])]]
        added = [body.instructions[name] for name in counted.operands]
        steps = [int(x.text) for x in added if x.opcode == "constant"]
        return steps[0] if counted.opcode == "add" and len(steps) == 1 else 1

    def _innermost(self, compared: Instruction) -> Instruction:
        """Returns the comparison itself, which may be wrapped into a fusion."""
        while compared.called:
            compared = self._computations[compared.called[0]].root
        return compared


def loop_part(loop: Instruction, part: str) -> str:
    """Returns the name of the computation that is the body, or the condition."""
    found = re.search(rf"\b{part}=%?([\w.\-]+)", loop.attributes)
    assert found is not None, loop.attributes
    return found[1]
