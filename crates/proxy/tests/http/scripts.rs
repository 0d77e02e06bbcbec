//! Scripts that read and change bodies, call other services and wait, within proxied requests.

use serde_json::{Value, json};

use crate::peers::{Origin, Scene, router, to_origin};

const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
const PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.LuaPerRoute";

fn filter(name: &str, code: &str) -> Value {
    json!({"name": name, "typed_config": {
        "@type": LUA, "default_source_code": {"inline_string": code},
    }})
}

fn with(codes: &[&str]) -> Value {
    let mut filters: Vec<Value> =
        codes.iter().enumerate().map(|(at, code)| filter(&format!("lua-{at}"), code)).collect();
    filters.push(router());
    json!({ "http_filters": filters })
}

fn post(path: &str, body: &str) -> String {
    let len = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: api.local\r\nContent-Length: {len}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_script_reads_the_whole_request_and_its_response() {
    let code = "
        function envoy_on_request(h) h:headers():add('x-size', h:body():length()) end
        function envoy_on_response(h) h:headers():add('x-size', h:body():length()) h:headers():remove('foo') end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    for _ in 0..2 {
        client.send(&post("/p", "hello")).await;
        let mut origin = scene.origin.accept().await;
        let head = origin.head().await;
        head.has("x-size", "5");
        head.has("content-length", "5");
        origin.expect("hello").await;
        origin.send("HTTP/1.1 200 OK\r\nFoo: 1\r\nContent-Length: 7\r\nConnection: close\r\n\r\nanswer!").await;
        let head = client.head().await;
        head.has("x-size", "7");
        head.has("content-length", "7");
        head.lacks("foo");
        client.expect("answer!").await;
    }
}

#[tokio::test]
async fn a_script_replaces_bodies_both_ways() {
    let code = "
        function envoy_on_request(h) h:body():setBytes('longer than before') end
        function envoy_on_response(h)
          h:body():setBytes('<html><b>Not Found<b></html>')
          h:headers():replace('content-type', 'text/html')
        end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    // The next request follows at once, and is not taken for the body.
    client.send(&format!("{}{}", post("/a", "hello"), post("/b", "world"))).await;
    let mut origin = scene.origin.accept().await;
    for path in ["/a", "/b"] {
        let head = origin.head().await;
        assert!(head.line().starts_with(&format!("POST {path} ")), "{}", head.line());
        head.has("content-length", "18");
        origin.expect("longer than before").await;
        origin
            .send(
                "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            )
            .await;
        let head = client.head().await;
        head.has("content-length", "28");
        head.has("content-type", "text/html");
        head.lacks("transfer-encoding");
        client.expect("<html><b>Not Found<b></html>").await;
    }
}

#[tokio::test]
async fn a_chunked_request_is_replaced_by_one_with_a_length() {
    let code = "function envoy_on_request(h) local b = h:body() b:setBytes(b:getBytes(0, b:length()):upper()) end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    client.send("2\r\nde\r\n0\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    head.has("content-length", "5");
    head.lacks("transfer-encoding");
    origin.expect("ABCDE").await;
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let code = "function envoy_on_request(h) h:body() end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    client.send(&post("/", &"x".repeat((1 << 20) + 1))).await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 413 Payload Too Large");
    scene.origin.has_no_connection();
    let code = "function envoy_on_response(h) h:body() end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    let len = (1 << 20) + 1;
    origin
        .send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{}", "x".repeat(len)))
        .await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 500 Internal Server Error");
}

#[tokio::test]
async fn pieces_are_changed_as_they_pass() {
    let code = "
        function envoy_on_request(h)
          h:headers():remove('content-length')
          for chunk in h:bodyChunks() do
            if chunk:length() > 0 then chunk:setBytes('<' .. chunk:getBytes(0, chunk:length()) .. '>') end
          end
        end
        function envoy_on_response(h)
          local last
          for chunk in h:bodyChunks() do chunk:setBytes('') last = chunk end
          last:setBytes('all new')
        end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc").await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    head.lacks("content-length");
    head.has("transfer-encoding", "chunked");
    // The first piece is there before the second has been sent.
    origin.expect("5\r\n<abc>\r\n").await;
    client.send("def").await;
    origin.expect("5\r\n<def>\r\n0\r\n\r\n").await;
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n").await;
    client.head().await.has("transfer-encoding", "chunked");
    client.expect("7\r\nall new\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_piece_that_breaks_the_announced_length_is_cut() {
    let code = "
        function envoy_on_response(h)
          for chunk in h:bodyChunks() do chunk:setBytes('longer than that') end
        end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc").await;
    client.head().await.has("content-length", "3");
    assert_eq!(client.rest().await, "");
    assert_eq!(scene.proxy.counter("http.lua.errors").await, 1);
}

#[tokio::test]
async fn a_script_that_fails_in_the_body_sends_nothing_more() {
    let code = "
        function envoy_on_request(h)
          for chunk in h:bodyChunks() do error('no') end
        end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    client.send(&post("/", "hello")).await;
    let mut origin = scene.origin.accept().await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 500 Internal Server Error");
    assert!(!origin.rest().await.contains("hello"));
}

const CALL: &str = "
    local function call(h, path, body, ...)
      return h:httpCall('service', {[':method'] = 'POST', [':path'] = path, [':authority'] = 'service.local'}, body, ...)
    end";

#[tokio::test]
async fn a_script_asks_a_service_before_it_decides() {
    let service = Origin::start().await;
    let code = format!(
        "{CALL}
        function envoy_on_request(h)
          local headers, body = call(h, '/ask', h:body():getBytes(0, 5), 5000)
          if headers[':status'] ~= '200' then
            h:respond({{[':status'] = '403', ['x-foo'] = headers.foo}}, body)
          end
          h:headers():add('x-foo', headers.foo)
        end"
    );
    let scene =
        Scene::with_cluster(&to_origin(), &with(&[&code]), ("service", service.address())).await;
    let mut client = scene.client().await;
    client.send(&post("/", "hello")).await;
    let mut asked = service.accept().await;
    let head = asked.head().await;
    assert_eq!(head.line(), "POST /ask HTTP/1.1");
    head.has("host", "service.local");
    head.has("content-length", "5");
    head.has("x-forwarded-for", "127.0.0.1");
    asked.expect("hello").await;
    asked.send("HTTP/1.1 200 OK\r\nFoo: bar\r\nContent-Length: 0\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await.has("x-foo", "bar");
    origin.expect("hello").await;
    origin.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    client.head().await;
    client.send(&post("/", "again")).await;
    asked.head().await;
    asked.expect("again").await;
    asked.send("HTTP/1.1 401 No\r\nFoo: bar\r\nContent-Length: 4\r\n\r\nnope").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 403 Forbidden");
    head.has("x-foo", "bar");
    client.expect("nope").await;
}

#[tokio::test]
async fn while_one_script_waits_others_go_on() {
    let service = Origin::start().await;
    let code = format!(
        "{CALL}
        function envoy_on_request(h)
          if h:headers():get(':path') == '/slow' then call(h, '/', nil, 5000) end
          h:headers():add('x-done', 'yes')
        end"
    );
    let scene =
        Scene::with_cluster(&to_origin(), &with(&[&code]), ("service", service.address())).await;
    let mut slow = scene.client().await;
    slow.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut asked = service.accept().await;
    asked.head().await;
    let mut fast = scene.client().await;
    fast.send("GET /fast HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    assert!(head.line().contains("/fast"));
    origin.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
    fast.head().await;
    asked.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let head = scene.origin.accept().await.head().await;
    assert!(head.line().contains("/slow"));
    head.has("x-done", "yes");
}

#[tokio::test]
async fn a_response_waits_for_a_service() {
    let service = Origin::start().await;
    let code = format!(
        "{CALL}
        function envoy_on_response(h)
          local size = h:body():length()
          local _, body = call(h, '/', 'size ' .. size, 5000)
          h:body():setBytes(body)
        end"
    );
    let scene =
        Scene::with_cluster(&to_origin(), &with(&[&code]), ("service", service.address())).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut asked = service.accept().await;
    asked.head().await;
    asked.expect("size 5").await;
    asked.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew").await;
    client.head().await.has("content-length", "3");
    client.expect("new").await;
    // An answer of the proxy's own passes the script too.
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.head().await;
    drop(origin);
    drop(scene.origin.accept().await);
    asked.head().await;
    asked.rest().await;
}

#[tokio::test]
async fn a_service_that_fails_is_told_of() {
    let code = format!(
        "{CALL}
        function envoy_on_request(h)
          local headers, body = call(h, '/', nil, 50)
          h:respond({{[':status'] = '200'}}, headers[':status'] .. ' ' .. body)
        end"
    );
    let service = Origin::start().await;
    let address = service.address();
    drop(service);
    let scene = Scene::with_cluster(&to_origin(), &with(&[&code]), ("service", address)).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    client.expect("503 upstream connect error or disconnect/reset before headers").await;
}

#[tokio::test]
async fn scripts_pass_a_body_on_to_each_other() {
    let first = "function envoy_on_request(h)
          for chunk in h:bodyChunks() do
            if chunk:length() > 0 then chunk:setBytes(chunk:getBytes(0, chunk:length()) .. '1') end
          end
        end
        function envoy_on_response(h) local b = h:body() b:setBytes(b:getBytes(0, b:length()) .. '1') end";
    let second = "function envoy_on_request(h)
          local b = h:body() b:setBytes(b:getBytes(0, b:length()) .. '2') h:headers():add('x-len', b:length())
        end
        function envoy_on_response(h)
          h:headers():remove('content-length')
          for chunk in h:bodyChunks() do
            if chunk:length() > 0 then chunk:setBytes(chunk:getBytes(0, chunk:length()) .. '2') end
          end
        end";
    let scene = Scene::with(&to_origin(), &with(&[first, second])).await;
    let mut client = scene.client().await;
    client.send(&post("/", "a")).await;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    head.has("x-len", "3");
    head.has("content-length", "3");
    origin.expect("a12").await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await;
    client.head().await.has("content-length", "3");
    client.expect("a21").await;
}

#[tokio::test]
async fn routes_choose_scripts_and_tell_them_things() {
    let routes = json!([
        {"match": {"prefix": "/off"}, "route": {"cluster": "origin"},
         "typed_per_filter_config": {"lua": {"@type": PER_ROUTE, "disabled": true}}},
        {"match": {"prefix": "/named"}, "route": {"cluster": "origin"},
         "typed_per_filter_config": {"lua": {"@type": PER_ROUTE, "name": "other.lua"}}},
        {"match": {"prefix": "/missing"}, "route": {"cluster": "origin"},
         "typed_per_filter_config": {"lua": {"@type": PER_ROUTE, "name": "missing.lua"}}},
        {"match": {"prefix": "/own"}, "route": {"cluster": "origin"}, "name": "own",
         "metadata": {"filter_metadata": {"lua": {"foo": "bar", "list": [1, "two"]}}},
         "typed_per_filter_config": {"lua": {"@type": PER_ROUTE, "filter_context": {"key": "context"},
           "source_code": {"inline_string":
             "function envoy_on_request(h)
                local said = h:metadata():get('foo') .. h:metadata():get('list')[2] .. h:route():metadata():get('foo')
                h:headers():add('x-by', said .. h:filterContext()['key'] .. h:streamInfo():routeName())
              end"}}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "origin"}},
    ]);
    let settings = json!({"http_filters": [{"name": "lua", "typed_config": {
        "@type": LUA,
        "default_source_code": {"inline_string":
            "function envoy_on_request(h) h:headers():add('x-by', 'default' .. h:filterContext():get('key')) end"},
        "source_codes": {"other.lua": {"inline_string":
            "function envoy_on_request(h) h:headers():add('x-by', 'other') end"}},
        "filter_context": {"key": "all"},
    }}, router()]});
    let scene = Scene::with(&routes, &settings).await;
    let mut client = scene.client().await;
    let mut origin = None;
    for (path, by) in [
        ("/off", None),
        ("/named", Some("other")),
        ("/own", Some("bartwobarcontextown")),
        ("/", Some("defaultall")),
    ] {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        if origin.is_none() {
            origin = Some(scene.origin.accept().await);
        }
        let origin = origin.as_mut().unwrap();
        assert_eq!(origin.head().await.get("x-by").as_deref(), by, "{path}");
        origin.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        client.head().await;
    }
    client.send("GET /missing HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 500 Internal Server Error");
}

#[tokio::test]
async fn what_one_script_finds_out_another_reads() {
    let code = "
        function envoy_on_request(h)
          h:streamInfo():dynamicMetadata():set('envoy.filters.http.lua', 'request.info', {token = h:headers():get('x-token')})
        end
        function envoy_on_response(h)
          local meta = h:streamInfo():dynamicMetadata():get('envoy.filters.http.lua')['request.info']
          h:headers():add('x-token', meta.token)
          h:headers():setHttp1ReasonPhrase('Quite Fine')
          h:streamInfo():drainConnectionUponCompletion()
        end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Token: t\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 200 Quite Fine");
    head.has("x-token", "t");
    head.has("connection", "close");
    assert_eq!(client.rest().await, "ok");
}

#[tokio::test]
async fn a_body_is_given_to_a_request_that_has_none() {
    let code = "
        function envoy_on_request(h)
          assert(h:body() == nil)
          h:body(true):setBytes('made')
        end
        function envoy_on_response(h) h:body(true):setBytes('made too') end";
    let scene = Scene::with(&to_origin(), &with(&[code])).await;
    let mut client = scene.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await.has("content-length", "4");
    origin.expect("made").await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    client.head().await.has("content-length", "8");
    client.expect("made too").await;
}

#[tokio::test]
async fn a_script_names_the_endpoint() {
    let other = Origin::start().await;
    let address = other.address();
    let code = format!(
        "function envoy_on_request(h)
          local path = h:headers():get(':path')
          h:setUpstreamOverrideHost(path == '/here' and '{address}' or '127.0.0.1:1', path == '/strict')
        end"
    );
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "other"}}]);
    let scene = Scene::with_cluster(&routes, &with(&[&code]), ("other", address)).await;
    let mut client = scene.client().await;
    client.send("GET /strict HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 503 Service Unavailable");
    client.expect("no healthy upstream").await;
    other.has_no_connection();
    client.send("GET /here HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut origin = other.accept().await;
    for path in ["/here", "/other"] {
        assert!(origin.head().await.line().starts_with(&format!("GET {path} ")));
        origin.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        client.head().await;
        if path == "/here" {
            client.send("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
        }
    }
}
