#!/bin/sh
# Fails when a change to the protos would break a client of the last version that landed, unless BREAKS.md has a new
# entry that gives the reason.
set -eu
cd "$(dirname "$0")/.."
base=$(git rev-list --max-count=1 HEAD^ -- 'protos/*.proto' 2>/dev/null || true)
[ -n "$base" ] || { echo 'buf breaking: no earlier protos to compare with'; exit 0; }
if ! git diff --quiet "$base" -- protos/BREAKS.md || [ -n "$(git ls-files --others -- protos/BREAKS.md)" ]; then
	"$BIN/buf" breaking protos --against ".git#ref=$base,subdir=protos" || echo 'buf breaking: accepted, protos/BREAKS.md has a new entry'
	exit 0
fi
exec "$BIN/buf" breaking protos --against ".git#ref=$base,subdir=protos"
