"""What a chain is made of: its options, and a worker of its pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from loadtests.stack.envoy_config import BodyMode, TcpAddress
from loadtests.stack.model_source import DEFAULT_MODEL, DEFAULT_NAME, Model
from loadtests.stack.processes import ManagedProcess

__all__ = ["ChainOptions", "Part", "Upstream", "Worker"]


class Part(StrEnum):
    """What stands in a filter's place."""

    REAL = "real"
    PASSING = "passing"  # an ext_proc service that lets everything pass
    CARRYING = "carrying"  # in tokenext's place: one that adds as many bytes as ids take, and does no work
    ABSENT = "absent"  # no filter at all


class Upstream(StrEnum):
    DYNAMO = "dynamo"  # mocker workers with a front end each
    ECHO = "echo"  # echo servers: only the bytes matter
    ROUTED_ECHO = "routed-echo"  # mocker workers for Dynamo's router, and an echo server where each is served
    EXTERNAL = "external"  # servers that run already, at `external`


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """What to start. The defaults are the chain as it is meant to run.

    `handoff` and `frontend_router_mode` default to what fits: no hand-off to echo servers, and direct mode
    where the EPP names the worker. `tokenext_settings` and `epp_settings` replace top-level keys of their
    files. `mocker_arguments` and `frontend_arguments` are added to each process's command line and override
    what stands there. `access_log_fields` (name -> Envoy command operator) are added to the access log.
    """

    model: Model = field(default_factory=lambda: Model(DEFAULT_NAME, DEFAULT_MODEL))
    upstream: Upstream = Upstream.DYNAMO
    external: tuple[TcpAddress, ...] = ()
    workers: int = 3
    tokenext: Part = Part.REAL
    tokenext_processes: int = 1
    tokenext_body: BodyMode = BodyMode.BUFFERED
    tokenext_timeout_seconds: float = 5.0
    tokenext_settings: Mapping[str, object] = field(default_factory=dict)
    epp: Part = Part.REAL
    epp_processes: int = 1
    epp_body: BodyMode = BodyMode.NONE
    epp_response_body: BodyMode = BodyMode.NONE
    epp_settings: Mapping[str, object] = field(default_factory=dict)
    handoff: str | None = None
    frontend_router_mode: str | None = None
    mocker_arguments: tuple[str, ...] = ()
    frontend_arguments: tuple[str, ...] = ()
    envoy_worker_threads: int = 2
    buffer_limit_bytes: int = 32 * 1024 * 1024
    access_log_fields: Mapping[str, str] = field(default_factory=dict)
    start_deadline_seconds: float = 60.0

    def __post_init__(self) -> None:
        if min(self.workers, self.tokenext_processes, self.epp_processes) < 1:
            raise ValueError("workers and processes must be 1 or more; Part.ABSENT leaves one out")
        if bool(self.external) != (self.upstream is Upstream.EXTERNAL):
            raise ValueError("Upstream.EXTERNAL and the addresses in `external` go together")


@dataclass(slots=True)
class Worker:
    """A model server of the pool: `server` takes requests at `address`; an external one is not ours.

    A Dynamo worker has its engine in `mocker`, and is known to routers by `instance_id`.
    """

    index: int
    address: TcpAddress
    server: ManagedProcess | None = None
    mocker: ManagedProcess | None = None
    rpc_port: int | None = None
    instance_id: str | None = None
