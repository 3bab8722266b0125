"""What the chips of a compiled program send each other: kinds, counts, bytes.

The bytes on the wire are those of ring algorithms, which are the least that any can do
when every chip holds its part: of an all-reduce over g chips, each sends 2 (g - 1) / g
of the array (Patarasuk and Yuan 2009, section 2).
"""

import dataclasses
import math
import re

from bert_jax.planning import hlo

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# What XLA for TPUs calls the fusion of an all-reduce with the choice of a part.
_SCATTERED = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind over groups of one size.

    Attributes:
      kind: one of `KINDS`.
      group: chips that take part together.
      count: in one step.
      bytes: of the arrays, whole as the group holds or makes them, in one step.
      sent: bytes that a chip sends in one step.
    """

    kind: str
    group: int
    count: int
    bytes: float
    sent: float


def collect(program: hlo.Program, num_devices: int) -> list[Collective]:
    """Returns the collectives of one run of a program, those that send most first.

    One that runs beside other work is written again in every piece of work: pieces of
    one channel are one collective.
    """
    found: dict[tuple[str, int], Collective] = {}
    for instruction, times, inside in _once_a_channel(program):
        kind = instruction.opcode.removesuffix("-start")
        group = _group(instruction.attributes, num_devices)
        if group == 1:
            continue
        size = _size(instruction, kind, group)
        if inside.startswith(_SCATTERED):
            kind = "reduce-scatter"
        before = found.get((kind, group), Collective(kind, group, 0, 0.0, 0.0))
        found[kind, group] = Collective(
            kind,
            group,
            before.count + times,
            before.bytes + times * size,
            before.sent + times * sent(kind, group, size),
        )
    return sorted(found.values(), key=lambda one: -one.sent)


def _once_a_channel(program: hlo.Program) -> list[tuple[hlo.Instruction, int, str]]:
    """Returns collectives, how often they run, and the computation that has them.

    That is how often the rarest piece of each runs.
    """
    found: dict[str, tuple[hlo.Instruction, int, str]] = {}
    for number, (instruction, times, inside) in enumerate(program.runs()):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        channel = re.search(r"channel_id=\d+", instruction.attributes)
        key = f"{kind} {channel[0] if channel else number}"
        if key not in found or times < found[key][1]:
            found[key] = (instruction, times, inside)
    return list(found.values())


def sent(kind: str, group: int, size: int | float) -> float:
    """Returns the bytes that each of `group` chips sends for an array of this size.

    >>> sent("all-reduce", 4, 1000)
    1500.0
    """
    if kind == "collective-permute":
        return float(size)
    share = (group - 1) / group
    return size * share * {"all-reduce": 2, "all-to-all": 1 / group}.get(kind, 1)


def _size(x: hlo.Instruction, kind: str, group: int) -> float:
    """Returns the bytes of the array that the whole group holds or makes."""
    size = sum(shape.bytes for shape in results(x))
    return float(size * group if kind in ("reduce-scatter", "all-to-all") else size)


def results(x: hlo.Instruction) -> tuple[hlo.Array, ...]:
    """Returns what a collective makes; one that is started has its operands, too."""
    if not x.opcode.endswith("-start") or x.opcode.startswith("all-reduce"):
        return x.shapes
    arrays = [shape for shape in x.shapes if shape.dims or shape.dtype[0] not in "us"]
    return tuple(arrays[len(arrays) // 2 :])


def _group(attributes: str, num_devices: int) -> int:
    """Returns how many chips take part in each collective of an instruction."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(counted[1])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return listed[1].count(",") + 1
    return num_devices  # no groups: all together, or pairs of a permutation
