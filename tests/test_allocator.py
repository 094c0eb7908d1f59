import os
import subprocess
import sys

import pytest

from polyrank import allocator

# Two blocks of 40 MB, beyond what glibc keeps by itself: how many pages must the second one fault in?
PROGRAM = """
import resource, sys
if sys.argv[1] == "keep":
    from polyrank.allocator import keep_memory
    assert keep_memory()
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(10_000_000, np.float32)
before = faults()
np.ones(10_000_000, np.float32)
print(faults() - before)
"""


def clean():
    return {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}


def faults(mode):
    # numpy asks for huge pages, of which few faults are many bytes: not here.
    environment = {**clean(), "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
class TestKeepMemory:
    def test_a_second_block_needs_no_new_pages(self):
        assert faults("give back") > 5_000  # 40 MB in pages of 4 KiB
        assert faults("keep") < 500

    def test_processes_started_later_inherit_it(self, monkeypatch):
        environment = {}
        monkeypatch.setattr(allocator.os, "environ", environment)
        monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: Recorder([]))
        assert allocator.keep_memory()
        assert set(environment) == set(allocator._SETTINGS)

    def test_a_users_own_setting_goes_before(self, monkeypatch):
        environment = {"MALLOC_TOP_PAD_": "123"}
        monkeypatch.setattr(allocator.os, "environ", environment)
        calls = []
        monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: Recorder(calls))
        allocator.keep_memory()
        assert environment["MALLOC_TOP_PAD_"] == "123"
        assert sorted(calls) == [(-3, 2**30), (-1, 2**31 - 1)]

    def test_without_glibc_it_does_nothing(self, monkeypatch):
        environment = {}
        monkeypatch.setattr(allocator.os, "environ", environment)
        monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
        assert not allocator.keep_memory()
        assert environment == {}

    def test_importing_the_package_sets_nothing(self):
        check = "import polyrank, polyrank.training.loop, os; print(any(k.startswith('MALLOC_') for k in os.environ))"
        done = subprocess.run([sys.executable, "-c", check], env=clean(), capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


class Recorder:
    def __init__(self, calls):
        self.mallopt = lambda parameter, value: calls.append((parameter, value)) or 1
