#!/bin/sh
# Builds PixiJS from npm into the page: gramlet_studio/static/pixi.js and pixi.LICENSES.txt.
set -eu
. "$(dirname "$0")/tools.sh"
node pixi/build.mjs $tools gramlet_studio/static
