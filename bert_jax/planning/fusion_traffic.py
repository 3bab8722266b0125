"""What a fusion reads of its operands and writes: of slices the parts, not the whole.

A loop over layers cuts its part out of arrays of all layers inside a fusion, or in a
fusion within one, and writes its part in place. Counted whole, the traffic of a loop
would grow with the square of its trips.
"""

import re

from bert_jax.planning import collectives, hlo

SLICES = ("slice", "dynamic-slice", "gather")


def read(fusion: hlo.Instruction, number: int, program: hlo.Program) -> float:
    """Returns how many bytes a fusion reads of its operand of this number."""
    body = program.computations[fusion.called[0]]
    for x in body.instructions.values():
        if x.opcode == "parameter" and x.text == str(number):
            return _read(x, x.bytes, body, program)
    return 0.0


def _read(
    x: hlo.Instruction, size: int, body: hlo.Computation, program: hlo.Program
) -> float:
    """Returns how many bytes all users of an instruction need, at most its size."""
    users = [y for y in body.instructions.values() if x.name in y.operands]
    needed = sum(_needed(x, user, size, body, program) for user in users)
    return float(min(size, needed))


def _needed(
    x: hlo.Instruction,
    user: hlo.Instruction,
    size: int,
    body: hlo.Computation,
    program: hlo.Program,
) -> float:
    first = user.operands[0] == x.name
    if user.opcode in SLICES and first:
        return float(user.bytes)
    if user.opcode == "dynamic-update-slice" and first:
        return 0.0  # in place: what it leaves as it is is not read
    if user.opcode in collectives.KINDS or (user.is_root and user.opcode == "tuple"):
        return 0.0  # under way beside the fusion, which only hands it on
    if _is_view(user):
        return _read(user, size, body, program)
    if user.opcode == "fusion":
        places = [n for n, name in enumerate(user.operands) if name == x.name]
        return float(sum(read(user, number, program) for number in places))
    return float(size)


def _is_view(x: hlo.Instruction) -> bool:
    """Says whether an array is the same in another form, of which parts can be made."""
    in_place = "output_to_operand_aliasing={{}: (0, {})}" in x.attributes
    same = x.opcode == "fusion" and in_place and len(x.operands) == 1
    return same or x.opcode in ("bitcast", "copy")


def written(fusion: hlo.Instruction, program: hlo.Program) -> list[float]:
    """Returns how many bytes a fusion writes of each of its results."""
    body = program.computations[fusion.called[0]]
    roots = [body.root]
    if body.root.opcode == "tuple":
        roots = [body.instructions[name] for name in body.root.operands]
    return [_written(root, body, program) for root in roots]


def _written(
    root: hlo.Instruction, body: hlo.Computation, program: hlo.Program
) -> float:
    if root.opcode == "bitcast":
        return _written(body.instructions[root.operands[0]], body, program)
    if root.opcode == "parameter" or root.opcode in collectives.KINDS:
        return 0.0
    if root.opcode == "dynamic-update-slice":
        return float(body.instructions[root.operands[1]].bytes)
    if root.opcode == "fusion" and len(root.shapes) == 1:
        return written(root, program)[0]
    if root.opcode == "get-tuple-element":
        return _of_tuple(root, body, program)
    return float(root.bytes)


def _of_tuple(x: hlo.Instruction, body: hlo.Computation, program: hlo.Program) -> float:
    """Returns what is written of one result of a fusion within the fusion."""
    inner = body.instructions[x.operands[0]]
    index = re.search(r"index=(\d+)", x.attributes)
    if inner.opcode != "fusion" or index is None:
        return float(x.bytes)
    return written(inner, program)[int(index[1])]
