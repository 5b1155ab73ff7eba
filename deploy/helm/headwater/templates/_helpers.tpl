{{- define "headwater.name" -}}
{{- if contains "headwater" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-headwater" (.Release.Name | trunc 40) }}{{ end }}
{{- end }}

{{- define "headwater.selector" -}}
app.kubernetes.io/name: headwater
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "headwater.labels" -}}
{{ include "headwater.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "headwater.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{- define "headwater.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
# Without it, the start would wait until the owner of every file of a large store was set again.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "headwater.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: ["ALL"]
{{- end }}

{{/* The settings of the chart come first; the schema keeps `settings` from repeating them. */}}
{{- define "headwater.config" -}}
listen = ["0.0.0.0:8080"]
# The probes and Prometheus come from other machines.
admin-listen = "0.0.0.0:8081"
{{- if eq .Values.store.kind "redis" }}
store = "@/etc/headwater/secrets/{{ .Values.store.redis.key }}"
{{- with .Values.store.redis.tls }}
{{- if or .ca.existingSecret .ca.existingConfigMap }}
redis-ca = "/etc/headwater/secrets/redis-tls/ca.crt"
{{- end }}
{{- if .client.existingSecret }}
redis-cert = "/etc/headwater/secrets/redis-tls/tls.crt"
redis-key = "/etc/headwater/secrets/redis-tls/tls.key"
{{- end }}
{{- end }}
drain = "boundary"
{{- else }}
# The volume belongs to root, and the program makes a directory that is its own.
store = "disk:/var/lib/headwater/log"
# No other origin has this store, so waiting for the boundary would only make the gap longer.
drain = "now"
{{- end }}
drain-delay = "{{ .Values.drain.delaySeconds }}s"
drain-timeout = "{{ .Values.drain.timeoutSeconds }}s"
{{- if .Values.token.existingSecret }}
token-secret = ["@/etc/headwater/secrets/{{ .Values.token.key }}"]
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- /* Numbers in files of values are floating-point numbers, which toToml would write as 2.0. */}}
{{ $name }} = {{ if kindIs "float64" $value }}{{ int64 $value }}{{ else }}{{ toJson $value }}{{ end }}
{{- end }}
{{- end }}

{{- define "headwater.pod" -}}
metadata:
  labels:
    {{- include "headwater.labels" . | nindent 4 }}
    app.kubernetes.io/component: origin
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A change of the settings restarts the pods.
    checksum/config: {{ include "headwater.config" . | sha256sum }}
    {{- if not .Values.serviceMonitor.enabled }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "8081"
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  # The kubelet kills the process after this time.
  terminationGracePeriodSeconds: {{ add .Values.drain.delaySeconds .Values.drain.timeoutSeconds 10 }}
  securityContext:
    {{- include "headwater.podSecurity" . | nindent 4 }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "headwater.selector" . | nindent 10 }}
  containers:
    - name: headwater
      image: {{ include "headwater.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: ["serve"]
      env:
        # The image has values of its own for these two, which would override the file.
        - name: HEADWATER_LISTEN
          value: 0.0.0.0:8080
        - name: HEADWATER_STORE
          value: {{ if eq .Values.store.kind "redis" }}"@/etc/headwater/secrets/{{ .Values.store.redis.key }}"{{ else }}disk:/var/lib/headwater/log{{ end }}
      ports:
        - { name: http, containerPort: 8080 }
        - { name: admin, containerPort: 8081 }
      # The start reads the whole log.
      startupProbe:
        httpGet: { path: /healthz, port: admin }
        periodSeconds: 2
        failureThreshold: 150
      # Not /readyz: a restart does not bring back a store that is down, and cuts all streams.
      livenessProbe:
        httpGet: { path: /healthz, port: admin }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 1
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "headwater.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - { name: config, mountPath: /etc/headwater/headwater.toml, subPath: headwater.toml, readOnly: true }
        - { name: secrets, mountPath: /etc/headwater/secrets, readOnly: true }
        {{- if eq .Values.store.kind "disk" }}
        - { name: data, mountPath: /var/lib/headwater }
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "headwater.name" . }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- if eq .Values.store.kind "redis" }}
          - secret:
              name: {{ .Values.store.redis.existingSecret }}
              items: [{ key: {{ .Values.store.redis.key }}, path: {{ .Values.store.redis.key }} }]
          {{- with .Values.store.redis.tls.ca }}
          {{- if .existingSecret }}
          - secret:
              name: {{ .existingSecret }}
              items: [{ key: {{ .key }}, path: redis-tls/ca.crt }]
          {{- else if .existingConfigMap }}
          - configMap:
              name: {{ .existingConfigMap }}
              items: [{ key: {{ .key }}, path: redis-tls/ca.crt }]
          {{- end }}
          {{- end }}
          {{- with .Values.store.redis.tls.client }}
          {{- if .existingSecret }}
          - secret:
              name: {{ .existingSecret }}
              items:
                - { key: {{ .certificateKey }}, path: redis-tls/tls.crt }
                - { key: {{ .privateKeyKey }}, path: redis-tls/tls.key }
          {{- end }}
          {{- end }}
          {{- end }}
          {{- if .Values.token.existingSecret }}
          - secret:
              name: {{ .Values.token.existingSecret }}
              items: [{ key: {{ .Values.token.key }}, path: {{ .Values.token.key }} }]
          {{- else if ne .Values.store.kind "redis" }} []
          {{- end }}
{{- end }}
