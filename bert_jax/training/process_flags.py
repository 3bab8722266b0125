"""How the processes of a run are to find each other, as the command line says it."""

import dataclasses
import os
from typing import Any

from bert_jax import errors
from bert_jax.training import tpus

CLUSTERS = ("auto", "none", "slurm", "ompi", "k8s", "mpi4py")


@dataclasses.dataclass(frozen=True)
class Flags:
    """How processes are to find each other.

    Attributes:
      cluster: one of CLUSTERS; "auto" asks JAX where one of them is there.
      coordinator: HOST:PORT of process 0, where no cluster says it.
      num_processes, process_id: likewise; -1 where a cluster says it.
      heartbeat_seconds: a process that is silent for so long is lost.
    """

    cluster: str = "auto"
    coordinator: str = ""
    num_processes: int = -1
    process_id: int = -1
    heartbeat_seconds: int = 100


def arguments(flags: Flags) -> dict[str, Any] | None:
    """Returns what `jax.distributed.initialize` is to be told; None for one process.

    Raises InputError for flags that do not belong together.
    """
    _check(flags)
    if not flags.coordinator and not _in_cluster(flags.cluster):
        return None
    return {
        "coordinator_address": flags.coordinator or None,
        "num_processes": _given(flags.num_processes),
        "process_id": _given(flags.process_id),
        "local_device_ids": _local_devices(flags.cluster),
        "cluster_detection_method": _detection(flags),
        "heartbeat_timeout_seconds": flags.heartbeat_seconds,
    }


def _check(flags: Flags) -> None:
    """Raises InputError for flags that do not belong together."""
    if flags.cluster not in CLUSTERS:
        raise errors.InputError(
            f"--cluster is {flags.cluster!r}; it is one of {', '.join(CLUSTERS)}"
        )
    by_hand = (flags.coordinator, flags.num_processes != -1, flags.process_id != -1)
    if any(by_hand) and not all(by_hand):
        raise errors.InputError(
            "--coordinator=HOST:PORT, --num_processes and --process_id belong "
            "together: set all three, or none where a cluster knows them"
        )
    if not all(by_hand):
        return
    host, _, port = flags.coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise errors.InputError(
            f"--coordinator is {flags.coordinator!r}: write HOST:PORT, the address of "
            "process 0 and a port of it that is free, as in 10.0.0.1:8476"
        )
    if not 0 <= flags.process_id < flags.num_processes:
        raise errors.InputError(
            f"--process_id is {flags.process_id}: number the {flags.num_processes} "
            f"processes from 0 to {flags.num_processes - 1}"
        )


def _in_cluster(name: str) -> bool:
    """Returns whether JAX should be asked for the processes of a cluster."""
    if name != "auto":
        return name != "none"
    environment = os.environ
    if (
        "JAX_COORDINATOR_ADDRESS" in environment
        or "OMPI_MCA_orte_hnp_uri" in environment
    ):
        return True
    if int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment:
        return True
    return _on_tpu_pod()


def _on_tpu_pod() -> bool:
    """Returns whether this is a host with TPU chips that JAX may use."""
    if "tpu" not in os.environ.get("JAX_PLATFORMS", "tpu"):
        return False
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    if hosts:  # GKE tells all hosts, a single one too
        return "," in hosts
    return tpus.are_on_bus()


def _detection(flags: Flags) -> str | None:
    """Returns where JAX asks for what the flags leave open; None lets it choose."""
    if flags.coordinator and "KUBERNETES_SERVICE_HOST" in os.environ:
        return "deactivate"  # it would want the package kubernetes, and learn nothing
    return flags.cluster if flags.cluster not in ("auto", "none") else None


def _local_devices(cluster: str) -> list[int] | None:
    """Returns all GPUs of the node where Slurm has started one process on each.

    JAX would take one a process; None leaves the choice to it.
    """
    environment = os.environ
    if cluster not in ("auto", "slurm") or "JAX_LOCAL_DEVICE_IDS" in environment:
        return None
    if cluster == "auto" and "OMPI_MCA_orte_hnp_uri" in environment:
        return None  # Slurm has started the launchers of Open MPI
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "")  # as in 1 or 1(x4)
    gpus = environment.get("SLURM_GPUS_ON_NODE", "")
    if tasks.partition("(")[0] != "1" or "," in tasks or not gpus.isdigit():
        return None
    return list(range(int(gpus)))


def _given(number: int) -> int | None:
    return None if number == -1 else number
