"""The work of a compiled program and its traffic with the main memory, from its text.

XLA's `cost_analysis` counts the body of a loop once, knows nothing of kernels, and adds
what lies in fast memory on the chip to the bytes. Here loops count with their trips,
FLOPs are those of products (two a multiplication with its addition), and traffic is
what is read from and written to the main memory between fusions, where a slice counts
as the part that it takes.
"""

import math
import re
from typing import NamedTuple

from bert_jax.planning import fusion_traffic, hlo

# They move nothing: views, bundles, and what is counted where it is made or used.
_FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
)


# Products of a [L, H] by a [H, L] or [L, L] by [L, H] matrix in a kernel of splash
# attention, forward and backward (jax.experimental.pallas.ops.tpu.splash_attention).
_KERNELS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}


# Of a dot, or in the settings of a call of cuBLAS.
_CONTRACTED = re.compile(
    r'(?:lhs_contracting_dims=\{|"lhs_contracting_dimensions":\[)([\d,"]*)'
)


class Cost(NamedTuple):
    """What a program does on one device in one run.

    Attributes:
      flops: floating-point operations of products.
      main_bytes: read from and written to the main memory.
      bytes: read and written in all memories.
      unknown_kernels: calls of kernels whose work the text does not tell.
    """

    flops: float
    main_bytes: float
    bytes: float
    unknown_kernels: int


def cost(program: hlo.Program) -> Cost:
    """Returns what one run of the program costs, loops with all their trips."""
    fused = _fused(program)
    flops = main = everywhere = 0.0
    unknown = 0
    for name, times in program.times.items():
        computation = program.computations[name]
        for x in computation.instructions.values():
            work = _flops(x, computation)
            flops += times * (work or 0.0)
            unknown += work is None
            if name not in fused:
                main += times * _bytes(x, computation, program, only_main=True)
                everywhere += times * _bytes(x, computation, program, only_main=False)
    return Cost(flops, main, everywhere, unknown)


def _fused(program: hlo.Program) -> set[str]:
    """Returns the computations whose inner results never reach the memory."""
    return {
        name
        for computation in program.computations.values()
        for x in computation.instructions.values()
        if x.opcode == "fusion"
        for name in x.called
    }


def _flops(x: hlo.Instruction, inside: hlo.Computation) -> float | None:
    """Returns the products of an instruction; None of a kernel that is not known."""
    if x.opcode == "dot":
        return _dot_flops(x, inside)
    if x.opcode == "convolution":
        return _convolution_flops(x, inside)
    if x.opcode == "custom-call":
        return _call_flops(x, inside)
    return 0.0


def _call_flops(x: hlo.Instruction, inside: hlo.Computation) -> float | None:
    """Returns the products of a call of a kernel or of a library."""
    if "tpu_custom_call" in x.attributes:
        return _kernel_flops(x, inside)
    if '"__cublas$' in x.attributes:
        return _dot_flops(x, inside)
    return None if '"__cudnn$' in x.attributes else 0.0


def _kernel_flops(x: hlo.Instruction, inside: hlo.Computation) -> float | None:
    """Returns the products of an attention kernel over [B, N, L, H].

    Its first operand has the shape of the grid of blocks [.., Q, K]; local attention
    leaves blocks of one side out. Gradients by queries that come in parts [B, K, N, L,
    H] are computed with those by keys and values, in one more product.
    """
    named = [products for name, products in _KERNELS.items() if name in x.name]
    shapes = [y.shapes[0].dims for y in _operands(x, inside) if y.shapes]
    heads = [dims for dims in shapes if len(dims) == 4]
    if len(named) != 1 or not heads or len(shapes[0]) < 2:
        return None
    batch, number, length, width = heads[0]
    products = named[0] + any(len(shape.dims) == 5 for shape in x.shapes)
    grid = shapes[0][-2:]
    block = length / max(grid)
    return 2.0 * products * batch * number * width * math.prod(grid) * block**2


def _dot_flops(x: hlo.Instruction, inside: hlo.Computation) -> float:
    found = _CONTRACTED.search(x.attributes)
    axes = [int(axis) for axis in re.findall(r"\d+", found[1])] if found else []
    dims = inside.instructions[x.operands[0]].shapes[0].dims
    contracted = math.prod(dims[axis] for axis in axes)
    return 2.0 * math.prod(x.shapes[0].dims) * contracted


def _convolution_flops(x: hlo.Instruction, inside: hlo.Computation) -> float:
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
        pairs *= _meeting(left[label], right[label], out[label], window)
    groups = re.search(r"batch_group_count=(\d+)", x.attributes)
    batch = out["b"] if groups is None else out["b"] // int(groups[1])
    return 2.0 * batch * out["f"] * right["i"] * pairs


class _Window(NamedTuple):
    stride: int
    pad: int
    lhs_dilate: int
    rhs_dilate: int


def _windows(attributes: str) -> list[_Window]:
    """Returns how the window moves along each spatial axis."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(part.split("=") for part in found[1].split()) if found else {}
    if "size" not in fields:
        return []
    number = len(fields["size"].split("x"))

    def each(name: str, default: int) -> list[int]:
        parts = fields[name].split("x") if name in fields else [str(default)] * number
        return [int(part.split("_")[0]) for part in parts]

    return [
        _Window(*values)
        for values in zip(
            each("stride", 1),
            each("pad", 0),
            each("lhs_dilate", 1),
            each("rhs_dilate", 1),
            strict=True,
        )
    ]


def _meeting(size: int, kernel: int, out: int, window: _Window) -> int:
    met = 0
    for place in range(out):
        for offset in range(kernel):
            at = place * window.stride - window.pad + offset * window.rhs_dilate
            step, rest = divmod(at, window.lhs_dilate)
            met += not rest and 0 <= step < size
    return met


def _is_buffer(x: hlo.Instruction) -> bool:
    """Says whether a call only names memory: new, or what several slices made."""
    targets = ('"AllocateBuffer"', '"ConcatBitcast"')
    return x.opcode == "custom-call" and any(name in x.attributes for name in targets)


def _operands(x: hlo.Instruction, inside: hlo.Computation) -> list[hlo.Instruction]:
    return [inside.instructions[n] for n in x.operands if n in inside.instructions]


def _bytes(
    x: hlo.Instruction,
    inside: hlo.Computation,
    program: hlo.Program,
    *,
    only_main: bool,
) -> float:
    """Returns what an instruction reads and writes, of all memories or the main one."""
    if x.opcode in _FREE or x.opcode.endswith("-done") or _is_buffer(x):
        return 0.0
    operands = _operands(x, inside)

    def there(y: hlo.Instruction) -> bool:
        return not (only_main and y.bytes and not y.main_bytes)

    if x.opcode == "fusion":
        read = [fusion_traffic.read(x, n, program) for n in range(len(operands))]
        sizes = [size for size, y in zip(read, operands, strict=True) if there(y)]
        written = zip(fusion_traffic.written(x, program), x.shapes, strict=False)
        sizes += [size for size, shape in written if not (only_main and shape.space)]
        return float(sum(sizes))
    if x.opcode in ("copy-start", "slice-start"):  # (from, to, ...) or (to, from, ...)
        sides = sorted(x.shapes[:2], key=lambda shape: shape.bytes)
        moved = sides[0].bytes
        return float(moved * sum(not (only_main and shape.space) for shape in sides))
    if x.opcode in fusion_traffic.SLICES:
        read = x.bytes * there(operands[0]) + sum(y.bytes for y in operands[1:])
        return float(read + x.bytes * there(x))
    if x.opcode == "dynamic-update-slice":
        return float(operands[1].bytes * (there(operands[1]) + there(x)))
    arrays = [shape for y in (x, *operands) for shape in y.shapes]
    return float(sum(a.main_bytes if only_main else a.bytes for a in arrays))
