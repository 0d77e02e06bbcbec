// A server of grpc.health.v1: `grpc_health.js PORT SERVICE...` says SERVING of the services named, and NOT_SERVING of others.
const http2 = require("node:http2");
const [port, ...serving] = process.argv.slice(2);
const server = http2.createServer();
server.on("stream", (stream) => {
  const parts = [];
  stream.on("data", (part) => parts.push(part));
  stream.on("end", () => {
    // Field 1 of the request, behind gRPC's five bytes: tag, length, name.
    const name = Buffer.concat(parts).subarray(7).toString();
    const status = serving.includes(name) ? 1 : 2;
    stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(Buffer.from([0, 0, 0, 0, 2, 8, status]));
  });
  stream.on("error", () => {});
});
server.listen(Number(port), "0.0.0.0", () => console.log("ready"));
