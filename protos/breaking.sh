#!/bin/sh
# Fails when a change to the protos would break a client of the last landed version.
set -eu
cd "$(dirname "$0")/.."
base=$(git rev-list --max-count=1 HEAD^ -- protos 2>/dev/null || true)
[ -n "$base" ] || { echo 'buf breaking: no earlier protos to compare with'; exit 0; }
exec "$BIN/buf" breaking protos --against ".git#ref=$base,subdir=protos"
