{{/* Parts of pods that several workloads share. */}}

{{- define "chain.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "chain.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* (list root component values) -> where pods may go; replicas spread over nodes unless that is impossible. */}}
{{- define "chain.placement" -}}
{{- $values := index . 2 -}}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "chain.selectorLabels" (list (index . 0) (index . 1)) | nindent 6 }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with (index . 0).Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* gRPC health by the names that the reference picker has; (port) */}}
{{- define "chain.grpcProbes" -}}
startupProbe:
  grpc: {port: {{ . }}, service: readiness}
  periodSeconds: 2
  failureThreshold: 300
readinessProbe:
  grpc: {port: {{ . }}, service: readiness}
  periodSeconds: 5
livenessProbe:
  grpc: {port: {{ . }}, service: liveness}
  periodSeconds: 10
  failureThreshold: 6
{{- end -}}

{{/* The admin ports' token, in a pod of either service or of both. A Secret that changes is read again. */}}
{{- define "chain.adminTokenVolume" -}}
{{- with .Values.adminToken }}
{{- if .secretName }}
- name: admin-token
  secret: {secretName: {{ .secretName }}, items: [{key: {{ .key | quote }}, path: token}]}
{{- end }}
{{- end }}
{{- end -}}

{{- define "chain.adminTokenMount" -}}
{{- if .Values.adminToken.secretName }}
- {name: admin-token, mountPath: /etc/admin-token, readOnly: true}
{{- end }}
{{- end -}}

{{- define "chain.hubEnv" -}}
{{- if .Values.hub.tokenSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .Values.hub.tokenSecret }}, key: {{ .Values.hub.tokenKey }}}
{{- end }}
- name: HF_HOME
  value: /cache/huggingface
{{- end -}}

{{/* Init containers that bundle the models, one after the other; nothing else needs the hub. */}}
{{- define "chain.bundleContainers" -}}
{{- $root := . -}}
{{- range $index, $model := .Values.models }}
- name: bundle-{{ $index }}
  image: {{ include "chain.image" (list $root $root.Values.image) }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command: [tokenext]
  args: [bundle, {{ $model.source | quote }}, -o, {{ include "chain.bundleFolder" (list $index $model) | quote }}]
  env:
    {{- include "chain.hubEnv" $root | nindent 4 }}
  resources:
    requests: {cpu: 100m, memory: 512Mi}
    limits: {memory: 2Gi}
  securityContext:
    {{- include "chain.containerSecurity" $root | nindent 4 }}
  volumeMounts:
  - {name: bundles, mountPath: /bundles}
  - {name: cache, mountPath: /cache}
  {{- if $root.Values.modelStore.existingClaim }}
  - {name: models, mountPath: {{ $root.Values.modelStore.mountPath }}, readOnly: true}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "chain.tokenextContainer" -}}
- name: tokenext
  image: {{ include "chain.image" (list . .Values.image) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [tokenext]
  args:
  - serve
  - --config=/etc/tokenext/tokenext.yaml
  {{- if gt (int .Values.tokenext.processes) 1 }}
  - --processes={{ .Values.tokenext.processes }}
  {{- end }}
  ports:
  {{- range $number := until (int .Values.tokenext.processes) }}
  {{- if ne $.Values.tokenext.placement "sidecar" }}
  - {name: ext-proc-{{ $number }}, containerPort: {{ add $.Values.tokenext.port $number }}}
  {{- end }}
  {{- if $.Values.tokenext.http.enabled }}
  - {name: http-{{ $number }}, containerPort: {{ add $.Values.tokenext.http.port $number }}}
  {{- end }}
  {{- if $.Values.tokenext.tls.secretName }}
  - {name: tls-{{ $number }}, containerPort: {{ add $.Values.tokenext.tls.port $number }}}
  {{- end }}
  - {name: metrics-{{ $number }}, containerPort: {{ add $.Values.tokenext.adminPort $number }}}
  {{- end }}
  env:
    {{- include "chain.hubEnv" . | nindent 4 }}
    {{- with .Values.tokenext.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if eq .Values.tokenext.placement "sidecar" }}
  # A kubelet cannot ask gRPC health over a Unix socket; the picker sees by itself whether it is answered.
  livenessProbe:
    tcpSocket: {port: {{ .Values.tokenext.adminPort }}}
    periodSeconds: 10
    failureThreshold: 30
  {{- else }}
  {{- include "chain.grpcProbes" .Values.tokenext.port | nindent 2 }}
  {{- end }}
  lifecycle:
    # Whoever still has this pod's address may use it a little longer.
    preStop: {exec: {command: [sleep, "5"]}}
  resources:
    {{- toYaml .Values.tokenext.resources | nindent 4 }}
  securityContext:
    {{- include "chain.containerSecurity" . | nindent 4 }}
  volumeMounts:
  - {name: tokenext-config, mountPath: /etc/tokenext, readOnly: true}
  - {name: cache, mountPath: /cache}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.tokenext.tls.secretName }}
  - {name: tokenext-tls, mountPath: /etc/tokenext-tls, readOnly: true}
  {{- end }}
  {{- include "chain.adminTokenMount" . | nindent 2 }}
  {{- if .Values.modelStore.bundle }}
  - {name: bundles, mountPath: /bundles, readOnly: true}
  {{- end }}
  {{- if .Values.modelStore.existingClaim }}
  - {name: models, mountPath: {{ .Values.modelStore.mountPath }}, readOnly: true}
  {{- end }}
  {{- if eq .Values.tokenext.placement "sidecar" }}
  - {name: socket, mountPath: /run/tokenext}
  {{- end }}
{{- end -}}

{{- define "chain.tokenextVolumes" -}}
- name: tokenext-config
  configMap: {name: {{ include "chain.component" (list . "tokenext") }}}
- name: cache
  emptyDir: {}
- name: tmp
  emptyDir: {}
{{- if .Values.tokenext.tls.secretName }}
- name: tokenext-tls
  secret: {secretName: {{ .Values.tokenext.tls.secretName }}}
{{- end }}
{{- if ne .Values.tokenext.placement "sidecar" }}
{{- include "chain.adminTokenVolume" . }}
{{- end }}
{{- if .Values.modelStore.bundle }}
- name: bundles
  emptyDir: {sizeLimit: {{ .Values.modelStore.bundleSize }}}
{{- end }}
{{- if .Values.modelStore.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ .Values.modelStore.existingClaim }}, readOnly: true}
{{- end }}
{{- if eq .Values.tokenext.placement "sidecar" }}
- name: socket
  emptyDir: {medium: Memory}
{{- end }}
{{- end -}}

{{/* (list root values component) -> a PodDisruptionBudget, if there is something to disrupt. */}}
{{- define "chain.podDisruptionBudget" -}}
{{- $root := index . 0 -}}
{{- $budget := (index . 1).podDisruptionBudget -}}
{{- if $budget.enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "chain.component" (list $root (index . 2)) }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "chain.labels" (list $root (index . 2)) | nindent 4 }}
spec:
  maxUnavailable: {{ $budget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "chain.selectorLabels" (list $root (index . 2)) | nindent 6 }}
{{- end -}}
{{- end -}}
