// Verifies signatures of RFC 9421 with the npm package http-message-signatures.
//
//     node messages.js NODE_MODULES KEYS < lines of {"job": …, "set": …}

const crypto = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const [modules, keys] = process.argv.slice(2);
const { httpbis, createVerifier } = require(path.join(modules, "http-message-signatures"));

// The package reads the request by WHATWG's URL, which drops what follows an empty query and encodes
// some characters anew, and encodes parameters by encodeURIComponent: where a component is one that it
// reads in its own way, it is not asked.
function readsAlike(job) {
  const raw = `${job.scheme}://${job.authority}${job.target}`;
  const target = job.components.some((one) => /@(path|query|target-uri|request-target)/.test(one));
  if (target && new URL(raw).href !== raw) return false;
  const odd = job.components.find((one) => one.startsWith('"@query-param"'));
  if (odd) {
    const name = decodeURIComponent(/name="(.*)"/.exec(odd)[1]);
    const value = new URL(raw).searchParams.get(name);
    if (/[~!'()]/.test(value)) return false;
  }
  return true;
}

async function main() {
  const lines = fs.readFileSync(0, "utf8").split("\n").filter(Boolean);
  const files = {
    ed25519: "rfc9421-ed25519.pem",
    "ecdsa-p256-sha256": "rfc9421-ecc-p256.pem",
    "ecdsa-p384-sha384": "p384.pem",
    "rsa-pss-sha512": "rfc9421-rsa-pss.pem",
    "rsa-v1_5-sha256": "rfc9421-rsa.pem",
  };
  const verifiers = {};
  for (const [algorithm, file] of Object.entries(files)) {
    const key = crypto.createPublicKey(fs.readFileSync(path.join(keys, file)));
    verifiers[algorithm] = createVerifier(key, algorithm);
  }
  let verified = 0;
  let skipped = 0;
  for (const line of lines) {
    const { job, set } = JSON.parse(line);
    if (!readsAlike(job)) {
      skipped += 1;
      continue;
    }
    const secret = Buffer.from(job.secret.key, "base64");
    const verify = verifiers[job.algorithm] ?? createVerifier(secret, "hmac-sha256");
    const headers = {};
    for (const [name, value] of [...job.fields, ...set]) {
      headers[name] = name in headers ? [].concat(headers[name], value) : value;
    }
    const request = { method: job.method, url: `${job.scheme}://${job.authority}${job.target}`, headers };
    const keyLookup = async () => ({ id: job.key_id, algs: [job.algorithm], verify });
    if ((await httpbis.verifyMessage({ keyLookup, all: true }, request)) !== true) {
      console.error("npm http-message-signatures disagrees:", line);
      process.exit(1);
    }
    verified += 1;
  }
  console.log(`http-message-signatures (npm): ${verified} signatures verify, ${skipped} not asked`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
