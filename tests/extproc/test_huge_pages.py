"""What is in use is put into huge pages, as it stands, and what is not in use takes no memory for it."""

import subprocess
import sys

from extproc import huge_pages

MEASURE = """
import mmap, os, sys
from hashlib import sha256
from pathlib import Path
from extproc.huge_pages import use_huge_pages

MEGABYTE = 1 << 20

def kb(name):
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

full = bytearray(os.urandom(MEGABYTE) * 32)
sparse = mmap.mmap(-1, 64 * MEGABYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for place in range(0, len(sparse), 2 * MEGABYTE):
    sparse[place] = 1
before, resident = sha256(full).digest(), kb("Rss")
done = use_huge_pages()
print(done, kb("AnonHugePages"), kb("Rss") - resident, before == sha256(full).digest())
"""


def test_what_is_in_use_stays_as_it_is_and_what_is_not_takes_no_memory():
    ran = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    done, huge_kb, grown_kb, same = ran.stdout.split()
    assert same == "True"
    assert int(grown_kb) < 16_000
    if int(done):  # Linux before 6.1 cannot, nor can others
        assert int(done) >= 28 << 20
        assert int(huge_kb) << 10 >= int(done)


def test_only_memory_of_no_file_that_may_be_written_to_is_taken():
    maps = """\
7f0000100000-7f0000900000 rw-p 00000000 00:00 0
7f0001000000-7f0001400000 r--p 00000000 00:00 0
7f0002000000-7f0002400000 rw-p 00000000 fd:00 1234                       /usr/lib/libc.so.6
7f0003000000-7f0003400000 rw-s 00000000 00:01 99                         /dev/zero (deleted)
7f0004000000-7f00041fffff rw-p 00000000 00:00 0
7f0005000000-7f0005200000 rw-p 00000000 00:00 0                          [heap]
7f0006000000-7f0006200000 rw-p 00000000 00:00 0                          [anon: glibc: malloc]
7ffd00000000-7ffd00400000 rw-p 00000000 00:00 0                          [stack]
"""
    assert [f"{start:x}" for start in huge_pages._ranges(maps)] == [
        *("7f0000200000", "7f0000400000", "7f0000600000"),
        *("7f0005000000", "7f0006000000"),
    ]


def test_a_system_without_these_calls_is_left_alone(monkeypatch):
    monkeypatch.setattr(huge_pages.ctypes, "CDLL", lambda *_, **__: object())
    assert huge_pages.use_huge_pages() == 0


def test_a_system_without_a_list_of_mappings_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(huge_pages, "_MAPS", tmp_path / "none")
    assert huge_pages.use_huge_pages() == 0
