"""The only importer of kubernetes_asyncio: its configuration and credentials, behind `KubeApi`.

Objects are taken as JSON: of a pod's hundred fields six are needed, and the client's models would cost the
rest.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
from kubernetes_asyncio import client, config

from epp_adapter.discovery.watching import ApiError

__all__ = ["ClusterApi", "ClusterConfigError", "connected", "own_namespace"]

_NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_PAGE: Final = "500"
_MAX_PAGES: Final = 1_000
_MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
_LIST_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 30.0  # what a watch may last beyond the time it was asked for
_OK: Final = 200


class ClusterConfigError(Exception):
    """There is no usable configuration of a cluster. The message is for the operator, and complete."""


@asynccontextmanager
async def connected(
    kubeconfig: str | None = None, api_server: str | None = None
) -> AsyncIterator["ClusterApi"]:
    """The cluster that `kubeconfig` names, or `api_server` (a URL, no credentials), or the one we run in.

    Raises ClusterConfigError.
    """
    configuration = client.Configuration()
    try:
        if api_server is not None:
            configuration.host = api_server
        elif kubeconfig is not None:
            await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise ClusterConfigError(f"no configuration of a Kubernetes cluster: {error}") from error
    async with client.ApiClient(configuration) as api_client:
        yield ClusterApi(api_client)


def own_namespace() -> str:
    """The namespace of the pod we run in; `default` outside of one."""
    try:
        with open(_NAMESPACE_FILE, encoding="utf-8") as file:  # noqa: PTH123  # one short read
            return file.read().strip()
    except OSError:
        return "default"


class ClusterApi:
    """A KubeApi over HTTP."""

    def __init__(self, api_client: Any) -> None:
        self._client = api_client

    async def list(self, path: str, query: Mapping[str, str]) -> tuple[list[Any], str]:
        objects: list[Any] = []
        token = ""
        for _ in range(_MAX_PAGES):
            page = await self._page(path, {**query, "limit": _PAGE} | ({"continue": token} if token else {}))
            metadata = page.get("metadata")
            items = page.get("items")
            if not isinstance(metadata, dict) or not isinstance(items, list):
                raise ApiError(0, "the answer is no list of objects")
            objects += items
            token = metadata.get("continue") or ""
            if not token:
                return objects, str(metadata.get("resourceVersion", ""))
        raise ApiError(0, f"a list of more than {_MAX_PAGES} pages")

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        seconds = float(query.get("timeoutSeconds", "0")) + _GRACE_SECONDS
        try:
            response = await self._get(path, query, seconds)
            async with response:
                held = bytearray()
                async for piece in response.content.iter_any():
                    *lines, rest = piece.split(b"\n")
                    for line in lines:
                        held += line
                        yield _event(bytes(held))
                        held.clear()
                    held += rest
                    if len(held) > _MAX_EVENT_BYTES:
                        raise ApiError(0, "an event is too large")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, f"the watch broke off: {type(error).__name__}") from error

    async def _page(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        try:
            response = await self._get(path, query, _LIST_SECONDS)
            async with response:
                document = orjson.loads(await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, f"the API server does not answer: {type(error).__name__}") from error
        except orjson.JSONDecodeError:
            raise ApiError(0, "the answer is no JSON") from None
        if not isinstance(document, dict):
            raise ApiError(0, "the answer is no list of objects")
        return document

    async def _get(self, path: str, query: Mapping[str, str], seconds: float) -> aiohttp.ClientResponse:
        try:
            response: aiohttp.ClientResponse = await self._client.call_api(
                path,
                "GET",
                query_params=list(query.items()),
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=seconds,
                _return_http_data_only=True,
            )
        except client.ApiException as error:
            raise ApiError(error.status or 0, str(error.reason)) from None
        if response.status != _OK:
            async with response:
                raise ApiError(response.status, response.reason or "refused")
        return response


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise ApiError(0, "an event is no JSON") from None
    if not isinstance(event, dict):
        raise ApiError(0, "an event is no object")
    return event
