{{/* What follows from the values: each is said here once, and the checks, the objects and NOTES agree. */}}

{{/* metadata: in Envoy's dynamic metadata. body: in the request's body, by the hand-off. call: the picker asks. */}}
{{- define "chain.carrier" -}}
{{- if ne .Values.tokenext.placement "filter" -}}
call
{{- else if ne .Values.carrier "auto" -}}
{{- .Values.carrier -}}
{{- else if or (eq .Values.provider "kgateway") (and (eq .Values.provider "envoygateway") (eq .Values.envoyGateway.endpointPicker "aiGateway")) -}}
body
{{- else -}}
metadata
{{- end -}}
{{- end -}}

{{/* The services that have pods of their own, with a space between them. */}}
{{- define "chain.services" -}}
{{- if not .Values.epp.enabled -}}
tokenext
{{- else if eq .Values.tokenext.placement "sidecar" -}}
epp
{{- else -}}
epp tokenext
{{- end -}}
{{- end -}}

{{/* "true" where the picker calls tokenext, for all requests or for those whose ids are in no body. */}}
{{- define "chain.pickerAsks" -}}
{{- if and .Values.epp.enabled (ne (include "chain.carrier" .) "metadata") -}}true{{- end -}}
{{- end -}}

{{/* "true" where an Envoy is part of this release: it leads to the picker, so there is none without. */}}
{{- define "chain.ownEnvoy" -}}
{{- if and .Values.epp.enabled (eq .Values.provider "standalone") -}}true{{- end -}}
{{- end -}}

{{/* The kind of workers that this release has; those of somebody else's picker are not its own. */}}
{{- define "chain.workers" -}}
{{- ternary .Values.workers.kind "none" .Values.epp.enabled -}}
{{- end -}}

{{/* Istio's endpoint picker filter forwards envoy.lb and nothing else. */}}
{{- define "chain.namespace" -}}
{{- .Values.tokenext.metadataNamespace | default (ternary "envoy.lb" "tokenext" (eq .Values.provider "istio")) -}}
{{- end -}}

{{/* "true" where workers register with Dynamo under ids that follow from their pods' names. */}}
{{- define "chain.dynamoWorkers" -}}
{{- if and .Values.epp.enabled (or (has .Values.workers.kind (list "mocker" "dynamo" "graph")) .Values.pool.dynamoWorkers) -}}true{{- end -}}
{{- end -}}

{{/* namespace.component.endpoint of the workers. The operator composes a graph's namespace itself. */}}
{{- define "chain.dynamoEndpoint" -}}
{{- $namespace := .Values.dynamo.namespace -}}
{{- if eq .Values.workers.kind "graph" -}}
{{- $namespace = printf "%s-%s" .Release.Namespace (include "chain.component" (list . "worker")) -}}
{{- end -}}
{{- printf "%s.%s.generate" $namespace .Values.dynamo.component -}}
{{- end -}}

{{- define "chain.natsUrl" -}}
{{- if .Values.dynamo.nats.url -}}
{{- .Values.dynamo.nats.url -}}
{{- else -}}
{{- printf "nats://%s:4222" (include "chain.host" (list . (include "chain.component" (list . "nats")))) -}}
{{- end -}}
{{- end -}}

{{- define "chain.etcdUrl" -}}
{{- if .Values.dynamo.etcd.url -}}
{{- .Values.dynamo.etcd.url -}}
{{- else -}}
{{- printf "http://%s:2379" (include "chain.host" (list . (include "chain.component" (list . "etcd")))) -}}
{{- end -}}
{{- end -}}

{{/* "true" where something speaks Dynamo, and so needs its planes. */}}
{{- define "chain.usesDynamo" -}}
{{- if include "chain.dynamoWorkers" . -}}true{{- end -}}
{{- end -}}

{{/* "true" where NATS is part of this release. */}}
{{- define "chain.ownNats" -}}
{{- if and (include "chain.usesDynamo" .) (eq .Values.dynamo.eventPlane "nats") .Values.dynamo.nats.enabled (not .Values.dynamo.nats.url) -}}true{{- end -}}
{{- end -}}

{{- define "chain.ownEtcd" -}}
{{- if and (include "chain.usesDynamo" .) (eq .Values.dynamo.discovery "etcd") .Values.dynamo.etcd.enabled (not .Values.dynamo.etcd.url) -}}true{{- end -}}
{{- end -}}

{{/* The picker's strategies, by name, as YAML: the values', else those that fit the workers. */}}
{{- define "chain.strategies" -}}
{{- if .Values.epp.strategies -}}
{{ toYaml .Values.epp.strategies }}
{{- else -}}
{{- if and (include "chain.dynamoWorkers" .) (eq .Values.dynamo.discovery "kubernetes") }}
dynamo:
  kind: dynamo
  endpoint: {{ include "chain.dynamoEndpoint" . }}
  block_size: {{ .Values.workers.blockSize }}
  discovery: kubernetes
  request_plane: {{ .Values.dynamo.requestPlane }}
  event_plane: {{ .Values.dynamo.eventPlane }}
  {{- if .Values.epp.replicaSync }}
  router: {router_replica_sync: true}
  {{- end }}
{{- else if eq .Values.workers.kind "vllm" }}
selection:
  kind: dynamo-selection
  block_size: {{ .Values.workers.blockSize }}
  kv_events: {port: 5557, replay_offset: 1}
{{- else }}
internal:
  kind: internal
  block_size: {{ .Values.workers.blockSize }}
  {{- if .Values.epp.pickerConfig }}
  config: picker.yaml
  {{- end }}
{{- end }}
round-robin:
  kind: round-robin
{{- end -}}
{{- end -}}

{{- define "chain.defaultStrategy" -}}
{{- $names := without (keys (include "chain.strategies" . | fromYaml) | sortAlpha) "round-robin" -}}
{{- .Values.epp.defaultStrategy | default (first (append $names "round-robin")) -}}
{{- end -}}

{{/* The gateways' own filters show bodies; ours shows them where something in them is looked for. */}}
{{- define "chain.pickerBody" -}}
{{- if or (ne (include "chain.carrier" .) "metadata") .Values.modelRewrites .Values.epp.requireModel -}}
FULL_DUPLEX_STREAMED
{{- else -}}
NONE
{{- end -}}
{{- end -}}

{{- define "chain.pickerResponseBody" -}}
{{- ternary "FULL_DUPLEX_STREAMED" "NONE" (not (empty .Values.modelRewrites)) -}}
{{- end -}}

{{/* "true" where the gateway's own picker filter calls the picker over TLS, whatever certificate it has. */}}
{{- define "chain.pickerTls" -}}
{{- if or (eq .Values.provider "kgateway") (and (eq .Values.provider "envoygateway") (eq .Values.envoyGateway.endpointPicker "aiGateway")) -}}true{{- end -}}
{{- end -}}

{{/* The render API's base URL, for whoever asks from any namespace. */}}
{{- define "chain.renderUrl" -}}
{{- printf "http://%s:%d" (include "chain.host" (list . (include "chain.component" (list . "tokenext")))) (int .Values.tokenext.http.port) -}}
{{- end -}}

{{- define "chain.gatewayNamespace" -}}
{{- .Values.gateway.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "chain.routeName" -}}
{{- .Values.httpRoute.name | default (include "chain.fullname" .) -}}
{{- end -}}
