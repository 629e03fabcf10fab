"""The process supervisor: readiness, failures that explain themselves, and no orphans whatever happens."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from loadtests.stack.probes import free_ports, http_answers, tcp_accepts
from loadtests.stack.processes import ProcessSpec, StartError, Supervisor

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 10.0


def python(name: str, code: str, **fields) -> ProcessSpec:
    return ProcessSpec(name=name, command=(sys.executable, "-c", textwrap.dedent(code)), **fields)


def sleeper(name: str) -> ProcessSpec:
    return python(name, "import time; time.sleep(600)")


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for (a zombie) does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # also when it goes while it is read
        return False
    return state != "Z"


def gone_within(pid: int, seconds: float = PATIENCE_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_process_is_ready_when_its_probe_says_so(tmp_path):
    (port,) = free_ports(1)
    code = f"""
        import http.server, time
        time.sleep(0.3)
        http.server.HTTPServer(("127.0.0.1", {port}), http.server.SimpleHTTPRequestHandler).serve_forever()
    """
    ready = []
    with Supervisor(tmp_path) as supervisor:
        web = supervisor.start(python("web", code, ready=http_answers(f"http://127.0.0.1:{port}/")))
        assert not web.is_ready()
        supervisor.wait_ready([web], deadline_seconds=PATIENCE_SECONDS, on_ready=ready.append)
        assert ready == ["web"]
        assert tcp_accepts(port)()
    assert not tcp_accepts(port)()


def test_a_process_that_ends_at_start_is_an_error_with_the_end_of_its_log(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        bystander = supervisor.start(sleeper("bystander"))
        broken = supervisor.start(
            python("broken", "import sys; sys.exit('the catalog is empty')", ready=lambda: False)
        )
        with pytest.raises(StartError, match=r"(?s)broken ended with exit code 1.*the catalog is empty"):
            supervisor.wait_ready([bystander, broken], deadline_seconds=PATIENCE_SECONDS)
    assert not alive(bystander.pid)


def test_a_program_that_does_not_exist_is_an_error_that_names_it(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        missing = supervisor.start(ProcessSpec("missing", ("no-such-program",), ready=lambda: False))
        with pytest.raises(StartError, match="cannot run no-such-program"):
            supervisor.wait_ready([missing], deadline_seconds=PATIENCE_SECONDS)


def test_a_process_that_never_gets_ready_is_an_error_at_the_deadline(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        slow = supervisor.start(python("slow", "import time; time.sleep(600)", ready=lambda: False))
        with pytest.raises(StartError, match=r"slow was not ready after 0\.2 s"):
            supervisor.wait_ready([slow], deadline_seconds=0.2)


def test_the_environment_and_the_log_are_the_processes_own(tmp_path):
    code = "import os; print(os.environ['COLOUR'], flush=True)"
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.start(python("painter", code, env={"COLOUR": "teal"}))
        assert process.wait(PATIENCE_SECONDS)
    assert (tmp_path / "painter.log").read_text() == "teal\n"


def test_processes_end_in_reverse_order(tmp_path):
    code = """
        import signal, sys, time
        def end(*_):
            print(f"{time.monotonic():.6f}", flush=True)
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        print("up", flush=True)
        time.sleep(600)
    """
    with Supervisor(tmp_path) as supervisor:
        for name in ("first", "second", "third"):
            log = tmp_path / f"{name}.log"
            up = supervisor.start(python(name, code, ready=lambda log=log: log.read_text() == "up\n"))
            supervisor.wait_ready([up], deadline_seconds=PATIENCE_SECONDS)
    ended = {
        name: float((tmp_path / f"{name}.log").read_text().split()[1])
        for name in ("first", "second", "third")
    }
    assert ended["third"] < ended["second"] < ended["first"]


def test_neighbours_of_a_group_end_at_the_same_time(tmp_path):
    code = """
        import signal, sys, time
        def end(*_):
            time.sleep(0.5)
            sys.exit()
        signal.signal(signal.SIGTERM, end)
        print("up", flush=True)
        time.sleep(600)
    """
    with Supervisor(tmp_path) as supervisor:
        for name in ("one", "two", "three", "four"):
            log = tmp_path / f"{name}.log"
            supervisor.start(
                python(name, code, ready=lambda log=log: log.read_text() == "up\n", group="siblings")
            )
        supervisor.wait_ready(supervisor.processes.values(), deadline_seconds=PATIENCE_SECONDS)
        started = time.monotonic()
    assert time.monotonic() - started < 1.5
    assert all(each.exit_code == 0 for each in supervisor.processes.values())


def test_a_process_deaf_to_sigterm_is_killed_after_the_grace(tmp_path):
    code = """
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("up", flush=True)
        time.sleep(600)
    """
    supervisor = Supervisor(tmp_path)
    log = tmp_path / "deaf.log"
    deaf = supervisor.start(python("deaf", code, ready=lambda: log.read_text() == "up\n"))
    supervisor.wait_ready([deaf], deadline_seconds=PATIENCE_SECONDS)
    supervisor.stop(grace_seconds=0.2)
    assert deaf.exit_code == -signal.SIGKILL


def test_what_a_process_started_goes_with_it(tmp_path):
    code = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid, flush=True)
        time.sleep(600)
    """
    log = tmp_path / "parent.log"
    with Supervisor(tmp_path) as supervisor:
        parent = supervisor.start(python("parent", code, ready=lambda: log.read_text().endswith("\n")))
        supervisor.wait_ready([parent], deadline_seconds=PATIENCE_SECONDS)
        child = int(log.read_text())
        assert alive(child)
    assert gone_within(child)


def test_a_killed_process_can_be_started_again_and_its_log_goes_on(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        process = supervisor.start(python("worker", "print('up', flush=True); import time; time.sleep(600)"))
        log = tmp_path / "worker.log"
        while log.read_text() != "up\n":
            time.sleep(0.02)
        first = process.pid
        process.kill()
        assert not alive(first)
        process.start_again()
        assert process.running
        assert process.pid != first
        while log.read_text() != "up\nup\n":
            time.sleep(0.02)
        with pytest.raises(RuntimeError, match="worker is still running"):
            process.start_again()


def test_a_process_started_from_a_thread_outlives_that_thread(tmp_path):
    """Linux ties the parent-death signal to the thread that forked."""
    with Supervisor(tmp_path) as supervisor:
        started = []
        thread = threading.Thread(target=lambda: started.append(supervisor.start(sleeper("sleeper"))))
        thread.start()
        thread.join()
        supervisor.wait_ready(started, deadline_seconds=PATIENCE_SECONDS)
        time.sleep(0.2)
        assert started[0].running


def test_two_processes_of_one_name_are_refused(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(sleeper("twin"))
        with pytest.raises(ValueError, match="twin"):
            supervisor.start(sleeper("twin"))


def test_processes_may_be_stopped_twice(tmp_path):
    supervisor = Supervisor(tmp_path)
    process = supervisor.start(sleeper("once"))
    supervisor.stop()
    supervisor.stop()
    assert not process.running


def test_a_process_outlives_the_thread_that_asked_for_it(tmp_path):
    with Supervisor(tmp_path) as supervisor:
        thread = threading.Thread(target=lambda: supervisor.start(sleeper("lasting")))
        thread.start()
        thread.join()
        process = supervisor.processes["lasting"]
        assert not process.wait(0.3)


def test_an_exception_in_the_block_leaves_no_process(tmp_path):
    pids = []

    def interrupted() -> None:
        with Supervisor(tmp_path) as supervisor:
            pids.extend(supervisor.start(sleeper(f"process-{number}")).pid for number in range(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(alive(pid) for pid in pids)


OWNER = """
    import sys, time
    from pathlib import Path
    from loadtests.stack.processes import ProcessSpec, Supervisor
    import signal
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    with Supervisor(Path(sys.argv[1])) as supervisor:
        for number in range(3):
            print(supervisor.start(ProcessSpec(f"process-{number}", sleeper)).pid, flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name
)
def test_no_process_outlives_an_owner_that_is_interrupted_terminated_or_killed(tmp_path, number):
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=REPOSITORY,
    )
    with owner:
        pids = [int(owner.stdout.readline()) for _ in range(3)]
        assert all(alive(pid) for pid in pids)
        owner.send_signal(number)
        owner.wait(PATIENCE_SECONDS)
    assert all(gone_within(pid) for pid in pids)


def test_an_owner_that_dies_before_the_process_asked_for_its_signal_leaves_none(tmp_path):
    trampoline = REPOSITORY / "loadtests" / "stack" / "trampoline.py"
    not_our_parent = os.getppid()
    ended = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            str(trampoline),
            str(not_our_parent),
            sys.executable,
            "-c",
            "print('ran')",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "ran" not in ended.stdout


def test_ports_are_distinct_and_free_from_any_thread():
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.extend(free_ports(20))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(len(set(found[half : half + 20])) == 20 for half in (0, 20))
    assert not any(tcp_accepts(port)() for port in found)
