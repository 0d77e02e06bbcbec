// Has an authorization server of others (npm oidc-provider) take our token requests, and npm jose
// verify what our requests then carry.
//
//     node tokens.mjs NODE_MODULES SIGNER KEYS
//
// SIGNER is the example sign_lines of crates/signing. Everything runs on loopback; one line for each
// way to get a token, exit 1 at the first that fails.

import { spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const [modules, signer, keys] = process.argv.slice(2);
const load = (name, main) => import(pathToFileURL(path.join(modules, name, main)).href);
const { default: Provider } = await load("oidc-provider", "lib/index.js");
const jose = await load("jose", "dist/webapi/index.js");

const ISSUER = "https://as.test";
const API = "https://api.test/data";
const SECRET = "cl1ent-s3cret/with+odd:characters%";
const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ASSERTION = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const subjects = crypto.randomBytes(32); // what the users' tokens are signed with

const pem = (name) => fs.readFileSync(path.join(keys, name), "utf8");
const FILES = {
  EdDSA: "rfc8037-a1.pem",
  ES256: "rfc9421-ecc-p256.pem",
  ES384: "p384.pem",
  PS256: "rfc9421-rsa.pem",
  RS256: "rfc7515-a2.pem",
};
const jwk = (algorithm) => {
  const key = crypto.createPublicKey(pem(FILES[algorithm])).export({ format: "jwk" });
  return { ...key, alg: algorithm, use: "sig", kid: `key-${algorithm}` };
};

const grants = ["client_credentials", EXCHANGE, ASSERTION];
const plain = { redirect_uris: [], response_types: [], grant_types: grants, id_token_signed_response_alg: "ES256" };
const clients = [
  { ...plain, client_id: "basic:client", client_secret: SECRET },
  { ...plain, client_id: "post", client_secret: SECRET, token_endpoint_auth_method: "client_secret_post" },
  { ...plain, client_id: "bound", client_secret: SECRET, dpop_bound_access_tokens: true },
];
for (const algorithm of Object.keys(FILES)) {
  clients.push({
    ...plain,
    client_id: `private-${algorithm}`,
    token_endpoint_auth_method: "private_key_jwt",
    token_endpoint_auth_signing_alg: algorithm,
    jwks: { keys: [jwk(algorithm)] },
  });
}

const signing = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" });
const signingJwk = { ...signing.privateKey.export({ format: "jwk" }), alg: "ES256", use: "sig", kid: "as" };
const resource = { scope: "read write", audience: "https://api.test", accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } } };
const provider = new Provider(ISSUER, {
  clients,
  jwks: { keys: [signingJwk] },
  scopes: ["read", "write"],
  enabledJWA: {
    clientAuthSigningAlgValues: Object.keys(FILES),
    dPoPSigningAlgValues: ["ES256"],
  },
  ttl: { ClientCredentials: 600 },
  extraTokenClaims: (ctx) => (ctx.onBehalfOf ? { on_behalf_of: ctx.onBehalfOf } : undefined),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    dPoP: { enabled: true, nonceSecret: crypto.randomBytes(32), requireNonce: () => true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "https://api.test",
      getResourceServerInfo: () => resource,
      useGrantedResource: () => true,
    },
  },
});
provider.proxy = true;

// The two grants that oidc-provider leaves to whoever runs it: verified here by jose, strictly.
async function give(ctx, subject) {
  const { client } = ctx.oidc;
  const token = new provider.ClientCredentials({ client, scope: "read" });
  token.resourceServer = new provider.ResourceServer("https://api.test", resource);
  ctx.onBehalfOf = subject;
  const value = await token.save();
  ctx.body = { access_token: value, issued_token_type: "urn:ietf:params:oauth:token-type:access_token", token_type: token.tokenType, expires_in: token.expiration };
}
provider.registerGrantType(
  EXCHANGE,
  async (ctx) => {
    const { subject_token: token, subject_token_type: type } = ctx.oidc.params;
    if (type !== "urn:ietf:params:oauth:token-type:jwt") throw new Error(type);
    const { payload } = await jose.jwtVerify(token, subjects, { algorithms: ["HS256"] });
    await give(ctx, payload.sub);
  },
  ["subject_token", "subject_token_type", "audience", "resource", "scope"],
  ["audience", "resource"],
);
provider.registerGrantType(
  ASSERTION,
  async (ctx) => {
    const key = await jose.importJWK(jwk("EdDSA"), "EdDSA");
    const check = { issuer: ctx.oidc.client.clientId, audience: ISSUER, requiredClaims: ["exp", "iat", "jti"] };
    const { payload } = await jose.jwtVerify(ctx.oidc.params.assertion, key, check);
    await give(ctx, payload.sub);
  },
  ["assertion", "scope", "resource"],
  ["resource"],
);
provider.on("server_error", (ctx, error) => console.error(error));

const server = http.createServer(provider.callback());
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const port = server.address().port;

const child = spawn(signer, { stdio: ["pipe", "pipe", "inherit"] });
const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
let count = 0;
async function ours(job) {
  count += 1;
  child.stdin.write(JSON.stringify({ ...job, time: Math.floor(Date.now() / 1000), count }) + "\n");
  const answer = JSON.parse((await lines.next()).value);
  if (answer.error) throw new Error(answer.error);
  return answer;
}

function post({ fields, body }) {
  const headers = { ...Object.fromEntries(fields), host: "as.test", "x-forwarded-proto": "https", "x-forwarded-host": "as.test", "content-length": Buffer.byteLength(body) };
  return new Promise((done, fail) => {
    const request = http.request({ port, host: "127.0.0.1", method: "POST", path: "/token", headers }, (response) => {
      let text = "";
      response.on("data", (part) => (text += part));
      response.on("end", () => done({ status: response.statusCode, text, nonce: response.headers["dpop-nonce"] }));
    });
    request.on("error", fail);
    request.end(body);
  });
}

function assert(is, what) {
  if (!is) throw new Error(what);
}

const known = jose.createLocalJWKSet({ keys: [{ ...signing.publicKey.export({ format: "jwk" }), alg: "ES256", kid: "as" }] });
const seen = new Set();

// What an API does with a request: RFC 9068 and RFC 9449 §7.1.
async function admit(set, { client, dpop, subject }) {
  const fields = Object.fromEntries(set);
  const [scheme, token] = fields.authorization.split(" ");
  assert(scheme === (dpop ? "DPoP" : "Bearer"), scheme);
  const { payload } = await jose.jwtVerify(token, known, { issuer: ISSUER, audience: "https://api.test", typ: "at+jwt" });
  assert(payload.client_id === client, `client ${payload.client_id}`);
  if (subject) assert(payload.on_behalf_of === subject, `subject ${payload.on_behalf_of}`);
  if (!dpop) return;
  const proof = await jose.jwtVerify(fields.dpop, jose.EmbeddedJWK, { typ: "dpop+jwt", algorithms: ["ES256"], maxTokenAge: 60 });
  const { protectedHeader: header, payload: claims } = proof;
  assert(claims.htm === "PUT" && claims.htu === API, "proof of another request");
  assert(claims.ath === crypto.createHash("sha256").update(token).digest("base64url"), "proof of another token");
  assert((await jose.calculateJwkThumbprint(header.jwk)) === payload.cnf.jkt, "proof by another key");
  assert(!header.jwk.d, "the private key is shown");
  assert(!seen.has(claims.jti), "proof used again");
  seen.add(claims.jti);
}

async function check(name, { client, secret, flow, subject, onBehalfOf }) {
  const job = { flow: { token_url: `${ISSUER}/token`, scopes: ["read"], resources: ["https://api.test"], ...flow }, secret, subject };
  let answer = await post(await ours({ kind: "ask", ...job }));
  if (flow.dpop) {
    assert(answer.status === 400 && JSON.parse(answer.text).error === "use_dpop_nonce", `no nonce asked for: ${answer.text}`);
    answer = await post(await ours({ kind: "ask", ...job, nonce: answer.nonce }));
  }
  assert(answer.status === 200, `${name}: ${answer.status} ${answer.text}`);
  const request = { method: "PUT", scheme: "https", authority: "api.test", target: "/data?x=1", fields: [["authorization", "Bearer theirs"]] };
  const carried = await ours({ kind: "carry", ...job, ...request, status: answer.status, answer: answer.text });
  await admit(carried.set, { client, dpop: flow.dpop, subject: onBehalfOf });
  console.log(`oidc-provider: ${name}: a token, and the API takes it`);
}

try {
  const basic = { id: "basic:client", secret: SECRET };
  await check("client_secret_basic", { client: basic.id, secret: basic, flow: { has_secret: true } });
  const body = { authentication: "body", has_secret: true };
  await check("client_secret_post", { client: "post", secret: { id: "post", secret: SECRET }, flow: body });
  for (const algorithm of Object.keys(FILES)) {
    const flow = { authentication: "private_key_jwt", has_key: true, algorithm, key_id: `key-${algorithm}` };
    const secret = { id: `private-${algorithm}`, key: pem(FILES[algorithm]) };
    await check(`private_key_jwt by ${algorithm}`, { client: secret.id, secret, flow });
  }
  const bound = { client: "bound", secret: { id: "bound", secret: SECRET }, flow: { has_secret: true, dpop: true } };
  await check("DPoP, with a nonce", bound);
  await check("DPoP, once more", bound);
  const user = await new jose.SignJWT({ sub: "ann" }).setProtectedHeader({ alg: "HS256" }).setExpirationTime("5m").sign(subjects);
  await check("token exchange", { client: basic.id, secret: basic, flow: { has_secret: true, grant: "exchange", audiences: ["data-api"] }, subject: user, onBehalfOf: "ann" });
  const robot = { has_secret: true, has_key: true, grant: "assertion", algorithm: "EdDSA", audiences: [ISSUER] };
  await check("JWT bearer", { client: basic.id, secret: { ...basic, key: pem(FILES.EdDSA) }, flow: robot, onBehalfOf: "robot" });

  const wrong = await post(await ours({ kind: "ask", flow: { token_url: `${ISSUER}/token`, has_secret: true }, secret: { id: basic.id, secret: "wrong" } }));
  assert(wrong.status === 401, "took a wrong secret");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  child.stdin.end();
  server.close();
}
