//! What a script finds, and what it does not.

use std::fs;

use sluis_script::{Host, Script};

use crate::support::{compile, eval, failure, host};

#[test]
fn what_could_leave_the_sandbox_is_not_there() {
    for name in [
        "debug",
        "ffi",
        "dofile",
        "loadfile",
        "newproxy",
        "os.execute",
        "os.exit",
        "os.remove",
        "os.rename",
        "os.tmpname",
        "os.setlocale",
        "io.popen",
        "io.write",
        "io.output",
        "io.stdout",
        "io.lines",
        "io.tmpfile",
        "package.loadlib",
        "package.loaders",
        "package.searchpath",
        "string.dump",
        "jit.opt",
        "jit.util",
        "collectgarbage('count') and nil",
    ] {
        assert_eq!(eval(name), "nil", "{name}");
    }
    for module in ["ffi", "debug", "jit.util", "../hash", "/etc/passwd", "lib..hash", ""] {
        assert_eq!(eval(&format!("(pcall(require, '{module}'))")), "false", "{module}");
    }
}

#[test]
fn bytecode_is_not_loaded() {
    assert_eq!(eval("(load('\\27LJ'))"), "nil");
    assert_eq!(eval("(loadstring('\\27LJ'))"), "nil");
    assert_eq!(eval("(load('\\27LJ', 'x', 'b'))"), "nil");
    assert_eq!(eval("load('return 1 + 1')()"), "2");
    assert_eq!(eval("load('return x', 'c', 't', {x = 7})()"), "7");
    assert_eq!(eval("setmetatable({}, {__index = function() return 3 end}).x"), "3");
    assert!(compile("\u{1b}LJ").is_err());
}

#[test]
fn files_are_only_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    fs::write(&path, "sesame\n").unwrap();
    let path = path.display();
    assert_eq!(eval(&format!("#io.open('{path}'):read('*a')")), "7");
    assert_eq!(eval(&format!("io.open('{path}', 'rb'):read('*l')")), "sesame");
    for mode in ["w", "a", "r+", "w+", "rb+"] {
        let open = format!("(io.open('{path}', '{mode}'))");
        assert_eq!(eval(&open), "nil", "{mode}");
    }
    let write = format!("(pcall(function() assert(io.open('{path}'):write('x')) end))");
    assert_eq!(eval(&write), "false");
    assert_eq!(fs::read_to_string(directory.path().join("secret")).unwrap(), "sesame\n");
}

#[test]
fn variables_and_the_time_are_known() {
    assert_eq!(eval("os.getenv('ACCESS_KEY')"), "AK");
    assert_eq!(eval("os.getenv('PATH')"), "nil");
    assert_eq!(eval("#os.date('!%Y%m%dT%H%M%SZ')"), "16");
    assert_eq!(eval("os.time() > 1.7e9 and os.clock() >= 0"), "true");
}

#[test]
fn modules_come_from_the_package_path_once() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("lib")).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("lib/counter.lua", "loads = (loads or 0) + 1 return {name = ...}");
    write("broken.lua", "return +");
    write("loop.lua", "require('loop')");
    write("nothing.lua", "local x = 1");
    let paths = ["/nonexistent/?.lua".to_owned(), format!("{}/?.lua", directory.path().display())];
    let host = Host { package_paths: paths.to_vec(), ..Host::default() };
    let compile = |source: &str| {
        let source = format!("{source} function envoy_on_request() end");
        Script::compile(&source, "test", &host).map(drop).map_err(|error| error.to_string())
    };
    compile(
        "local c = require('lib.counter') assert(c == require('lib.counter'))
         assert(loads == 1 and c.name == 'lib.counter' and require('nothing') == true)
         assert(package.loaded['lib.counter'] == c and require('bit').band(3, 6) == 2)
         package.preload.mine = function() return 5 end assert(require('mine') == 5)",
    )
    .unwrap();
    let check = |source: &str, expected: &str| {
        let error = compile(source).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check("require('missing')", "module 'missing' not found:\n\t/nonexistent/missing.lua");
    check("require('broken')", "module 'broken' cannot be loaded");
    check("require('loop')", "loop in module 'loop'");
    check("require('../lib/counter')", "not a module name");
    check("require(nil)", "string expected");
}

#[test]
fn a_script_that_does_not_load_is_refused() {
    let check = |source: &str, expected: &str| {
        let error = Script::compile(source, "sign", &host()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("function envoy_on_request(", "script sign does not load: sign:1:");
    check("local x = 1", "defines neither envoy_on_request nor envoy_on_response");
    check("error('no key', 0)", "script sign does not load: no key");
    check("envoy_on_request = 5", "does not load");
}

#[test]
fn one_script_does_not_see_another() {
    compile("leak = 1 string.leak = 2 function envoy_on_request() end").unwrap();
    assert_eq!(eval("leak"), "nil");
    assert_eq!(eval("string.leak"), "nil");
}

#[test]
fn errors_name_the_module_that_is_not_supported() {
    assert!(failure("require('ffi')").contains("module 'ffi' not found"));
}
