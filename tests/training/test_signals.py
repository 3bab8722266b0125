import os
import signal
import threading

import pytest

from bert_jax.training import signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_noted_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with signals.StopRequest() as stop:
        assert signal.getsignal(number) != before
        assert not stop.requested(1)
        os.kill(os.getpid(), number)
        assert stop.requested(2)
        assert stop.name == number.name
        # A second one acts as usual.
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


def test_handlers_are_put_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), signals.StopRequest():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_installs_nothing():
    seen = []

    def work():
        with signals.StopRequest() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.requested(1)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
