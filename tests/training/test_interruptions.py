import os
import signal
import threading
import time

import pytest

from polyrank.progress import Silent
from polyrank.training.interruptions import said_if_slow, stop_requests


class Heard(Silent):
    def __init__(self):
        self.said = threading.Event()
        self.words = []

    def say(self, message):
        self.words.append(message)
        self.said.set()


class TestSaidIfSlow:
    def test_a_word_where_it_takes_long(self):
        heard = Heard()
        with said_if_slow(heard, "compiling", seconds=0.01):
            assert heard.said.wait(10)
        assert heard.words == ["compiling"]

    def test_silence_where_it_does_not(self):
        heard = Heard()
        with said_if_slow(heard, "compiling", seconds=0.2):
            pass
        time.sleep(0.3)
        assert heard.words == []

    def test_silence_after_an_error(self):
        heard = Heard()
        with pytest.raises(KeyError), said_if_slow(heard, "compiling", seconds=0.2):
            raise KeyError
        time.sleep(0.3)
        assert heard.words == []


class TestStopRequests:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signals_are_collected(self, number):
        with stop_requests() as requests:
            os.kill(os.getpid(), number)
            assert requests == [number]

    def test_a_second_ctrl_c_stops_at_once(self):
        def work():
            with stop_requests():
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            work()

    def test_handlers_come_back(self):
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with stop_requests():
            assert signal.getsignal(signal.SIGTERM) is not before[1]
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    def test_in_another_thread_signals_are_someone_elses(self):
        found = []

        def work():
            with stop_requests() as requests:
                found.append(requests)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert found == [[]]
