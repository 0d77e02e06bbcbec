//! A script cannot take the worker's time or memory.

use crate::support::{Outcome, compile, failure, on_request, request};

#[test]
fn an_endless_script_is_stopped() {
    for body in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local function f() return f() end f()",
        "coroutine.wrap(function() while true do end end)()",
        "pcall(function() while true do end end)",
        "for _ in pairs(h:headers()) do while true do end end",
        "jit.on() for i = 1, 1e12 do end",
    ] {
        let message = failure(body);
        assert!(message.contains("ran for more than 2000000 instructions"), "{message}");
    }
}

#[test]
fn an_endless_top_level_does_not_load() {
    let error = compile("while true do end").unwrap_err().to_string();
    assert!(error.contains("ran for more than"), "{error}");
}

#[test]
fn a_greedy_script_is_stopped() {
    for body in [
        "local s = ('x'):rep(1e9)",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = {i} end",
        "local s = ('x'):rep(1e6) local t = {} for i = 1, 1e3 do t[i] = s .. i end",
    ] {
        let message = failure(body);
        assert!(message.contains("uses more than 32 MiB"), "{message}");
    }
}

#[test]
fn a_deep_script_is_stopped() {
    assert!(failure("local function f() return 1 + f() end f()").contains("stack overflow"));
    failure("local s = ('('):rep(1e4) assert(load('return ' .. s))");
}

#[test]
fn a_script_that_was_stopped_serves_the_next_request() {
    let script = compile(
        "function envoy_on_request(h)
           n = (n or 0) + 1
           if n == 1 then while true do end end
           if n == 2 then local s = ('x'):rep(1e9) end
           h:headers():add('n', n)
         end",
    )
    .unwrap();
    assert!(on_request(&script, &mut request()).is_err());
    assert!(on_request(&script, &mut request()).is_err());
    for _ in 0..100 {
        assert_eq!(on_request(&script, &mut request()).unwrap(), Outcome::Continue);
    }
}

#[test]
fn changes_and_lines_are_bounded() {
    assert!(failure("for i = 1, 1e4 do h:headers():add('x', 'y') end").contains("too many"));
    assert!(failure("h:headers():add('x', ('y'):rep(1e6))").contains("too many"));
    let script =
        compile("function envoy_on_request(h) for i = 1, 100 do h:logInfo(('x'):rep(1e4)) end end")
            .unwrap();
    let mut stream = request();
    assert!(on_request(&script, &mut stream).is_ok());
    assert_eq!(stream.log.len(), 65);
    assert_eq!(stream.log[0].1.len(), 4096);
    assert_eq!(stream.log[64].1, "36 more lines were not logged");
}
