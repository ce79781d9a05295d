{{/* What the rest of the chart must know of `config`. */}}

{{/* The port in telemetry.listen. */}}
{{- define "metering-agent.port" -}}
{{- regexFind "[0-9]+$" .Values.config.telemetry.listen }}
{{- end }}

{{/* agent.shutdown_budget as whole seconds, rounded up. */}}
{{- define "metering-agent.budget" -}}
{{- $written := .Values.config.agent.shutdown_budget }}
{{- $number := regexFind "^[0-9]+" $written | int }}
{{- $unit := regexFind "[a-z]+$" $written }}
{{- if eq $unit "ms" }}{{ div (add $number 999) 1000 }}
{{- else }}{{ mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) }}
{{- end }}
{{- end }}

{{/* Of the configuration, what the agent takes up at a restart only: the rest it reloads by itself. */}}
{{- define "metering-agent.restart-only" -}}
{{- $agent := pick .Values.config.agent "cluster" "node" "data_dir" "run_dir" "sample_interval" }}
{{- $spool := pick .Values.config.spool "max_bytes" "reserve" }}
{{- dict "agent" $agent "telemetry" .Values.config.telemetry "spool" $spool | toJson }}
{{- end }}

{{/* Not empty when a source asks the kubelet instead of reading cgroups. */}}
{{- define "metering-agent.asks-kubelet" -}}
{{- range .Values.config.sources }}{{ if and (eq .kind "kubernetes") (eq (.basis | default "cgroup") "summary") }}yes{{ end }}{{ end }}
{{- end }}

{{/* Not empty when labels of nodes name customers. */}}
{{- define "metering-agent.reads-nodes" -}}
{{- with (.Values.config.attribution.customer_labels | default dict).node }}yes{{ end }}
{{- range .Values.config.customers }}{{ range .match }}{{ if hasKey . "node_labels" }}yes{{ end }}{{ end }}{{ end }}
{{- range .Values.config.attribution.system }}{{ if hasKey . "node_labels" }}yes{{ end }}{{ end }}
{{- end }}

{{/* Every key of labels and annotations that decides who pays, as a JSON list. */}}
{{- define "metering-agent.billing-keys" -}}
{{- $attribution := .Values.config.attribution }}
{{- $pods := $attribution.pod_labels | default dict }}
{{- $keys := concat .Values.admissionPolicy.keys ($pods.keys | default list) }}
{{- with ($attribution.customer_labels | default dict).namespace }}{{ $keys = append $keys . }}{{ end }}
{{- with $pods.allow_annotation }}{{ $keys = append $keys . }}{{ end }}
{{- range .Values.config.customers }}
  {{- range .match }}
    {{- range pick . "namespace_labels" "pod_labels" | values }}
      {{- range splitList "," (regexReplaceAll "\\([^)]*\\)" . "") }}
        {{- $keys = append $keys (regexFind "[^\\s!=]+" .) }}
      {{- end }}
    {{- end }}
  {{- end }}
{{- end }}
{{- $keys | compact | uniq | sortAlpha | toJson }}
{{- end }}

{{/* What of the node is mounted below /host, read-only, as a JSON list: what the sources read. */}}
{{- define "metering-agent.host-paths" -}}
{{- $paths := list }}
{{- $io := false }}
{{- range .Values.config.meters }}{{ $io = or $io (hasPrefix "io." .meter) }}{{ end }}
{{- range .Values.config.sources }}
  {{- if ne (.basis | default "cgroup") "summary" }}
    {{- $paths = concat $paths (list "/proc" "/sys/fs/cgroup") }}
    {{- /* Which disks lie under which: /sys/dev/block has links into /sys/devices. */}}
    {{- if $io }}{{ $paths = concat $paths (list "/sys/dev/block" "/sys/devices") }}{{ end }}
  {{- end }}
{{- end }}
{{- uniq $paths | toJson }}
{{- end }}

{{/* What `config` may refer to. */}}
{{- define "metering-agent.environment" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: HOST_IP
  valueFrom: {fieldRef: {fieldPath: status.hostIP}}
{{- end }}
