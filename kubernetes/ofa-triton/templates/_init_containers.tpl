{{- /* One container a checkpoint: it writes the repository that the server then reads. */ -}}
{{- define "ofa-triton.exports" -}}
{{- if eq .Values.modelRepository.from "export" }}
{{- range $number, $arguments := .Values.modelRepository.export.checkpoints }}
- name: export-{{ $number }}
  image: "{{ $.Values.modelRepository.export.repository }}:{{ $.Values.image.tag | default $.Chart.AppVersion }}"
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  command: ["ofa", "export"]
  args:
    - --repository=/models
    - --device={{ if gt (int $.Values.resources.gpus) 0 }}cuda{{ else }}cpu{{ end }}
    {{- toYaml $arguments | nindent 4 }}
  # Downloads, too, go to the scratch folder.
  env:
    - name: HOME
      value: /tmp
  resources:
    requests:
      cpu: {{ $.Values.resources.cpu | quote }}
      memory: {{ $.Values.resources.memory }}
    limits:
      cpu: {{ $.Values.resources.cpu | quote }}
      memory: {{ $.Values.resources.memory }}
  securityContext:
    {{- include "ofa-triton.containerSecurity" $ | nindent 4 }}
  volumeMounts:
    - name: models
      mountPath: /models
    - name: scratch
      mountPath: /tmp
{{- end }}
{{- end }}
{{- end -}}

{{- /* A side car (an init container that stays): it starts before the server and ends after it. */ -}}
{{- define "ofa-triton.envoy" -}}
{{- if .Values.security.tlsSecret }}
- name: envoy
  restartPolicy: Always
  image: {{ .Values.security.image | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: ["envoy"]
  args:
    # (It takes no "=" between an option and its value.)
    - --config-path
    - /etc/envoy/configuration/envoy.yaml
    # Threads, instead of one a core of the node.
    - --concurrency
    - "2"
    # It would need shared memory of its own.
    - --disable-hot-restart
  ports:
    - name: grpcs
      containerPort: 8443
  startupProbe:
    tcpSocket:
      port: grpcs
    periodSeconds: 1
    failureThreshold: 30
  readinessProbe:
    tcpSocket:
      port: grpcs
    periodSeconds: 5
  resources:
    requests:
      cpu: 250m
      memory: 256Mi
    # The configuration bounds the heap to 1 GiB.
    limits:
      cpu: "2"
      memory: 1280Mi
  securityContext:
    {{- include "ofa-triton.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: envoy
      mountPath: /etc/envoy/configuration
      readOnly: true
    - name: tls
      mountPath: /etc/envoy/tls
      readOnly: true
    - name: clients
      mountPath: /etc/envoy/clients
      readOnly: true
{{- end }}
{{- end -}}
