//! The hash module of the example, and the script that signs with it.

use aws_lc_rs::{digest, hmac};

use crate::support::{Outcome, compile, eval, on_request, request};

/// The script of the article on credentials at the egress gateway, as it is printed there.
const ARTICLE: &str = r#"
local hash = require("lib.hash")  -- this imports Egor-Skriptunoff/pure_lua_SHA

local function ends_with(str, ending)
   return ending == "" or str:sub(-#ending) == ending
end

function envoy_on_request(request_handle)
  if not ends_with(request_handle:headers():get(":authority"), "api.data.local") then
    return
  end

  local method = request_handle:headers():get(":method")
  local host = request_handle:headers():get(":authority")
  local path = request_handle:headers():get(":path")
  local date = os.date("!%Y%m%dT%H%M%SZ")

  local signature_pretext = string.format("%s\n%s\n%s\n%s", method, host, path, date)

  local signature = hash.hmac(hash.sha256, secret_key, signature_pretext)
  local header = string.format("Version=V1, Credential=%s, Signature=%s", access_key, signature)

  request_handle:headers():add("X-Date", date)
  request_handle:headers():add("X-Authorization", header)
end
"#;

/// What stands in front of the script: where its two globals come from.
const KEYS: &str = "access_key = os.getenv('ACCESS_KEY') secret_key = os.getenv('SECRET_KEY') ";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A Lua string literal of any bytes.
fn literal(bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03}")).collect();
    format!("'{escaped}'")
}

/// What `call` makes of the module `hash`, in native code and in Lua alone, as in Envoy.
#[track_caller]
fn both(call: &str) -> String {
    let with = |before: &str| {
        eval(&format!("(function() {before} local hash = require('lib.hash') return {call} end)()"))
    };
    let native = with("");
    assert_eq!(native, with("package.preload['sluis.hash'] = nil"), "{call}");
    native
}

fn sha256(text: &[u8]) -> String {
    both(&format!("hash.sha256({})", literal(text)))
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> String {
    both(&format!("hash.hmac(hash.sha256, {}, {})", literal(key), literal(text)))
}

#[test]
fn sha256_gives_the_known_answers() {
    // FIPS 180-4, examples.
    for (text, expected) in [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
    ] {
        assert_eq!(sha256(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn sha256_agrees_with_another_implementation_at_every_length() {
    let text: Vec<u8> = (0..300u32).map(|n| (n * 7 + 3) as u8).collect();
    for length in (0..=130).chain([191, 192, 193, 255, 256, 300]) {
        let expected = hex(digest::digest(&digest::SHA256, &text[..length]).as_ref());
        assert_eq!(sha256(&text[..length]), expected, "{length} bytes");
    }
}

#[test]
fn hmac_gives_the_known_answers() {
    // RFC 4231 §4, test cases 1-4, 6 and 7.
    let ordinal: Vec<u8> = (1..=25).collect();
    let cases: [(&[u8], &[u8], &str); 6] = [
        (
            &[0x0b; 20],
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            &[0xaa; 20],
            &[0xdd; 50],
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
        ),
        (&ordinal, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            &[0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size \
              data. The key needs to be hashed before being used by the HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ];
    for (key, text, expected) in cases {
        assert_eq!(hmac_sha256(key, text), expected);
    }
}

#[test]
fn the_articles_script_signs_as_it_is_printed() {
    for before in ["", "package.preload['sluis.hash'] = nil "] {
        check_signature(&format!("{before}{KEYS}{ARTICLE}"));
    }
}

#[track_caller]
fn check_signature(source: &str) {
    let script = compile(source).unwrap();
    let mut stream = request();
    assert_eq!(on_request(&script, &mut stream).unwrap(), Outcome::Continue);
    let [date] = stream.all("x-date")[..] else { panic!("{stream:?}") };
    let signed = format!("POST\napi.data.local\n/graphql?x=1\n{date}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"sesame");
    let expected = hex(hmac::sign(&key, signed.as_bytes()).as_ref());
    let expected = format!("Version=V1, Credential=AK, Signature={expected}");
    assert_eq!(stream.all("x-authorization"), [expected]);
}

#[test]
fn the_articles_script_leaves_other_hosts_alone() {
    let script = compile(&format!("{KEYS}{ARTICLE}")).unwrap();
    let mut stream = request();
    stream.list[2].1 = "other.local".to_owned();
    let before = stream.list.clone();
    assert_eq!(on_request(&script, &mut stream).unwrap(), Outcome::Continue);
    assert_eq!(stream.list, before);
}

/// Envoy would log the error and pass the request on, unsigned.
#[test]
fn without_a_key_the_articles_script_fails_closed() {
    let script = compile(ARTICLE).unwrap();
    let mut stream = request();
    let error = on_request(&script, &mut stream).unwrap_err().to_string();
    assert!(error.contains("not a string"), "{error}");
    assert_eq!(stream.list, request().list);
}
