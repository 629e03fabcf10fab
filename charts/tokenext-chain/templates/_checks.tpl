{{/*
What no schema can say: pairs of values that cannot work together. Each ends the render with one sentence that
begins with the value to change.
*/}}
{{- define "chain.checks" -}}
{{- if not .Values.epp.enabled -}}
{{- include "chain.checkAlone" . -}}
{{- end -}}
{{- include "chain.checkModels" . -}}
{{- include "chain.checkTokenext" . -}}
{{- if .Values.epp.enabled -}}
{{- include "chain.checkPicker" . -}}
{{- include "chain.checkPool" . -}}
{{- include "chain.checkProvider" . -}}
{{- include "chain.checkWorkers" . -}}
{{- end -}}
{{- end -}}

{{/* tokenext without a picker: who asks for parts of a chain would wait for them in vain. */}}
{{- define "chain.checkAlone" -}}
{{- $without := "with epp.enabled=false the chart installs tokenext alone" -}}
{{- if ne .Values.provider "standalone" -}}
{{- fail (printf "provider=%s: %s, and nothing in a gateway; leave provider out" .Values.provider $without) -}}
{{- end -}}
{{- if ne .Values.carrier "auto" -}}
{{- fail (printf "carrier=%s: %s, and no picker to carry ids to; leave carrier out" .Values.carrier $without) -}}
{{- end -}}
{{- if eq .Values.tokenext.placement "sidecar" -}}
{{- fail (printf "tokenext.placement=sidecar: %s, and no picker's pod to stand in; leave placement out" $without) -}}
{{- end -}}
{{- range $name, $wanted := dict "gateway.create" .Values.gateway.create "httpRoute.create" .Values.httpRoute.create "tls.enabled" .Values.tls.enabled -}}
{{- if $wanted -}}
{{- fail (printf "%s=true: %s, and nothing that a client's request could go through; leave %s out" $name $without $name) -}}
{{- end -}}
{{- end -}}
{{- if not (has .Values.workers.kind (list "mocker" "none")) -}}
{{- fail (printf "workers.kind=%s: %s, and no workers; leave workers to whoever picks among them" .Values.workers.kind $without) -}}
{{- end -}}
{{- range $name, $wanted := dict "objectives" .Values.objectives "modelRewrites" .Values.modelRewrites -}}
{{- if $wanted -}}
{{- fail (printf "%s: %s, and no picker or pool that they could be of" $name $without) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.tokenext.http.enabled -}}
{{- fail (printf "tokenext.http.enabled=false: %s, for pickers that ask over HTTP; set it true (gRPC is served in any case)" $without) -}}
{{- end -}}
{{- end -}}

{{- define "chain.checkModels" -}}
{{- $seen := dict -}}
{{- range $index, $model := .Values.models -}}
{{- range $name := concat (list $model.name) ($model.aliases | default list) ($model.loras | default list) -}}
{{- if hasKey $seen $name -}}
{{- fail (printf "models[%d]: the name %q belongs to models[%d] already" $index $name (get $seen $name)) -}}
{{- end -}}
{{- $_ := set $seen $name $index -}}
{{- end -}}
{{- end -}}
{{- if not .Values.modelStore.existingClaim -}}
{{- range $index, $model := .Values.models -}}
{{- if hasPrefix (printf "%s/" $.Values.modelStore.mountPath) $model.source -}}
{{- fail (printf "models[%d].source=%s: nothing is mounted at %s; set modelStore.existingClaim" $index $model.source $.Values.modelStore.mountPath) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq (include "chain.carrier" .) "body" -}}
{{- range $index, $model := .Values.models -}}
{{- if eq ($model.handoff | default "none") "none" -}}
{{- fail (printf "models[%d].handoff=none: with ids carried in the body (provider %s) only a hand-off brings them to the picker; set a hand-off, or tokenext.placement=service" $index $.Values.provider) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "chain.checkTokenext" -}}
{{- with .Values.tokenext -}}
{{- if and .failOpen (eq .requestBody "FULL_DUPLEX_STREAMED") (eq .placement "filter") -}}
{{- fail "tokenext.failOpen=true with tokenext.requestBody=FULL_DUPLEX_STREAMED: Envoy cannot fail open once a body is streaming; set failOpen=false or requestBody=BUFFERED" -}}
{{- end -}}
{{- if gt (int .processes) 1 -}}
{{- if not $.Values.epp.enabled -}}
{{- fail (printf "tokenext.processes=%d: a process listens on a port of its own, and with epp.enabled=false callers know one address; raise tokenext.replicas instead" (int .processes)) -}}
{{- end -}}
{{- if ne .placement "filter" -}}
{{- fail (printf "tokenext.processes=%d: the picker calls one address, so with tokenext.placement=%s only 1 process can be reached; raise tokenext.replicas instead" (int .processes) .placement) -}}
{{- end -}}
{{- if ne $.Values.provider "standalone" -}}
{{- fail (printf "tokenext.processes=%d: a process listens on a port of its own, and provider=%s balances over one port only; raise tokenext.replicas instead" (int .processes) $.Values.provider) -}}
{{- end -}}
{{- end -}}
{{- if and (ge (int .adminPort) (int .port)) (lt (int .adminPort) (add (int .port) (int .processes))) -}}
{{- fail (printf "tokenext.adminPort=%d: port %d and the %d after it belong to the processes' ext_proc" (int .adminPort) (int .port) (sub (int .processes) 1)) -}}
{{- end -}}
{{- if and (ge (int .port) (int .adminPort)) (lt (int .port) (add (int .adminPort) (int .processes))) -}}
{{- fail (printf "tokenext.port=%d: port %d and the %d after it belong to the processes' metrics" (int .port) (int .adminPort) (sub (int .processes) 1)) -}}
{{- end -}}
{{- if and (eq .placement "sidecar") (eq (int .adminPort) (int $.Values.epp.adminPort)) -}}
{{- fail (printf "tokenext.adminPort=%d: with tokenext.placement=sidecar the picker's metrics are on that port of the same pod (epp.adminPort)" (int .adminPort)) -}}
{{- end -}}
{{- if .tls.secretName -}}
{{- if eq .placement "sidecar" -}}
{{- fail (printf "tokenext.tls.secretName=%s: with tokenext.placement=sidecar tokenext is called over a Unix socket" .tls.secretName) -}}
{{- end -}}
{{- range $other := list .port .adminPort -}}
{{- if and (lt (int $other) (add (int $.Values.tokenext.tls.port) (int $.Values.tokenext.processes))) (lt (int $.Values.tokenext.tls.port) (add (int $other) (int $.Values.tokenext.processes))) -}}
{{- fail (printf "tokenext.tls.port=%d: it and the %d ports after it meet those from %d on" (int $.Values.tokenext.tls.port) (sub (int $.Values.tokenext.processes) 1) (int $other)) -}}
{{- end -}}
{{- end -}}
{{- if and .tls.requireClientCertificate (include "chain.pickerAsks" $) -}}
{{- fail "tokenext.tls.requireClientCertificate=true: the picker calls tokenext here, and the chart gives it no certificate to show" -}}
{{- end -}}
{{- else if .tls.requireClientCertificate -}}
{{- fail "tokenext.tls.requireClientCertificate=true: tokenext.tls.secretName has to name the Secret with ca.crt" -}}
{{- end -}}
{{- if .http.enabled -}}
{{- range $other := ternary (list .port .adminPort .tls.port) (list .port .adminPort) (not (empty .tls.secretName)) -}}
{{- if and (lt (int $other) (add (int $.Values.tokenext.http.port) (int $.Values.tokenext.processes))) (lt (int $.Values.tokenext.http.port) (add (int $other) (int $.Values.tokenext.processes))) -}}
{{- fail (printf "tokenext.http.port=%d: it and the %d ports after it meet those from %d on" (int $.Values.tokenext.http.port) (sub (int $.Values.tokenext.processes) 1) (int $other)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .placement "sidecar") .autoscaling.enabled -}}
{{- fail "tokenext.autoscaling.enabled=true: with tokenext.placement=sidecar tokenext has as many replicas as the picker" -}}
{{- end -}}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) -}}
{{- fail (printf "tokenext.autoscaling.minReplicas=%d is more than tokenext.autoscaling.maxReplicas=%d" (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if hasKey .limits "drain_seconds" -}}
{{- fail "tokenext.limits.drain_seconds: set tokenext.drainSeconds, which the pod's grace period follows" -}}
{{- end -}}
{{- if hasKey .limits "linger_seconds" -}}
{{- fail "tokenext.limits.linger_seconds: set tokenext.lingerSeconds, which the pod's grace period follows" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "chain.checkPicker" -}}
{{- $strategies := include "chain.strategies" . | fromYaml -}}
{{- range $name := prepend .Values.epp.fallback (include "chain.defaultStrategy" .) -}}
{{- if not (hasKey $strategies $name) -}}
{{- fail (printf "epp.defaultStrategy, epp.fallback: %q is none of the strategies (%s)" $name (keys $strategies | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- range $name, $strategy := $strategies -}}
{{- if eq $strategy.kind "dynamo" -}}
{{- if ne $.Values.dynamo.discovery "kubernetes" -}}
{{- fail (printf "dynamo.discovery=%s: strategy %q (kind dynamo) finds a pod's worker id by its name, which only dynamo.discovery=kubernetes gives" $.Values.dynamo.discovery $name) -}}
{{- end -}}
{{- if not (include "chain.dynamoWorkers" $) -}}
{{- fail (printf "epp.strategies.%s: kind dynamo needs Dynamo workers; set workers.kind, or pool.dynamoWorkers=true for your own" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $strategy.kind "dynamo-selection") $.Values.epp.replicaSync -}}
{{- fail (printf "epp.replicaSync=true: strategy %q (kind dynamo-selection) wants its peers' addresses, which pods of a Deployment do not have ahead of time; write replica_sync_port and replica_sync_peers into epp.strategies yourself" $name) -}}
{{- end -}}
{{- if and (eq $strategy.kind "internal") (eq ($strategy.config | default "") "picker.yaml") (not $.Values.epp.pickerConfig) -}}
{{- fail (printf "epp.strategies.%s.config=picker.yaml: that file is made of epp.pickerConfig, which is empty" $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.epp.replicaSync (not (include "chain.dynamoWorkers" .)) -}}
{{- fail "epp.replicaSync=true: bookings are shared by Dynamo's KV router (strategy kind dynamo), and there are no Dynamo workers" -}}
{{- end -}}
{{- if and .Values.epp.replicaSync .Values.networkPolicy.enabled (eq .Values.dynamo.eventPlane "zmq") -}}
{{- fail "epp.replicaSync=true with networkPolicy.enabled=true: over dynamo.eventPlane=zmq the pickers call each other at ports of Dynamo's choice, which no policy can name; set dynamo.eventPlane=nats" -}}
{{- end -}}
{{- if and .Values.epp.replicaSync .Values.epp.strategies -}}
{{- fail "epp.replicaSync=true with epp.strategies: write router: {router_replica_sync: true} into the strategy of kind dynamo yourself" -}}
{{- end -}}
{{- end -}}

{{/* A pool that selected tokenext or the picker would send them requests. */}}
{{- define "chain.checkPool" -}}
{{- $selector := include "chain.poolSelector" . | fromYaml -}}
{{- range $component := list "tokenext" "epp" "envoy" "nats" "etcd" -}}
{{- $extra := dict -}}
{{- if hasKey $.Values $component -}}{{- $extra = (get $.Values $component).podLabels | default dict -}}{{- end -}}
{{- $labels := include "chain.podLabels" (list $ $component $extra) | fromYaml -}}
{{- $matches := true -}}
{{- range $key, $value := $selector -}}
{{- if ne (toString (get $labels $key)) (toString $value) -}}{{- $matches = false -}}{{- end -}}
{{- end -}}
{{- if $matches -}}
{{- fail (printf "pool.selector: %s also selects the pods of %s" (toJson $selector) $component) -}}
{{- end -}}
{{- end -}}
{{- if has .Values.workers.kind (list "mocker" "dynamo" "vllm") -}}
{{- $labels := include "chain.podLabels" (list . "worker" $selector) | fromYaml -}}
{{- range $key, $value := $selector -}}
{{- if ne (toString (get $labels $key)) (toString $value) -}}
{{- fail (printf "pool.selector: the chart's own workers have %s=%s, and cannot have %s" $key (get $labels $key) $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.workers.kind "none") (not .Values.pool.selector) -}}
{{- fail "pool.selector: with workers.kind=none it says which pods are the workers" -}}
{{- end -}}
{{- if and (ne .Values.workers.kind "none") (gt (len .Values.pool.targetPorts) 1) -}}
{{- fail (printf "pool.targetPorts: workers.kind=%s serves on one port" .Values.workers.kind) -}}
{{- end -}}
{{- if not .Values.pool.create -}}
{{- if not .Values.pool.name -}}
{{- fail "pool.name: with pool.create=false it says which InferencePool to follow" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "chain.checkProvider" -}}
{{- $provider := .Values.provider -}}
{{- $standalone := eq $provider "standalone" -}}
{{- $filter := eq .Values.tokenext.placement "filter" -}}
{{- $ownPicker := and (eq $provider "envoygateway") (eq .Values.envoyGateway.endpointPicker "policy") -}}
{{- $metadata := and $filter (eq .Values.carrier "metadata") -}}
{{- if and $metadata (eq $provider "kgateway") -}}
{{- fail "carrier=metadata: kgateway lets no processor write metadata; set carrier=body (or auto)" -}}
{{- end -}}
{{- if and $metadata (eq $provider "envoygateway") (not $ownPicker) -}}
{{- fail "carrier=metadata: Envoy AI Gateway's picker filter forwards no metadata; set carrier=body (or auto), or envoyGateway.endpointPicker=policy" -}}
{{- end -}}
{{- if and $filter (eq $provider "kgateway") (not .Values.kgateway.filterStage) -}}
{{- fail "kgateway.filterStage: without it kgateway runs the picker before tokenext; set it, or tokenext.placement=service" -}}
{{- end -}}
{{- if and (eq $provider "istio") (ne .Values.istio.operation "INSERT_FIRST") (not .Values.istio.anchorFilter) -}}
{{- fail (printf "istio.anchorFilter: istio.operation=%s needs the name of a filter" .Values.istio.operation) -}}
{{- end -}}
{{- if and $standalone .Values.gateway.create (not .Values.gateway.className) -}}
{{- fail "gateway.className: with provider=standalone any gateway may be the edge; say which" -}}
{{- end -}}
{{- if and .Values.tls.enabled (not .Values.tls.secretName) -}}
{{- fail "tls.secretName: tls.enabled=true needs the Secret with tls.crt and tls.key" -}}
{{- end -}}
{{- if and .Values.tls.enabled (not $standalone) (not .Values.gateway.create) -}}
{{- fail (printf "tls.enabled=true: with provider=%s TLS ends at the Gateway's listener; set gateway.create=true, or see to your own Gateway's TLS" $provider) -}}
{{- end -}}
{{- if and .Values.tls.enabled $standalone .Values.httpRoute.create -}}
{{- fail "tls.enabled=true with httpRoute.create=true: the Gateway speaks plain HTTP to the standalone Envoy; end TLS at the Gateway" -}}
{{- end -}}
{{- if and (eq $provider "envoygateway") (or $ownPicker $filter) (not .Values.httpRoute.create) (not .Values.httpRoute.name) -}}
{{- fail "httpRoute.name: provider=envoygateway attaches to an HTTPRoute; set httpRoute.create=true, or name yours" -}}
{{- end -}}
{{- if and (eq $provider "kgateway") $filter (not .Values.httpRoute.create) (not .Values.httpRoute.name) -}}
{{- fail "httpRoute.name: provider=kgateway attaches to an HTTPRoute; set httpRoute.create=true, or name yours" -}}
{{- end -}}
{{- if and (eq .Values.epp.failureMode "FailOpen") $ownPicker -}}
{{- fail "epp.failureMode=FailOpen: with envoyGateway.endpointPicker=policy the picker's bodies are FullDuplexStreamed, and Envoy Gateway refuses failOpen with that" -}}
{{- end -}}
{{- if $standalone -}}
{{- if and (eq .Values.epp.failureMode "FailOpen") (ne .Values.envoy.pool "dns") -}}
{{- fail "epp.failureMode=FailOpen: without a picker Envoy knows no endpoint; set envoy.pool=dns" -}}
{{- end -}}
{{- if and (eq .Values.epp.failureMode "FailOpen") (ne (include "chain.pickerBody" .) "NONE") -}}
{{- fail "epp.failureMode=FailOpen: the picker sees bodies FULL_DUPLEX_STREAMED here (carrier, modelRewrites or epp.requireModel), and Envoy cannot fail open once a body is streaming" -}}
{{- end -}}
{{- if and (gt (int .Values.epp.destinationFallbacks) 0) (ne .Values.envoy.pool "dns") -}}
{{- fail (printf "epp.destinationFallbacks=%d: with envoy.pool=originalDestination Envoy reads one address; set envoy.pool=dns" (int .Values.epp.destinationFallbacks)) -}}
{{- end -}}
{{- if eq (int .Values.envoy.port) (int .Values.envoy.adminPort) -}}
{{- fail (printf "envoy.adminPort=%d is envoy.port too" (int .Values.envoy.adminPort)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "chain.checkWorkers" -}}
{{- $kind := .Values.workers.kind -}}
{{- $takes := get (dict "mocker" (list "dynamo" "none") "dynamo" (list "dynamo" "none") "graph" (list "dynamo" "none") "vllm" (list "vllm" "none")) $kind -}}
{{- if $takes -}}
{{- range $index, $model := .Values.models -}}
{{- if not (has ($model.handoff | default "none") $takes) -}}
{{- fail (printf "models[%d].handoff=%s: workers.kind=%s takes %s" $index $model.handoff $kind (join " or " $takes)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if include "chain.usesDynamo" . -}}
{{- with .Values.dynamo -}}
{{- if and (eq .eventPlane "nats") (not .nats.enabled) (not .nats.url) -}}
{{- fail "dynamo.nats.url: dynamo.eventPlane=nats needs a server; set its URL, or dynamo.nats.enabled=true" -}}
{{- end -}}
{{- if and (eq .discovery "etcd") (not .etcd.enabled) (not .etcd.url) -}}
{{- fail "dynamo.etcd.url: dynamo.discovery=etcd needs a server; set its URL, or dynamo.etcd.enabled=true" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $kind "graph") (ne .Values.dynamo.discovery "kubernetes") -}}
{{- fail (printf "dynamo.discovery=%s: Dynamo's operator makes workers that are discovered by kubernetes" .Values.dynamo.discovery) -}}
{{- end -}}
{{- end -}}
{{- end -}}
