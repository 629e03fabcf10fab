"""Names that stand on the wire, each with the document that owns it.

Endpoint Picker Protocol 004 v1.0.0 (Gateway API Inference Extension,
docs/proposals/004-endpoint-picker-protocol) owns the destination names; proto/README.md owns ours.
"""

from typing import Final

# Endpoint Picker Protocol 004.
DESTINATION_HEADER: Final = "x-gateway-destination-endpoint"
DESTINATION_NAMESPACE: Final = "envoy.lb"
DESTINATION_KEY: Final = DESTINATION_HEADER
SERVED_KEY: Final = "x-gateway-destination-endpoint-served"
SUBSET_NAMESPACE: Final = "envoy.lb.subset_hint"
SUBSET_KEY: Final = "x-gateway-destination-endpoint-subset"

# llm-d's reference Endpoint Picker: why a request was not routed.
DROPPED_REASON_HEADER: Final = "x-llm-d-request-dropped-reason"

# proto/README.md: the token record.
RECORD_NAMESPACE: Final = "tokenext"
RECORD_KEY: Final = "record"

# proto/README.md: what a client may ask of the chain.
STRATEGY_HEADER: Final = "x-routing-strategy"

REQUEST_ID_HEADER: Final = "x-request-id"

# NVIDIA Dynamo 1.6, frontend in direct router mode: the worker a request is pinned to.
DYNAMO_INSTANCE_HEADER: Final = "x-dynamo-worker-instance-id"
DYNAMO_DP_RANK_HEADER: Final = "x-dynamo-dp-rank"
DYNAMO_PREFILL_INSTANCE_HEADER: Final = "x-dynamo-prefill-instance-id"
DYNAMO_PREFILL_DP_RANK_HEADER: Final = "x-dynamo-prefill-dp-rank"
DYNAMO_ROUTING_MODE_HEADER: Final = "x-dynamo-routing-mode"

# Headers only the chain may set. A client's copies are removed before the chain sets its own, in every
# spelling that a model server still honours.
CHAIN_OWNED_HEADERS: Final[tuple[str, ...]] = (
    DESTINATION_HEADER,
    "x-gateway-destination-endpoint-fallback",
    DYNAMO_INSTANCE_HEADER,
    DYNAMO_DP_RANK_HEADER,
    DYNAMO_PREFILL_INSTANCE_HEADER,
    DYNAMO_PREFILL_DP_RANK_HEADER,
    DYNAMO_ROUTING_MODE_HEADER,
    "x-worker-instance-id",
    "x-dp-rank",
    "x-prefill-instance-id",
    "x-prefill-dp-rank",
    "x-prefiller-host-port",
)
