// Streams a stylization from a gramlet server, and saves each preview and the result.
//
//   node stylize.js content.jpg style.jpg --server localhost:50051 --size 256 --iterations 100 --out result.png
//
// The .proto files are read as they are: nothing is generated.
import { access, constants, mkdir, readFile, realpath, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const MAX_MESSAGE_BYTES = 64 * 1024 * 1024; // the servers' own limit
const PROTOS = fileURLToPath(new URL("../../protos", import.meta.url));

const { gramlet } = grpc.loadPackageDefinition(
  protoLoader.loadSync("gramlet/stylize/v1/stylize.proto", {
    includeDirs: [PROTOS],
    enums: String, // INITIAL_CONTENT, and not 1
    longs: Number,
    oneofs: true, // response.event is the name of the one that is set
  }),
);

const HELP = `usage: node stylize.js CONTENT STYLE [options]

Streams a stylization from a gramlet server, and saves each preview and the result.

  --server HOST:PORT     where the server is (localhost:50051)
  --tls                  TLS with the authorities that Node knows
  --tls-ca FILE          TLS with this authority (PEM)
  --wait SECONDS         to wait for a lost server (60); for one that never answered, 5 at most
  --size PIXELS          longest side of the result (256)
  --iterations N         iterations of the optimizer (100)
  --preview-every N      iterations between previews (10); 0: none
  --preview FILE         where to write previews; %d is the iteration (preview-%d.jpg)
  --out FILE             where to write the result, a PNG (result.png)
  --help                 this text

GRAMLET_TOKEN, if set, is sent with every call: use TLS with it.`;

const FIRST_CONTACT_SECONDS = 5; // an address at which nobody ever answered is likely wrong

/** A client of StylizeService. `token` goes with every call; `tls` is the PEM of an authority, or true for the system's. */
export function connect(server, { token, tls } = {}) {
  const credentials = tls
    ? grpc.credentials.createSsl(tls === true ? undefined : Buffer.from(tls))
    : grpc.credentials.createInsecure();
  const interceptors = [];
  if (token) {
    interceptors.push((options, next) => {
      const call = next(options);
      return new grpc.InterceptingCall(call, {
        start(metadata, listener, proceed) {
          metadata.set("authorization", `Bearer ${token}`);
          proceed(metadata, listener);
        },
      });
    });
  }
  return new gramlet.stylize.v1.StylizeService(server, credentials, {
    interceptors,
    "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
    "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
    "grpc.keepalive_time_ms": 30_000,
  });
}

/**
 * Yields the events of a stylization as { runId, kind, ...event }: kind is "queued", "started", "scaleStarted",
 * "iteration", "preview", "checkpoint", "recovered", "adjusted" or "result". Leaving the loop cancels the run on the server.
 *
 * Where the server is lost or full, the call is made again for `patience` seconds, or for `firstContact` seconds if it has
 * never answered. A run that had begun is resumed from its newest checkpoint; no iteration and no adjustment comes twice.
 */
export async function* stylize(client, request, { patience = 60, firstContact = FIRST_CONTACT_SECONDS } = {}) {
  const { previewEvery, stateSeconds } = request;
  let next = request;
  let iterations = 0;
  let adjustments = 0;
  let answered = false;
  let lostSince;
  for (let failures = 0; ; ) {
    const call = client.stylize(next);
    try {
      for await (const response of call) {
        const { runId, event: kind } = response;
        const event = response[kind];
        failures = 0;
        answered = true;
        lostSince = undefined;
        // A run that was only queued may have been refused, and is then not in the server's store.
        if (kind !== "queued") next = { resumeRunId: runId, previewEvery, stateSeconds };
        if (kind === "iteration" && event.iteration <= iterations) continue;
        if (kind === "iteration") iterations = event.iteration;
        if (kind === "adjusted" && event.number <= adjustments) continue;
        if (kind === "adjusted") adjustments = event.number;
        yield { runId, kind, ...event };
      }
      return;
    } catch (error) {
      const again = [grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED].includes(error.code);
      lostSince ??= Date.now();
      answered ||= error.code === grpc.status.RESOURCE_EXHAUSTED;
      const limit = answered ? patience : Math.min(patience, firstContact);
      if (!again || Date.now() - lostSince > limit * 1000) throw error;
      const seconds = Math.min(5, 0.1 * 2 ** failures++) * (0.5 + Math.random() / 2);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    } finally {
      call.cancel();
    }
  }
}

function weights({ contentWeight, styleWeight, totalVariationWeight }) {
  return `content ${contentWeight}, style ${styleWeight}, total variation ${totalVariationWeight}`;
}

/** Makes the folder of a file to write, and refuses a path that cannot be written or that is one of the inputs. */
async function prepareOutput(path, inputs) {
  if (inputs.includes(await realpath(path).catch(() => path))) {
    throw new Error(`${path} is one of the pictures: name another file to write`);
  }
  try {
    await mkdir(dirname(path), { recursive: true });
    const found = await stat(path).catch((error) => {
      if (error.code !== "ENOENT" || !path) throw error;
    });
    if (found?.isDirectory()) throw new Error("it is a folder");
    await access(found ? path : dirname(path), constants.W_OK);
  } catch (error) {
    throw new Error(`${path || "an empty name"} cannot be written: ${error.message}`);
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      help: { type: "boolean", default: false },
      server: { type: "string", default: "localhost:50051" },
      tls: { type: "boolean", default: false },
      "tls-ca": { type: "string" },
      wait: { type: "string", default: "60" },
      size: { type: "string", default: "256" },
      iterations: { type: "string", default: "100" },
      "preview-every": { type: "string", default: "10" },
      preview: { type: "string", default: "preview-%d.jpg" },
      out: { type: "string", default: "result.png" },
    },
  });
  if (values.help) return console.log(HELP);
  const [content, style] = await Promise.all(positionals.map((path) => readFile(path)));
  if (!style) throw new Error("give a content picture and a style picture (see --help)");
  const inputs = await Promise.all(positionals.map((path) => realpath(path)));
  // Before the work, whose result would otherwise be lost.
  const previewPath = (iteration) => values.preview.replace("%d", iteration);
  await prepareOutput(values.out, inputs);
  if (Number(values["preview-every"]) > 0) await prepareOutput(previewPath(values.iterations), inputs);

  const tls = values["tls-ca"] ? await readFile(values["tls-ca"]) : values.tls;
  const client = connect(values.server, { token: process.env.GRAMLET_TOKEN, tls });
  const request = {
    stylization: {
      content: { encoded: content },
      styles: [{ picture: { encoded: style } }],
      settings: { size: Number(values.size), iterations: Number(values.iterations) },
    },
    previewEvery: Number(values["preview-every"]),
  };
  for await (const event of stylize(client, request, { patience: Number(values.wait) })) {
    switch (event.kind) {
      case "queued":
        console.log(`waiting, ${event.position} before this one`);
        break;
      case "started":
        console.log(`run ${event.runId}: ${event.width} x ${event.height}, ${event.backbone}`);
        break;
      case "iteration":
        console.log(`iteration ${event.iteration}: loss ${event.loss.toPrecision(6)}`);
        break;
      case "adjusted":
        console.log(`adjusted after iteration ${event.iteration}: ${weights(event.settings)}`);
        break;
      case "recovered":
        console.log(`recovered at iteration ${event.iteration}: ${event.message}`);
        break;
      case "preview": {
        const path = previewPath(event.iteration);
        await prepareOutput(path, inputs);
        await writeFile(path, event.jpeg);
        break;
      }
      case "result":
        await writeFile(values.out, event.png);
        console.log(`${values.out}: loss ${event.loss.toPrecision(6)} after ${event.iteration} iterations`);
        break;
    }
  }
  client.close();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await main();
  } catch (error) {
    // What gramlet says of a failed call is in one line, with the mend.
    console.error(error.details ?? error.message);
    process.exitCode = 1;
  }
}
