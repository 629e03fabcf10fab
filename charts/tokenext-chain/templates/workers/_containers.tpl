{{/* Containers of the chart's workers. */}}

{{- define "chain.modelName" -}}
{{- .Values.workers.model | default (first .Values.models).name -}}
{{- end -}}

{{- define "chain.modelPath" -}}
{{- .Values.workers.modelPath | default (first .Values.models).source -}}
{{- end -}}

{{- define "chain.workerEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
{{- end -}}

{{/* The command of a worker that speaks Dynamo, as YAML of `command` and `args`. */}}
{{- define "chain.workerCommand" -}}
{{- $endpoint := printf "dyn://%s" (include "chain.dynamoEndpoint" .) -}}
{{- if eq .Values.workers.kind "mocker" -}}
command: [python, -m, dynamo.mocker]
args:
- --model-path={{ include "chain.modelPath" . }}
- --model-name={{ include "chain.modelName" . }}
- --endpoint={{ $endpoint }}
- --block-size={{ .Values.workers.blockSize }}
{{- else if .Values.workers.command -}}
command:
{{- toYaml .Values.workers.command | nindent 0 }}
args:
{{- else -}}
command: [python3, -m, dynamo.vllm]
args:
- --model={{ include "chain.modelPath" . }}
- --served-model-name={{ include "chain.modelName" . }}
- --endpoint={{ $endpoint }}
- --block-size={{ .Values.workers.blockSize }}
- --enable-prefix-caching
- {{ printf "--kv-events-config=%s" (dict "enable_kv_cache_events" true | toJson) | quote }}
{{- end }}
{{- with .Values.workers.args }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{- define "chain.workerResources" -}}
{{- $resources := deepCopy .Values.workers.resources -}}
{{- if gt (int .Values.workers.gpus) 0 -}}
{{- $gpus := dict "nvidia.com/gpu" (toString .Values.workers.gpus) -}}
{{- $resources = mergeOverwrite $resources (dict "limits" $gpus "requests" $gpus) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* Dynamo's own OpenAI server beside the worker: direct, since the picker says which worker it is. */}}
{{- define "chain.frontendContainer" -}}
- name: frontend
  image: {{ include "chain.image" (list . .Values.workers.image) }}
  command: [python3, -m, dynamo.frontend]
  args:
  - --router-mode=direct
  - --http-port={{ first .Values.pool.targetPorts }}
  {{- with .Values.workers.frontendArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  ports:
  - {name: http, containerPort: {{ first .Values.pool.targetPorts }}}
  env:
    {{- include "chain.workerEnv" . | nindent 4 }}
    {{- include "chain.dynamoEnv" . | nindent 4 }}
    {{- include "chain.hubEnv" . | nindent 4 }}
    {{- with .Values.workers.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  # It serves before it knows its model, so a list with the model in it is what says ready.
  readinessProbe:
    exec:
      command:
      - python3
      - -c
      - {{ printf "import json,urllib.request as r;assert json.load(r.urlopen('http://127.0.0.1:%d/v1/models',timeout=4))['data']" (int (first .Values.pool.targetPorts)) | quote }}
    periodSeconds: 5
    timeoutSeconds: 5
  resources:
    requests: {cpu: "1", memory: 512Mi}
    limits: {memory: 2Gi}
  volumeMounts:
  - {name: cache, mountPath: /cache}
  {{- if .Values.modelStore.existingClaim }}
  - {name: models, mountPath: {{ .Values.modelStore.mountPath }}, readOnly: true}
  {{- end }}
{{- end -}}
