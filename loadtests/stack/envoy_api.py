"""The envoy-data-plane packages in use, by short names.

They are imported here and nowhere else, because envoy-data-plane 2.2 defines its classes in a way that
pydantic 2.12 and later warn about, and our tests take warnings for errors.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from envoy_data_plane.envoy.config.accesslog import v3 as accesslog
    from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap_api
    from envoy_data_plane.envoy.config.cluster import v3 as cluster_api
    from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation_rules
    from envoy_data_plane.envoy.config.core import v3 as core
    from envoy_data_plane.envoy.config.endpoint import v3 as endpoint_api
    from envoy_data_plane.envoy.config.listener import v3 as listener_api
    from envoy_data_plane.envoy.config.route import v3 as route_api
    from envoy_data_plane.envoy.extensions.access_loggers.file import v3 as file_log
    from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
    from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
    from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as hcm
    from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host import v3 as override_host
    from envoy_data_plane.envoy.extensions.load_balancing_policies.round_robin import v3 as round_robin
    from envoy_data_plane.envoy.extensions.retry.host.previous_hosts import v3 as previous_hosts
    from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls_api
    from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstream_http
    from envoy_data_plane.envoy.type import v3 as type_api
    from envoy_data_plane.envoy.type.metadata import v3 as metadata_api
    from envoy_data_plane.google import protobuf

__all__ = [
    "accesslog",
    "bootstrap_api",
    "cluster_api",
    "core",
    "endpoint_api",
    "ext_proc",
    "file_log",
    "hcm",
    "listener_api",
    "metadata_api",
    "mutation_rules",
    "override_host",
    "previous_hosts",
    "protobuf",
    "round_robin",
    "route_api",
    "router",
    "tls_api",
    "type_api",
    "upstream_http",
]
