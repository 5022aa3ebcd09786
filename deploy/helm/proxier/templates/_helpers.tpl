{{/* The name of all objects. */}}
{{- define "proxier.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* By which the DaemonSet knows its pods. */}}
{{- define "proxier.selector" -}}
app.kubernetes.io/name: proxier
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "proxier.labels" -}}
k8s-app: proxier
{{ include "proxier.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: service-proxy
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "proxier.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "proxier.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "proxier.image" -}}
{{- $image := .Values.image -}}
{{- $repository := required "image.repository is empty: there is no published image; build and push one (deploy/README.md) and give its name" $image.repository -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion $image.tag | toString) -}}
{{- end -}}
{{- end -}}

{{/* The port of an address of the configuration, or its default. */}}
{{- define "proxier.port" -}}
{{- $written := regexFind "[0-9]+$" (default "" (get (default dict .config) .field)) -}}
{{- default .default $written -}}
{{- end -}}

{{- define "proxier.metricsPort" -}}
{{- include "proxier.port" (dict "config" .Values.config "field" "metricsBindAddress" "default" "10249") -}}
{{- end -}}

{{- define "proxier.healthzPort" -}}
{{- include "proxier.port" (dict "config" .Values.config "field" "healthzBindAddress" "default" "10256") -}}
{{- end -}}

{{- define "proxier.configVolume" -}}
- name: config
  configMap:
    name: {{ .Values.existingConfigMap | default (include "proxier.fullname" .) }}
{{- end -}}

{{- define "proxier.node" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end -}}
