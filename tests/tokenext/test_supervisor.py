"""The parent of `serve --processes N`: restarts, signals, and an end that leaves nobody behind."""

import asyncio
import signal
import sys

import pytest

from tokenext.supervisor import RestartPolicy, Supervisor, numbered

QUICK = RestartPolicy(first_seconds=0.001, longest_seconds=0.002, lasted_seconds=1000)


class FakeChild:
    """A process that ends when told to, or when the test says so."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.signals: list[int] = []
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGTERM and not self.ended.done():
            self.ended.set_result(0)


class Nursery:
    """Starts fake children and remembers them by number."""

    def __init__(self) -> None:
        self.born: list[tuple[int, FakeChild]] = []
        self.changed = asyncio.Event()

    async def launch(self, number: int) -> FakeChild:
        child = FakeChild(len(self.born))
        self.born.append((number, child))
        self.changed.set()
        return child

    async def have(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.born) < count:
                self.changed.clear()
                await self.changed.wait()
        await asyncio.sleep(0)


def supervised(nursery: Nursery, count: int, ends: list, policy: RestartPolicy = QUICK) -> Supervisor:
    loop = asyncio.get_running_loop()
    return Supervisor(
        nursery.launch, count, policy=policy, clock=loop.time,
        observe=lambda number, status: ends.append((number, status)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:/run/tokenext.sock", "unix:/run/tokenext-2.sock"),
        ("unix:/run/tokenext", "unix:/run/tokenext-2"),
        ("unix:/run.d/tokenext", "unix:/run.d/tokenext-2"),
        ("127.0.0.1:9000", "127.0.0.1:9002"),
        ("[::1]:9000", "[::1]:9002"),
    ],
)
def test_every_process_has_an_address_of_its_own(address, expected):
    assert numbered(address, 2) == expected


async def test_children_run_until_the_parent_is_stopped_and_are_asked_to_drain():
    nursery, ends = Nursery(), []
    supervisor = supervised(nursery, 3, ends)
    running = asyncio.create_task(supervisor.run())
    await nursery.have(3)
    supervisor.stop()
    assert await running == 0
    assert sorted(number for number, _ in nursery.born) == [0, 1, 2]
    assert [child.signals for _, child in nursery.born] == [[signal.SIGTERM]] * 3
    assert ends == []


async def test_a_child_that_ends_is_started_again_and_the_others_are_left_alone():
    nursery, ends = Nursery(), []
    supervisor = supervised(nursery, 2, ends)
    running = asyncio.create_task(supervisor.run())
    await nursery.have(2)
    nursery.born[1][1].ended.set_result(-9)
    await nursery.have(3)
    assert ends == [(1, -9)]
    assert nursery.born[2][0] == 1
    assert nursery.born[0][1].signals == []
    supervisor.stop()
    await running


async def test_mistaken_settings_end_all_with_the_childs_status():
    nursery, ends = Nursery(), []
    supervisor = supervised(nursery, 2, ends)
    running = asyncio.create_task(supervisor.run())
    await nursery.have(2)
    nursery.born[0][1].ended.set_result(2)
    assert await running == 2
    assert nursery.born[1][1].signals == [signal.SIGTERM]


async def test_stopping_during_a_pause_starts_nobody():
    nursery, ends = Nursery(), []
    slow = RestartPolicy(first_seconds=3600, longest_seconds=3600)
    supervisor = supervised(nursery, 1, ends, slow)
    running = asyncio.create_task(supervisor.run())
    await nursery.have(1)
    nursery.born[0][1].ended.set_result(1)
    await asyncio.sleep(0.01)
    supervisor.stop()
    assert await asyncio.wait_for(running, 5) == 0
    assert len(nursery.born) == 1


async def test_a_signal_reaches_every_child_and_one_that_has_just_ended_does_no_harm():
    nursery = Nursery()
    supervisor = supervised(nursery, 2, [])
    running = asyncio.create_task(supervisor.run())
    await nursery.have(2)
    gone = nursery.born[0][1]

    def no_such_process(_: int) -> None:
        raise ProcessLookupError

    gone.send_signal = no_such_process
    supervisor.forward(signal.SIGHUP)
    assert nursery.born[1][1].signals == [signal.SIGHUP]
    gone.ended.set_result(0)
    await nursery.have(3)
    supervisor.stop()
    await running


def test_the_pause_doubles_up_to_its_bound():
    policy = RestartPolicy(first_seconds=0.1, longest_seconds=5)
    assert [policy.pause(failures) for failures in (0, 1, 2, 5, 6, 1000)] == [0.1, 0.2, 0.4, 3.2, 5, 5]


async def test_a_real_process_fits_the_seam():
    def launch(number: int):
        return asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")

    loop = asyncio.get_running_loop()
    supervisor = Supervisor(launch, 1, policy=QUICK, clock=loop.time, observe=lambda *_: None)
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(10):
        while not supervisor._children:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    supervisor.stop()
    assert await asyncio.wait_for(running, 10) == 0
