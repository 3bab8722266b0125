"""How long a step takes at best: the longest of computing, moving and talking.

The roofline of Williams et al. 2009: work over peak, traffic over bandwidth, and what
is sent over the links, each as if the others took no time. A real step takes longer;
how much longer only a run can tell.
"""

import dataclasses

from bert_jax.planning import collectives
from bert_jax.planning import topology as topologies

COMPUTE, MEMORY, COMMUNICATION = "compute", "memory", "communication"


@dataclasses.dataclass(frozen=True)
class Needs:
    """What one chip does in one step.

    Attributes:
      useful_flops: by the formula of `model.costs`.
      flops: of all products, what is computed again among them.
      main_bytes: read from and written to the main memory.
      talk: what the chips send each other.
      arguments_bytes: of state and batch.
      temporary_bytes: beside them.
    """

    useful_flops: float
    flops: float
    main_bytes: float
    talk: tuple[collectives.Collective, ...]
    arguments_bytes: float
    temporary_bytes: float

    @property
    def peak_bytes(self) -> float:
        """What one chip must hold."""
        return self.arguments_bytes + self.temporary_bytes


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The least seconds that one step takes, by cause.

    Attributes:
      utilisation: the formula's FLOPs over what the chips could do in the whole step.
    """

    compute: float
    memory: float
    communication: float
    utilisation: float

    @property
    def seconds(self) -> float:
        """Of the step: the longest of the three."""
        return max(self.compute, self.memory, self.communication)

    @property
    def bound(self) -> str:
        """What takes longest."""
        causes = {
            COMPUTE: self.compute,
            MEMORY: self.memory,
            COMMUNICATION: self.communication,
        }
        return max(causes, key=lambda cause: causes[cause])


def predict(needs: Needs, topology: topologies.Topology) -> Prediction:
    """Returns how long a step takes at least on these chips."""
    chip = topology.chip
    compute = needs.flops / chip.peak_flops
    memory = needs.main_bytes / chip.memory_bandwidth
    talking = sum((talk_seconds(one, topology) for one in needs.talk), 0.0)
    longest = max(compute, memory, talking)
    utilisation = needs.useful_flops / chip.peak_flops / longest
    return Prediction(compute, memory, talking, utilisation)


def talk_seconds(one: collectives.Collective, topology: topologies.Topology) -> float:
    """Returns the time of collectives over all links of a chip at once.

    Groups that links do not join talk in two stages: within each slice or machine over
    the links, and between them over the network, where every chip sends its part.
    """
    chip, linked = topology.chip, topology.linked
    if one.group <= linked:
        return one.sent / chip.interconnect
    inside = collectives.sent(one.kind, linked, one.bytes) / chip.interconnect
    between = -(-one.group // linked)
    part = one.bytes / linked
    return inside + collectives.sent(one.kind, between, part) / chip.network
