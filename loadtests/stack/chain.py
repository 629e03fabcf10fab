"""The whole chain on loopback, as a context manager:

    with Chain(ChainOptions(workers=3), logs=folder) as chain:
        post(f"{chain.url}/v1/chat/completions", ...)
        chain.processes["tokenext-0"].kill()
        chain.restart("tokenext-0")

Client -> Envoy -> tokenext -> epp-adapter -> a front end -> the Dynamo worker beside it. A filter may be left
out or be replaced by one that lets everything pass: the baselines that measurements need.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from loadtests.stack import dynamo_parts, envoy_binary, services
from loadtests.stack.access_log import AccessLogReader
from loadtests.stack.chain_options import ChainOptions, Part, Upstream, Worker
from loadtests.stack.dynamo_parts import DynamoPlane
from loadtests.stack.envoy_config import (
    AccessLog,
    EnvoyOptions,
    ExtProcFilter,
    StaticPool,
    TcpAddress,
    UnixAddress,
    access_log_fields,
    epp_filter,
    render,
    tokenext_filter,
)
from loadtests.stack.probes import LOOPBACK, free_ports, http_answers
from loadtests.stack.processes import ManagedProcess, ProcessSpec, StartError, Supervisor
from loadtests.stack.services import Endpoint

__all__ = ["Chain", "ChainOptions", "Part", "StartError", "Upstream", "Worker"]

POLL_SECONDS: Final = 0.05


class Chain:
    """Runs from `start` to `stop`. `logs` gets a log per process, all configuration, and the access log."""

    def __init__(
        self,
        options: ChainOptions | None = None,
        *,
        logs: Path,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.options = options or ChainOptions()
        self.logs = logs.resolve()
        self.workers: list[Worker] = []
        self.admin_urls: dict[str, str] = {}
        self.url = ""
        self.access_log = AccessLogReader(self.logs / "access.log")
        self._on_progress = on_progress
        self._reported: set[str] = set()
        self._supervisor = Supervisor(self.logs)
        self._plane: DynamoPlane | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def processes(self) -> Mapping[str, ManagedProcess]:
        """By name: nats, worker-N, frontend-N (or echo-N), tokenext-N, epp-adapter (then -1), envoy."""
        return self._supervisor.processes

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The pool; worker N is endpoint N."""
        return tuple(Endpoint(str(each.address), each.instance_id) for each in self.workers)

    def start(self) -> None:
        """Start everything, in parallel where nothing depends on it, and return when all of it is ready.

        Raises StartError, EnvoyConfigError, or FileNotFoundError for a program that is not installed.
        """
        # Unix socket paths have room for about 100 characters, and `logs` may be deep.
        self._folder = Path(tempfile.mkdtemp(prefix="chain-"))
        if self.options.upstream is Upstream.EXTERNAL:
            self.workers = [Worker(index, each) for index, each in enumerate(self.options.external)]
        elif self.options.upstream is Upstream.ECHO:
            self._start_echo_servers()
        else:
            self._start_dynamo(self._folder / "discovery")
        filters = [*self._start_tokenext(self._folder), *self._start_epp(self._folder)]
        self._start_envoy(tuple(filters))
        self._wait(*self.processes.values())

    def stop(self) -> None:
        """End every process, last started first. Logs stay. Safe to call again."""
        self._supervisor.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def restart(self, name: str) -> None:
        """End a process, if it still runs, start it again, and return when it is ready.

        A Dynamo worker comes back under a new instance id, so the endpoints file is written anew.
        """
        process = self.processes[name]
        process.stop()
        process.start_again()
        for worker in self.workers:
            if worker.mocker is process:
                self.await_new_instance(worker)
                self.announce(self.workers)
        self._wait(process)

    def announce(self, workers: Sequence[Worker]) -> None:
        """Write the endpoints file: the EPP knows these workers, and no others, within its polling time."""
        services.write_endpoints(
            self.logs / "endpoints.yaml",
            [Endpoint(str(each.address), each.instance_id) for each in workers],
        )

    def _start_dynamo(self, discovery: Path) -> None:
        options = self.options
        nats_port, *ports = free_ports(1 + 2 * options.workers)
        plane = self._plane = DynamoPlane(nats_port, discovery)
        mode = options.frontend_router_mode or ("direct" if options.epp is Part.REAL else "round-robin")
        self._wait(self._supervisor.start(dynamo_parts.nats(plane)))
        for index in range(options.workers):
            rpc_port, http_port = ports[2 * index : 2 * index + 2]
            mocker = dynamo_parts.mocker(
                plane,
                f"worker-{index}",
                options.model,
                rpc_port=rpc_port,
                arguments=options.mocker_arguments,
            )
            server = (
                services.echo_server(f"echo-{index}", http_port)
                if options.upstream is Upstream.ROUTED_ECHO
                else dynamo_parts.frontend(
                    plane,
                    f"frontend-{index}",
                    options.model,
                    port=http_port,
                    router_mode=mode,
                    arguments=options.frontend_arguments,
                )
            )
            self.workers.append(
                Worker(
                    index=index,
                    address=TcpAddress(LOOPBACK, http_port),
                    mocker=self._supervisor.start(mocker),
                    server=self._supervisor.start(server),
                    rpc_port=rpc_port,
                )
            )

    def _start_echo_servers(self) -> None:
        for index, port in enumerate(free_ports(self.options.workers)):
            server = self._supervisor.start(services.echo_server(f"echo-{index}", port))
            self.workers.append(Worker(index=index, address=TcpAddress(LOOPBACK, port), server=server))

    def _start_tokenext(self, folder: Path) -> list[ExtProcFilter]:
        """One process per endpoint, as many as the options say."""
        options = self.options
        if options.tokenext is Part.ABSENT:
            return []
        names = [f"tokenext-{index}" for index in range(options.tokenext_processes)]
        addresses = [UnixAddress(str(folder / f"{name}.sock")) for name in names]
        handoff = options.handoff or ("dynamo" if self._plane else "none")
        for name, address, admin in zip(names, addresses, free_ports(len(names)), strict=True):
            if options.tokenext is not Part.REAL:
                carry = options.tokenext is Part.CARRYING
                self._supervisor.start(services.passing(name, address, carry=carry))
                continue
            self.admin_urls[name] = f"http://{LOOPBACK}:{admin}"
            self._supervisor.start(
                services.tokenext(
                    self.logs,
                    name,
                    options.model,
                    address,
                    admin,
                    handoff=handoff,
                    settings=options.tokenext_settings,
                )
            )
        return [
            tokenext_filter(
                tuple(addresses),
                request_body=options.tokenext_body,
                message_timeout_seconds=options.tokenext_timeout_seconds,
            )
        ]

    def _start_epp(self, folder: Path) -> list[ExtProcFilter]:
        """Started once the workers have registered, since the endpoints file names their instance ids."""
        options = self.options
        if options.epp is Part.ABSENT:
            return []
        names = ["epp-adapter", *(f"epp-adapter-{number}" for number in range(1, options.epp_processes))]
        addresses = tuple(UnixAddress(str(folder / f"{name}.sock")) for name in names)
        if options.epp is Part.REAL:
            self._read_instance_ids()
            self.announce(self.workers)
        for name, address, admin in zip(names, addresses, free_ports(len(names)), strict=True):
            if options.epp is Part.PASSING:
                self._supervisor.start(services.passing(name, address))
                continue
            self.admin_urls[name] = f"http://{LOOPBACK}:{admin}"
            self._supervisor.start(
                services.epp_adapter(
                    self.logs,
                    address,
                    admin,
                    self.logs / "endpoints.yaml",
                    name=name,
                    dynamo_env=self._plane.env if self._plane else None,
                    settings=options.epp_settings,
                )
            )
        return [epp_filter(addresses, request_body=options.epp_body, response_body=options.epp_response_body)]

    def _start_envoy(self, filters: tuple[ExtProcFilter, ...]) -> None:
        listen, admin = free_ports(2)
        envoy = EnvoyOptions(
            listen=TcpAddress(LOOPBACK, listen),
            admin=TcpAddress(LOOPBACK, admin),
            pool=StaticPool(tuple(each.address for each in self.workers)),
            filters=filters,
            access_log=AccessLog(
                str(self.access_log.path), {**access_log_fields(), **self.options.access_log_fields}
            ),
            buffer_limit_bytes=self.options.buffer_limit_bytes,
        )
        config = self.logs / "envoy.json"
        config.write_text(render(envoy), encoding="utf-8")
        binary = envoy_binary.find()
        envoy_binary.validate(binary, config)
        self.url = f"http://{LOOPBACK}:{listen}"
        self.admin_urls["envoy"] = f"http://{LOOPBACK}:{admin}"
        self._supervisor.start(
            ProcessSpec(
                name="envoy",
                command=envoy_binary.command(
                    binary, config, worker_threads=self.options.envoy_worker_threads
                ),
                ready=http_answers(f"{self.admin_urls['envoy']}/ready"),
            )
        )

    def _wait(self, *processes: ManagedProcess) -> None:
        self._supervisor.wait_ready(
            processes, deadline_seconds=self.options.start_deadline_seconds, on_ready=self._report
        )

    def _report(self, name: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            self._on_progress(name)

    def _read_instance_ids(self) -> None:
        mockers = [each.mocker for each in self.workers if each.mocker]
        self._wait(*mockers)
        for worker in self.workers:
            if self._plane and worker.rpc_port:
                worker.instance_id = dynamo_parts.instance_id(self._plane.discovery, worker.rpc_port)

    def await_new_instance(self, worker: Worker) -> None:
        """A killed worker's registration stays for some seconds, so an id counts only if it is new."""
        assert self._plane is not None
        assert worker.rpc_port is not None
        deadline = time.monotonic() + self.options.start_deadline_seconds
        while time.monotonic() < deadline:
            found = dynamo_parts.instance_id(self._plane.discovery, worker.rpc_port)
            if found is not None and found != worker.instance_id:
                worker.instance_id = found
                return
            time.sleep(POLL_SECONDS)
        raise StartError(f"worker-{worker.index} did not register again; its log is in {self.logs}")
