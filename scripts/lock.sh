#!/usr/bin/env bash
# Pins what the images install: a file of exact versions and hashes for each target of docker/Dockerfile. `make lock`.
#
# All files come from one resolution, so that the images agree. torch.txt has torch, torchvision and what only their
# builds for GPUs need; the others leave these out, so that an image may have another build of torch.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
where="sys_platform == 'linux' and python_version < '3.13'"
builds=(torch torchvision triton)

compile() { # EXTRAS OUTPUT OPTIONS...
	local extras=$1 output=$2
	shift 2
	printf '%s\n' "gramlet @ file://$PWD/clients ; $where" "gramlet-server[$extras] @ file://$PWD/services ; $where" |
		"$BIN/uv" pip compile - --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
			--no-emit-package gramlet --no-emit-package gramlet-server --output-file "$output" "$@"
}

resolved=$(mktemp)
trap 'rm -f "$resolved"' EXIT
compile all,fonts "$resolved" --upgrade
mapfile -t for_gpus < <(grep -oE '^(nvidia|cuda)-[a-z0-9-]+' "$resolved" | sort -u)
builds+=("${for_gpus[@]}")

lines='# Made by `make lock` from the pyproject files. Each file is checked by its hash when an image is built.'
for target in stylize embed train feature all; do
	# What draws needs fonts: the images have none of their own.
	case $target in embed | train | all) extras=$target,fonts ;; *) extras=$target ;; esac
	compile "$extras" docker/requirements/$target.txt --constraint "$resolved" \
		$(printf -- '--no-emit-package %s ' "${builds[@]}")
	sed -i "1i$lines" docker/requirements/$target.txt
done
others=$(grep -oE '^[a-z0-9-]+' "$resolved" | sort -u | grep -vxF -f <(printf '%s\n' "${builds[@]}"))
compile feature docker/requirements/torch.txt --constraint "$resolved" \
	$(printf -- '--no-emit-package %s ' $others)
sed -i "1i$lines" docker/requirements/torch.txt
