"""`tokenext serve --processes N`: a parent that runs the command N times, and children that end with it."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path

from extproc.server import Server
from tokenext.commands.addresses import arguments_of_process
from tokenext.json_log import JsonLog
from tokenext.settings import Settings
from tokenext.supervisor import Child, RestartPolicy, Supervisor

__all__ = ["stop_with_parent", "supervise"]


async def supervise(config: Path, settings: Settings, count: int, log: JsonLog) -> int:
    """Run `count` processes of this command until told to stop. They end when this process does."""

    def launch(number: int) -> Awaitable[Child]:
        command = [sys.executable, "-m", "tokenext", "serve", "--config", str(config), "--supervised"]
        command += arguments_of_process(settings, number)
        return asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)

    loop = asyncio.get_running_loop()
    supervisor = Supervisor(launch, count, policy=RestartPolicy(), clock=loop.time, observe=log.process_ended)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    loop.add_signal_handler(signal.SIGHUP, supervisor.forward, signal.SIGHUP)
    return await supervisor.run()


def stop_with_parent(server: Server) -> None:
    """Stop when the pipe from the supervisor closes: however it ended, nobody would end us any more."""

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            loop.remove_reader(sys.stdin)
            server.stop()

    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, read)
