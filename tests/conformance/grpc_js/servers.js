// Starts one echo server for each name given: each answers every call with its name.
// Prints one JSON object from name to port once all listen.

"use strict";

const grpc = require("@grpc/grpc-js");

const json = {
  serialize: (value) => Buffer.from(JSON.stringify(value)),
  deserialize: (bytes) => JSON.parse(bytes.toString()),
};
const service = {
  say: {
    path: "/test.Echo/Say",
    requestStream: false,
    responseStream: false,
    requestSerialize: json.serialize,
    requestDeserialize: json.deserialize,
    responseSerialize: json.serialize,
    responseDeserialize: json.deserialize,
  },
};

function start(name) {
  const server = new grpc.Server();
  server.addService(service, { say: (_call, answer) => answer(null, { from: name }) });
  return new Promise((done, fail) => {
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
      error ? fail(error) : done([name, port]),
    );
  });
}

Promise.all(process.argv.slice(2).map(start)).then((all) =>
  console.log(JSON.stringify(Object.fromEntries(all))),
);
