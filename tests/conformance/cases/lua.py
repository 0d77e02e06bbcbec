"""Envoy's own examples of Lua scripts, and what else its documentation tells of the filter.

Each script is a named one of a single filter; the route of its name runs it (LuaPerRoute).
"""

import json

from corpus import ALPHA, BETA, Cases, Feature, service_entry, upstream

HOST, PORT = "lua.example", 8095
CALLED = "outbound|80||lua-call.test"

# Signatures of "the data", made with OpenSSL.
RSA_KEY = (
    "30820122300d06092a864886f70d01010105000382010f003082010a0282010100ddd766078a0c3e61b2763073"
    "fea1d64ce67b7e9f359ff146563f3ba05d81c7076bb8feac13f4d7d44ab0d16ccc4487354900c3368ed44b497b"
    "4322161e19e53f2b8fbfcf8df5054704fa806ecd8b0164f5121cda1aec150b73a9bc0f1c5fa5a063ddaa9a691d"
    "fc60db542c369a9ad74892806b51c692732c7a4d10f6d1b28ccdf8f051785d4b9d0455a0770ca92f2f9ad2feaa"
    "6d39c0b7e592656fb6947dade4b3316bf2d1dc68eef3dbeaabc629a7e0bc614981596dc9824c34daadcfe74bfe"
    "54854a1b91502f4ab50a7412998887d16a070b2719662245e9cdca6d8452569a74a69a9b0a1d2577ab8668d4a8"
    "a41f567909443016ef7b6c0b5afe9f9822dc710203010001")
RSA_SIGNATURE = (
    "7345de61ae9f1d2b8be9d990b54712a2165a66b6aac2e3bac65f6b896fd249236f214cc8243d70fc0d6c3c23e0"
    "a359fe69e2cf83e8683b4005ada6d1742dfc518951eb6f4d31e359921cc1b618512834e8eb9133da24cccb3e2d"
    "f2d17e0ddc54cc8c3eab5a87acf062879c9b572968b0d5cc77eeedce96648841400a0a761a7f46bb58262af41a"
    "1719c7a8c8e674d1cb9f1aa5dfb325398e079daf316987401033f31c29ee8e32ab635b05c512e583372d9c9086"
    "0fa3b601b4f74069e88f951796fb8510059c438ca1749e957ccdbeb8370936693586b2beb84cd1d56064bad9dc"
    "8d01b7077870005764eaeabe5be164fa6399a97cd42e38531d290435eac0c2")
EC_KEY = (
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004ab8de3dbdb8677c07d27d4c8975edcddd0d7"
    "4dccd369202329c7021e39dd264090a8e013d64c24608f8c01505bfd501409cad29ff9fe441069d9025d9981f9"
    "80")
EC_SIGNATURE = (
    "304402206b62eb11457a72389f84e9d94cfb61c13ba6a151a89949a6c89a088723c85a6b0220270f190e20212f"
    "c60ee92a328dae237b2e55558ab1194377bc853a7df1bc657c")

CALL = """
local function call(h, path, body, options, more)
  local headers = {[":method"] = "POST", [":path"] = path, [":authority"] = "lua_cluster"}
  for name, value in pairs(more or {}) do headers[name] = value end
  return h:httpCall("%s", headers, body, options or 5000)
end
-- Envoy returns no value at all where ours is nil.
local function str(value) return tostring(value) end
local function bytes(hex)
  return (hex:gsub("..", function(two) return string.char(tonumber(two, 16)) end))
end
""" % CALLED

SCRIPTS = {
    # "Script examples": sizes of bodies. As it is printed it asks for the headers before it waits for the
    # body, which Envoy refuses afterwards ("object used outside of proper scope").
    "sizes": """
function envoy_on_request(request_handle)
  local body = request_handle:body()
  request_handle:headers():add("request_body_size", body:length())
end
function envoy_on_response(response_handle)
  local body = response_handle:body()
  response_handle:headers():add("response_body_size", body and body:length() or "none")
  response_handle:headers():remove("foo")
end""",
    "call": """
function envoy_on_request(request_handle)
  local headers, body = call(request_handle, "/", "hello world", 5000, {["x-do"] = "header=foo:bar;length=77"})
  request_handle:headers():add("upstream_foo", headers["foo"])
  request_handle:headers():add("upstream_body_size", #body)
end""",
    "call-respond": """
function envoy_on_request(request_handle)
  local headers, body = call(request_handle, "/", "hello world", 5000,
    {["set-cookie"] = {"lang=lua; Path=/", "type=binding; Path=/"}, ["x-do"] = "header=foo:bar"})
  request_handle:respond({[":status"] = "403", ["upstream_foo"] = headers["foo"]}, "nope")
end""",
    "log": """
function envoy_on_request(request_handle)
  request_handle:logInfo("Authority: "..request_handle:headers():get(":authority"))
  request_handle:logInfo("Method: "..request_handle:headers():get(":method"))
  request_handle:logInfo("Path: "..request_handle:headers():get(":path"))
end
function envoy_on_response(response_handle)
  response_handle:logInfo("Status: "..response_handle:headers():get(":status"))
end""",
    "rewrite": """
function envoy_on_response(response_handle)
  response_handle:body(true):setBytes("<html><b>Not Found<b></html>")
  response_handle:headers():replace("content-type", "text/html")
end""",
    "rewrite-chunks": """
function envoy_on_response(response_handle)
  response_handle:headers():replace("content-type", "text/html")
  local last
  for chunk in response_handle:bodyChunks() do
    chunk:setBytes("")
    last = chunk
  end
  last:setBytes("<html><b>Not Found<b></html>")
end""",
    "count-chunks": """
function envoy_on_request(h)
  local n = 0
  for chunk in h:bodyChunks() do n = n + chunk:length() end
  h:streamInfo():dynamicMetadata():set("lua", "counted", n)
end
function envoy_on_response(h)
  h:headers():add("x-counted", h:streamInfo():dynamicMetadata():get("lua")["counted"])
end""",
    "rewrite-request": """
function envoy_on_request(h)
  local body = h:body(true)
  body:setBytes(body:getBytes(0, body:length()):upper() .. "!")
end""",
    "return-duplicates": """
function envoy_on_request(h)
  local more = {["x-do"] = "header=foo:bar;header=key:value_0;header=key:value_1;header=key:value_2;length=3"}
  local last = call(h, "/", nil, 5000, more)
  local all, body = call(h, "/", nil, {return_duplicate_headers = true, timeout_ms = 5000}, more)
  h:respond({[":status"] = "200", one = last.key, foo = all.foo, n = tostring(#all.key),
             all = table.concat(all.key, "+")}, body)
end""",
    "call-fails": """
function envoy_on_request(h)
  local headers, body = call(h, "/", nil, 100, {["x-do"] = "delay=1"})
  h:respond({[":status"] = headers[":status"]}, tostring(body))
end""",
    "call-late": """
function envoy_on_request(h)
  local headers, body = call(h, "/", nil, {timeout_ms = 100}, {["x-do"] = "close"})
  h:respond({[":status"] = "200"}, headers[":status"] .. " " .. tostring(#body > 0))
end""",
    "call-and-forget": """
function envoy_on_request(h)
  local got = call(h, "/", nil, {asynchronous = true})
  h:headers():add("x-got", tostring(got))
end""",
    "call-with-body": """
function envoy_on_request(h)
  local size = h:body():length()
  local headers = call(h, "/", "x", 5000, {["x-do"] = "length=1"})
  h:headers():add("x-size", size .. " " .. headers[":status"])
  h:headers():add("x-still", h:body():length())
end""",
    "call-in-response": """
function envoy_on_response(h)
  h:body(true)
  local _, body = call(h, "/", nil, 5000, {["x-do"] = "length=20"})
  h:body():setBytes(body)
end""",
    "dynamic-metadata": """
function envoy_on_request(request_handle)
  local headers = request_handle:headers()
  request_handle:streamInfo():dynamicMetadata():set("envoy.filters.http.lua", "request.info", {
    auth = headers:get("authorization"),
    token = headers:get("x-request-token"),
  })
end
function envoy_on_response(response_handle)
  local meta = response_handle:streamInfo():dynamicMetadata():get("envoy.filters.http.lua")["request.info"]
  response_handle:headers():add("x-meta", "Auth: "..tostring(meta.auth)..", token: "..tostring(meta.token))
  local names = {}
  for name in pairs(response_handle:streamInfo():dynamicMetadata():get("envoy.filters.http.lua")) do names[#names + 1] = name end
  response_handle:headers():add("x-names", table.concat(names, ","))
end""",
    "metadata": """
function envoy_on_request(h)
  local meta = h:metadata()
  h:headers():add("x-said", str(meta:get("foo")) .. str(meta:get("number")) .. str(meta:get("missing")))
  h:headers():add("x-list", table.concat(meta:get("list"), "+"))
  h:headers():add("x-route", str(h:route():metadata():get("foo")) .. str(h:virtualHost():metadata():get("foo")))
  local seen = {}
  for key in pairs(meta) do seen[#seen + 1] = key end
  table.sort(seen)
  h:headers():add("x-keys", table.concat(seen, "+"))
end""",
    "context": """
function envoy_on_request(request_handle)
  local filter_context = request_handle:filterContext()
  request_handle:headers():add("x-context", str(filter_context:get("key")) .. str(filter_context:get("missing")))
end""",
    "headers": """
function envoy_on_request(h)
  local headers = h:headers()
  headers:add("x-first", str(headers:getAtIndex("X-Many", 0)))
  headers:add("x-second", str(headers:getAtIndex("x-many", 1)))
  headers:add("x-third", str(headers:getAtIndex("x-many", 2)))
  headers:add("x-count", headers:getNumValues("x-many"))
  headers:add("x-joined", str(headers:get("x-many")))
  headers:add("x-none", str(headers:get("x-missing")))
  headers:replace("x-replaced", "by script")
  headers:replace("x-made", "new")
  headers:remove("x-gone")
  local walked = 0
  for key, value in pairs(headers) do walked = walked + (key == "x-many" and 1 or 0) end
  headers:add("x-walked", walked)
  headers:replace(":path", "/rewritten?by=script")
end
function envoy_on_response(h)
  h:headers():replace(":status", "201")
  h:headers():add("x-upper", "X-Value")
end""",
    "reason": """
function envoy_on_response(h) h:headers():setHttp1ReasonPhrase("Slow Down") end""",
    "stream-info": """
function envoy_on_request(h)
  local info = h:streamInfo()
  local port = function(address) return (address:gsub("^.*:", "")) end
  h:respond({[":status"] = "200"}, table.concat({
    info:protocol(), info:routeName(), info:virtualClusterName(), info:requestedServerName(),
    port(info:downstreamLocalAddress()), port(info:downstreamDirectLocalAddress()),
    tostring(#info:downstreamDirectRemoteAddress() > 6), tostring(#info:downstreamRemoteAddress() > 6),
    str(info:downstreamSslConnection()), str(h:connection():ssl()),
    str(info:dynamicTypedMetadata("x")), str(info:filterState():get("x")),
    str(info:dynamicMetadata():get("missing")),
    str(h:connectionStreamInfo():dynamicMetadata():get("missing")),
    str(h:connectionStreamInfo():dynamicTypedMetadata("missing")),
  }, "|"))
end""",
    "drain": """
function envoy_on_request(h) h:streamInfo():drainConnectionUponCompletion() end""",
    "drain-response": """
function envoy_on_response(h) h:streamInfo():drainConnectionUponCompletion() end""",
    "encodings": """
function envoy_on_request(h)
  h:respond({[":status"] = "200"}, table.concat({
    h:base64Escape("input string"), h:base64Escape(""), h:base64Escape("\\0\\255"),
    tostring(#str(h:timestamp())), tostring(#h:timestampString()),
    tostring(#h:timestampString(EnvoyTimestampResolution.MICROSECOND)),
    tostring(#h:timestampString(EnvoyTimestampResolution.MILLISECOND)),
    str(h:base64Decode("aW5wdXQ=")), str(h:base64Decode("aW5wdXQ")), str(h:base64Decode("?")),
    tostring((pcall(h.timestamp, h, EnvoyTimestampResolution.MICROSECOND))),
  }, "|"))
end""",
    "verify": """
function envoy_on_request(h)
  local out = {}
  local function verify(hash, key, signature, data)
    local der, sig = bytes(key), bytes(signature)
    local imported = h:importPublicKey(der, string.len(der)):get()
    local ok, message = h:verifySignature(hash, imported, sig, string.len(sig), data, string.len(data))
    out[#out + 1] = tostring(ok)
  end
  KEYS
  h:respond({[":status"] = "200"}, table.concat(out, "|"))
end""",
    "not-a-key": """
function envoy_on_request(h)
  h:respond({[":status"] = "200"}, str(h:importPublicKey("none", 4):get()))
end""",
    "trailers": """
function envoy_on_request(h)
  h:body()
  local trailers = h:trailers()
  if trailers then
    h:headers():add("x-trailer", trailers:get("x-sum"))
    trailers:add("x-more", "by script")
  else
    h:headers():add("x-trailer", "none")
  end
end""",
    "respond-list": """
function envoy_on_request(h)
  h:respond({[":status"] = 401, ["x-list"] = {"a", "b"}, ["content-type"] = "application/json"}, "{}")
end
function envoy_on_response(h) h:headers():add("x-seen-by-response", h:headers():get(":status")) end""",
    "respond-empty": """
function envoy_on_request(h) h:respond({[":status"] = "204"}) end""",
    "always-wrap": """
function envoy_on_request(h)
  local body = h:body()
  h:headers():add("x-nil", tostring(body == nil))
  h:body(true):setBytes("made")
end""",
    "clear-route": """
function envoy_on_request(h)
  h:headers():replace("x-choose", "other")
  h:clearRouteCache()
end""",
}
SCRIPTS["tls"] = """
function envoy_on_request(h)
  local tls = h:streamInfo():downstreamSslConnection()
  if not tls then h:respond({[":status"] = "200"}, "plain") end
  local name = tls:parsedSubjectPeerCertificate()
  local oids = tls:oidsLocalCertificate()
  h:respond({[":status"] = "200"}, table.concat({
    str(tls:peerCertificatePresented()), str(tls:peerCertificateValidated()), tls:tlsVersion(),
    tls:ciphersuiteString(), tls:ciphersuiteId(), tls:sha256PeerCertificateDigest(),
    tls:serialNumberPeerCertificate(), tls:issuerPeerCertificate(), tls:subjectPeerCertificate(),
    tls:subjectLocalCertificate(), table.concat(tls:uriSanPeerCertificate(), "+"),
    table.concat(tls:uriSanLocalCertificate(), "+"), table.concat(tls:dnsSansPeerCertificate(), "+"),
    table.concat(tls:dnsSansLocalCertificate(), "+"), table.concat(tls:oidsPeerCertificate(), "+"),
    table.concat(oids, "+"), str(tls:validFromPeerCertificate()), str(tls:expirationPeerCertificate()),
    tls:urlEncodedPemEncodedPeerCertificate(), #tls:urlEncodedPemEncodedPeerCertificateChain(),
    name and name:commonName() or "", name and table.concat(name:organizationName(), "+") or "",
    h:streamInfo():requestedServerName(),
  }, "|"))
end"""
SCRIPTS["verify"] = SCRIPTS["verify"].replace("KEYS", f"""
  verify("sha256", "{RSA_KEY}", "{RSA_SIGNATURE}", "the data")
  verify("SHA256", "{RSA_KEY}", "{RSA_SIGNATURE}", "other data")""")
SCRIPTS["verify-curve"] = f"""
function envoy_on_request(h)
  local der, sig = bytes("{EC_KEY}"), bytes("{EC_SIGNATURE}")
  local key = h:importPublicKey(der, #der):get()
  local ok = h:verifySignature("sha512", key, sig, #sig, "the data", 8)
  local wrong, message = h:verifySignature("sha1", key, sig, #sig, "the data", 8)
  local unknown = h:verifySignature("md9", key, sig, #sig, "the data", 8)
  h:respond({{[":status"] = "200"}}, tostring(ok) .. tostring(wrong) .. tostring(unknown))
end"""


def routes():
    made = [f"""
  - name: {name}
    match: [{{uri: {{prefix: /{name}/}}}}]
    route: [{{destination: {{host: lua.test}}}}]""" for name in SCRIPTS]
    return "".join(made)


def filters():
    lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3"
    sources = {name: {"inline_string": CALL + code} for name, code in SCRIPTS.items()}
    patches = [{
        "applyTo": "HTTP_FILTER",
        "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {
            "name": "envoy.filters.network.http_connection_manager",
            "subFilter": {"name": "envoy.filters.http.router"}}}}},
        "patch": {"operation": "INSERT_BEFORE", "value": {"name": "lua", "typed_config": {
            "@type": f"{lua}.Lua", "source_codes": sources, "filter_context": {"key": "of the filter"},
            "clear_route_cache": False}}},
    }]
    for name in SCRIPTS:
        said = {"@type": f"{lua}.LuaPerRoute", "name": name}
        if name == "context":
            said["filter_context"] = {"key": "xxxxxx"}
        value = {"typed_per_filter_config": {"lua": said}}
        if name == "metadata":
            value["metadata"] = {"filter_metadata": {"lua": {"foo": "bar", "number": 2, "list": ["a", "b"]}}}
        patches.append({
            "applyTo": "HTTP_ROUTE",
            "match": {"context": "GATEWAY", "routeConfiguration": {"vhost": {"route": {"name": name}}}},
            "patch": {"operation": "MERGE", "value": value},
        })
    return json.dumps({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": "lua", "namespace": "edge"},
        "spec": {"workloadSelector": {"labels": {"istio": "conformance-gateway"}}, "configPatches": patches},
    })


MANIFESTS = (service_entry("lua.test", {ALPHA: {}}, namespace="edge")
             + service_entry("lua-other.test", {BETA: {}}, namespace="edge")
             + service_entry("lua-call.test", {BETA: {}}, namespace="edge") + f"""
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: lua, namespace: edge}}
spec:
  selector: {{istio: conformance-gateway}}
  servers:
  - port: {{number: {PORT}, name: http-lua, protocol: HTTP}}
    hosts: [{HOST}]
  - port: {{number: {PORT + 1}, name: https-lua, protocol: HTTPS}}
    hosts: [{HOST}]
    tls: {{mode: OPTIONAL_MUTUAL, serverCertificate: "{{dir}}/tls/lua.example.pem", privateKey: "{{dir}}/tls/lua.example.key", caCertificates: "{{dir}}/tls/ca.pem"}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: lua, namespace: edge}}
spec:
  hosts: [{HOST}]
  gateways: [lua]
  http:
  - name: chosen-anew
    match: [{{headers: {{x-choose: {{exact: other}}}}}}]
    route: [{{destination: {{host: lua-other.test}}}}]
{routes()}
  - route: [{{destination: {{host: lua.test}}}}]
---
{filters()}
""")


def cases():
    case = Cases("lua", HOST, port=PORT, place="gateway")
    hello = {"method": "POST", "body": b"hello"}
    for name in SCRIPTS:
        # A length that the pieces no longer have makes Envoy's answer unreadable; we cut it.
        do = "chunked;" if name == "rewrite-chunks" else ""
        if name not in ("sizes", "call-with-body"):
            case.http1(f"{name} GET", f"/{name}/x", do=do)
        case.http1(f"{name} POST", f"/{name}/x", do=do + "header=foo:1;header=x-res:2", **hello)
        # There it is a GOAWAY before the answer, and our client reads no further.
        if not name.startswith("drain"):
            case.http2(f"{name} POST by HTTP/2", f"/{name}/x", do=do + "header=foo:1;header=x-res:2", **hello)
        case.http1(f"{name} chunked", f"/{name}/x", method="POST", headers=[("Transfer-Encoding", "chunked")],
                   body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", do="chunked")
    for name in ("sizes", "rewrite", "call-in-response"):
        case.http1(f"{name} HEAD", f"/{name}/x", method="HEAD", body=b"x")
        case.http1(f"{name} large", f"/{name}/x", method="POST", body=b"x", do="length=200000")
        case.http1(f"{name} until close", f"/{name}/x", method="POST", body=b"x", do="until-close")
        case.http1(f"{name} large request", f"/{name}/x", method="POST", body=b"y" * 200_000)
    case.http1("too large request", "/sizes/x", method="POST", body=b"y" * 1_100_000)
    case.http1("no body in the response", "/sizes/x", method="POST", body=b"x", do="status=204")
    case.http1("too large response", "/sizes/x", method="POST", body=b"x", do="length=1100000")
    many = [("x-many", "one"), ("X-Many", "two"), ("x-replaced", "a"), ("x-replaced", "b"), ("x-gone", "1")]
    case.http1("headers that repeat", "/headers/x", headers=many)
    case.http2("headers that repeat by HTTP/2", "/headers/x", headers=[(name.lower(), value) for name, value in many])
    case.http1("metadata of a request", "/dynamic-metadata/x",
               headers=[("Authorization", "Basic a"), ("x-request-token", "t")])
    case.http2("trailers by HTTP/2", "/trailers/x", trailers=[("x-sum", "7")], **hello)
    ca = "{dir}/tls/ca.pem"
    mine = {"certificate": "{dir}/tls/client.example.pem", "key": "{dir}/tls/client.example.key"}
    for name, more in {"with a certificate": mine, "without": {}}.items():
        case.http1(f"tls {name}", "/tls/x", port=PORT + 1, tls={"roots": ca, "sni": HOST, "alpn": ["http/1.1"], **more})
    case.http1("no script", "/none/x", **hello)
    return case


FEATURES = [Feature("lua", MANIFESTS, cases(), [upstream("alpha", ALPHA), upstream("beta", BETA)], gateway_ports=(PORT, PORT + 1), certificates=("lua.example", "client.example"))]
