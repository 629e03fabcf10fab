{{/* Names, labels and images. A name never depends on a value that an upgrade may change, but for the overrides. */}}

{{- define "chain.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters, so that every suffix below still fits into a label. */}}
{{- define "chain.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "chain.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "chain.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* (list root component) -> the name of a component's objects. */}}
{{- define "chain.component" -}}
{{- printf "%s-%s" (include "chain.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{/* (list root component) -> what a selector says: immutable in Deployments, so never a version in here. */}}
{{- define "chain.selectorLabels" -}}
app.kubernetes.io/name: {{ include "chain.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* (list root component) -> labels of objects. What the chart says of itself comes before labels of one's own. */}}
{{- define "chain.labels" -}}
{{- $root := index . 0 -}}
{{- $labels := include "chain.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "tokenext-chain" -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $labels $root.Values.commonLabels) -}}
{{- end -}}

{{/* (list root component extra) -> labels of pods: the selector's, then `extra`, then the common ones. */}}
{{- define "chain.podLabels" -}}
{{- $labels := include "chain.selectorLabels" (list (index . 0) (index . 1)) | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "tokenext-chain" -}}
{{- toYaml (merge $labels (index . 2) (index . 0).Values.commonLabels) -}}
{{- end -}}

{{/* (list root image) -> repository:tag or repository@digest; the chart's own images take its appVersion. */}}
{{- define "chain.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default (index . 0).Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* (list root service) -> the service's name as Envoy resolves it. */}}
{{- define "chain.host" -}}
{{- printf "%s.%s.svc.%s" (index . 1) (index . 0).Release.Namespace (index . 0).Values.clusterDomain -}}
{{- end -}}

{{- define "chain.poolName" -}}
{{- .Values.pool.name | default (include "chain.fullname" .) -}}
{{- end -}}

{{/* The label that the chart's own workers carry, and nothing else. */}}
{{- define "chain.poolLabel" -}}
tokenext-chain/pool: {{ include "chain.poolName" . }}
{{- end -}}

{{/* What the pool selects, as YAML. */}}
{{- define "chain.poolSelector" -}}
{{- if .Values.pool.selector -}}
{{ toYaml .Values.pool.selector }}
{{- else -}}
{{ include "chain.poolLabel" . }}
{{- end -}}
{{- end -}}

{{- define "chain.serviceAccount" -}}
{{- if (index . 0).Values.serviceAccount.create -}}
{{- include "chain.component" . -}}
{{- else -}}
{{- (index . 0).Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}
