"""Become another program that dies with its parent: `python -I -S trampoline.py PARENT_PID COMMAND...`.

Run as a script in a fresh process, so no code runs between fork and exec in a parent that has threads.
PR_SET_PDEATHSIG (prctl(2)) outlives execve. Where there is no prctl, the command runs without the guarantee.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606  # the very purpose
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
