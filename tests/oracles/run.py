"""Signs random requests with sluis-signing and has others judge them.

    run.py --signer PATH [--requests N] [--seed N] [--node NODE_MODULES]

- botocore signs the same requests for AWS; both must say the same, to the byte of the signature.
- http-message-signatures (PyPI) verifies ours and makes the same signature base; so does the npm
  package of that name, where --node says where it is installed.

Prints one line for each judge; exits 1 at the first disagreement, which it shows.
"""

import argparse
import base64
import datetime
import json
import pathlib
import random
import subprocess
import sys
from urllib.parse import quote, unquote, unquote_plus, urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.serialization import load_pem_private_key
import http_message_signatures as hms
from http_message_signatures import algorithms

HERE = pathlib.Path(__file__).resolve().parent
KEYS = HERE.parent.parent / "crates/signing/tests/keys"
NOW = 1_700_000_000
WORDS = ["a", "B9", "-._~", "é", "日本", "%2B", "!$'()*,", ";", ":@", "%41", "%7e", "%c3%a9", "{x}", "|", "^`", '"<>']
CHUNK = 200  # lines that may be under way at once


class Signer:
    """The example program of crates/signing."""

    def __init__(self, path):
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([path], stdin=pipe, stdout=pipe, text=True, encoding="utf-8")

    def all(self, jobs):
        for start in range(0, len(jobs), CHUNK):
            for job in jobs[start : start + CHUNK]:
                self.process.stdin.write(json.dumps(job) + "\n")
                self.process.stdin.flush()
                yield job, json.loads(self.process.stdout.readline())


def fail(judge, job, ours, theirs):
    print(f"{judge} disagrees:\n  request {json.dumps(job)}\n  ours    {ours}\n  theirs  {theirs}")
    sys.exit(1)


# --- AWS ---


def some(draw, least, most):
    return [draw.choice(WORDS) for _ in range(draw.randint(least, most))]


def aws_job(draw):
    s3 = draw.random() < 0.5
    segments = ["".join(some(draw, 0 if not s3 else 1, 3)) for _ in range(draw.randint(0, 4))]
    if not s3 and draw.random() < 0.3:
        segments.insert(draw.randint(0, len(segments)), draw.choice([".", "..", ""]))
    path = "/" + "/".join(segments)
    pairs = []
    for _ in range(draw.randint(0, 4)):
        name = draw.choice("xyzA") + "".join(some(draw, 0, 2))
        value = "".join(some(draw, 0, 2)).replace("日本", draw.choice(["+", "日本"]))
        pairs.append(name + draw.choice(["=" + value, "=", ""]))
    fields = [["accept", "*/*"], ["user-agent", "x"]]
    for name in draw.sample(["content-type", "x-amz-target", "x-amz-meta-a", "x-amz-meta-b", "range"], 2):
        fields.append([name, draw.choice(["plain", " two  words ", "a,b", "tab\there", "x" * 50, ""])])
    if draw.random() < 0.2:
        fields.append(["x-amz-meta-a", "again"])
    return {
        "kind": "aws",
        "service": "s3" if s3 else draw.choice(["execute-api", "dynamodb", "iam", "es"]),
        "region": draw.choice(["eu-west-1", "us-east-1"]),
        "s3": s3,
        "payload_field": s3,
        "unsigned": draw.random() < 0.2,
        "expires": draw.choice([0, 0, 1, 3600, 604800]),
        "token": draw.random() < 0.4,
        "signed": draw.choice([[], ["content-type"], ["content-type", "range"]]),
        "secret": {"id": "AKIDEXAMPLE", "secret": "s3cr3t/+key", "token": "tok/en+="},
        "method": draw.choice(["GET", "PUT", "POST", "DELETE", "HEAD"]),
        "scheme": "https",
        "authority": draw.choice(["bucket.s3.amazonaws.com", "api.example:8443", "Example.COM"]),
        "target": path + ("?" + "&".join(pairs) if pairs else ""),
        "fields": fields,
        "body": draw.choice(["", "body", "é" * 10]),
        "time": NOW + draw.randint(0, 10**8),
    }


def aws_expected(job):
    """The signature that botocore makes.

    It takes a URL as already encoded in AWS's own way, and does not look; it is given what the server
    computes from the target as sent: for S3 the path decoded and encoded, of others the path as it is.
    """
    path, _, query = job["target"].partition("?")
    if job["s3"]:
        path = quote(unquote(path), safe="/~")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    anew = lambda text: quote(unquote_plus(text), safe="~")
    query = "&".join(f"{anew(name)}={anew(value)}" for name, _, value in pairs)
    url = f"https://{job['authority']}{path}" + ("?" + query if query else "")

    request = AWSRequest(job["method"], url, data=job["body"].encode())
    wanted = {"host", *job["signed"]}
    request.headers["host"] = job["authority"]
    for name, value in job["fields"]:
        if name in wanted or name.startswith("x-amz-"):
            request.headers.add_header(name, value)
    request.context["payload_signing_enabled"] = not job["unsigned"]
    # Set by the client elsewhere; it is what `unsigned` comes to for S3.
    class Config:
        s3 = {"payload_signing_enabled": not job["unsigned"]}
    request.context["client_config"] = Config
    secret = job["secret"]
    credentials = Credentials(secret["id"], secret["secret"], secret["token"] if job["token"] else None)
    moment = datetime.datetime.fromtimestamp(job["time"], datetime.timezone.utc)
    botocore.auth.get_current_datetime = lambda: moment
    names = {True: "S3SigV4", False: "SigV4"}[job["s3"]]
    if job["expires"]:
        auth = {"S3SigV4": botocore.auth.S3SigV4QueryAuth, "SigV4": botocore.auth.SigV4QueryAuth}[names]
        auth(credentials, job["service"], job["region"], expires=job["expires"]).add_auth(request)
        return request.url.rpartition("X-Amz-Signature=")[2]
    auth = {"S3SigV4": botocore.auth.S3SigV4Auth, "SigV4": botocore.auth.SigV4Auth}[names]
    auth(credentials, job["service"], job["region"]).add_auth(request)
    return request.headers["Authorization"]


def usable(job):
    """What botocore cannot be asked: it folds repeated parameters of a presigned URL into one, and
    takes a form's body into the query; unsigned payloads without S3 it sends another field for."""
    names = [unquote_plus(pair.partition("=")[0]) for pair in job["target"].partition("?")[2].split("&")]
    if job["expires"] and len(set(names)) < len(names):
        return False
    return job["s3"] or not job["unsigned"]


def judge_aws(signer, draw, count):
    jobs = []
    while len(jobs) < count:
        job = aws_job(draw)
        if usable(job):
            if job["expires"]:
                job["body"] = ""
            jobs.append(job)
    presigned = 0
    for job, ours in signer.all(jobs):
        theirs = aws_expected(job)
        if "error" in ours:
            fail("botocore", job, ours, theirs)
        if job["expires"]:
            presigned += 1
            mine = ours["target"].rpartition("X-Amz-Signature=")[2]
        else:
            mine = dict(ours["set"])["authorization"]
        if mine != theirs:
            fail("botocore", job, mine, theirs)
    print(f"botocore: {count} requests agree, {presigned} of them presigned")


# --- RFC 9421 ---

SECRET = base64.b64encode(b"a shared secret of some length!!").decode()
ALGORITHMS = {
    "hmac-sha256": (algorithms.HMAC_SHA256, None),
    "ed25519": (algorithms.ED25519, "rfc9421-ed25519.pem"),
    "ecdsa-p256-sha256": (algorithms.ECDSA_P256_SHA256, "rfc9421-ecc-p256.pem"),
    "ecdsa-p384-sha384": (algorithms.ECDSA_P384_SHA384, "p384.pem"),
    "rsa-pss-sha512": (algorithms.RSA_PSS_SHA512, "rfc9421-rsa-pss.pem"),
    "rsa-v1_5-sha256": (algorithms.RSA_V1_5_SHA256, "rfc9421-rsa.pem"),
}


class Keys(hms.HTTPSignatureKeyResolver):
    def __init__(self, file):
        self.file = file

    def resolve_private_key(self, key_id):
        if self.file is None:
            return base64.b64decode(SECRET)
        return load_pem_private_key((KEYS / self.file).read_bytes(), None)

    def resolve_public_key(self, key_id):
        key = self.resolve_private_key(key_id)
        return key if self.file is None else key.public_key()


class Message:
    def __init__(self, job, edits):
        self.method = job["method"]
        self.url = f"{job['scheme']}://{job['authority']}{job['target']}"
        self.headers = Lines(job["fields"] + edits)


class Lines:
    """Fields, in order, with those that are there twice."""

    def __init__(self, pairs):
        self.pairs = [tuple(pair) for pair in pairs]

    def items(self):
        return list(self.pairs)

    def keys(self):
        return [name for name, _ in self.pairs]

    def __iter__(self):
        return iter(dict(self.pairs))

    def __contains__(self, wanted):
        return any(name.lower() == wanted.lower() for name, _ in self.pairs)

    def __getitem__(self, wanted):
        return ", ".join(value for name, value in self.pairs if name.lower() == wanted.lower())

    def __setitem__(self, name, value):
        del self[name]
        self.pairs.append((name, value))

    def __delitem__(self, wanted):
        self.pairs = [pair for pair in self.pairs if pair[0].lower() != wanted.lower()]


def message_job(draw, now):
    algorithm = draw.choice(list(ALGORITHMS))
    file = ALGORITHMS[algorithm][1]
    names = ["q", "ü", "a b"]
    values = ["1", "", "a+b", "~*x", "100%25", "é"]
    pairs = [f"{quote(name)}={quote(draw.choice(values), safe=draw.choice(['', '+']))}" for name in draw.sample(names, 2)]
    chosen = [name for name in names if any(pair.startswith(quote(name) + "=") for pair in pairs)]
    components = ["@method", "@authority", "@path", "@query", "@scheme", "@target-uri", "@request-target", "x-one", "x-two", "content-type"]
    components = draw.sample(components, draw.randint(0, 8))
    texts = [f'"{name}"' for name in components]
    if draw.random() < 0.6:
        texts.append(f'"@query-param";name="{quote(draw.choice(chosen))}"')
    digest = draw.choice(["", "sha-256", "sha-512"])
    if digest:
        texts.append('"content-digest"')
    path = "/" + "/".join(quote(word) for word in some(draw, 0, 3)).replace("%25", "%")
    return {
        "kind": "message",
        "label": draw.choice(["sig1", "s", "*a-b.c_9"]),
        "components": texts,
        "algorithm": algorithm,
        "encoding": "pem" if file else "base64",
        "key_id": draw.choice(["k", 'with "quotes" \\']),
        "expires": draw.choice([0, 300]),
        "nonce": draw.random() < 0.5,
        "tag": draw.choice(["", "app"]),
        "send_algorithm": draw.random() < 0.5,
        "digest": digest,
        "secret": {"key": (KEYS / file).read_text() if file else SECRET},
        "method": draw.choice(["GET", "POST", "PATCH"]),
        "scheme": draw.choice(["https", "http"]),
        "authority": draw.choice(["example.com", "EXAMPLE.com", "example.com:443", "example.com:8080", "example.com:80"]),
        "target": path + draw.choice(["?" + "&".join(pairs)]),
        "fields": [["x-one", draw.choice(["a", "  a  ", ""])], ["x-two", "a, b"], ["x-two", " c "], ["content-type", "text/plain"]],
        "body": "body",
        "time": now,
    }


def judge_messages(signer, draw, count, node):
    now = int(datetime.datetime.now().timestamp())
    jobs = [message_job(draw, now) for _ in range(count)]
    shown = []
    for job, ours in signer.all(jobs):
        if "error" in ours:
            fail("http-message-signatures", job, ours, None)
        algorithm, file = ALGORITHMS[job["algorithm"]]
        verifier = hms.HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=Keys(file))
        message = Message(job, ours["set"])
        try:
            result = verifier.verify(message, body=b"body" if job["digest"] else None)
        except hms.InvalidSignature as error:
            fail("http-message-signatures", job, ours, error)
        if len(result) != 1:
            fail("http-message-signatures", job, ours, result)
        if job["algorithm"] in ("hmac-sha256", "ed25519", "rsa-v1_5-sha256"):
            theirs_sign(job, ours, algorithm, file, result[0])
        changed = Message(job, ours["set"])
        changed.url = changed.url.replace("://", "://x")
        if any("authority" in one or "target-uri" in one for one in job["components"]):
            try:
                verifier.verify(changed)
                fail("http-message-signatures", job, ours, "took another authority")
            except hms.InvalidSignature:
                pass
        shown.append({"job": job, "set": ours["set"]})
    print(f"http-message-signatures (PyPI): {count} signatures verify; those of hmac, ed25519 and rsa-v1_5 are the same")
    if node:
        lines = "\n".join(json.dumps(one) for one in shown)
        script = HERE / "messages.js"
        done = subprocess.run(["node", script, node, KEYS], input=lines, text=True, capture_output=True)
        print(done.stdout, end="")
        if done.returncode:
            print(done.stderr[-4000:])
            sys.exit(1)


def theirs_sign(job, ours, algorithm, file, result):
    """Has the other side sign the same: the base, and so the signature, must be the same."""
    made = dict(ours["set"])
    message = Message(job, [pair for pair in ours["set"] if not pair[0].startswith("signature")])
    signer = hms.HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=Keys(file))
    extra = {}
    if job["expires"]:
        extra["expires"] = datetime.datetime.fromtimestamp(job["time"] + job["expires"], datetime.timezone.utc)
    if job["nonce"]:
        extra["nonce"] = result.parameters["nonce"]
    if job["tag"]:
        extra["tag"] = job["tag"]
    signer.sign(
        message,
        key_id=job["key_id"],
        created=datetime.datetime.fromtimestamp(job["time"], datetime.timezone.utc),
        label=job["label"],
        include_alg=job["send_algorithm"],
        use_existing_digest=bool(job["digest"]),
        covered_component_ids=job["components"],
        **extra,
    )
    theirs = message.headers["Signature-Input"]
    order = lambda text: sorted(text.partition(")")[2].split(";")) + [text.partition(")")[0]]
    if order(theirs) != order(made["signature-input"]):
        fail("http-message-signatures", job, made["signature-input"], theirs)
    if theirs == made["signature-input"] and message.headers["Signature"] != made["signature"]:
        fail("http-message-signatures", job, made["signature"], message.headers["Signature"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signer", required=True, help="the program sign_lines of crates/signing")
    parser.add_argument("--requests", type=int, default=10_000, help="for AWS; a tenth for RFC 9421")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--node", help="folder node_modules with http-message-signatures")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    draw = random.Random(arguments.seed)
    signer = Signer(arguments.signer)
    judge_aws(signer, draw, arguments.requests)
    judge_messages(signer, draw, arguments.requests // 10, arguments.node)


if __name__ == "__main__":
    main()
