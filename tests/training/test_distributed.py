"""Flags and final errors of processes; what they do together: test_many_processes."""

import jax
import pytest

from bert_jax import errors
from bert_jax.training import distributed, signals

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "node[01-04]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x4)",
    "SLURM_GPUS_ON_NODE": "3",
}


@pytest.fixture
def told(monkeypatch):
    """Returns what `start` tells JAX in an environment; None if it asks for nothing."""

    def start(environment, **flags):
        calls = []
        monkeypatch.setattr(jax.distributed, "initialize", lambda **x: calls.append(x))
        monkeypatch.setattr(jax.config, "update", lambda *_: None)
        with monkeypatch.context() as here:
            for name, value in environment.items():
                here.setenv(name, value)
            distributed.start(distributed.Flags(**flags))
        return calls[0] if calls else None

    return start


def test_one_process_of_a_node_takes_all_its_gpus(told):
    assert told(SLURM)["local_device_ids"] == [0, 1, 2]
    alone = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_NTASKS": "1"}
    assert told(alone) is None
    assert told(alone, cluster="slurm")["local_device_ids"] == [0, 1, 2]


@pytest.mark.parametrize(
    "change",
    [
        {"SLURM_STEP_TASKS_PER_NODE": "3(x4)"},
        {"SLURM_STEP_TASKS_PER_NODE": "1(x2),3"},
        {"SLURM_STEP_TASKS_PER_NODE": "12"},
        {"SLURM_STEP_TASKS_PER_NODE": ""},
        {"SLURM_GPUS_ON_NODE": ""},
        {"JAX_LOCAL_DEVICE_IDS": "1,2"},
        {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.0.0.1:34911"},
    ],
)
def test_else_jax_chooses_the_gpus(told, change):
    """It takes one a process, or those of JAX_LOCAL_DEVICE_IDS."""
    assert told(SLURM | change)["local_device_ids"] is None


def test_kubernetes_is_not_asked_for_what_the_flags_say(told):
    by_hand = {"coordinator": "bert:8476", "num_processes": 2, "process_id": 0}
    cluster = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert told(cluster, **by_hand)["cluster_detection_method"] == "deactivate"
    assert told({}, **by_hand)["cluster_detection_method"] is None
    assert told(cluster, cluster="k8s")["cluster_detection_method"] == "k8s"
    assert told(cluster) is None


@pytest.fixture
def of_two(monkeypatch):
    """Makes this process one of two that have said nothing yet."""
    monkeypatch.setattr(distributed, "count", lambda: 2)
    monkeypatch.setattr(distributed, "_final_errors", [])
    monkeypatch.setattr(distributed, "_peer_report", [])
    return monkeypatch


def test_of_several_each_says_once_why_it_ends(of_two, capsys):
    assert distributed.print_final_error("the disk is full", 5) == 5
    assert distributed.print_final_error("stopped by another", 75) == 5
    assert capsys.readouterr().err == "error: the disk is full\n"


def test_one_alone_says_what_each_command_in_it_came_to(capsys):
    for code in (2, 3):
        assert distributed.print_final_error(f"code {code}", code) == code
    assert capsys.readouterr().err == "error: code 2\nerror: code 3\n"


def test_nobody_waits_for_one_that_has_told_why_it_ended(of_two):
    told = '{"process": 1, "kind": "StorageError", "message": "the disk is full"}'
    distributed._peer_report.append(told)
    with pytest.raises(errors.StorageError, match="process 1 of this run ended: the"):
        distributed.wait_for_all()


def test_what_stops_together_ends_together(of_two):
    waited = []
    of_two.setattr(distributed, "wait_for_all", lambda: waited.append(True))
    with pytest.raises(errors.Stopped, match="with everything saved"):
        with signals.stopping():
            raise errors.Stopped("with everything saved")
    assert waited == [True]
    with pytest.raises(errors.StorageError), signals.stopping():
        raise errors.StorageError("the others wait for nothing")
    assert waited == [True]
