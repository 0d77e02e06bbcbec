//! The headers and other objects of a handle.

use sluis_script::{Level, Response, Side};

use crate::support::{
    Headers, Outcome, compile, eval, failure, on_request, on_response, request, run,
};

#[track_caller]
fn check(expression: &str, expected: &str) {
    assert_eq!(eval(expression), expected, "{expression}");
}

#[test]
fn headers_are_read_by_name_in_any_case() {
    check("h:headers():get(':method')", "POST");
    check("h:headers():get(':path')", "/graphql?x=1");
    check("h:headers():get('ACCEPT')", "a/b,c/d");
    check("h:headers():get('missing')", "nil");
    check("h:headers():getAtIndex('accept', 1)", "c/d");
    check("h:headers():getAtIndex('accept', 2)", "nil");
    check("h:headers():getAtIndex('accept', -1)", "nil");
    check("h:headers():getNumValues('accept')", "2");
    check("h:headers():getNumValues('missing')", "0");
}

#[test]
fn headers_are_walked_in_order() {
    let walk = "(function() local s = '' for k, v in pairs(h:headers()) do \
        h:headers():remove('accept') s = s .. k .. '=' .. v .. ';' end return s end)()";
    check(
        walk,
        ":method=POST;:scheme=https;:authority=api.data.local;:path=/graphql?x=1;\
         accept=a/b;accept=c/d;content-length=3;",
    );
}

#[test]
fn changes_are_seen_by_the_script_and_reach_the_stream() {
    let (outcome, stream) = run("local headers = h:headers()
        headers:add('X-A', 'one')
        headers:add('x-a', 2)
        assert(headers:get('x-a') == 'one,2')
        headers:replace('Accept', 'e/f')
        assert(headers:getNumValues('accept') == 1)
        headers:replace(':path', '/other')
        headers:remove('content-length')
        assert(headers:get('content-length') == nil)");
    assert_eq!(outcome.unwrap(), Outcome::Continue);
    assert_eq!(stream.all("x-a"), ["one", "2"]);
    assert_eq!(stream.all("accept"), ["e/f"]);
    assert_eq!(stream.all(":path"), ["/other"]);
    assert_eq!(stream.all("content-length"), [""; 0]);
}

#[test]
fn a_header_that_would_split_the_request_is_refused() {
    for body in [
        "h:headers():add('x', 'a\\r\\nb: c')",
        "h:headers():add('x', 'a\\0')",
        "h:headers():add('x y', 'a')",
        "h:headers():add('x:', 'a')",
        "h:headers():add('', 'a')",
        "h:headers():add(':path', '/')",
        "h:headers():remove(':path')",
        "h:headers():add('x', nil)",
    ] {
        failure(body);
    }
    assert_eq!(
        failure("h:headers():add('transfer-encoding', 'chunked')"),
        "header transfer-encoding is refused: frames the message"
    );
}

#[test]
fn a_failed_script_changes_nothing() {
    let message = failure("h:headers():add('x', 'y')\nerror('no')");
    assert_eq!(message, "script test failed: test:3: no");
    assert!(failure("local x = nil\nx.y = 1").contains("test:3:"));
    assert!(failure("error({})").starts_with("script test failed"));
    assert!(failure("coroutine.yield()").contains("yields"));
}

#[test]
fn a_script_answers_itself() {
    let (outcome, stream) = run("h:headers():add('x', 'y')
        h:respond({[':status'] = 403, ['Content-Type'] = 'text/plain', b = {'1', '2'}}, 'no')
        error('never')");
    let header = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let response = Response {
        status: 403,
        headers: vec![header("b", "1"), header("b", "2"), header("content-type", "text/plain")],
        body: b"no".to_vec(),
    };
    assert_eq!(outcome.unwrap(), Outcome::Respond(response));
    assert_eq!(stream.list, request().list);
}

#[test]
fn a_response_stands_even_if_the_script_goes_on() {
    let (outcome, _) = run("pcall(h.respond, h, {[':status'] = '401'})
        pcall(h.respond, h, {[':status'] = '200'})
        h:headers():add('x', 'y')");
    assert!(matches!(outcome.unwrap(), Outcome::Respond(response) if response.status == 401));
}

#[test]
fn a_response_without_a_good_status_fails() {
    for table in ["{}", "{[':status'] = 99}", "{[':status'] = 'x'}", "{[':status'] = 600}"] {
        assert!(failure(&format!("h:respond({table})")).contains(":status"), "{table}");
    }
    failure("h:respond({[':status'] = 200, a = 'b\\nc'})");
    failure("h:respond({[':status'] = 200, [':path'] = '/'})");
}

#[test]
fn lines_are_logged_with_their_level() {
    let (outcome, stream) = run("h:logTrace('t') h:logDebug('d') h:logInfo('i') h:logWarn('w')
        h:logErr('e') h:logCritical('c') print('p', 1, nil) error('x')");
    assert!(outcome.is_err());
    let lines: Vec<_> = stream.log.iter().map(|(level, line)| (*level, line.as_str())).collect();
    assert_eq!(
        lines,
        [
            (Level::Trace, "t"),
            (Level::Debug, "d"),
            (Level::Info, "i"),
            (Level::Warn, "w"),
            (Level::Error, "e"),
            (Level::Error, "c"),
            (Level::Info, "p\t1\tnil"),
        ]
    );
}

#[test]
fn facts_of_the_connection_are_known() {
    check("h:streamInfo():protocol()", "HTTP/1.1");
    check("h:streamInfo():dynamicMetadata():get('x')", "nil");
    check("h:connection():ssl() ~= nil", "true");
    check("h:connection():ssl():peerCertificatePresented()", "false");
    check("#h:connection():ssl():uriSanPeerCertificate()", "0");
    check("h:metadata():get('x')", "nil");
    check("h:base64Decode('Zm9vYmE=')", "fooba");
    check("h:base64Decode('Zm9v YmFy')", "foobar");
    check("h:base64Decode('Zm9vYg')", "foob");
    check("h:base64Decode('Zm9vYg=')", "nil");
    check("h:base64Decode('Z')", "nil");
    check("h:base64Decode('Z-==')", "nil");
    check("h:base64Escape('')", "");
    check("h:base64Escape('f')", "Zg==");
    check("h:base64Escape('foobar')", "Zm9vYmFy");
    check("h:base64Escape('fooba')", "Zm9vYmE=");
    check("h:timestamp() > 1.7e12 and h:timestamp() < 1e13", "true");
    check("#h:timestampString(EnvoyTimestampResolution.MICROSECOND)", "16");
}

#[test]
fn what_is_not_supported_says_so() {
    assert!(failure("h:stats()").contains("is not supported"));
    assert!(failure("h:noSuchMethod()").contains("noSuchMethod"));
}

#[test]
fn objects_of_another_run_are_refused() {
    let script = compile(
        "function envoy_on_request(h)
           if kept then kept:get('accept') end
           kept = h:headers()
         end",
    )
    .unwrap();
    assert!(on_request(&script, &mut request()).is_ok());
    let error = on_request(&script, &mut request()).unwrap_err().to_string();
    assert!(error.contains("outside of proper scope"), "{error}");
}

#[test]
fn responses_are_seen_by_their_own_function() {
    let script = compile(
        "count = 0
         function envoy_on_response(h)
           count = count + 1
           if h:headers():get(':status') == '200' then h:headers():add('x-count', count) end
         end",
    )
    .unwrap();
    assert!(script.handles(Side::Response) && !script.handles(Side::Request));
    let mut untouched = request();
    assert_eq!(on_request(&script, &mut untouched).unwrap(), Outcome::Continue);
    for expected in ["1", "2"] {
        let list = vec![(":status".to_owned(), "200".to_owned())];
        let mut response = Headers { list, ..Headers::default() };
        assert_eq!(on_response(&script, &mut response).unwrap(), Outcome::Continue);
        assert_eq!(response.all("x-count"), [expected]);
    }
}
