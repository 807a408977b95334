// Builds PixiJS, as entry.js takes it, into one file, and a file with the licenses of what is in it.
//   node build.mjs TOOLS OUT     TOOLS: the folder of node_modules; OUT: where pixi.js and pixi.LICENSES.txt go
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const [tools, out] = process.argv.slice(2).map((path) => resolve(path));
mkdirSync(out, { recursive: true });
const { build } = createRequire(join(tools, "package.json"))("esbuild");
const here = dirname(fileURLToPath(import.meta.url));

// Loaded only by renderers that ask for mouse events, accessibility and sprite sheets of PixiJS; the map's does not.
const unused = { name: "unused", setup: ({ onLoad }) => onLoad({ filter: /environment-[a-z]+\/[a-z]+All\.mjs$/ }, () => ({ contents: "" })) };

const { metafile } = await build({
  stdin: { contents: readFileSync(join(here, "entry.js"), "utf8"), resolveDir: tools },
  outfile: join(out, "pixi.js"), bundle: true, format: "esm", minify: true, target: "es2022", legalComments: "none", metafile: true,
  absWorkingDir: tools, plugins: [unused], logLevel: "warning",
  banner: { js: "// PixiJS, built by clients/studio/build.sh. Its licenses: pixi.LICENSES.txt" },
});
const [{ inputs }] = Object.values(metafile.outputs);
const packages = new Set(Object.keys(inputs).filter((path) => inputs[path].bytesInOutput).map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]));
const licenses = [...packages].filter(Boolean).sort().map((name) => {
  const folder = join(tools, "node_modules", name), { version, license, author } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const text = ["LICENSE", "LICENSE.md", "LICENSE.txt", "license"].map((file) => { try { return readFileSync(join(folder, file), "utf8"); } catch { return ""; } }).find(Boolean);
  return `${name} ${version} (${license})\n\n${text?.trim() || `By ${author}. Its package says the license, and has no text of it.`}\n`;
});
writeFileSync(join(out, "pixi.LICENSES.txt"), licenses.join(`\n${"-".repeat(80)}\n\n`));
