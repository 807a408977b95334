// Streams a stylization from a gramlet server, and saves each preview and the result.
//
//   node stylize.js content.jpg style.jpg --server localhost:50051 --size 256 --iterations 100 --out result.png
//
// The .proto files are read as they are: nothing is generated.
import { readFile, writeFile } from "node:fs/promises";
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
 * "iteration", "preview", "checkpoint", "recovered" or "result". Leaving the loop cancels the run on the server.
 *
 * Where the server is lost or full, the call is made again for `patience` seconds; a run that had begun is resumed from
 * its newest checkpoint, and no iteration is told twice.
 */
export async function* stylize(client, request, { patience = 60 } = {}) {
  const { previewEvery, stateSeconds } = request;
  let next = request;
  let told = 0;
  let lostSince;
  for (let failures = 0; ; ) {
    const call = client.stylize(next);
    try {
      for await (const response of call) {
        const { runId, event: kind } = response;
        const event = response[kind];
        failures = 0;
        lostSince = undefined;
        // A run that was only queued may have been refused, and is then not in the server's store.
        if (kind !== "queued") next = { resumeRunId: runId, previewEvery, stateSeconds };
        if (kind === "iteration" && event.iteration <= told) continue;
        if (kind === "iteration") told = event.iteration;
        yield { runId, kind, ...event };
      }
      return;
    } catch (error) {
      const again = [grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED].includes(error.code);
      lostSince ??= Date.now();
      if (!again || Date.now() - lostSince > patience * 1000) throw error;
      const seconds = Math.min(5, 0.1 * 2 ** failures++) * (0.5 + Math.random() / 2);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    } finally {
      call.cancel();
    }
  }
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      server: { type: "string", default: "localhost:50051" },
      size: { type: "string", default: "256" },
      iterations: { type: "string", default: "100" },
      "preview-every": { type: "string", default: "10" },
      preview: { type: "string", default: "preview-%d.jpg" },
      out: { type: "string", default: "result.png" },
    },
  });
  const [content, style] = await Promise.all(positionals.map((path) => readFile(path)));
  if (!style) throw new Error("give a content picture and a style picture");

  const client = connect(values.server, { token: process.env.GRAMLET_TOKEN });
  const request = {
    stylization: {
      content: { encoded: content },
      styles: [{ picture: { encoded: style } }],
      settings: { size: Number(values.size), iterations: Number(values.iterations) },
    },
    previewEvery: Number(values["preview-every"]),
  };
  for await (const event of stylize(client, request)) {
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
      case "preview":
        await writeFile(values.preview.replace("%d", event.iteration), event.jpeg);
        break;
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
