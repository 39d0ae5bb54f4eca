{{- define "ofa-triton.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* A component is added to these by hand: `server` or `gateway`. */ -}}
{{- define "ofa-triton.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ofa-triton.labels" -}}
{{ include "ofa-triton.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "ofa-triton.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "ofa-triton.grpcPort" -}}
{{ if .Values.security.tlsSecret }}8443{{ else }}8001{{ end }}
{{- end -}}

{{- define "ofa-triton.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "ofa-triton.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end -}}

{{- /*
What `ofa serve` requires of /dev/shm (ofa_server.shared_memory), in MiB, rounded up: for each Python
process 1 MiB and twice the largest request times its batch. A request holds a picture of 10 MiB and
two texts of 64 KiB, a generator's row the picture's pixels, and either 64 KiB of all else. The
generator counts, although only the stand-in backend keeps its tensors there.
*/ -}}
{{- define "ofa-triton.sharedMemory" -}}
{{- with .Values.sharedMemory -}}
{{- $row := add (mul 3 (int .pictureSide) (int .pictureSide)) 65536 -}}
{{- $preprocess := mul .preprocessInstances (add 1048576 (mul 2 (add 10485760 131072 65536))) -}}
{{- $generator := mul .generatorInstances (add 1048576 (mul 2 (int .batchSize) $row)) -}}
{{- $postprocess := add 1048576 (mul 2 65536) -}}
{{- $bytes := mul .ensembles (add $preprocess $generator $postprocess) -}}
{{- .size | default (printf "%dMi" (div (add $bytes 1048575) 1048576)) -}}
{{- end -}}
{{- end -}}
