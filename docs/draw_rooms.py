"""Draws the rooms of the package and the imports between them, read from the source.

    python docs/draw_rooms.py     # writes docs/rooms.svg

A room is a folder of `bert_jax/`, or a module at its top level. It is drawn above every
room that it imports. An arrow is left out if a longer way of imports has the same ends.
"""

import ast
import collections
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "bert_jax"
PICTURE = ROOT / "docs" / "rooms.svg"
TOGETHER = {  # modules at the top level that are drawn as one box
    "commands": (
        *("__main__", "commands", "convert", "evaluate", "finetune", "plan"),
        *("predict", "prepare", "pretrain", "suite"),
    ),
    "foundation, errors, ...": ("console", "errors", "foundation"),
}
WIDTH, HEIGHT, GAP_X, GAP_Y = 132, 34, 28, 46


def rooms_imported() -> dict[str, set[str]]:
    """Returns for each room the rooms that its modules import."""
    imported: dict[str, set[str]] = collections.defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        room = _room(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                ours = [x.split(".")[1] for x in names if x.startswith("bert_jax.")]
                imported[room] |= {_room(x) for x in ours} - {room, "load"}
    for rooms in list(imported.values()):
        for room in rooms:
            imported[room] |= set()
    return dict(imported)


def _room(name: str) -> str:
    """Returns the room that a module or folder at the top level is drawn in."""
    return next((room for room, names in TOGETHER.items() if name in names), name)


def floors(imported: dict[str, set[str]]) -> dict[str, int]:
    """Returns the floor of each room: one above the highest room that it imports.

    Raises ValueError if rooms import each other in a circle.
    """
    result: dict[str, int] = {}

    def floor(room: str, above: tuple[str, ...]) -> int:
        if room in above:
            raise ValueError(f"circle of imports: {' -> '.join((*above, room))}")
        if room not in result:
            below = [floor(x, (*above, room)) for x in imported[room]]
            result[room] = 1 + max(below, default=-1)
        return result[room]

    for room in imported:
        floor(room, ())
    return result


def arrows(imported: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Returns the imports that no longer way of imports implies."""

    def reach(room: str) -> set[str]:
        return set().union(*({x} | reach(x) for x in imported[room]))

    return [
        (room, other)
        for room in sorted(imported)
        for other in sorted(imported[room])
        if not any(other in reach(x) for x in imported[room] - {other})
    ]


def svg() -> str:
    """Returns the picture."""
    imported = rooms_imported()
    of_floor = collections.defaultdict(list)
    for room, floor in sorted(floors(imported).items()):
        of_floor[floor].append(room)
    widest = max(map(len, of_floor.values()))
    width = widest * (WIDTH + GAP_X) + GAP_X
    height = len(of_floor) * (HEIGHT + GAP_Y)
    corners = {}
    for floor, rooms in of_floor.items():
        y = height - (floor + 1) * (HEIGHT + GAP_Y) + GAP_Y // 2
        left = (width - len(rooms) * (WIDTH + GAP_X) + GAP_X) // 2
        for at, room in enumerate(rooms):
            corners[room] = left + at * (WIDTH + GAP_X), y
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="14">',
        "<title>The rooms of bert_jax and the imports between them</title>",
        '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#556"/></marker>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for room, other in arrows(imported):
        (x, y), (other_x, other_y) = corners[room], corners[other]
        lines.append(
            f'<line x1="{x + WIDTH // 2}" y1="{y + HEIGHT}" '
            f'x2="{other_x + WIDTH // 2}" y2="{other_y}" stroke="#99a" '
            'marker-end="url(#tip)"/>'
        )
    for room, (x, y) in corners.items():
        lines.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" '
            'fill="#eef3fb" stroke="#5a7bb0"/>'
            f'<text x="{x + WIDTH // 2}" y="{y + 22}" text-anchor="middle">'
            f"{room}</text>"
        )
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(svg(), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
