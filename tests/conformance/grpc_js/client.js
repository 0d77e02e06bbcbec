// A gRPC client that is its own proxy: routes and endpoints come over xDS (GRPC_XDS_BOOTSTRAP).
// Reads a JSON object of metadata from each line, calls the target given, and prints the answer:
// {"from": NAME} or {"error": TEXT}.

"use strict";

const readline = require("node:readline");
const grpc = require("@grpc/grpc-js");
require("@grpc/grpc-js-xds").register();

const CALL_MS_MAX = 5000;

const to = (value) => Buffer.from(JSON.stringify(value));
const from = (bytes) => JSON.parse(bytes.toString());
const client = new grpc.Client(process.argv[2], grpc.credentials.createInsecure());

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const metadata = new grpc.Metadata();
  for (const [key, value] of Object.entries(JSON.parse(line))) metadata.set(key, value);
  const deadline = Date.now() + CALL_MS_MAX;
  client.makeUnaryRequest("/test.Echo/Say", to, from, {}, metadata, { deadline }, (error, answer) =>
    console.log(JSON.stringify(error ? { error: error.message } : answer)),
  );
});
