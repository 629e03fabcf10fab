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

# llm-d's reference Endpoint Picker (llm-d-router, pkg/epp/metadata): why a request was not routed, and what a
# client may ask of the picker. Of each pair the first name wins; the second is the older one.
DROPPED_REASON_HEADER: Final = "x-llm-d-request-dropped-reason"
OBJECTIVE_HEADERS: Final = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
FAIRNESS_ID_HEADERS: Final = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
MODEL_REWRITE_HEADERS: Final = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
TTFT_SLO_HEADERS: Final = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
TPOT_SLO_HEADERS: Final = ("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")

# The conformance suite of the Gateway API Inference Extension (conformance/utils/headers): a test steers the
# choice by the first, and reads who was chosen and who served from the others. The last marks that the
# response went through the picker.
TEST_SELECTION_HEADER: Final = "test-epp-endpoint-selection"
TEST_SERVED_HEADER: Final = "x-conformance-test-served-endpoint"
TEST_SELECTED_HEADER: Final = "x-conformance-test-selected-endpoint"
RESPONSE_SEEN_HEADER: Final = "x-went-into-resp-headers"

# proto/README.md: the token record.
RECORD_NAMESPACE: Final = "tokenext"
RECORD_KEY: Final = "record"

# proto/README.md: what a client may ask of the chain.
STRATEGY_HEADER: Final = "x-routing-strategy"

# The largest gRPC message that either end reads: a million ids are 5.3 MB as base64, and Envoy repeats
# metadata beside the body. gRPC's default is 4 MiB.
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024

REQUEST_ID_HEADER: Final = "x-request-id"

# NVIDIA Dynamo 1.6, frontend in direct router mode: the worker a request is pinned to.
DYNAMO_INSTANCE_HEADER: Final = "x-dynamo-worker-instance-id"
DYNAMO_DP_RANK_HEADER: Final = "x-dynamo-dp-rank"
DYNAMO_PREFILL_INSTANCE_HEADER: Final = "x-dynamo-prefill-instance-id"
DYNAMO_PREFILL_DP_RANK_HEADER: Final = "x-dynamo-prefill-dp-rank"
DYNAMO_ROUTING_MODE_HEADER: Final = "x-dynamo-routing-mode"

# vLLM 0.32 and SGLang: the data parallel rank a request is pinned to.
DATA_PARALLEL_RANK_HEADER: Final = "x-data-parallel-rank"

# Headers only the chain may set. A client's copies are removed before the chain sets its own, in every
# spelling that a model server still honours.
CHAIN_OWNED_HEADERS: Final[tuple[str, ...]] = (
    DESTINATION_HEADER,
    "x-gateway-destination-endpoint-fallback",
    SUBSET_KEY,
    SERVED_KEY,
    DYNAMO_INSTANCE_HEADER,
    DYNAMO_DP_RANK_HEADER,
    DYNAMO_PREFILL_INSTANCE_HEADER,
    DYNAMO_PREFILL_DP_RANK_HEADER,
    DYNAMO_ROUTING_MODE_HEADER,
    DATA_PARALLEL_RANK_HEADER,
    "x-worker-instance-id",
    "x-dp-rank",
    "x-prefill-instance-id",
    "x-prefill-dp-rank",
    # llm-d-router, pkg/common/routing: which other workers a model server asks.
    "x-llm-d-prefiller-host-port",
    "x-llm-d-encoder-hosts-ports",
    "x-llm-d-kv-cache-source-host-port",
    "x-data-parallel-host-port",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-kv-cache-source-host-port",
)

# What a client asks of the picker, and the model server has no use for.
PICKER_HEADERS: Final[tuple[str, ...]] = (
    STRATEGY_HEADER,
    *OBJECTIVE_HEADERS,
    *FAIRNESS_ID_HEADERS,
    *MODEL_REWRITE_HEADERS,
    *TTFT_SLO_HEADERS,
    *TPOT_SLO_HEADERS,
)
