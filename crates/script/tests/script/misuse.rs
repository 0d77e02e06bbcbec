//! Scripts that nobody would write: whatever they do with what they are given, they run or fail.

use std::fmt::Write as _;

use sluis_script::Side;

use crate::support::{Headers, compile, pass, request};

/// Scripts of one run of the test: a few seconds in a debug build.
const SCRIPTS: u64 = 3000;

/// Numbers that look random, the same each time (Knuth's multiplier).
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const METHODS: [&str; 58] = [
    "headers",
    "body",
    "bodyChunks",
    "trailers",
    "httpCall",
    "respond",
    "metadata",
    "streamInfo",
    "connection",
    "connectionStreamInfo",
    "setUpstreamOverrideHost",
    "clearRouteCache",
    "filterContext",
    "importPublicKey",
    "verifySignature",
    "base64Escape",
    "base64Decode",
    "timestamp",
    "timestampString",
    "virtualHost",
    "route",
    "stats",
    "logInfo",
    "logTrace",
    "add",
    "get",
    "getAtIndex",
    "getNumValues",
    "remove",
    "replace",
    "setHttp1ReasonPhrase",
    "length",
    "getBytes",
    "setBytes",
    "set",
    "protocol",
    "routeName",
    "dynamicMetadata",
    "dynamicTypedMetadata",
    "filterState",
    "downstreamSslConnection",
    "requestedServerName",
    "drainConnectionUponCompletion",
    "ssl",
    "peerCertificatePresented",
    "uriSanPeerCertificate",
    "parsedSubjectPeerCertificate",
    "commonName",
    "organizationName",
    "tlsVersion",
    "sessionId",
    "validFromPeerCertificate",
    "__gc",
    "__index",
    "__pairs",
    "__call",
    "__name",
    "missing",
];

const VALUES: [&str; 34] = [
    "nil",
    "true",
    "false",
    "0",
    "-1",
    "1",
    "2",
    "1e300",
    "-1e300",
    "0/0",
    "2^53",
    "1e9",
    "''",
    "'x'",
    "':path'",
    "':status'",
    "'200'",
    "'a\\r\\nb'",
    "'\\0'",
    "('x'):rep(5000)",
    "{}",
    "{1, 2}",
    "{a = 1}",
    "{[':status'] = '200'}",
    "{[':status'] = '403', a = {'b', {}}}",
    "{[':method'] = 'GET', [':path'] = '/', [':authority'] = 'a'}",
    "'service'",
    "print",
    "{asynchronous = true, timeout_ms = -1}",
    "{timeout_ms = 5}",
    "'sha256'",
    "h",
    "last",
    "kept",
];

/// An object that a script may have in its hand.
const OBJECTS: [&str; 12] = [
    "h",
    "last",
    "kept",
    "h:headers()",
    "h:streamInfo()",
    "h:streamInfo():dynamicMetadata()",
    "h:metadata()",
    "h:connection():ssl()",
    "h:filterContext()",
    "h:body(true)",
    "h:trailers()",
    "h:streamInfo():filterState()",
];

fn expression(draw: &mut Draw) -> String {
    let mut text = format!("{}:{}(", draw.one(&OBJECTS), draw.one(&METHODS));
    for at in 0..draw.below(5) {
        let comma = if at > 0 { ", " } else { "" };
        write!(text, "{comma}{}", draw.one(&VALUES)).unwrap();
    }
    text.push(')');
    text
}

fn statement(draw: &mut Draw, depth: usize) -> String {
    let inner = |draw: &mut Draw| match depth {
        0 => String::new(),
        _ => statement(draw, depth - 1),
    };
    match draw.below(14) {
        0 => format!("for chunk in h:bodyChunks() do last = chunk {} end", inner(draw)),
        1 => format!(
            "for k, v in pairs({}) do last = v {} break end",
            draw.one(&OBJECTS),
            inner(draw)
        ),
        2 => format!("pcall(function() {} end)", inner(draw)),
        3 => format!("coroutine.wrap(function() {} end)()", inner(draw)),
        4 => "coroutine.yield(h)".to_owned(),
        5 => format!("kept = {}", draw.one(&OBJECTS)),
        6 => format!(
            "setmetatable({{}}, {{__gc = function() {} end}}) collectgarbage()",
            inner(draw)
        ),
        7 => {
            format!("xpcall(function() error({}) end, function(e) last = e end)", draw.one(&VALUES))
        }
        8 => format!("string.rep = function() {} end", inner(draw)),
        9 => format!("table.sort({{3, 2, 1}}, function() {} end)", inner(draw)),
        10 => format!("getmetatable({}).__index = nil", draw.one(&OBJECTS)),
        _ => format!("last = {}", expression(draw)),
    }
}

/// What must not be there, whatever a script has done before.
const FENCE: &str = "
    local function fence()
      for _, name in ipairs({'debug', 'ffi', 'dofile', 'loadfile', 'newproxy'}) do
        if rawget(_G, name) ~= nil then escaped = name end
      end
      for _, name in ipairs({'execute', 'exit', 'remove', 'rename', 'tmpname'}) do
        if type(os) == 'table' and rawget(os, name) ~= nil then escaped = name end
      end
      if type(string) == 'table' and rawget(string, 'dump') ~= nil then escaped = 'dump' end
      for _, name in ipairs({'popen', 'output', 'write', 'stdout'}) do
        if type(io) == 'table' and rawget(io, name) ~= nil then escaped = name end
      end
      for _, name in ipairs({'ffi', 'debug', 'jit.util', 'jit.opt'}) do
        if pcall(require, name) then escaped = name end
      end
      if load('\\27LJ\\2') then escaped = 'bytecode' end
    end";

#[test]
fn no_script_panics_or_leaves_the_sandbox() {
    let mut draw = Draw(0x5151_5551);
    let (mut passed, mut failed) = (0, 0);
    for _ in 0..SCRIPTS {
        let mut body = String::new();
        for _ in 0..1 + draw.below(6) {
            let depth = draw.below(4);
            writeln!(body, "{}", statement(&mut draw, depth)).unwrap();
        }
        let source = format!(
            "{FENCE}
             function envoy_on_request(h) {body} fence() end
             function envoy_on_response(h) fence() h:headers():add('x-escaped', tostring(escaped)) end"
        );
        let script = compile(&source).unwrap();
        for trailers in [None, Some(vec![(b"x-sum".to_vec(), b"1".to_vec())])] {
            let mut stream = Headers { trailers, ..request() };
            match pass(&script, Side::Request, &mut stream) {
                Ok(_) => passed += 1,
                Err(_) => failed += 1,
            }
            let mut response = Headers::default();
            // A script may have broken what the fence itself uses: then it fails, which is fine.
            if pass(&script, Side::Response, &mut response).is_ok() {
                assert_eq!(response.all("x-escaped"), ["nil"], "{body}");
            }
        }
    }
    assert!(passed > 100 && failed > 100, "{passed} passed, {failed} failed");
}
