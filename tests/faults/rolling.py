"""Restarts of one after another, as an operator's rolling update does them."""

import time

from loadtests.stack.chain import Chain, Worker

__all__ = ["roll_service", "roll_worker"]

POLLED_SECONDS = 1.0  # the picker reads its endpoints five times a second; its requests under way end
SETTLED_SECONDS = 1.0  # between two pods, as a readiness probe takes its time


def roll_service(chain: Chain, name: str) -> None:
    """SIGTERM, the process drains, another takes its place."""
    chain.restart(name)
    time.sleep(SETTLED_SECONDS)


def roll_worker(chain: Chain, worker: Worker) -> None:
    """A worker and the front end beside it are one pod: out of the pool first, ended, started, and back in
    the pool once the front end is ready.
    """
    assert worker.server is not None
    assert worker.mocker is not None
    pod = (worker.server, worker.mocker)
    chain.announce([each for each in chain.workers if each is not worker])
    time.sleep(POLLED_SECONDS)
    for process in pod:
        process.stop()
    for process in reversed(pod):
        process.start_again()
    chain.await_new_instance(worker)
    deadline = time.monotonic() + chain.options.start_deadline_seconds
    while not all(process.is_ready() for process in pod):
        assert time.monotonic() < deadline, f"worker {worker.index} did not come back; logs in {chain.logs}"
        time.sleep(0.1)
    time.sleep(SETTLED_SECONDS)
    chain.announce(chain.workers)
    time.sleep(SETTLED_SECONDS)
