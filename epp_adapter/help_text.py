"""What `epp-adapter --help` and `epp-adapter serve --help` say."""

from typing import Final

__all__ = ["DESCRIPTION", "ENVIRONMENT", "SERVE"]

DESCRIPTION: Final = """\
An Endpoint Picker (Gateway API Inference Extension, protocol 004) behind Envoy's ext_proc filter.
It routes by the token ids that `tokenext` has put into the request's metadata: with NVIDIA Dynamo's KV
router, or with its own strategies.
"""

SERVE: Final = """\
Serve ext_proc on one endpoint. Start one process per endpoint and let Envoy balance over them.

A settings file:

  listen: unix:/run/epp.sock          # or host:port
  admin: 127.0.0.1:9091               # Prometheus metrics; leave it out to serve none
  metadata_namespace: tokenext        # where the token record stands; Istio forwards only envoy.lb
  endpoints: {file: endpoints.yaml, poll_seconds: 0.5}    # relative to this file; read again when it changes
  strategies:
    dynamo: {kind: dynamo, endpoint: dyn.backend.generate, block_size: 16, discovery: file,
             request_plane: tcp, event_plane: nats, deadline_ms: 200, connect_seconds: 10}
    internal: {kind: internal, block_size: 16,
               kv_events: {kind: dynamo, endpoint: dyn.backend.generate}}
    round-robin: {kind: round-robin}
  default_strategy: dynamo            # a request may name another in the header x-routing-strategy
  fallback: [internal, round-robin]   # asked in this order where the first cannot pick
  health: {base_seconds: 1, max_seconds: 5, probe_path: /health}    # an endpoint that fails is set aside
  scrape: {engine: vllm, interval_ms: 200}    # model servers' metrics; leave it out to scrape none
  destination_fallbacks: 0            # how many endpoints a destination names beside its first
  clear_route_cache: false            # true where a route matches on the headers that are set here
  linger_seconds: 3                   # how long new exchanges are served after SIGTERM, already not ready
  drain_seconds: 30                   # how long open exchanges may run on after SIGTERM

Its endpoints file:

  endpoints:
  - {address: "10.0.0.7:8000", dynamo_instance_id: "7587890123456789012"}
  - {address: "[fd00::7]:8000", labels: {llm-d.ai/role: decode}}
"""

ENVIRONMENT: Final = """\
more settings:
  health: {failures: 1, timeouts: 2, probe_seconds: 1}
                          so many 502 and 503, or 504, in a row set an endpoint aside
  endpoints: {pool: {name: NAME, namespace: NS, dynamo_workers: false}}
                          an InferencePool and its pods, in the place of `file`
  scrape: {engine: vllm | sglang | trtllm-serve, engine_label: llm-d.ai/engine-type, port: N, path: /metrics,
           timeout_ms: 1000, staleness_ms: 2000, concurrency: 32}
  objectives: {NAME: PRIORITY}; model_rewrites: [{models: [A], targets: [{model: B, weight: 1}]}]
                          where no pool says them; a negative priority may be dropped. Rewriting needs bodies:
                          request_body_mode BUFFERED or FULL_DUPLEX_STREAMED, response_body_mode not NONE
  tokenization: {trust_body_ids: false, address: unix:/run/tokenext.sock, deadline_ms: 200}
                          for requests without a record: ids in the body are tokenext's own; call it at
                          `address`. Both need request_body_mode BUFFERED or FULL_DUPLEX_STREAMED
  models: {NAME: {strategy: internal, tokenizer_digest: "sha256:...", lora: false}}
                          a model's own strategy; a record with another digest is not used; it is an adapter
  require_model: false    true: a body that names no model is 400, as in the reference picker
  tokenization: {address: "HOST:9200", tls: {ca: ca.crt, server_name: NAME, certificate: c.crt, key: c.key}}
                          call it over TLS; certificate and key only where it asks for one
  tls: {listen: "0.0.0.0:9003", certificate: tls.crt, key: tls.key, client_ca: ca.crt}
                          one more address over TLS; client_ca: callers must show a certificate
  max_headers: 256        a request of more header lines is 431; max_streams: 16384, over it 429
  log: {level: info, exchange_ratio: 1.0}
                          of requests that went well this share has a line, of the others all
  admin_token_file: FILE  the admin port wants its content as a bearer token, but for probes
  conformance: false      true: clients may choose their endpoint, as the conformance suite does

kind: dynamo, docs/routing.md:
  router: {NAME: VALUE}   KvRouterConfig by Dynamo's own names, e.g. {router_replica_sync: true}
  prefill_endpoint: NS.COMPONENT.ENDPOINT
                          a disaggregated graph: its workers compute prompts, those of `endpoint` generate
  policy_classes: {CLASS: LOWEST_PRIORITY}; cache_namespace_header: x-tenant-id

kind: dynamo-selection is Dynamo's router over plain vLLM workers:
  block_size: 16; kv_events: {port: 5557, port_label: LABEL, replay_offset: 1}; data_parallel_size: 1
  replica_sync_port: 7000; replica_sync_peers: ["tcp://HOST:7000"]; overrides: {router_temperature: 0.0}

kind: internal schedules by an EndpointPickerConfig, docs/endpoint-picker-config.md:
  config: FILE            relative to the settings file; without it, the reference's default
  kv_events: {kind: dynamo, endpoint: NS.COMPONENT.ENDPOINT, nats: URL}
  kv_events: {kind: vllm, port: 5557, replay_port: 5558, data_parallel_size: 1}
                          on each endpoint's ip; without any kv_events, prefixes are guessed from own picks
  kv_events: {kind: vllm, bind: "tcp://HOST:5557", topic: "kv@"}
                          the model servers connect to us

environment of `kind: dynamo` (read by Dynamo itself, not by this program):
  NATS_SERVER             nats://host:port, for event_plane nats (read here too, for kv_events)
  DYN_FILE_KV             the directory, for discovery file
  ETCD_ENDPOINTS          http://host:port, for discovery etcd
  POD_NAME, POD_NAMESPACE for discovery kubernetes
  DYN_ROUTER_ACTIVE_REQUEST_EXPIRY_SECS
                          when Dynamo forgets a booking by itself (300); set it above your longest response
  NATS_STARTUP_CONNECT_TIMEOUT_SECONDS, ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS
                          win over connect_seconds
  DYN_RUNTIME_NUM_WORKER_THREADS
                          threads of Dynamo's runtime (1)
  DYN_LOG                 Dynamo's log level: error, warn (here the default), info

exit codes: 0 stopped by a signal, or --check found no mistake; 1 cannot start; 2 mistake in the settings
"""
