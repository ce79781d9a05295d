{{- define "metering-agent.name" -}}
{{- .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name)) | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "metering-agent.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "metering-agent.selector" . }}
{{- end }}

{{/* What tells the agent's pods from all others; immutable in a DaemonSet. */}}
{{- define "metering-agent.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{/* The pod of `helm test`, which the NetworkPolicy lets in. */}}
{{- define "metering-agent.test-selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "metering-agent.account" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "metering-agent.name" .) "default") }}
{{- end }}

{{- define "metering-agent.image" -}}
{{- with .Values.image.digest -}}
{{ $.Values.image.repository }}@{{ . }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The volume of a path of the node. */}}
{{- define "metering-agent.volume" -}}
host{{ . | replace "/" "-" }}
{{- end }}
