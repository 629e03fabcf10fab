{{/* Alerts and dashboard: those of the files, less what is said of a picker where there is none. */}}

{{- define "chain.alerts" -}}
{{- $alerts := .Files.Get "files/alerts.yaml" -}}
{{- if .Values.epp.enabled -}}
{{ $alerts }}
{{- else -}}
groups:
{{- range ($alerts | fromYaml).groups }}
{{- if ne .name "epp-adapter" }}
- {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Panels move up into the place of those that are left out: three in a row, each 8 wide and 8 high. */}}
{{- define "chain.dashboard" -}}
{{- $text := .Files.Get "files/dashboard.json" -}}
{{- if .Values.epp.enabled -}}
{{ $text }}
{{- else -}}
{{- $dashboard := $text | fromJson -}}
{{- $panels := list -}}
{{- range $panel := $dashboard.panels -}}
{{- if not (regexMatch "(epp_adapter|llm_d_epp)_" (toJson $panel.targets)) -}}
{{- $place := len $panels -}}
{{- $_ := set $panel "gridPos" (dict "h" 8 "w" 8 "x" (mul 8 (mod $place 3)) "y" (mul 8 (div $place 3))) -}}
{{- $panels = append $panels $panel -}}
{{- end -}}
{{- end -}}
{{- toPrettyJson (merge (dict "title" "tokenext" "uid" "tokenext-alone" "panels" $panels) $dashboard) -}}
{{- end -}}
{{- end -}}
