{{/* What every process of one Dynamo deployment is told. Given in full, since Dynamo's defaults are others. */}}
{{- define "chain.dynamoEnv" -}}
- {name: DYN_DISCOVERY_BACKEND, value: {{ .Values.dynamo.discovery }}}
- {name: DYN_REQUEST_PLANE, value: {{ .Values.dynamo.requestPlane }}}
- {name: DYN_EVENT_PLANE, value: {{ .Values.dynamo.eventPlane }}}
{{- if eq .Values.dynamo.eventPlane "nats" }}
- {name: NATS_SERVER, value: {{ include "chain.natsUrl" . | quote }}}
{{- end }}
{{- if eq .Values.dynamo.discovery "etcd" }}
- {name: ETCD_ENDPOINTS, value: {{ include "chain.etcdUrl" . | quote }}}
{{- end }}
{{- end -}}

{{/* What Dynamo's discovery by Kubernetes reads and writes (its lib/runtime, discovery/kube). */}}
{{- define "chain.dynamoRules" -}}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [nvidia.com]
  resources: [dynamoworkermetadatas]
  verbs: [get, list, watch, create, update, patch, delete]
{{- end -}}
