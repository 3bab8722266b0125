"""Reads the text of a compiled program: loops with all their trips, and collectives.

`memory_analysis()` reports the memory of a program, and that is used as it is. This
module is for what XLA's analyses leave out: `cost_analysis()` counts the body of a loop
once, skips custom kernels and adds on-chip memory to the bytes, and nothing reports
collectives. Here each computation carries the number of times it runs, so that layers
in a scan, micro-batches and chunks of the logits count as often as they are computed.

- FLOPs are those of matrix products, two per multiply-add.
- Traffic is what is read from and written to main memory between fusions. A slice
  counts as the part it takes: a loop over layers slices its part out of arrays of all
  layers inside a fusion, and writes its part in place. Counted whole, the traffic of a
  loop would grow with the square of its trips.
- Bytes sent are those of ring algorithms, which are the minimum if each chip holds its
  part: for an all-reduce over g chips, each sends 2 (g - 1) / g of the array (Patarasuk
  and Yuan 2009, section 2).
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
# Computations that these instructions apply to single elements do not count as calls.
_APPLY = ("reduce", "reduce-window", "scatter", "sort", "map", "select-and-scatter")


class Array(NamedTuple):
    """An array on one device.

    Attributes:
      dtype: XLA's name of it.
      dims: its sizes.
      space: its memory space: 0 is main memory, others are on the chip.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> int:
        """Its size, without padding."""
        bits = re.search(r"\d+", self.dtype)
        width = 8 if self.dtype == "pred" else int(bits[0]) if bits else 0
        return -(-math.prod(self.dims) * width // 8)

    @property
    def main_bytes(self) -> int:
        """Its size in main memory."""
        return 0 if self.space else self.bytes


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a computation.

    Attributes:
      shapes: of the result, several for a tuple.
      operands: names of the instructions whose results it takes.
      attributes: the text after the operands.
      text: the text of the operands.
      is_root: whether its result is that of the computation.
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
        """The size of the result."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def is_on_chip(self) -> bool:
        """Whether no part of the result is in main memory."""
        return self.bytes > 0 and not sum(shape.main_bytes for shape in self.shapes)

    @property
    def called(self) -> tuple[str, ...]:
        """The computation that a fusion, call or wrapper runs as a whole."""
        if self.opcode in _APPLY or self.opcode.startswith(("all-reduce", "reduce-")):
            return ()
        return tuple(name.lstrip("%") for name in _CALLS.findall(self.attributes))

    @property
    def branches(self) -> tuple[str, ...]:
        """The computations of a conditional, one of which runs."""
        found = _BRANCHES.search(self.attributes)
        if self.opcode != "conditional" or found is None:
            return ()
        return tuple(_NAME.findall(" ".join(x for x in found.groups() if x)))


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in program order."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction whose result is that of the computation."""
        return next(x for x in self.instructions.values() if x.is_root)

    def operands_of(self, x: Instruction) -> list[Instruction]:
        """Returns the instructions whose results an instruction takes."""
        return [self.instructions[n] for n in x.operands if n in self.instructions]


@dataclasses.dataclass(frozen=True)
class HloProgram:
    """A compiled program of one device.

    Attributes:
      entry: the computation where execution starts.
      counts: how often each computation runs, trips of nested loops multiplied.
      unknown_loops: loops whose trip count the text does not show; they count once.
    """

    computations: dict[str, Computation]
    entry: str
    counts: dict[str, int]
    unknown_loops: int

    def executions(self) -> Iterator[tuple[Instruction, int, str]]:
        """Yields each instruction, how often it runs, and its computation's name."""
        for name, count in self.counts.items():
            for instruction in self.computations[name].instructions.values():
                yield instruction, count, name


def parse(text: str) -> HloProgram:
    """Returns the program of `compiled.as_text()`.

    Raises ValueError if the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = Computation(head[2], {})
            computations[head[2]] = current
            entry = head[2] if head[1] else entry
        elif current is not None and (parsed := _instruction(line)) is not None:
            current.instructions[parsed.name] = parsed
    if entry is None:
        raise ValueError("the text has no entry computation")
    walk = _CallCounter(computations)
    walk.run(entry, 1)
    return HloProgram(computations, entry, walk.counts, len(walk.unknown))


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
    """Returns the index after the parenthesis that closes the one at `start`."""
    depth = 0
    for index in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[index], 0)
        if not depth:
            return index + 1
    return len(line)


class _CallCounter:
    """Follows the calls from the entry and counts how often each computation runs."""

    def __init__(self, computations: dict[str, Computation]) -> None:
        self._computations = computations
        self.counts: dict[str, int] = {}
        self.unknown: set[str] = set()

    def run(self, name: str, count: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + count
        for instruction in self._computations[name].instructions.values():
            if instruction.opcode == "while":
                trips = self._trips(instruction)
                self.run(loop_part(instruction, "body"), count * trips)
            for called in (*instruction.called, *instruction.branches):
                self.run(called, count)

    def _trips(self, loop: Instruction) -> int:
        """Returns the trips of a loop that counts from 0, as those of `scan` do."""
        if known := _TRIPS.search(loop.attributes):
            return int(known[1])
        condition = self._computations[loop_part(loop, "condition")]
        limits = [
            int(x.text)
            for x in condition.instructions.values()
            if x.opcode == "constant" and x.text.lstrip("-").isdigit()
        ]
        if "direction=LT" not in self._innermost(condition.root).attributes:
            limits = []
        if len(limits) != 1:
            self.unknown.add(loop.name)
            return 1
        return -(-limits[0] // self._stride(loop, condition))

    def _stride(self, loop: Instruction, condition: Computation) -> int:
        """Returns what a trip adds to the counter.

        It is 2 where XLA communicates in both directions. A sum hidden in a fusion
        adds 1, as that of `scan` does.
        """
        read = [x for x in condition.instructions.values() if x.opcode == _ELEMENT]
        index = _index(read[0]) if read else None
        body = self._computations[loop_part(loop, "body")]
        if index is None or index >= len(body.root.operands):
            return 1
        counter = body.instructions[body.root.operands[index]]
        added = [body.instructions[name] for name in counter.operands]
        steps = [int(x.text) for x in added if x.opcode == "constant"]
        return steps[0] if counter.opcode == "add" and len(steps) == 1 else 1

    def _innermost(self, comparison: Instruction) -> Instruction:
        """Returns the comparison itself, which may be wrapped in a fusion."""
        while comparison.called:
            comparison = self._computations[comparison.called[0]].root
        return comparison


def loop_part(loop: Instruction, part: str) -> str:
    """Returns the name of the computation that is the `body` or the `condition`."""
    found = re.search(rf"\b{part}=%?([\w.\-]+)", loop.attributes)
    assert found is not None, loop.attributes
    return found[1]


def _index(x: Instruction) -> int | None:
    found = re.search(r"\bindex=(\d+)", x.attributes)
    return None if found is None else int(found[1])


# Products of a [L, H] by a [H, L] or [L, L] by [L, H] matrix in a kernel of splash
# attention, forward and backward (jax.experimental.pallas.ops.tpu.splash_attention).
_KERNELS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
# The same of cuDNN's attention, whose first result is [B, N, L, H]; its backward pass
# computes the scores again.
_CUDNN_KERNELS = {'"__cudnn$fmhaSoftmax"': 2, '"__cudnn$fmhaSoftmaxBackward"': 5}
# Of a dot, or in the backend config of a cuBLAS call.
_CONTRACTED = re.compile(
    r'(?:lhs_contracting_dims=\{|"lhs_contracting_dimensions":\[)([\d,"]*)'
)


class HloCost(NamedTuple):
    """What one run of a program does on one device.

    Attributes:
      flops: floating-point operations of matrix products.
      main_bytes: read from and written to main memory.
      unknown_kernels: kernel calls whose work the text does not show.
      unknown_loops: loops whose trips the text does not show; they count once.
    """

    flops: float
    main_bytes: float
    unknown_kernels: int
    unknown_loops: int


def cost(program: HloProgram) -> HloCost:
    """Returns what one run of the program costs, loops with all their trips."""
    fused = _fused(program)
    flops = main_bytes = 0.0
    unknown = 0
    for name, count in program.counts.items():
        computation = program.computations[name]
        for x in computation.instructions.values():
            work = _flops(x, computation)
            flops += count * (work or 0.0)
            unknown += work is None
            if name not in fused:
                main_bytes += count * _bytes(x, computation, program)
    return HloCost(flops, main_bytes, unknown, program.unknown_loops)


def _fused(program: HloProgram) -> set[str]:
    """Returns the computations whose inner results never reach memory."""
    return {
        name
        for computation in program.computations.values()
        for x in computation.instructions.values()
        if x.opcode == "fusion"
        for name in x.called
    }


def _flops(x: Instruction, inside: Computation) -> float | None:
    """Returns the FLOPs of an instruction, or None for an unknown kernel."""
    if x.opcode == "dot":
        return _dot_flops(x, inside)
    if x.opcode == "convolution":
        return _convolution_flops(x, inside)
    if x.opcode != "custom-call":
        return 0.0
    if "tpu_custom_call" in x.attributes:
        return _kernel_flops(x, inside)
    if '"__cublas$' in x.attributes:
        return _dot_flops(x, inside)
    return _cudnn_flops(x) if '"__cudnn$' in x.attributes else 0.0


def _cudnn_flops(x: Instruction) -> float | None:
    """Returns the FLOPs of a kernel of cuDNN: of its attention, or None."""
    named = [p for name, p in _CUDNN_KERNELS.items() if name in x.attributes]
    dims = x.shapes[0].dims
    if len(named) != 1 or len(dims) != 4:
        return None
    return 2.0 * named[0] * math.prod(dims) * dims[2]


def _kernel_flops(x: Instruction, inside: Computation) -> float | None:
    """Returns the FLOPs of an attention kernel over [B, N, L, H].

    Its first operand has the shape of the grid of blocks [.., Q, K]; local attention
    leaves out blocks along one axis. Query gradients in parts [B, K, N, L, H] are
    computed together with those of keys and values, in one more product.
    """
    named = [products for name, products in _KERNELS.items() if name in x.name]
    shapes = [y.shapes[0].dims for y in inside.operands_of(x) if y.shapes]
    heads = [dims for dims in shapes if len(dims) == 4]
    if len(named) != 1 or not heads or len(shapes[0]) < 2:
        return None
    batch, number, length, width = heads[0]
    products = named[0] + any(len(shape.dims) == 5 for shape in x.shapes)
    grid = shapes[0][-2:]
    block = length / max(grid)
    return 2.0 * products * batch * number * width * math.prod(grid) * block**2


def _dot_flops(x: Instruction, inside: Computation) -> float:
    found = _CONTRACTED.search(x.attributes)
    axes = [int(axis) for axis in re.findall(r"\d+", found[1])] if found else []
    dims = inside.instructions[x.operands[0]].shapes[0].dims
    contracted = math.prod(dims[axis] for axis in axes)
    return 2.0 * math.prod(x.shapes[0].dims) * contracted


def _convolution_flops(x: Instruction, inside: Computation) -> float:
    """Counts the pairs of an output and a weight that meet an input, not padding.

    TPUs compute products as convolutions, batched ones over a dilated input.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", x.attributes)
    assert labels is not None, x.attributes
    shapes = [inside.instructions[name].shapes[0] for name in x.operands[:2]]
    left = dict(zip(labels[1], shapes[0].dims, strict=True))
    right = dict(zip(labels[2], shapes[1].dims, strict=True))
    out = dict(zip(labels[3], x.shapes[0].dims, strict=True))
    pairs = 1
    for axis, window in enumerate(_windows(x.attributes)):
        label = str(axis)
        pairs *= window.pairs(left[label], right[label], out[label])
    groups = re.search(r"batch_group_count=(\d+)", x.attributes)
    batch = out["b"] if groups is None else out["b"] // int(groups[1])
    return 2.0 * batch * out["f"] * right["i"] * pairs


class _Window(NamedTuple):
    """How the window of a convolution moves along one spatial axis."""

    stride: int
    pad: int
    lhs_dilate: int
    rhs_dilate: int

    def pairs(self, size: int, kernel: int, out: int) -> int:
        """Returns the pairs of an output and a weight that meet an input."""
        pairs = 0
        for position in range(out):
            for offset in range(kernel):
                at = position * self.stride - self.pad + offset * self.rhs_dilate
                step, rest = divmod(at, self.lhs_dilate)
                pairs += not rest and 0 <= step < size
        return pairs


def _windows(attributes: str) -> list[_Window]:
    found = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(part.split("=") for part in found[1].split()) if found else {}
    if "size" not in fields:
        return []
    ones = "x".join("1" * len(fields["size"].split("x")))
    defaults = {"stride": ones, "pad": ones.replace("1", "0")}
    defaults |= {"lhs_dilate": ones, "rhs_dilate": ones}
    columns = [
        [int(part.split("_")[0]) for part in fields.get(name, usual).split("x")]
        for name, usual in defaults.items()
    ]
    return [_Window(*values) for values in zip(*columns, strict=True)]


# They move no data: views, tuples, and what is counted at its producer or its user.
_FREE = (
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while"),
    *("conditional", "call", "after-all", "partition-id", "replica-id", "opt-barrier"),
)
_SLICES = ("slice", "dynamic-slice", "gather")


def _is_buffer(x: Instruction) -> bool:
    """Reports whether a call only names memory: a new buffer, or joined slices."""
    targets = ('"AllocateBuffer"', '"ConcatBitcast"')
    return x.opcode == "custom-call" and any(name in x.attributes for name in targets)


def _bytes(x: Instruction, inside: Computation, program: HloProgram) -> float:
    """Returns what an instruction reads from and writes to main memory."""
    if x.opcode in _FREE or x.opcode.endswith("-done") or _is_buffer(x):
        return 0.0
    operands = inside.operands_of(x)
    if x.opcode == "fusion":
        moved = sum(
            fusion_reads(x, number, program)
            for number, operand in enumerate(operands)
            if not operand.is_on_chip
        )
        written = zip(fusion_writes(x, program), x.shapes, strict=False)
        moved += sum(size for size, shape in written if not shape.space)
        return float(moved)
    if x.opcode in ("copy-start", "slice-start"):  # (from, to, ...) or (to, from, ...)
        ends = x.shapes[:2]
        ends_in_main_memory = sum(not shape.space for shape in ends)
        return float(min(shape.bytes for shape in ends) * ends_in_main_memory)
    if x.opcode in _SLICES:
        parts = (not operands[0].is_on_chip) + (not x.is_on_chip)
        return float(x.bytes * parts + sum(y.bytes for y in operands[1:]))
    if x.opcode == "dynamic-update-slice":
        parts = (not operands[1].is_on_chip) + (not x.is_on_chip)
        return float(operands[1].bytes * parts)
    return float(sum(shape.main_bytes for y in (x, *operands) for shape in y.shapes))


def fusion_reads(fusion: Instruction, number: int, program: HloProgram) -> float:
    """Returns how many bytes a fusion reads of its operand with this number."""
    body = program.computations[fusion.called[0]]
    for x in body.instructions.values():
        if x.opcode == "parameter" and x.text == str(number):
            return _read(x, x.bytes, body, program)
    return 0.0


def _read(x: Instruction, size: int, body: Computation, program: HloProgram) -> float:
    """Returns how many bytes all users of an instruction need, at most its size."""
    users = [y for y in body.instructions.values() if x.name in y.operands]
    needed = sum(_needed(x, user, size, body, program) for user in users)
    return float(min(size, needed))


def _needed(
    x: Instruction, user: Instruction, size: int, body: Computation, program: HloProgram
) -> float:
    first = user.operands[0] == x.name
    if user.opcode in _SLICES and first:
        return float(user.bytes)
    if user.opcode == "dynamic-update-slice" and first:
        return 0.0  # in place: what it leaves unchanged is not read
    if user.opcode in KINDS or (user.is_root and user.opcode == "tuple"):
        return 0.0  # in flight during the fusion, which only passes it on
    if _is_view(user):
        return _read(user, size, body, program)
    if user.opcode == "fusion":
        numbers = [n for n, name in enumerate(user.operands) if name == x.name]
        return float(sum(fusion_reads(user, number, program) for number in numbers))
    return float(size)


def _is_view(x: Instruction) -> bool:
    """Reports whether an array is another form of its operand, read in parts."""
    in_place = "output_to_operand_aliasing={{}: (0, {})}" in x.attributes
    same = x.opcode == "fusion" and in_place and len(x.operands) == 1
    return same or x.opcode in ("bitcast", "copy")


def fusion_writes(fusion: Instruction, program: HloProgram) -> list[float]:
    """Returns how many bytes a fusion writes of each of its results."""
    body = program.computations[fusion.called[0]]
    roots = [body.root]
    if body.root.opcode == "tuple":
        roots = [body.instructions[name] for name in body.root.operands]
    return [_written(root, body, program) for root in roots]


def _written(root: Instruction, body: Computation, program: HloProgram) -> float:
    if root.opcode == "bitcast":
        return _written(body.instructions[root.operands[0]], body, program)
    if root.opcode == "parameter" or root.opcode in KINDS:
        return 0.0
    if root.opcode == "dynamic-update-slice":
        return float(body.instructions[root.operands[1]].bytes)
    if root.opcode == "fusion" and len(root.shapes) == 1:
        return fusion_writes(root, program)[0]
    if root.opcode == _ELEMENT:
        inner, index = body.instructions[root.operands[0]], _index(root)
        if inner.opcode == "fusion" and index is not None:
            return fusion_writes(inner, program)[index]
    return float(root.bytes)


KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
KINDS += ("collective-permute",)
# XLA for TPUs fuses an all-reduce with the slice of it that a chip keeps.
_SCATTERED = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of one kind over groups of one size.

    Attributes:
      kind: one of `KINDS`.
      group: chips in a group.
      count: collectives in one step.
      bytes: of the arrays in one step, whole as the group holds or produces them.
      sent: bytes that one chip sends in one step.
    """

    kind: str
    group: int
    count: int
    bytes: float
    sent: float


def collectives(program: HloProgram, num_devices: int) -> list[Collective]:
    """Returns the collectives of one run of a program, largest sender first.

    A collective that overlaps with other work appears again in each piece of that
    work: instructions of one channel are one collective.
    """
    totals: dict[tuple[str, int], Collective] = {}
    for instruction, count, inside in _once_per_channel(program):
        kind = collective_kind(instruction)
        group = _group(instruction.attributes, num_devices)
        if group == 1:
            continue
        size = _size(instruction, kind, group)
        if inside.startswith(_SCATTERED):
            kind = "reduce-scatter"
        before = totals.get((kind, group), Collective(kind, group, 0, 0.0, 0.0))
        totals[kind, group] = Collective(
            kind,
            group,
            before.count + count,
            before.bytes + count * size,
            before.sent + count * sent_bytes(kind, group, size),
        )
    return sorted(totals.values(), key=lambda one: -one.sent)


def collective_kind(x: Instruction) -> str:
    """Returns the kind of collective, one of `KINDS`, or "" for other instructions."""
    kind = x.opcode.removesuffix("-start")
    return kind if kind in KINDS else ""


def sent_bytes(kind: str, group: int, size: int | float) -> float:
    """Returns the bytes that each of `group` chips sends for an array of this size.

    >>> sent_bytes("all-reduce", 4, 1000)
    1500.0
    """
    if kind == "collective-permute":
        return float(size)
    fraction = (group - 1) / group
    return size * fraction * {"all-reduce": 2, "all-to-all": 1 / group}.get(kind, 1)


def results(x: Instruction) -> tuple[Array, ...]:
    """Returns the results of a collective; a `-start` lists its operands as well."""
    if not x.opcode.endswith("-start") or x.opcode.startswith("all-reduce"):
        return x.shapes
    arrays = [shape for shape in x.shapes if shape.dims or shape.dtype[0] not in "us"]
    return tuple(arrays[len(arrays) // 2 :])


def _once_per_channel(program: HloProgram) -> list[tuple[Instruction, int, str]]:
    """Returns each collective, how often it runs, and its computation.

    It runs as often as the rarest instruction of its channel.
    """
    found: dict[str, tuple[Instruction, int, str]] = {}
    for number, (instruction, count, inside) in enumerate(program.executions()):
        kind = collective_kind(instruction)
        if not kind:
            continue
        channel = re.search(r"channel_id=\d+", instruction.attributes)
        key = f"{kind} {channel[0] if channel else number}"
        if key not in found or count < found[key][1]:
            found[key] = (instruction, count, inside)
    return list(found.values())


def _size(x: Instruction, kind: str, group: int) -> float:
    """Returns the bytes of the array that the whole group holds or produces."""
    size = sum(shape.bytes for shape in results(x))
    return float(size * group if kind in ("reduce-scatter", "all-to-all") else size)


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
    return num_devices  # no groups: all together, or the pairs of a permutation
