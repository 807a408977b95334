#!/bin/sh
# Checks the page: types by tsc, mistakes by oxlint, and that the PixiJS in it is the one of package-lock.json.
set -eu
. "$(dirname "$0")/tools.sh"
$tools/node_modules/.bin/tsc -p .
$tools/node_modules/.bin/oxlint --quiet --deny-warnings --ignore-pattern '**/pixi.js' gramlet_studio/static pixi
node pixi/build.mjs $tools $tools/built
for file in pixi.js pixi.LICENSES.txt; do
	cmp $tools/built/$file gramlet_studio/static/$file || { echo 'the built PixiJS is stale: run make page' >&2; exit 1; }
done
