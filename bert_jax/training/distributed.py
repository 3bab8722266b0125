"""The processes of one run: startup, barriers and failure propagation.

One process a host (on GPUs one a host or a device) runs the same command. They connect
through a cluster that JAX detects, a TPU pod, Slurm, Open MPI, Kubernetes, or through
the address of process 0. Work that only one may do, such as building a store, is done
by process 0 while the others wait; an error in one process ends all of them.
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

from bert_jax import console, errors
from bert_jax.foundation import host_memory, interrupts

CLUSTERS = ("auto", "none", "slurm", "ompi", "k8s", "mpi4py")


@dataclasses.dataclass(frozen=True)
class Flags:
    """How the processes connect.

    Attributes:
      cluster: one of CLUSTERS; "auto" lets JAX detect one.
      coordinator: HOST:PORT of process 0, without a cluster.
      num_processes, process_id: likewise; -1 with a cluster.
      heartbeat_seconds: silence after which a process counts as lost.
    """

    cluster: str = "auto"
    coordinator: str = ""
    num_processes: int = -1
    process_id: int = -1
    heartbeat_seconds: int = 100


def arguments(flags: Flags) -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`; None for one process.

    Raises InputError for flags that cannot be combined.
    """
    _check(flags)
    if not flags.coordinator and not _in_cluster(flags.cluster):
        return None
    return {
        "coordinator_address": flags.coordinator or None,
        "num_processes": None if flags.num_processes == -1 else flags.num_processes,
        "process_id": None if flags.process_id == -1 else flags.process_id,
        "local_device_ids": _local_devices(flags.cluster),
        "cluster_detection_method": _detection(flags),
        "heartbeat_timeout_seconds": flags.heartbeat_seconds,
    }


def _check(flags: Flags) -> None:
    """Raises InputError for flags that cannot be combined."""
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
    """Returns whether JAX should detect the processes of a cluster."""
    if name != "auto":
        return name != "none"
    if {"JAX_COORDINATOR_ADDRESS", "OMPI_MCA_orte_hnp_uri"} & os.environ.keys():
        return True
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return True
    return _on_tpu_pod()


def _on_tpu_pod() -> bool:
    """Returns whether this is a host with TPU chips that JAX may use."""
    if "tpu" not in os.environ.get("JAX_PLATFORMS", "tpu"):
        return False
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    if hosts:  # GKE sets it on all hosts, a single one too
        return "," in hosts
    return bool(host_memory.tpu_files())


def _detection(flags: Flags) -> str | None:
    """Returns JAX's method of detecting the cluster; None lets it choose."""
    if flags.coordinator and "KUBERNETES_SERVICE_HOST" in os.environ:
        return "deactivate"  # it needs the package kubernetes, and adds nothing
    return None if flags.cluster in ("auto", "none") else flags.cluster


def _local_devices(cluster: str) -> list[int] | None:
    """Returns all GPUs of the node where Slurm has started one process on each.

    JAX would use one a process; None leaves the choice to it.
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


# Errors that one process reports to the others, by name.
_KINDS = (
    errors.InputError,
    errors.CheckpointError,
    errors.NotFiniteError,
    errors.StorageError,
    errors.Stopped,
)
_FAILED = "bert_jax/failed"
_WAIT_MS = 7 * 24 * 3600 * 1000  # a corpus may take days; a lost peer ends the wait

# All processes reach the barriers in the same order, so a count identifies each.
_barriers = itertools.count()

# A failed process waits half of it for the others to read why, and they wait all of it.
_GRACE_SECONDS = 3.0
_peer_report: list[str] = []  # of another process that failed, as JSON
_final_errors: list[tuple[str, int]] = []  # of this process, with their exit codes
_connected: list[bool] = []  # not empty once the processes are connected
# JAX's handler of SIGTERM: a `struct sigaction` of libc, which is smaller than this.
_jax_handler = ctypes.create_string_buffer(512)

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


def start(flags: Flags) -> None:
    """Connects the processes of this run, before anything else uses JAX.

    Does nothing for one process. Raises InputError for flags that cannot be combined,
    and StorageError if the others cannot be reached.
    """
    known = arguments(flags)
    if known is None:
        return
    # Until `enable_preemption_signal`, SIGTERM is handled as in a single process.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        interrupts.run_in_thread(
            lambda: jax.distributed.initialize(**known), waits=True
        )
    except ValueError as error:  # of a cluster that lacks information
        raise errors.InputError(
            f"the processes of this run cannot find each other: {error} Set "
            "--coordinator=HOST:PORT, --num_processes and --process_id, or train in "
            "one process with --cluster=none"
        ) from None
    except RuntimeError as error:
        raise errors.StorageError(
            "the other processes cannot be reached: "
            f"{str(error).splitlines()[0]}. Check --coordinator, that all "
            "processes were started, and that the network lets them through"
        ) from None
    _connected.append(True)
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
    """Returns whether this is process 0, which prints and writes for all."""
    return index() == 0


def print_once(message: str) -> None:
    """Prints a progress message for the user, in process 0 only."""
    if is_first():
        console.print_message(message)


def enable_preemption_signal() -> None:
    """Lets JAX handle SIGTERM from now on, for `reached_preemption_sync_point`.

    JAX installs its handler once, and Python replaces it after a loop; so the next loop
    restores it.
    """
    libc = ctypes.CDLL(None)
    if distributed.global_state.preemption_sync_manager is None:
        jax.config.update("jax_enable_preemption_service", True)
        distributed.global_state.initialize_preemption_sync_manager()
        libc.sigaction(signal.SIGTERM, None, _jax_handler)
    else:
        libc.sigaction(signal.SIGTERM, _jax_handler, None)


def process_zero_first(make: Callable[[], Result]) -> Result:
    """Calls `make` in process 0 and then in all others; returns its result.

    For files that are created once and then opened: on a shared disk the others find
    them, on separate disks each process creates its own.
    """
    if is_first():
        result = make()
        wait_for_all()
        return result
    wait_for_all()
    return make()


def wait_for_all() -> None:
    """Waits until all processes have called it; signals are handled meanwhile.

    If another process has failed, its error is raised.
    """
    if count() == 1:
        return
    if _peer_report:
        raise peer_error(None)
    barrier = f"bert_jax/{next(_barriers)}"
    try:
        interrupts.run_in_thread(
            lambda: _client().wait_at_barrier(barrier, _WAIT_MS), waits=True
        )
    except jax.errors.JaxRuntimeError as error:
        raise peer_error(error) from None


def require_same(value: str, what: str) -> None:
    """Raises InputError unless all processes have the same value of something."""
    if count() == 1:
        return
    key = f"bert_jax/agree/{next(_barriers)}"
    _client().key_value_set(f"{key}/{index()}", value)
    wait_for_all()
    found = dict(_client().key_value_dir_get(key))
    values = {name.rpartition("/")[2]: text for name, text in found.items()}
    differing = sorted(number for number, text in values.items() if text != value)
    if differing:
        raise errors.InputError(
            f"{what} differs between process {', '.join(differing)} and process "
            f"{index()}: start all with the same command and the same files"
        )


def report_failure(error: errors.BertJaxError) -> None:
    """Reports to the other processes why this one ends; they end too, in a moment."""
    if count() == 1 or not _connected:
        return
    report = {"process": index(), "kind": type(error).__name__, "message": str(error)}
    try:
        _client().key_value_set(_FAILED, json.dumps(report))
    except jax.errors.JaxRuntimeError as failure:  # another was first, or all are gone
        _log.debug("not reported to the others: %s", failure)
    if is_first():  # it serves the key; the others must have read it
        time.sleep(_GRACE_SECONDS / 2)


def _report_signal(text: str, code: int) -> None:
    """Reports to the other processes that a signal ends this one at once."""
    is_stop = code == errors.Stopped.exit_code
    report_failure((errors.Stopped if is_stop else errors.StorageError)(text))


def _listen() -> None:
    """Ends this process when another one has failed or was lost.

    It waits a moment, in which this process may end by itself with the same error.
    """
    while True:
        try:
            _peer_report.append(_client().blocking_key_value_get(_FAILED, _WAIT_MS))
            break
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                return  # JAX will abort, or this process is ending
        except AttributeError:  # the client is gone: this process is ending
            return
    time.sleep(_GRACE_SECONDS)
    _end_as_peer(None)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(number: int) -> None:
    """Ends this process with a message and an exit code when JAX aborts it."""
    del number
    if _peer_report:
        time.sleep(_GRACE_SECONDS)
    _end_as_peer("JAX has ended this one: see above")


def _end_as_peer(reason: object) -> NoReturn:
    error = peer_error(reason)
    end(print_final_error(str(error), error.exit_code))


def print_final_error(text: str, code: int) -> int:
    """Prints why this process ends; returns its exit code.

    With several processes it prints once: more than one thread sees a lost peer.
    """
    final = (text, code)
    _final_errors.append(final)
    first = _final_errors[0] if count() > 1 else final
    if first is final:
        print(f"error: {text}", file=sys.stderr, flush=True)
    return first[1]


def is_peer_error(error: BaseException) -> bool:
    """Returns whether an error is one that a lost process causes."""
    return count() > 1 and isinstance(error, jax.errors.JaxRuntimeError)


def peer_error(reason: object) -> errors.BertJaxError:
    """Returns the error of the process that failed first, or of a lost process."""
    if not _peer_report:
        text = (str(reason).strip().splitlines() or ["no answer"])[0]
        return errors.StorageError(
            f"another process of this run was lost, as process {index()} sees it "
            f"({text[:200]}). Start all processes again with the same command: they "
            "resume from the newest checkpoint"
        )
    report = json.loads(_peer_report[0])
    kinds = {kind.__name__: kind for kind in _KINDS}
    kind = kinds.get(report["kind"], errors.BertJaxError)
    return kind(f"process {report['process']} of this run ended: {report['message']}")


def shutdown() -> NoReturn:
    """Ends this process with exit code 0, when all processes have called it."""
    if count() > 1:
        jax.distributed.shutdown()
    end(0)


def end(code: int) -> NoReturn:
    """Ends this process with an exit code, at once if it is one of several.

    A normal exit would wait for the others, which may wait for this one.
    """
    if count() > 1:
        interrupts.end_at_once(code)
    interrupts.end(code)


def _client() -> Any:
    return distributed.global_state.client
