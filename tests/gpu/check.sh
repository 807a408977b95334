#!/usr/bin/env bash
# Everything about CUDA in one command, in under 6 minutes on an H100: the tests of this folder, then measurements beside
# a direct loop. Needs Python 3.12 with torch 2.11 or later and the torchvision that fits it, and no network.
#
#   tests/gpu/check.sh --pack              on a machine with a network: gets the wheels into tests/gpu/wheels (32 MB)
#   tests/gpu/check.sh [--out FOLDER]      on the machine with the GPU: tests.txt, measured.* and features.*
#   tests/gpu/check.sh --dry-run           on any machine: the same with a fake in the place of CUDA, and small
#
# The wheels travel with the repository's files; GRAMLET_GPU_WHEELS names another folder. Without wheels the Python has
# to have the packages. PYTHON names another Python. GRAMLET_TEST_WEIGHTS names a file with weights; else they are random.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
wheels=${GRAMLET_GPU_WHEELS:-tests/gpu/wheels}
out=${OUT:-build/gpu}
dry=()
while (($#)); do
	case $1 in
	--pack)
		# What both distributions and the tests need beside torch and torchvision, for Python 3.12 on x86-64.
		mkdir -p "$wheels"
		exec "$PYTHON" -m pip download --quiet --dest "$wheels" --only-binary=:all: --implementation cp \
			--python-version 3.12 --abi cp312 --abi abi3 --abi none --platform manylinux2014_x86_64 \
			--platform manylinux_2_17_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 \
			argcomplete fonttools googleapis-common-protos grpcio grpcio-health-checking grpcio-reflection grpcio-status \
			numpy obstore pillow prometheus-client protobuf pytest pytest-asyncio pytest-timeout pyyaml rich safetensors \
			simplejpeg
		;;
	--dry-run) dry=(--dry-run) ;;
	--out) out=$2 && shift ;;
	*) echo "check.sh: $1 is no option; --pack, --out FOLDER or --dry-run" >&2 && exit 2 ;;
	esac
	shift
done

began=$SECONDS
mkdir -p "$out"
export PYTHONPATH=$PWD/clients:$PWD/services:$PWD${PYTHONPATH:+:$PYTHONPATH}
if compgen -G "$wheels/*.whl" >/dev/null && ((!${#dry[@]})); then
	site=$(mktemp -d)
	trap 'rm -rf "$site"' EXIT
	"$PYTHON" -m pip install --quiet --no-index --no-deps --target "$site" "$wheels"/*.whl || exit 1
	export PYTHONPATH=$PYTHONPATH:$site
fi
"$PYTHON" - ${dry[@]+"${dry[@]}"} <<'CHECK' || exit 1
import sys
from importlib.metadata import version

import torch

print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, torchvision {version('torchvision')}", end=", ")
if "--dry-run" in sys.argv:
    print("a fake in the place of CUDA")
elif torch.cuda.is_available():
    print(f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}")
else:
    sys.exit("no CUDA device: --dry-run runs with a fake")
CHECK

# Measurements first: what a failing test leaves behind on the device does not disturb them.
measured=()
[[ -n ${GRAMLET_TEST_WEIGHTS:-} ]] && measured+=(--weights "$GRAMLET_TEST_WEIGHTS")
timeout 170 "$PYTHON" tests/gpu/measure.py --seconds 90 --out "$out/measured.json" ${measured[@]+"${measured[@]}"} \
	${dry[@]+"${dry[@]}"} >"$out/measured.txt" 2>"$out/measure.log"
measure=$?
((measure)) && tail -n 20 "$out/measure.log"
# The tables; in their place what was measured before a failure.
sed -n '/^{/!p' "$out/measured.txt"
((measure)) && grep '^{' "$out/measured.txt"

timeout 130 "$PYTHON" tests/gpu/measure_features.py --seconds 90 --out "$out/features.json" \
	${measured[@]+"${measured[@]}"} ${dry[@]+"${dry[@]}"} >"$out/features.txt" 2>"$out/features.log"
features=$?
((features)) && tail -n 20 "$out/features.log"
sed -n '/^{/!p' "$out/features.txt"
((features)) && grep '^{' "$out/features.txt"

left=$((345 - (SECONDS - began)))
((${#dry[@]})) && left=900
((${#dry[@]})) && export GRAMLET_GPU_DRY_RUN=1
timeout "$left" "$PYTHON" -m pytest -q -p no:cacheprovider -W default tests/gpu >"$out/tests.txt" 2>&1
tests=$?
((tests)) && grep -E '^(FAILED|ERROR|E  )' "$out/tests.txt"
tail -n 1 "$out/tests.txt"
echo "measurements: exit codes $measure and $features, tests: exit code $tests, $((SECONDS - began)) s, everything in $out"
exit $((measure || features || tests))
