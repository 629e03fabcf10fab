"""The admin port: metrics for Prometheus, probes, and a page for people. Read-only, in a thread of its own.

Whatever a page shows is asked for when it is read, from another thread than the service's: what is passed in
must only read. Nothing of a request is shown, so nothing here is secret but what settings hold.

With a token only probes are answered without it.
"""

import contextlib
import json
import logging
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from extproc.admin_token import BearerToken

__all__ = ["AdminPages", "Section", "masked", "serve_admin"]

_log = logging.getLogger(__name__)

_METRICS: Final = "/metrics"
_JSON: Final = "application/json"
_HTML: Final = "text/html; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"
# What a key is called whose value nobody is shown.
_SECRET: Final = re.compile(r"token$|secret|password|credential|authorization", re.IGNORECASE)
_HIDDEN: Final = "***"
_FOR_ANYBODY: Final = frozenset({"/healthz", "/readyz"})  # a kubelet has no token
_STYLE: Final = """\
:root{color-scheme:light dark;--line:color-mix(in srgb,currentColor 18%,transparent)}
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin-bottom:0}h2{font-size:1.05rem;margin-top:1.8rem}p{margin-top:.2rem;opacity:.75}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}div{overflow-x:auto}
th,td{padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
nav a{margin-right:1rem}"""


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the status page."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True)
class AdminPages:
    """What a service shows. `config` is plain data: what it runs with. `sections` make the status page."""

    service: str
    version: str
    registry: CollectorRegistry
    ready: Callable[[], bool]
    config: Callable[[], Any]
    sections: Callable[[], Sequence[Section]]


@contextlib.contextmanager
def serve_admin(host: str, port: int, pages: AdminPages, token: BearerToken | None = None) -> Iterator[int]:
    """Serve until the block is left; gives the port. Raises OSError where the address cannot be bound.

    `token`: whom the pages are for; None: everybody.
    """
    server = _server_of(host.strip("[]"))((host.strip("[]"), port), _handler(pages, token))
    thread = Thread(target=server.serve_forever, name="admin", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without HTTPServer's look for the host's name, which may ask a DNS server."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Into the log, and not as a bare traceback; who leaves before the answer is no news."""
        del request, client_address
        if not isinstance(sys.exception(), ConnectionError):
            _log.warning("an admin page failed", exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_of(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


def masked(value: Any, key: str = "") -> Any:
    """Plain data without the values of keys that are called like secrets."""
    if _SECRET.search(key) and isinstance(value, str) and value:
        return _HIDDEN
    if isinstance(value, Mapping):
        return {name: masked(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, key) for inner in value]
    return value


def _handler(pages: AdminPages, token: BearerToken | None) -> type[BaseHTTPRequestHandler]:
    routes: Mapping[str, Callable[[], tuple[HTTPStatus, str, str]]] = {
        "/": lambda: (HTTPStatus.OK, _HTML, _status_page(pages)),
        "/healthz": lambda: (HTTPStatus.OK, _TEXT, "ok\n"),
        "/readyz": lambda: _readiness(pages),
        "/version": lambda: (
            HTTPStatus.OK, _JSON, _json({"service": pages.service, "version": pages.version}),
        ),
        "/config": lambda: (HTTPStatus.OK, _JSON, _json(masked(pages.config()))),
    }  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        server_version = pages.service
        sys_version = ""
        timeout = 10.0

        def do_GET(self) -> None:
            status, kind, body = self._answer(self.path.partition("?")[0])
            self.send_response(status)
            if status == HTTPStatus.UNAUTHORIZED:
                self.send_header("www-authenticate", "Bearer")
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
            if token is not None and path not in _FOR_ANYBODY and not token.admits(self._authorization()):
                return HTTPStatus.UNAUTHORIZED, _TEXT, b"a bearer token is needed\n"
            if path == _METRICS:
                encode, kind = choose_encoder(self.headers.get("accept", ""))
                return HTTPStatus.OK, kind, encode(pages.registry)
            route = routes.get(path)
            if route is None:
                there_are = ", ".join((_METRICS, *routes))
                return HTTPStatus.NOT_FOUND, _TEXT, f"there are {there_are}\n".encode()
            status, kind, text = route()
            return status, kind, text.encode()

        def _authorization(self) -> str | None:
            return self.headers.get("authorization")

        do_HEAD = do_GET  # noqa: N815  # http.server's name

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            """Scrapes are no news."""

    return Handler


def _readiness(pages: AdminPages) -> tuple[HTTPStatus, str, str]:
    if pages.ready():
        return HTTPStatus.OK, _TEXT, "ready\n"
    return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, "not ready\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"


def _status_page(pages: AdminPages) -> str:
    links = " ".join(
        f'<a href="{path}">{path[1:]}</a>' for path in ("/metrics", "/config", "/version", "/readyz")
    )
    ready = "ready" if pages.ready() else "not ready"
    tables = "".join(_table(section) for section in pages.sections())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(pages.service)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(pages.service)} {escape(pages.version)}</h1>"
        f"<p>{ready}</p><nav>{links}</nav>{tables}</body></html>\n"
    )


def _table(section: Section) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in section.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in section.rows
    )
    return f"<h2>{escape(section.title)}</h2><div><table><tr>{head}</tr>{rows}</table></div>"
