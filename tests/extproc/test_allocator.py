"""What loading left over goes back to the system; what messages take stays."""

import subprocess
import sys

MEASURE = """
import resource, sys
from pathlib import Path
from extproc.allocator import return_freed_memory

def resident_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

blocks = [bytearray(100_000) for _ in range(600)]  # below the size that glibc maps by itself
for block in blocks:
    block[:] = b"x" * len(block)
last = blocks.pop()  # what is freed below it cannot be cut off from the end
blocks.clear()
before = resident_kb()
print(return_freed_memory(int(sys.argv[1])), before - resident_kb())
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks = [b"x" * 100_000 for _ in range(300)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


def measured(keep: int) -> tuple[bool, int, int]:
    """Whether it is known how, how many KB went back, and what 30 MB cost afterwards, in page faults."""
    command = [sys.executable, "-c", MEASURE, str(keep)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    knows_how, returned_kb, faults = done.stdout.split()
    return knows_how == "True", int(returned_kb), int(faults)


def test_freed_memory_is_returned_though_a_later_block_is_in_use():
    knows_how, returned_kb, _ = measured(keep=0)
    assert returned_kb > 40_000 if knows_how else returned_kb == 0


def test_what_is_to_be_kept_need_not_be_asked_for_again():
    knows_how, returned_kb, faults = measured(keep=35_000_000)
    if knows_how:
        assert 10_000 < returned_kb < 30_000
        assert faults < measured(keep=0)[2] / 10


FAULTS = """
import resource, sys
from extproc.allocator import keep_large_blocks

if sys.argv[1] == "keep":
    print(keep_large_blocks())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    copies = [b"x" * 1_500_000 for _ in range(3)]
    del copies
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> tuple[bool, int]:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    *knows_how, faults = done.stdout.split()
    return knows_how == ["True"], int(faults)


def test_the_memory_of_large_blocks_is_reused_and_not_paid_for_page_by_page_each_time():
    knows_how, kept = page_faults("keep")
    assert not knows_how or kept < page_faults("leave")[1] / 10
