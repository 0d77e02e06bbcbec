//! Behaviour of scripts, on a plain list of headers.

use std::path::PathBuf;

use super::*;

/// A head as a list of lines, and what was logged.
#[derive(Debug, Default)]
struct Head {
    lines: Vec<(String, String)>,
    logged: Vec<String>,
}

impl Stream for Head {
    fn header(&self, name: &[u8], index: usize) -> Option<&[u8]> {
        let same = self.lines.iter().filter(|(n, _)| n.as_bytes().eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_bytes()).nth(index)
    }

    fn each_header(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in &self.lines {
            visit(name.as_bytes(), value.as_bytes());
        }
    }

    fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        if value.contains(&b'\n') {
            return Err("a header value with a line end".to_owned());
        }
        self.lines.push((text(name), text(value)));
        Ok(())
    }

    fn remove_header(&mut self, name: &[u8]) -> Result<(), String> {
        self.lines.retain(|(n, _)| !n.as_bytes().eq_ignore_ascii_case(name));
        Ok(())
    }

    fn replace_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        self.remove_header(name)?;
        self.add_header(name, value)
    }

    fn log(&mut self, level: LogLevel, text: &str) {
        self.logged.push(format!("{level:?} {text}"));
    }

    fn protocol(&self) -> &'static str {
        "HTTP/1.1"
    }

    fn requested_server_name(&self) -> &str {
        "api.data.local"
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn modules() -> Option<PathBuf> {
    Some(PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/credential-egress/lua"
    )))
}

fn request() -> Head {
    let lines = [
        (":method", "POST"),
        (":path", "/graphql"),
        (":authority", "api.data.local"),
        ("x-a", "1"),
        ("X-A", "2"),
    ];
    let lines = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Head { lines, logged: Vec::new() }
}

fn run(source: &str) -> (Head, Result<Verdict, ScriptError>) {
    let script = Script::new("test", source, modules()).unwrap();
    script.instance::<Head>().unwrap().on_request(request())
}

/// Runs the body of `envoy_on_request(h)` and returns what it logged.
#[track_caller]
fn logged(body: &str) -> Vec<String> {
    let (head, verdict) = run(&format!("function envoy_on_request(h)\n{body}\nend"));
    assert_eq!(verdict.unwrap(), Verdict::Continue, "{body}");
    head.logged
}

#[track_caller]
fn fails(body: &str, because: &str) {
    let (_, verdict) = run(&format!("function envoy_on_request(h)\n{body}\nend"));
    let error = verdict.expect_err(body).to_string();
    assert!(error.contains(because), "{body}: {error}");
}

#[test]
fn headers_are_read_as_in_envoy() {
    assert_eq!(logged("h:logInfo(h:headers():get(':method'))"), ["Info POST"]);
    assert_eq!(logged("h:logInfo(h:headers():get('x-a'))"), ["Info 1,2"]);
    assert_eq!(logged("h:logInfo(h:headers():getAtIndex('x-a', 1))"), ["Info 2"]);
    assert_eq!(logged("h:logInfo(tostring(h:headers():getNumValues('X-A')))"), ["Info 2"]);
    assert_eq!(logged("h:logWarn(tostring(h:headers():get('absent')))"), ["Warn nil"]);
    let all = "local n = 0 for k, v in pairs(h:headers()) do n = n + 1 end h:logInfo(n)";
    assert_eq!(logged(all), ["Info 5"]);
    assert_eq!(logged("h:logErr(h:streamInfo():requestedServerName())"), ["Error api.data.local"]);
    assert_eq!(logged("h:logInfo(h:base64Escape('light w'))"), ["Info bGlnaHQgdw=="]);
}

#[test]
fn headers_are_changed() {
    let (head, verdict) = run("function envoy_on_request(h)
        h:headers():add('x-new', 'n') h:headers():remove('x-a') h:headers():replace(':path', '/b')
    end");
    assert_eq!(verdict.unwrap(), Verdict::Continue);
    assert_eq!(head.header(b"x-new", 0), Some(&b"n"[..]));
    assert_eq!(head.header(b"x-a", 0), None);
    assert_eq!(head.header(b":path", 0), Some(&b"/b"[..]));
}

#[test]
fn respond_ends_the_script_even_inside_pcall() {
    let (head, verdict) = run("function envoy_on_request(h)
        pcall(function() h:respond({[':status'] = '403', ['x-why'] = 'no'}, 'stop') end)
        h:logInfo('still here')
    end");
    let headers = vec![(b"x-why".to_vec(), b"no".to_vec())];
    let respond = Respond { status: 403, headers, body: b"stop".to_vec() };
    assert_eq!(verdict.unwrap(), Verdict::Respond(respond));
    assert!(head.logged.is_empty());
}

#[test]
fn a_script_that_fails_says_where() {
    fails("\nerror('no key')", "test:3: no key");
    fails("h:headers():add('a', 'b\\nc')", "a header value with a line end");
    fails("h:httpCall('c', {}, '', 10)", "httpCall is not supported");
    fails("h:respond({}, '')", ":status must be");
    fails("coroutine.yield()", "yielded");
    let script = Script::new("bad", "function (", None).unwrap_err();
    assert!(script.to_string().contains("bad:1"), "{script}");
}

#[test]
fn what_reaches_outside_is_not_there() {
    for name in ["os.execute", "os.exit", "os.remove", "io.popen", "io.lines", "string.dump"] {
        assert_eq!(logged(&format!("h:logInfo(tostring({name}))")), ["Info nil"], "{name}");
    }
    for name in ["debug", "jit", "package", "dofile", "loadfile", "ffi"] {
        assert_eq!(logged(&format!("h:logInfo(tostring({name}))")), ["Info nil"], "{name}");
    }
    fails("require('ffi')", "module 'ffi' not found");
    fails("require('../../etc/passwd')", "not a module name");
    let write = "local f, why = io.open('/tmp/sluis-script-test', 'w') h:logInfo(why)";
    assert!(logged(write)[0].contains("only be read"));
    assert_eq!(logged("h:logInfo(tostring(load('\\27LJ')))"), ["Info nil"]);
}

#[test]
fn a_script_without_end_is_broken_off() {
    let (_, verdict) = run("function envoy_on_request(h) while true do end end");
    assert!(matches!(verdict, Err(ScriptError::Endless)), "{verdict:?}");
    let (_, verdict) = run("function envoy_on_request(h)
        while true do pcall(function() while true do end end) end end");
    assert!(matches!(verdict, Err(ScriptError::Endless)), "{verdict:?}");
}

#[test]
fn a_script_that_hoards_is_broken_off() {
    let (_, verdict) = run("function envoy_on_request(h)
        local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end end");
    assert!(matches!(verdict, Err(ScriptError::Memory)), "{verdict:?}");
}

#[test]
fn a_handle_kept_from_an_earlier_call_is_empty_between_calls() {
    let source = "function envoy_on_request(h) kept = h end
        function envoy_on_response(h) h:logInfo(h:headers():get(':status')) end";
    let script = Script::new("test", source, None).unwrap();
    let instance = script.instance::<Head>().unwrap();
    assert!(instance.sees_requests() && instance.sees_responses());
    instance.on_request(request()).1.unwrap();
    let answer = Head { lines: vec![(":status".to_owned(), "200".to_owned())], logged: vec![] };
    let (head, verdict) = instance.on_response(answer);
    verdict.unwrap();
    assert_eq!(head.logged, ["Info 200"]);
}

/// FIPS 180-4 examples and RFC 4231 test cases 1, 2, 6 and 7.
#[test]
fn our_hash_module_gives_the_published_digests() {
    let check = |expression: &str, digest: &str| {
        let body = format!("local hash = require('lib.hash') h:logInfo({expression})");
        assert_eq!(logged(&body), [format!("Info {digest}")], "{expression}");
    };
    check("hash.sha256('')", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check("hash.sha256('abc')", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check(
        "hash.sha256('abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq')",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    );
    check(
        "hash.hmac(hash.sha256, ('\\11'):rep(20), 'Hi There')",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    );
    check(
        "hash.hmac(hash.sha256, 'Jefe', 'what do ya want for nothing?')",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    );
    check(
        "hash.hmac(hash.sha256, ('\\170'):rep(131), \
         'Test Using Larger Than Block-Size Key - Hash Key First')",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    );
    check(
        "hash.hmac(hash.sha256, ('\\170'):rep(131), 'This is a test using a larger than block-size \
         key and a larger than block-size data. The key needs to be hashed before being used by \
         the HMAC algorithm.')",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    );
}
