//! Bodies, trailers and calls: what a script waits for.

use sluis_script::{Answer, Call, Side};

use crate::support::{Headers, Outcome, compile, failure, on_request, pass, request, run, run_on};

fn pairs(list: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn bodiless() -> Headers {
    Headers { body: None, ..request() }
}

fn with_trailers() -> Headers {
    Headers { trailers: Some(pairs(&[("x-sum", "1"), ("x-sum", "2")])), ..request() }
}

#[track_caller]
fn passes(body: &str, stream: Headers) -> Headers {
    let (outcome, stream) = run_on(body, stream);
    assert_eq!(outcome.unwrap(), Outcome::Continue, "{body}");
    stream
}

#[test]
fn a_whole_body_is_read_before_the_head_goes_on() {
    let stream = passes(
        "local body = h:body()
         assert(body:length() == 3 and body:getBytes(0, 3) == 'abc' and body:getBytes(1, 1) == 'b')
         assert(body:getBytes(3, 0) == '')
         assert(h:body():length() == 3)
         h:headers():add('x-size', body:length())",
        request(),
    );
    assert_eq!(stream.all("x-size"), ["3"]);
    assert_eq!(stream.text(), "abc");
}

#[test]
fn a_whole_body_is_replaced_and_the_head_tells_its_length() {
    let stream = passes(
        "assert(h:body():setBytes('four') == 4)
         assert(h:headers():get('content-length') == '4')
         assert(h:body():getBytes(0, 4) == 'four')",
        request(),
    );
    assert_eq!(stream.text(), "four");
}

#[test]
fn a_message_without_a_body_has_none_unless_one_is_wanted() {
    let stream = passes(
        "assert(h:body() == nil and h:trailers() == nil)
         for _ in h:bodyChunks() do error('a piece') end
         local body = h:body(true)
         assert(body:length() == 0)
         body:setBytes('new')",
        bodiless(),
    );
    assert_eq!(stream.text(), "new");
}

#[test]
fn pieces_pass_one_by_one_and_may_be_changed() {
    let stream = passes(
        "h:headers():add('x-before', 'yes')
         local n, last = 0
         for chunk in h:bodyChunks() do
           n = n + chunk:length()
           chunk:setBytes('<' .. chunk:getBytes(0, chunk:length()) .. '>')
           last = chunk
         end
         assert(n == 3)
         last:setBytes('end')",
        request(),
    );
    assert_eq!(stream.sent, [b"<ab>".to_vec(), b"end".to_vec()]);
    assert_eq!(stream.head_sent.unwrap().last().unwrap().0, "x-before");
}

#[test]
fn the_head_cannot_be_changed_once_it_has_gone_on() {
    let after = |what: &str| {
        let body = format!("for chunk in h:bodyChunks() do {what} end");
        run(&body).0.expect_err(what).to_string()
    };
    assert!(after("h:headers():add('x', 'y')").contains("can no longer be modified"));
    assert!(after("h:respond({[':status'] = '403'})").contains("headers have been continued"));
    assert!(after("h:body()").contains("after body streaming has started"));
    assert!(after("h:bodyChunks()").contains("after body processing has begun"));
    assert!(
        run("for _ in h:bodyChunks() do end h:body()")
            .0
            .unwrap_err()
            .to_string()
            .contains("streamed")
    );
    // It can still be read.
    passes("for chunk in h:bodyChunks() do assert(h:headers():get(':method')) end", request());
}

#[test]
fn a_piece_that_has_gone_on_is_out_of_scope() {
    let (outcome, _) = run("local first
        for chunk in h:bodyChunks() do
          if first then first:length() end
          first = first or chunk
        end");
    assert!(outcome.unwrap_err().to_string().contains("outside of proper scope"));
}

#[test]
fn trailers_are_read_and_changed() {
    let script = "h:body()
         local trailers = h:trailers()
         assert(trailers:get('X-Sum') == '1,2' and trailers:getNumValues('x-sum') == 2)
         trailers:remove('x-sum') trailers:add('x-new', 'n') trailers:replace('x-new', 'm')";
    let stream = passes(script, with_trailers());
    assert_eq!(stream.trailers, Some(pairs(&[("x-new", "m")])));
    // While the body streams by, too.
    let script = script.replace("h:body()", "");
    let stream = passes(&script, with_trailers());
    assert_eq!((stream.text().as_str(), stream.trailers), ("abc", Some(pairs(&[("x-new", "m")]))));
    let script = script.replace("local trailers", "for _ in h:bodyChunks() do end local trailers");
    let stream = passes(&script, with_trailers());
    assert_eq!(stream.trailers, Some(pairs(&[("x-new", "m")])));
    passes("assert(h:trailers() == nil)", request());
    passes("h:body() assert(h:trailers() == nil)", request());
}

#[test]
fn an_answer_comes_back_to_where_it_was_asked_for() {
    let answer = Answer {
        status: 200,
        headers: pairs(&[("foo", "bar"), ("key", "1"), ("key", "2"), ("key", "3")]),
        body: b"hello".to_vec(),
    };
    let asked = Headers { answers: [answer.clone(), answer].into(), ..request() };
    let stream = passes(
        "local ok, headers, body = pcall(h.httpCall, h, 'service',
           {[':method'] = 'POST', [':path'] = '/x', [':authority'] = 'a', ['Set-Cookie'] = {'l=1', 'm=2'}, n = 5},
           'hello world', 5000)
         assert(ok and headers[':status'] == '200' and headers.foo == 'bar' and headers.key == '3')
         assert(body == 'hello')
         h:headers():add('x-foo', headers.foo)
         headers = h:httpCall('service', {[':method'] = 'GET', [':path'] = '/', [':authority'] = 'b'}, nil,
           {return_duplicate_headers = true, timeout_ms = 10, send_xff = false, trace_sampled = false})
         assert(type(headers.key) == 'table' and #headers.key == 3 and headers.key[2] == '2')
         headers, body = h:httpCall('service', {[':method'] = 'GET', [':path'] = '/', [':authority'] = 'b'}, nil, 0)
         assert(headers[':status'] == '503' and body == 'upstream failure')",
        asked,
    );
    assert_eq!(stream.all("x-foo"), ["bar"]);
    let [first, second, third] = &stream.calls[..] else { panic!("{:?}", stream.calls) };
    assert_eq!((&*first.cluster, &*first.body), ("service", &b"hello world"[..]));
    assert_eq!(
        (&*first.method, &*first.path, &*first.authority),
        (&b"POST"[..], &b"/x"[..], &b"a"[..])
    );
    assert_eq!(first.headers, pairs(&[("n", "5"), ("set-cookie", "l=1"), ("set-cookie", "m=2")]));
    assert_eq!(first.timeout.unwrap().as_millis(), 5000);
    assert!(first.sends_forwarded_for && !second.sends_forwarded_for);
    assert_eq!((second.timeout.unwrap().as_millis(), third.timeout), (10, None));
}

#[test]
fn a_call_that_is_not_waited_for_returns_nothing() {
    let stream = passes(
        "local to = {[':method'] = 'GET', [':path'] = '/', [':authority'] = 'a'}
         assert(h:httpCall('service', to, nil, 100, true) == nil)
         h:httpCall('service', to, nil, {asynchronous = true})",
        request(),
    );
    let clusters: Vec<&str> = stream.calls.iter().map(|Call { cluster, .. }| &**cluster).collect();
    assert_eq!(clusters, ["service", "service"]);
}

#[test]
fn a_call_that_cannot_be_made_fails() {
    let to = "{[':method'] = 'GET', [':path'] = '/', [':authority'] = 'a'}";
    for (arguments, expected) in [
        (format!("'missing', {to}, nil, 1"), "cluster invalid"),
        (format!("'service', {to}, nil, -1"), "must be >= 0"),
        (format!("'service', {to}, nil, {{timeout_ms = -1}}"), "must be >= 0"),
        (format!("'service', {to}, nil, 1, 'yes'"), "asynchronous flag"),
        (format!("'service', {to}, nil, {{asynchronus = true}}"), "is not valid key"),
        (format!("'service', {to}, nil"), "must be a number"),
        ("'service', {[':method'] = 'GET'}, nil, 1".to_owned(), "must include ':path'"),
        ("'service', {['a b'] = 'c'}, nil, 1".to_owned(), "not a header name"),
        ("'service', {a = 'c\\r\\nd: e'}, nil, 1".to_owned(), "line break"),
        ("'service', {a = {{}}}, nil, 1".to_owned(), "not a string"),
        ("nil, {}, nil, 1".to_owned(), "name of a cluster"),
    ] {
        let message = failure(&format!("h:httpCall({arguments})"));
        assert!(message.contains(expected), "{arguments}: {message}");
    }
    let many = format!("for i = 1, 9 do h:httpCall('service', {to}, nil, 1, true) end");
    assert!(failure(&many).contains("too many asynchronous calls"));
}

#[test]
fn a_call_within_the_body_holds_its_piece() {
    let stream = passes(
        "local to = {[':method'] = 'GET', [':path'] = '/', [':authority'] = 'a'}
         for chunk in h:bodyChunks() do
           local _, body = h:httpCall('service', to, chunk:getBytes(0, chunk:length()), 100)
           chunk:setBytes(body)
         end",
        request(),
    );
    assert_eq!(stream.text(), "upstream failureupstream failure");
}

#[test]
fn only_the_first_coroutine_can_wait() {
    for call in ["body()", "trailers()", "bodyChunks()()"] {
        let message = failure(&format!("coroutine.wrap(function() h:{call} end)()"));
        assert!(message.contains("coroutine of the script's own"), "{message}");
    }
    // What does not wait works in any.
    passes(
        "coroutine.wrap(function() h:headers():get('a') h:streamInfo():protocol() end)()",
        request(),
    );
}

#[test]
fn bytes_of_another_protocol_are_not_for_scripts() {
    for call in ["body()", "body(true)", "trailers()", "bodyChunks()"] {
        let tunnel = Headers { is_tunnel: true, ..request() };
        let (outcome, _) = run_on(&format!("h:{call}"), tunnel);
        assert!(outcome.unwrap_err().to_string().contains("changes its protocol"), "{call}");
    }
}

#[test]
fn runs_of_one_script_take_turns() {
    let script = compile(
        "function envoy_on_request(h)
           count = (count or 0) + 1
           local mine = count
           kept = kept or h
           h:body()
           assert(mine == tonumber(h:headers():get('x-mine')))
           if kept ~= h then assert(not pcall(kept.headers, kept)) end
         end",
    )
    .unwrap();
    let mut runs = Vec::new();
    for index in 1..=20 {
        let mut stream = request();
        stream.list.push(("x-mine".to_owned(), index.to_string()));
        let begin = crate::support::begin(Side::Request, &stream);
        let (run, step) = script.start(begin, &mut stream).unwrap();
        runs.push((run.unwrap(), step, stream));
    }
    for (mut run, step, mut stream) in runs.into_iter().rev() {
        assert_eq!(step, sluis_script::Step::Wants(sluis_script::Want::Body));
        run.body(b"x".to_vec(), None, &mut stream).unwrap();
    }
}

#[test]
fn a_run_that_is_given_up_leaves_the_script_as_it_was() {
    let script =
        compile("function envoy_on_request(h) h:body() h:headers():add('x', 'y') end").unwrap();
    for _ in 0..2000 {
        let mut stream = request();
        drop(script.start(crate::support::begin(Side::Request, &stream), &mut stream).unwrap());
    }
    let mut stream = request();
    assert_eq!(on_request(&script, &mut stream).unwrap(), Outcome::Continue);
    assert_eq!(stream.all("x"), ["y"]);
}

#[test]
fn a_response_is_read_and_replaced() {
    let script = compile(
        "function envoy_on_response(h)
           h:body():setBytes('<html><b>Not Found<b></html>')
           h:headers():replace('content-type', 'text/html')
           h:headers():setHttp1ReasonPhrase('Gone Fishing')
           h:streamInfo():drainConnectionUponCompletion()
         end",
    )
    .unwrap();
    let list = vec![(":status".to_owned(), "404".to_owned())];
    let body = Some(vec![b"{}".to_vec()]);
    let mut response = Headers { list, body, ..Headers::default() };
    pass(&script, Side::Response, &mut response).unwrap();
    assert_eq!(response.text(), "<html><b>Not Found<b></html>");
    assert_eq!(response.reason, "Gone Fishing");
    assert!(response.effects.drains && response.effects.has_changed_head);
    let script =
        compile("function envoy_on_response(h) h:respond({[':status'] = '200'}) end").unwrap();
    let error = pass(&script, Side::Response, &mut Headers::default()).unwrap_err().to_string();
    assert!(error.contains("only valid in the request flow"), "{error}");
}
