{{/*
Envoy's configuration from files/envoy.json, which loadtests/stack/chart_envoy.py makes with the demo's generator.
Here only what values decide is filled in; tests/chart holds the result equal to the generator's own.
*/}}

{{/* (list parts mode failOpen cluster timeoutSeconds namespace) -> tokenext's HTTP filter, as JSON. */}}
{{- define "chain.tokenextFilter" -}}
{{- $filter := get (index . 0).tokenext (index . 1) | deepCopy -}}
{{- $config := $filter.typedConfig -}}
{{- if index . 2 }}{{ $_ := set $config "failureModeAllow" true }}{{ end -}}
{{- $_ := set $config.grpcService.envoyGrpc "clusterName" (index . 3) -}}
{{- $_ := set $config "messageTimeout" (printf "%ds" (int (index . 4))) -}}
{{- $_ := set $config.metadataOptions.receivingNamespaces "untyped" (list (index . 5)) -}}
{{- toJson $filter -}}
{{- end -}}

{{/* The standalone Envoy's bootstrap, as JSON. */}}
{{- define "chain.envoyBootstrap" -}}
{{- $root := . -}}
{{- $parts := .Files.Get "files/envoy.json" | fromJson -}}
{{- $bootstrap := $parts.bootstrap -}}
{{- $namespace := include "chain.namespace" . -}}
{{- $inChain := eq .Values.tokenext.placement "filter" -}}

{{- $listener := first $bootstrap.staticResources.listeners -}}
{{- $probes := last $bootstrap.staticResources.listeners -}}
{{- $chain := first $listener.filterChains -}}
{{- $manager := (first $chain.filters).typedConfig -}}
{{- $_ := set $listener.address.socketAddress "portValue" (int .Values.envoy.port) -}}
{{- $_ := set $probes.address.socketAddress "portValue" (int .Values.envoy.adminPort) -}}
{{- $_ := set $listener "perConnectionBufferLimitBytes" (int .Values.envoy.bufferLimitBytes) -}}
{{- $_ := set $manager "streamIdleTimeout" (printf "%ds" (int .Values.envoy.streamIdleSeconds)) -}}
{{- if .Values.tls.enabled -}}
{{- $_ := set $chain "transportSocket" $parts.transportSocket -}}
{{- $_ := set $bootstrap "node" $parts.node -}}
{{- end -}}

{{- $fields := (first $manager.accessLog).typedConfig.logFormat.jsonFormat -}}
{{- range $name, $value := $fields -}}
{{- $_ := set $fields $name (replace "(tokenext:record" (printf "(%s:record" $namespace) $value) -}}
{{- end -}}

{{- $route := (first (first $manager.routeConfig.virtualHosts).routes).route -}}
{{- if gt (int .Values.envoy.retries) 0 -}}
{{- $_ := set $route.retryPolicy "numRetries" (int .Values.envoy.retries) -}}
{{- else -}}
{{- $_ := unset $route "retryPolicy" -}}
{{- end -}}

{{- $epp := get $parts.epp (printf "%s/%s" (include "chain.pickerBody" .) (include "chain.pickerResponseBody" .)) -}}
{{- $_ := set $epp.typedConfig "messageTimeout" (printf "%ds" (int .Values.epp.messageTimeoutSeconds)) -}}
{{- if eq .Values.epp.failureMode "FailOpen" -}}
{{- $_ := set $epp.typedConfig "failureModeAllow" true -}}
{{- end -}}
{{- range $direction, $namespaces := $epp.typedConfig.metadataOptions -}}
{{- $names := list -}}
{{- range $namespaces.untyped -}}
{{- $names = append $names (ternary $namespace . (eq . "tokenext")) -}}
{{- end -}}
{{- $_ := set $namespaces "untyped" (uniq $names) -}}
{{- end -}}

{{- $filters := list $epp (last $manager.httpFilters) -}}
{{- if $inChain -}}
{{- $tokenext := include "chain.tokenextFilter" (list $parts .Values.tokenext.requestBody .Values.tokenext.failOpen "tokenext" .Values.tokenext.messageTimeoutSeconds $namespace) | fromJson -}}
{{- $filters = prepend $filters $tokenext -}}
{{- end -}}
{{- $_ := set $manager "httpFilters" $filters -}}

{{- $clusters := list -}}
{{- range $bootstrap.staticResources.clusters -}}
{{- if eq .name "pool" -}}
{{- $pool := get $parts.pools $root.Values.envoy.pool -}}
{{- if eq $root.Values.envoy.pool "dns" -}}
{{- $host := include "chain.host" (list $root (include "chain.component" (list $root "pool"))) -}}
{{- $_ := set (first $pool.loadAssignment.endpoints) "lbEndpoints" (include "chain.lbEndpoints" (list $host $root.Values.pool.targetPorts) | fromJsonArray) -}}
{{- end -}}
{{- $clusters = append $clusters $pool -}}
{{- else if eq .name "tokenext" -}}
{{- if $inChain -}}
{{- $ports := list -}}
{{- range until (int $root.Values.tokenext.processes) -}}
{{- $ports = append $ports (add $root.Values.tokenext.port .) -}}
{{- end -}}
{{- $host := include "chain.host" (list $root (include "chain.component" (list $root "tokenext-pods"))) -}}
{{- $_ := set (first .loadAssignment.endpoints) "lbEndpoints" (include "chain.lbEndpoints" (list $host $ports) | fromJsonArray) -}}
{{- $clusters = append $clusters . -}}
{{- end -}}
{{- else if eq .name "epp" -}}
{{- $host := include "chain.host" (list $root (include "chain.component" (list $root "epp-pods"))) -}}
{{- $_ := set (first .loadAssignment.endpoints) "lbEndpoints" (include "chain.lbEndpoints" (list $host (list $root.Values.epp.port)) | fromJsonArray) -}}
{{- $clusters = append $clusters . -}}
{{- else -}}
{{- $clusters = append $clusters . -}}
{{- end -}}
{{- end -}}
{{- $_ := set $bootstrap.staticResources "clusters" $clusters -}}
{{- toPrettyJson $bootstrap -}}
{{- end -}}

{{/* (list host ports) -> one endpoint for each port, as JSON. */}}
{{- define "chain.lbEndpoints" -}}
{{- $host := index . 0 -}}
{{- $endpoints := list -}}
{{- range index . 1 -}}
{{- $address := dict "socketAddress" (dict "address" $host "portValue" (int .)) -}}
{{- $endpoints = append $endpoints (dict "endpoint" (dict "address" $address)) -}}
{{- end -}}
{{- toJson $endpoints -}}
{{- end -}}

{{/* Where Envoy finds the certificate, as a Secret of its own API; read again when the files change. */}}
{{- define "chain.envoySecrets" -}}
{{- $folder := "/etc/envoy/tls" -}}
{{- $certificate := dict "certificate_chain" (dict "filename" (printf "%s/tls.crt" $folder)) "private_key" (dict "filename" (printf "%s/tls.key" $folder)) "watched_directory" (dict "path" $folder) -}}
{{- $secret := dict "@type" "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret" "name" "server" "tls_certificate" $certificate -}}
{{- toPrettyJson (dict "resources" (list $secret)) -}}
{{- end -}}
