"""What one device holds of a train state, and what is sent of it: from a compiled step.

A mesh saves what it should if parameters and optimizer state fall as 1 / n, n being the
devices that they are cut over, and if nobody ever puts the optimizer state together.
"""

import dataclasses
import math
import re
from typing import Any

import jax

from bert_jax.planning import collectives, hlo, hlo_flow
from bert_jax.training import state

_PARAMS, _OPTIMIZER = "state.params", "state.opt_state"
_KEY = re.compile(r"\['([^']*)'\]")


@dataclasses.dataclass(frozen=True)
class Shares:
    """The state of one device, and what a step sends.

    Attributes:
      params_bytes, optimizer_bytes: on one device, as the program's arguments say.
      whole_params_bytes, whole_optimizer_bytes: of the state itself.
      parts: devices that share a state; there is a copy for each `data`.
      peak_bytes: all that one device holds in a step.
      uncut: names of the parameters that every device has whole.
      talk: all that is sent.
      moments: of it, what depends on the optimizer state.
    """

    params_bytes: int
    optimizer_bytes: int
    whole_params_bytes: int
    whole_optimizer_bytes: int
    parts: int
    peak_bytes: int
    uncut: frozenset[str]
    talk: tuple[collectives.Collective, ...]
    moments: frozenset[hlo_flow.Sent]

    @property
    def params_share(self) -> float:
        """Parameters of one device, of all; at least 1 / parts."""
        return self.params_bytes / self.whole_params_bytes

    @property
    def optimizer_share(self) -> float:
        """Optimizer state of one device, of all; at least 1 / parts."""
        return self.optimizer_bytes / self.whole_optimizer_bytes


def measure(shapes: state.TrainState, compiled: Any) -> Shares:
    """Returns what a compiled step holds and sends.

    Args:
      shapes: the abstract state that it was compiled for.
      compiled: as `program.build` returns it, for devices here or elsewhere.
    """
    mesh = state.mesh_of(shapes)
    text = hlo.read(compiled.as_text())
    held = hlo_flow.arguments(text)
    memory = compiled.memory_analysis()
    anew = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Shares(
        params_bytes=_held(held, _PARAMS),
        optimizer_bytes=_held(held, _OPTIMIZER),
        whole_params_bytes=_whole(shapes.params),
        whole_optimizer_bytes=_whole(shapes.opt_state),
        parts=mesh.shape["fsdp"] * mesh.shape["tensor"],
        peak_bytes=memory.argument_size_in_bytes + memory.temp_size_in_bytes + anew,
        uncut=_uncut(held, shapes.params),
        talk=tuple(collectives.collect(text, mesh.size)),
        moments=frozenset(hlo_flow.sent(text, is_moment)),
    )


def is_moment(argument: str) -> bool:
    """Says whether an argument is optimizer state of a parameter: no count of steps."""
    return argument.startswith(_OPTIMIZER) and "['" in argument


def _held(held: dict[str, hlo.Array], prefix: str) -> int:
    return sum(array.bytes for name, array in held.items() if name.startswith(prefix))


def _whole(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _uncut(held: dict[str, hlo.Array], params: Any) -> frozenset[str]:
    """Returns the names of parameters of which the program takes the whole."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    whole = {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}
    found = {"/".join(_KEY.findall(n)): x for n, x in held.items() if _PARAMS in n}
    return frozenset(name for name, x in found.items() if x.dims == whole[name].shape)
