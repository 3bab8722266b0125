"""The processes that train together: how they find, wait for and lose each other.

One process a host (on GPUs one a host or a device) runs the same command. They find
each other through a cluster that JAX knows, a TPU pod, Slurm, Open MPI, Kubernetes, or
through the address of the first of them. What only one may do, like building a store,
process 0 does while the others wait; an error of one ends all of them.
"""

import ctypes
import dataclasses
import itertools
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import jax
from jax._src import distributed  # the keys and barriers have no public name

from bert_jax import errors, interrupts
from bert_jax.training import devices

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
    return devices.are_on_bus()


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


# Errors that one process passes on to the others, by name.
_KINDS = (
    errors.InputError,
    errors.CheckpointError,
    errors.NotFiniteError,
    errors.StorageError,
    errors.Stopped,
)
_FAILED = "bert_jax/failed"
_WAIT_MS = 7 * 24 * 3600 * 1000  # a corpus may take days; a lost peer ends the wait

# All processes meet in the same order, so the count makes a name one meeting's.
_meetings = itertools.count()

# A failed process waits half of it for the others to hear why, and they wait all of it.
_GRACE_SECONDS = 3.0
# What another process told when it failed.
_told: list[str] = []
# What this one has said of its end, by whichever thread, and with which exit code.
_said: list[tuple[str, int]] = []
_met: list[bool] = []  # whether they have found each other
# How JAX hears SIGTERM, a `struct sigaction` of libc, which has less than these bytes.
_hearing = ctypes.create_string_buffer(512)

_log = logging.getLogger(__name__)
Made = TypeVar("Made")


def start(flags: Flags) -> None:
    """Joins the processes of this run, before anything else uses JAX.

    Does nothing where there is one process. Raises InputError for flags that do not
    belong together, and StorageError if the others cannot be reached.
    """
    known = arguments(flags)
    if known is None:
        return
    # Until `hear_preemption` SIGTERM is heard as it is where there is one process.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        interrupts.run_in_thread(
            lambda: jax.distributed.initialize(**known), waits=True
        )
    except ValueError as error:  # of a cluster that is there, and says too little
        raise errors.InputError(
            f"the processes of this run cannot find each other: {error} Name the first "
            "with --coordinator=HOST:PORT, --num_processes and --process_id, or train "
            "in one process with --cluster=none"
        ) from None
    except RuntimeError as error:
        raise errors.StorageError(
            "the other processes cannot be reached: "
            f"{str(error).splitlines()[0]}. Check --coordinator, that all "
            "processes were started, and that the network lets them through"
        ) from None
    _met.append(True)
    if count() > 1:
        # JAX aborts when another process does not answer any more.
        ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)
        interrupts.call_before_end(_report_signal)
        threading.Thread(None, _listen, "other processes", daemon=True).start()


def count() -> int:
    """Returns the number of processes; starts no device."""
    return distributed.global_state.num_processes or 1  # stays after `shutdown`


def index() -> int:
    """Returns the number of this process, from 0; starts no device."""
    return distributed.global_state.process_id or 0


def is_first() -> bool:
    """Returns whether this is process 0, which tells and writes for all."""
    return index() == 0


def enable_preemption_signal() -> None:
    """Lets JAX hear SIGTERM from now on, for `reached_preemption_sync_point`.

    It puts its handler there once, and Python its own in the place of it for what comes
    after a loop; so the next loop puts back what was there.
    """
    libc = ctypes.CDLL(None)
    if distributed.global_state.preemption_sync_manager is None:
        jax.config.update("jax_enable_preemption_service", True)
        distributed.global_state.initialize_preemption_sync_manager()
        libc.sigaction(signal.SIGTERM, None, _hearing)
    else:
        libc.sigaction(signal.SIGTERM, _hearing, None)


def process_zero_first(make: Callable[[], Made]) -> Made:
    """Calls `make` in process 0 and then in all others; returns what it returned.

    For what must be made once and can then be opened: where the disk is shared the
    others find it, and where it is not, each makes its own.
    """
    if is_first():
        made = make()
        wait_for_all()
        return made
    wait_for_all()
    return make()


def wait_for_all() -> None:
    """Waits until all processes have come here; hears signals meanwhile.

    Raises the error with which another process has ended instead.
    """
    if count() == 1:
        return
    if _told:
        raise peer_error(None)
    place = f"bert_jax/{next(_meetings)}"
    try:
        interrupts.run_in_thread(
            lambda: _client().wait_at_barrier(place, _WAIT_MS), waits=True
        )
    except jax.errors.JaxRuntimeError as error:
        raise peer_error(error) from None


def require_same(value: str, what: str) -> None:
    """Raises InputError unless all processes have the same value of something."""
    if count() == 1:
        return
    place = f"bert_jax/agree/{next(_meetings)}"
    _client().key_value_set(f"{place}/{index()}", value)
    wait_for_all()
    told = dict(_client().key_value_dir_get(place))
    values = {key.rpartition("/")[2]: text for key, text in told.items()}
    differing = sorted(number for number, text in values.items() if text != value)
    if differing:
        raise errors.InputError(
            f"{what} is another one in process {', '.join(differing)} than in process "
            f"{index()}: give all processes the same command and the same files"
        )


def report_failure(error: errors.BertJaxError) -> None:
    """Tells the other processes why this one ends; they end too, in a moment."""
    if count() == 1 or not _met:
        return
    told = {"process": index(), "kind": type(error).__name__, "message": str(error)}
    try:
        _client().key_value_set(_FAILED, json.dumps(told))
    except jax.errors.JaxRuntimeError as failure:  # another was first, or all is lost
        _log.debug("not told to the others: %s", failure)
    if is_first():  # who keeps the key; the others must have read it
        time.sleep(_GRACE_SECONDS / 2)


def _report_signal(text: str, code: int) -> None:
    """Tells the other processes that a signal ends this one at once."""
    if code == errors.Stopped.exit_code:
        report_failure(errors.Stopped(text))
    else:
        report_failure(errors.StorageError(text))


def _listen() -> None:
    """Ends this process when another one has told that it failed, or was lost.

    After a moment in which it may end by itself, as where all found the same error.
    """
    while True:
        try:
            _told.append(_client().blocking_key_value_get(_FAILED, _WAIT_MS))
            break
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                return  # JAX will abort, or this process is ending
        except AttributeError:  # the client is gone: this process is ending
            return
    time.sleep(_GRACE_SECONDS)
    _end_with(peer_error(None))


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(number: int) -> None:
    """Ends this process with a message and an exit code when JAX aborts it."""
    del number
    if _told:
        time.sleep(_GRACE_SECONDS)
    _end_with(peer_error("JAX has ended this one: see above"))


def _end_with(error: errors.BertJaxError) -> None:
    end(print_final_error(str(error), error.exit_code))


def print_final_error(text: str, code: int) -> int:
    """Says why this process ends; returns its exit code.

    Once, where there are several: the loss of another is seen by more than one thread.
    """
    words = (text, code)
    _said.append(words)
    first = _said[0] if count() > 1 else words
    if first is words:
        print(f"error: {text}", file=sys.stderr, flush=True)
    return first[1]


def is_peer_error(error: BaseException) -> bool:
    """Returns whether an error is what the loss of another process looks like."""
    return count() > 1 and isinstance(error, jax.errors.JaxRuntimeError)


def peer_error(reason: object) -> errors.BertJaxError:
    """Returns the error of the process that failed first, or says that one is lost."""
    if not _told:
        text = (str(reason).strip().splitlines() or ["no answer"])[0]
        return errors.StorageError(
            f"another process of this run was lost, as process {index()} sees it "
            f"({text[:200]}). Start all processes again with the same command: they "
            "go on from the newest checkpoint"
        )
    told = json.loads(_told[0])
    kinds = {kind.__name__: kind for kind in _KINDS}
    kind = kinds.get(told["kind"], errors.BertJaxError)
    return kind(f"process {told['process']} of this run ended: {told['message']}")


def shutdown() -> NoReturn:
    """Ends this process with exit code 0, when all have come here."""
    if count() > 1:
        jax.distributed.shutdown()
    end(0)


def end(code: int) -> NoReturn:
    """Ends this process with an exit code, at once if it is one of several.

    The usual end would wait for the others, who may wait for this one.
    """
    if count() > 1:
        interrupts.end_at_once(code)
    interrupts.end(code)


def _client() -> Any:
    return distributed.global_state.client
