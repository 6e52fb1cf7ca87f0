"""Freed memory is used again instead of being cleared by the system for every batch."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

N_BLOCKS, BLOCK = 20, 48 << 20  # bytes; beyond every threshold of glibc
CODE = f"""
import json, resource, sys
import numpy as np
from hwnas.core.memory import keep_freed_memory, return_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

if sys.argv[1] == "keep":
    keep_freed_memory()
before = faults()
for _ in range({N_BLOCKS}):
    np.empty({BLOCK}, dtype=np.uint8).fill(1)
found = {{"faults": faults() - before, "kept": resident()}}
return_freed_memory()
print(json.dumps(found | {{"returned": resident()}}))
"""


def measured(word: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_blocks_are_cleared_once_and_returned_in_the_end() -> None:
    usual, kept = measured("usual"), measured("keep")
    assert kept["faults"] < 1.5 * usual["faults"] / N_BLOCKS + 2000
    assert kept["kept"] - kept["returned"] > 0.9 * BLOCK
