"""What one hop does, and how each proxy is told: the same work, in the words of each.

A `Shape` says what comes in, what is done and how the origin is spoken to. `command` writes the
configuration of one proxy for it and gives the command that starts it, or None for a proxy that
cannot do such work. sluis-proxy and Envoy read the same bootstrap.
"""

import dataclasses
import json
import pathlib
import resource
import subprocess

TYPE = "type.googleapis.com/envoy.extensions."
CORE = "envoy.extensions.filters.http."
NAME = "bench.local"
FLOORS = {"floor": "epoll", "floor-uring": "uring"}  # no proxies: the least that one can cost, and how
DESCRIPTORS_FOR_OTHERS = 500  # than connections
KEY = "secret-key-of-the-bench"
ASKED = "localhost"  # what wrk puts into a hello: the name in its URL


def connections_max(ends=2):
    """How many connections a proxy can have with the descriptors that it may open: each has two ends, and may have a pipe."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - DESCRIPTORS_FOR_OTHERS) // ends


@dataclasses.dataclass(frozen=True)
class Shape:
    """One hop. `front`: http, tls, mtls, h2 (over TLS), h2c, tcp, sni; `back`: http, tls, mtls, h2c, tcp."""

    front: str = "http"
    back: str = "http"
    log: bool = False
    rules: int = 0  # authorization rules, of which the last lets through
    keys: str = ""  # a JSON Web Key Set: requests carry a token
    forgets: bool = False  # a token that was verified is verified again
    routes: tuple = ()  # a kind (exact, prefix, regex) and how many; the last is asked for
    clusters: int = 1
    script: str = ""  # Lua
    signs: bool = False  # our own signer, with the same key and text as the script
    answers: bool = False  # without an origin
    connections: int = 2048  # as many as nginx and HAProxy are told to make room for
    version: int | None = None  # a field of every answer, to tell one configuration from the next


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a hop listens and leads, and its folder with certificates."""

    port: int
    next_port: int
    folder: pathlib.Path
    number: int = 0

    def file(self, name):
        return self.folder / f"{name}{self.number or ''}"


def floor(proxy, place):
    """What a proxy's calls cost by themselves (floor.c), by epoll or by io_uring."""
    by, program = FLOORS[proxy], place.file(proxy)
    uring = ["-DURING", "-luring"] if by == "uring" else []
    source = pathlib.Path(__file__).with_name("floor.c")
    subprocess.run(["cc", "-O2", "-o", program, source, *uring], check=True)
    return [program, by, str(place.port), str(place.next_port)]


def command(proxy, shape, place, options):
    """The command that starts `proxy` in this shape, or None."""
    if proxy in FLOORS:
        return floor(proxy, place)
    if proxy in ("sluis", "envoy"):
        if shape.signs and proxy == "envoy":
            return None
        path = place.file("envoy").with_suffix(".yaml")
        path.write_text(json.dumps(bootstrap(shape, place)))
        return start_command(proxy, path, place, options)
    if shape.rules or shape.keys or shape.script or shape.routes or shape.clusters > 1:
        return None
    text = {"nginx": nginx, "haproxy": haproxy}[proxy](shape, place)
    if text is None:
        return None
    path = place.file(proxy).with_suffix(".conf")
    path.write_text(text)
    return [options.nginx, "-p", place.folder, "-c", path] if proxy == "nginx" else [options.haproxy, "-db", "-f", path]


def start_command(proxy, path, place, options):
    """What starts sluis-proxy or Envoy with a bootstrap."""
    if proxy == "envoy":
        return [options.envoy, "-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error",
                "--base-id", str(place.number)]
    compiled = path.with_suffix(".pb")
    with open(compiled, "wb") as out:
        subprocess.run([options.sluis, "proxy", "bootstrap", "--compile", path], stdout=out, check=True)
    return [options.sluis_proxy, "run", "--bootstrap", compiled, "--workers", "1"]


# -- Envoy's words


def typed(kind, **fields):
    return {"@type": TYPE + kind, **fields}


def bootstrap(shape, place):
    address = {"socket_address": {"address": "127.0.0.1", "port_value": place.port}}
    chain = {"filters": [manager(shape, place) if shape.front not in ("tcp", "sni") else tcp(shape, place)]}
    listener = {"name": "in", "address": address, "filter_chains": [chain]}
    if shape.front in ("tls", "mtls", "h2"):
        chain["transport_socket"] = server_tls(shape, place)
    if shape.front == "sni":
        chain["filter_chain_match"] = {"server_names": [ASKED]}
        listener["listener_filters"] = [{
            "name": "tls", "typed_config": typed("filters.listener.tls_inspector.v3.TlsInspector")}]
    clusters = [cluster(shape, place, f"origin{n or ''}") for n in range(shape.clusters)]
    secrets = [{"name": "key", "generic_secret": {"secrets": {"key": {"inline_string": KEY}}}}] if shape.signs else []
    return {"node": {"id": "bench", "cluster": "bench"},
            "static_resources": {"listeners": [listener], "clusters": clusters, "secrets": secrets}}


def server_tls(shape, place):
    pair = {"certificate_chain": {"filename": f"{place.folder}/server.pem"},
            "private_key": {"filename": f"{place.folder}/server.key"}}
    common = {"tls_certificates": [pair], "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"}}
    if shape.front == "h2":
        common["alpn_protocols"] = ["h2"]
    if shape.front == "mtls":
        common["validation_context"] = {"trusted_ca": {"filename": f"{place.folder}/ca.pem"}}
    return {"name": "tls", "typed_config": typed(
        "transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context=common,
        require_client_certificate=shape.front == "mtls")}


def client_tls(shape, place):
    common = {"validation_context": {
        "trusted_ca": {"filename": f"{place.folder}/ca.pem"},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}]},
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}}
    if shape.back == "mtls":
        common["tls_certificates"] = [{"certificate_chain": {"filename": f"{place.folder}/client.pem"},
                                       "private_key": {"filename": f"{place.folder}/client.key"}}]
    return {"name": "tls", "typed_config": typed(
        "transport_sockets.tls.v3.UpstreamTlsContext", sni=NAME, common_tls_context=common)}


def cluster(shape, place, name):
    most = {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": place.next_port}}}
    made = {
        "name": name, "type": "STATIC", "connect_timeout": "2s", "circuit_breakers": {"thresholds": [most]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}}
    if shape.back in ("tls", "mtls") and shape.front != "sni":
        made["transport_socket"] = client_tls(shape, place)
    if shape.back == "h2c":
        made["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
            "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http2_protocol_options": {}})}
    if shape.signs:
        made["transport_socket"]["typed_config"].pop("sni")
        made["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
            "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={"http_protocol_options": {}},
            upstream_http_protocol_options={"auto_sni": True, "auto_san_validation": True}, http_filters=[
                {"name": "sluis.filters.http.credentials", "typed_config": credential()},
                {"name": "codec", "typed_config": typed("filters.http.upstream_codec.v3.UpstreamCodec")}])}
    return made


def credential():
    """What the script does, as a Credential."""
    anything = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    hmac = {"key": "key", "string_to_sign": "{method}\n{authority}\n{path_and_query}",
            "outputs": [{"header": "x-authorization", "template": "Signature={signature:hex}"}]}
    return {"@type": "type.googleapis.com/sluis.egress.v1alpha1.CredentialInjection", "credentials": [{
        "name": "bench/signer", "secret": {"name": "key"}, "grants": [{"name": "bench/any", "policy": anything}],
        "guard": {"hosts": [NAME]}, "hmac": hmac}]}


def file_log(place):
    return [{"name": "file", "typed_config": typed(
        "access_loggers.file.v3.FileAccessLog", path=str(place.file("access.log")))}]


def tcp(shape, place):
    logs = {"access_log": file_log(place)} if shape.log else {}
    return {"name": "tcp", "typed_config": typed(
        "filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="bench", cluster="origin", **logs)}


def manager(shape, place):
    logs = {"access_log": file_log(place)} if shape.log else {}
    filters = []
    if shape.keys:
        filters.append({"name": CORE + "jwt_authn", "typed_config": typed(
            "filters.http.jwt_authn.v3.JwtAuthentication",
            providers={"me": {"issuer": "me.test", "payload_in_metadata": "payload", "local_jwks": {"inline_string": shape.keys},
                              "jwt_cache_config": {"jwt_cache_size": 100, "jwt_max_token_size": 1 if shape.forgets else 4096}}},
            rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "me"}}])})
    if shape.rules:
        filters.append({"name": CORE + "rbac", "typed_config": typed("filters.http.rbac.v3.RBAC", rules=rbac(shape.rules))})
    if shape.script:
        filters.append({"name": CORE + "lua", "typed_config": typed(
            "filters.http.lua.v3.Lua", default_source_code={"inline_string": shape.script})})
    filters.append({"name": CORE + "router", "typed_config": typed("filters.http.router.v3.Router")})
    marks = {} if shape.version is None else {
        "response_headers_to_add": [{"header": {"key": "x-version", "value": str(shape.version)}}]}
    return {"name": "http", "typed_config": typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="bench",
        codec_type="HTTP2" if shape.front == "h2c" else "AUTO", use_remote_address=True, generate_request_id=True,
        normalize_path=True, merge_slashes=True, http_filters=filters,
        route_config={"name": "bench", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes(shape), **marks}]},
        **logs)}


def routes(shape):
    where = {"direct_response": {"status": 200, "body": {"inline_string": "hello"}}} if shape.answers else {
        "route": {"cluster": "origin", "timeout": "60s"}}
    if not shape.routes:
        return [{"match": {"prefix": "/"}, **where}]
    kind, count = shape.routes

    def match(number):
        path = f"/api/v1/items{number}"
        return {"exact": {"path": path}, "prefix": {"prefix": path + "/"},
                "regex": {"safe_regex": {"regex": f"/api/v1/items{number}/[a-z]+"}}}[kind]

    made = []
    for number in range(count):
        to = f"origin{(number + 1) % shape.clusters or ''}"
        made.append({"match": match(number), "route": {"cluster": to, "timeout": "60s"}})
    return made


def rbac(count):
    """Rules of another identity each, and one for everybody's GET: none but the last holds."""
    named = lambda name: {"authenticated": {"principal_name": {"exact": name}}}
    policies = {
        f"p{n:04}": {"permissions": [{"url_path": {"path": {"prefix": f"/team{n}/"}}}],
                     "principals": [named(f"spiffe://cluster.local/ns/team{n}/sa/app")]}
        for n in range(count - 1)}
    policies["q"] = {"permissions": [{"header": {"name": ":method", "string_match": {"exact": "GET"}}}],
                     "principals": [{"any": True}]}
    return {"action": "ALLOW", "policies": policies}


# -- nginx's words

NGINX = """
daemon off; worker_processes 1; pid {dir}/{proxy}.pid; error_log {dir}/{proxy}.log warn;
{modules}
events {{ worker_connections {most}; }}
{body}
"""
NGINX_HTTP = """
http {{
  access_log {log};
  keepalive_requests 100000000; keepalive_timeout 600s; client_max_body_size 0;
  client_body_temp_path {dir}/{proxy}-body; proxy_temp_path {dir}/{proxy}-proxy;
  fastcgi_temp_path {dir}/{proxy}-fastcgi; uwsgi_temp_path {dir}/{proxy}-uwsgi; scgi_temp_path {dir}/{proxy}-scgi;
  upstream origin {{ server 127.0.0.1:{next}; keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} {listen} backlog=4096;
    {tls}
    location / {{ {location} }}
  }}
}}
"""
NGINX_FORWARD = """
      proxy_pass {scheme}://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Request-Id $request_id; {client} {mark}"""
NGINX_STREAM = """
stream {{
  upstream origin {{ server 127.0.0.1:{next}; }}
  map $ssl_preread_server_name $name {{ localhost origin; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; {preread} proxy_pass {to}; }}
}}
"""


def nginx(shape, place):
    facts = {"dir": place.folder, "proxy": f"nginx-{place.number}", "port": place.port, "next": place.next_port,
             "modules": "", "most": min(2 * shape.connections, connections_max(1)), "log": f"{place.file('access.log')} combined buffer=64k flush=1s" if shape.log else "off"}
    if shape.front in ("tcp", "sni"):
        module = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
        if not module.exists():
            return None
        facts["modules"] = f"load_module {module};"
        is_sni = shape.front == "sni"
        body = NGINX_STREAM.format(**facts, preread="ssl_preread on;" if is_sni else "", to="$name" if is_sni else "origin")
        return NGINX.format(**facts, body=body)
    if shape.front == "h2c" or shape.back == "h2c":
        return None  # its HTTP/2 to origins is grpc_pass alone
    tls = ""
    if shape.front in ("tls", "mtls", "h2"):
        tls = (f"ssl_certificate {place.folder}/server.pem; ssl_certificate_key {place.folder}/server.key;"
               " ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;")
    if shape.front == "mtls":
        tls += f" ssl_client_certificate {place.folder}/ca.pem; ssl_verify_client on;"
    client = ""
    if shape.back in ("tls", "mtls"):
        client = (f"proxy_ssl_name {NAME}; proxy_ssl_server_name on; proxy_ssl_verify on; proxy_ssl_protocols TLSv1.3;"
                  f" proxy_ssl_trusted_certificate {place.folder}/ca.pem; proxy_ssl_verify_depth 2;")
    if shape.back == "mtls":
        client += f" proxy_ssl_certificate {place.folder}/client.pem; proxy_ssl_certificate_key {place.folder}/client.key;"
    forward = NGINX_FORWARD.format(scheme="https" if shape.back in ("tls", "mtls") else "http", client=client,
                                   mark="" if shape.version is None else f"add_header X-Version {shape.version};")
    listen = {"http": "", "h2": "ssl http2"}.get(shape.front, "ssl")
    location = 'return 200 "hello";' if shape.answers else forward
    return NGINX.format(**facts, body=NGINX_HTTP.format(**facts, listen=listen, tls=tls, location=location))


# -- HAProxy's words

HAPROXY = """
global
  nbthread 1
  maxconn {most}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
{log}
defaults
  mode {mode}
  timeout connect 2s
  timeout client 60s
  timeout server 60s
{defaults}
frontend in
  bind 127.0.0.1:{port} {bind} backlog 4096
{rules}
{origin}
"""


def haproxy(shape, place):
    is_tcp = shape.front in ("tcp", "sni")
    defaults = ["option splice-auto"] if is_tcp else ["option http-keep-alive", "http-reuse always", "option forwardfor"]
    rules = ["default_backend origin"]
    bind = ""
    if shape.log:
        rules = ["log global", "option httplog", *rules]  # to standard output, which is a file
    if shape.front == "sni":
        rules = ["tcp-request inspect-delay 5s", "tcp-request content accept if { req.ssl_hello_type 1 }",
                 f"use_backend origin if {{ req.ssl_sni -i {ASKED} }}"]
    if not is_tcp:
        rules = ["unique-id-format %[uuid()]", "unique-id-header X-Request-Id",
                 "http-request set-header X-Forwarded-Proto http", *rules]
    if shape.version is not None:
        rules = [f"http-response set-header X-Version {shape.version}", *rules]
    if shape.front in ("tls", "mtls", "h2"):
        bind = f"ssl crt {place.folder}/both.pem curves X25519" + (" alpn h2" if shape.front == "h2" else "")
    if shape.front == "mtls":
        bind += f" ca-file {place.folder}/ca.pem verify required"
    if shape.front == "h2c":
        bind = "proto h2"
    server = f"server origin 127.0.0.1:{place.next_port}" + ("" if is_tcp else " pool-max-conn 1024")
    if shape.back in ("tls", "mtls") and shape.front != "sni":
        server += f" ssl sni str({NAME}) verify required verifyhost {NAME} ca-file {place.folder}/ca.pem"
    if shape.back == "mtls":
        server += f" crt {place.folder}/client-both.pem"
    if shape.back == "h2c":
        server += " proto h2"
    if shape.answers:
        rules = ['http-request return status 200 content-type text/plain string "hello"']
    indent = lambda lines: "\n".join("  " + line for line in lines)
    return HAPROXY.format(log="  log fd@1 format raw local0" if shape.log else "", most=min(shape.connections, connections_max(4 if is_tcp else 2)), mode="tcp" if is_tcp else "http", defaults=indent(defaults), port=place.port,
                          bind=bind, rules=indent(rules),
                          origin="" if shape.answers else "backend origin\n" + indent([server]))
