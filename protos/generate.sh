#!/bin/sh
# generate.sh BIN OUT: the Python code of every .proto, and a copy of the .proto beside it, below OUT.
set -eu
bin=$(cd "$1" && pwd) && out=$(mkdir -p "$2" && cd "$2" && pwd)
cd "$(dirname "$0")"
files=$(find gramlet -name '*.proto' | sort)
PATH="$bin:$PATH" python -m grpc_tools.protoc --proto_path=. \
    --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" --mypy_grpc_out="$out" $files
# The wheel of the SDK carries the protos, for callers in other languages.
for file in $files; do cp "$file" "$out/$file"; done
