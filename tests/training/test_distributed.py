"""What processes say at their end; what they do together is in test_many_processes."""

import pytest

from bert_jax import errors
from bert_jax.training import distributed, signals


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
