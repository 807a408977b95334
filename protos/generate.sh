#!/bin/sh
# generate.sh BIN OUT: Python code of every .proto, below OUT.
set -eu
bin=$(cd "$1" && pwd) && out=$(mkdir -p "$2" && cd "$2" && pwd)
cd "$(dirname "$0")"
PATH="$bin:$PATH" python -m grpc_tools.protoc --proto_path=. \
    --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" --mypy_grpc_out="$out" \
    $(find gramlet -name '*.proto' | sort)
