{{/* The settings files of both services. tests/chart loads every rendered one with the services' own code. */}}

{{/* tokenext.yaml. A bundled model's source is where the init container put it. */}}
{{- define "chain.tokenextSettings" -}}
{{- $root := . -}}
{{- if eq .Values.tokenext.placement "sidecar" }}
listen: unix:/run/tokenext/tokenext.sock
{{- else }}
listen: 0.0.0.0:{{ .Values.tokenext.port }}
{{- end }}
admin: 0.0.0.0:{{ .Values.tokenext.adminPort }}
{{- include "chain.adminTokenFile" . }}
{{- if .Values.tokenext.http.enabled }}
http:
  listen: 0.0.0.0:{{ .Values.tokenext.http.port }}
  max_requests: {{ .Values.tokenext.http.maxRequests }}
{{- end }}
{{- if .Values.tokenext.tls.secretName }}
tls:
  listen: 0.0.0.0:{{ .Values.tokenext.tls.port }}
  certificate: /etc/tokenext-tls/tls.crt
  key: /etc/tokenext-tls/tls.key
  {{- if .Values.tokenext.tls.requireClientCertificate }}
  client_ca: /etc/tokenext-tls/ca.crt
  {{- end }}
{{- end }}
metadata_namespace: {{ include "chain.namespace" . }}
log: {{ include "chain.log" .Values.tokenext.log }}
limits:
  {{- toYaml (merge (dict "linger_seconds" .Values.tokenext.lingerSeconds "drain_seconds" .Values.tokenext.drainSeconds) .Values.tokenext.limits) | nindent 2 }}
{{- with .Values.tokenext.prefixCache }}
prefix_cache:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tokenext.conversations }}
conversations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tracing }}
tracing:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tokenext.breaker }}
breaker:
  {{- toYaml . | nindent 2 }}
{{- end }}
models:
{{- range $index, $model := .Values.models }}
- {{- $source := ternary (include "chain.bundleFolder" (list $index $model)) $model.source $root.Values.modelStore.bundle }}
  {{- toYaml (merge (dict "source" $source) (omit $model "source")) | nindent 2 }}
{{- end }}
{{- end -}}

{{/* (log) A small share must not read 1e-05, which is no number in the services' YAML. */}}
{{- define "chain.log" -}}
{level: {{ .level }}, exchange_ratio: {{ regexReplaceAll "\\.?0+$" (printf "%.9f" (float64 .exchangeRatio)) "" }}}
{{- end -}}

{{- define "chain.adminTokenFile" -}}
{{- if .Values.adminToken.secretName }}
admin_token_file: /etc/admin-token/token
{{- end }}
{{- end -}}

{{/* (list index model) -> the folder of a model's bundle, which no other model has. */}}
{{- define "chain.bundleFolder" -}}
{{- printf "/bundles/%d-%s" (int (index . 0)) ((index . 1).name | lower | replace "/" "-" | replace ":" "-" | trunc 40) -}}
{{- end -}}

{{/* epp.yaml */}}
{{- define "chain.eppSettings" -}}
{{- $carrier := include "chain.carrier" . -}}
listen: 0.0.0.0:{{ .Values.epp.port }}
admin: 0.0.0.0:{{ .Values.epp.adminPort }}
{{- include "chain.adminTokenFile" . }}
metadata_namespace: {{ include "chain.namespace" . }}
endpoints:
  pool:
    name: {{ include "chain.poolName" . }}
    {{- if include "chain.dynamoWorkers" . }}
    dynamo_workers: true
    {{- end }}
strategies:
  {{- include "chain.strategies" . | trim | nindent 2 }}
default_strategy: {{ include "chain.defaultStrategy" . }}
fallback:
  {{- if .Values.epp.fallback }}
  {{- toYaml .Values.epp.fallback | nindent 2 }}
  {{- else if and (ne (include "chain.defaultStrategy" .) "round-robin") (hasKey (include "chain.strategies" . | fromYaml) "round-robin") }}
  - round-robin
  {{- else }} []
  {{- end }}
{{- if include "chain.pickerTls" . }}
tls:
  listen: 0.0.0.0:{{ .Values.epp.tls.port }}
  certificate: /etc/epp-tls/tls.crt
  key: /etc/epp-tls/tls.key
{{- end }}
linger_seconds: {{ .Values.epp.lingerSeconds }}
drain_seconds: {{ .Values.epp.drainSeconds }}
max_streams: {{ .Values.epp.maxStreams }}
max_headers: {{ .Values.epp.maxHeaders }}
log: {{ include "chain.log" .Values.epp.log }}
clear_route_cache: {{ .Values.epp.clearRouteCache }}
require_model: {{ .Values.epp.requireModel }}
destination_fallbacks: {{ .Values.epp.destinationFallbacks }}
{{- with .Values.tracing }}
tracing:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.epp.health }}
health:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.epp.scrape }}
scrape:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.epp.models }}
models:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if include "chain.pickerAsks" . }}
tokenization:
  {{- if eq $carrier "body" }}
  # tokenext stands before the picker and removes what clients put there.
  trust_body_ids: true
  {{- end }}
  # In a body there are only ids that the engine may have; for the others tokenext is asked.
  address: {{ include "chain.tokenizationAddress" . }}
  deadline_ms: {{ .Values.epp.callDeadlineMs }}
  {{- if .Values.tokenext.tls.secretName }}
  tls: {ca: /etc/tokenext-ca/ca.crt}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "chain.tokenizationAddress" -}}
{{- if eq .Values.tokenext.placement "sidecar" -}}
unix:/run/tokenext/tokenext.sock
{{- else -}}
{{- $port := ternary .Values.tokenext.tls.port .Values.tokenext.port (not (empty .Values.tokenext.tls.secretName)) -}}
{{- printf "%s:%d" (include "chain.host" (list . (include "chain.component" (list . "tokenext")))) (int $port) -}}
{{- end -}}
{{- end -}}
