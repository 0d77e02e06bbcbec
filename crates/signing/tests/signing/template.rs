//! Signatures by template.

use sluis_signing::{
    BodyDigest, Digest, HashAlgorithm, Hmac, KeyEncoding, KeySource, Kind, Output, Scheme,
    SignError, TextEncoding,
};

use crate::{lines, request, signer};

const KEYS: [(&str, &[u8]); 2] = [("ak", b"AKIAPLATFORM"), ("sk", b"secret-key-of-the-platform")];

fn output(header: &str, template: &str) -> Output {
    Output { header: header.into(), template: template.into() }
}

/// What a platform's Lua script does: `method\nhost\npath\ndate`, `host` and `path` being Envoy's
/// `:authority` and `:path`.
fn v1() -> Hmac {
    Hmac {
        key: KeySource { entry: "sk".into(), encoding: KeyEncoding::Raw },
        string_to_sign: "{method}\n{authority}\n{path_and_query}\n{date}".into(),
        date_format: "%Y%m%dT%H%M%SZ".into(),
        outputs: vec![
            output("X-Date", "{date}"),
            output(
                "X-Authorization",
                "Version=V1, Credential={secret.ak}, Signature={signature:hex}",
            ),
        ],
        ..Hmac::default()
    }
}

/// By Python: `hmac.new(b"secret-key-of-the-platform",
/// b"POST\napi.data.local\n/graphql?x=1\n20150830T123600Z", "sha256").hexdigest()`.
#[test]
fn a_signature_by_template_is_that_of_the_script_it_replaces() {
    let signer = signer(Kind::Hmac(v1()), &KEYS);
    let request = request("POST", "api.data.local", "/graphql?x=1")
        .field("x-date", "20010101T000000Z")
        .field("x-authorization", "Version=V1, Credential=theirs, Signature=00");
    let edits = request.sign(&signer).unwrap();
    assert_eq!(edits.removed(), ["x-date", "x-authorization"]);
    let signature = "b6a42ac47e703e7704cd5db5e3aae4056f6a4c8fc4cc5a762de2dbbc0fa4563d";
    assert_eq!(
        lines(&edits),
        [
            "x-date: 20150830T123600Z".to_owned(),
            format!("x-authorization: Version=V1, Credential=AKIAPLATFORM, Signature={signature}"),
        ]
    );
}

#[test]
fn the_body_is_signed_when_it_is_asked_for() {
    let mut kind = v1();
    kind.string_to_sign += "\n{body_digest:hex}\n{header.content-digest}";
    kind.body_digest = Some(BodyDigest {
        header: "Content-Digest".into(),
        bytes_max: 1024,
        encoding: TextEncoding::Structured,
        ..BodyDigest::default()
    });
    let signer = signer(Kind::Hmac(kind), &KEYS);
    let need = signer.scheme().needs_body().unwrap();
    assert_eq!((need.algorithm, need.bytes_max), (HashAlgorithm::Sha256, 1024));

    let mut request = request("POST", "api.data.local", "/graphql");
    assert_eq!(
        request.sign(&signer).unwrap_err(),
        SignError::NoDigest { wanted: HashAlgorithm::Sha256 }
    );
    // RFC 9530, Appendix D.
    request.body = Some(Digest::of(HashAlgorithm::Sha256, b"{\"hello\": \"world\"}\n"));
    let lines = lines(&request.sign(&signer).unwrap());
    assert_eq!(lines[0], "content-digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:");
    assert!(
        lines[2].ends_with(
            "Signature=d350a2c43a0743b4c700a9cec023b563f5b4272d7e5f30875b69a8a23f2dc7bc"
        ),
        "{}",
        lines[2]
    );
}

#[test]
fn a_fault_in_a_template_is_named_with_its_place() {
    let check = |template: &str, fault: &str| {
        let kind = Hmac { string_to_sign: template.into(), ..v1() };
        let error = Scheme::compile(Kind::Hmac(kind)).unwrap_err();
        assert_eq!(error.to_string(), format!("template {template:?}, at byte {fault}"));
    };
    check("{method}{pth}", "8: there is no variable \"pth\"");
    check("{method", "0: the brace is not closed");
    check("a}b", "1: a brace that is not opened; a literal one is written }}");
    check("{method:rot13}", "0: no value can be written as \"rot13\"");
    check("é{secret.sk}", "2: \"secret.sk\" may not stand here");
    check("{signature}", "0: \"signature\" may not stand here");
    check("{header.a b}", "0: there is no variable \"header.a b\"");
}

#[test]
fn a_kind_that_makes_no_sense_is_refused_as_a_whole() {
    let check = |change: fn(&mut Hmac), fault: &str| {
        let mut kind = v1();
        change(&mut kind);
        assert_eq!(Scheme::compile(Kind::Hmac(kind)).unwrap_err().to_string(), fault);
    };
    check(|kind| kind.date_format.clear(), "date_format is missing");
    check(|kind| kind.string_to_sign += "{body_digest}", "body_digest is missing");
    check(|kind| kind.outputs.truncate(1), "an output with {signature} is missing");
    check(
        |kind| kind.string_to_sign += "{header.X-Authorization}",
        "a template wants the field that carries the signature: \"x-authorization\" is no name, or \
         one that may not be set",
    );
    check(
        |kind| kind.outputs.push(output("x-date", "{date}")),
        "a field is set twice: \"x-date\" is no name, or one that may not be set",
    );
    check(|kind| kind.date_format = "%Q".into(), "template \"%Q\", at byte 0: %Q says nothing");
}

/// The chain by which AWS makes a key, and its published example of one.
#[test]
fn a_chain_of_steps_makes_the_key() {
    let kind = Hmac {
        key: KeySource { entry: "k".into(), encoding: KeyEncoding::Raw },
        derive: ["20120215", "us-east-1", "iam"].map(str::to_owned).to_vec(),
        string_to_sign: "aws4_request".into(),
        outputs: vec![output("x-key", "{signature}")],
        ..Hmac::default()
    };
    let secret = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let edits = request("GET", "h", "/").sign(&signer(Kind::Hmac(kind), &[("k", secret)])).unwrap();
    let key = "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d";
    assert_eq!(lines(&edits), [format!("x-key: {key}")]);
}

#[test]
fn every_variable_and_form_is_written_as_it_says() {
    let check = |template: &str, expected: &str| {
        let kind = Hmac {
            key: KeySource { entry: "k".into(), encoding: KeyEncoding::Hex },
            string_to_sign: "{method}".into(),
            date_format: "%a, %d %b %Y %H:%M:%S GMT".into(),
            outputs: vec![output("s", "{signature}"), output("x", template)],
            ..Hmac::default()
        };
        let request = request("PUT", "API.example:8443", "/a%2Fb?q=1&r")
            .field("x-one", " a ")
            .field("x-one", "b");
        let edits = request.sign(&signer(Kind::Hmac(kind), &[("k", b"00fF")])).unwrap();
        assert_eq!(lines(&edits)[0], format!("x: {expected}"), "{template}");
    };
    check("{{{method:lower}}}", "{put}");
    check("{scheme}://{authority}{path}?{query}", "https://API.example:8443/a%2Fb?q=1&r");
    check("{host} {host:upper}", "api.example API.EXAMPLE");
    check("{date}", "Sun, 30 Aug 2015 12:36:00 GMT");
    check("{timestamp}", "1440938160");
    check(
        "{nonce:base64url} {nonce:upper}",
        "BwcHBwcHBwcHBwcHBwcHBw 07070707070707070707070707070707",
    );
    check("{header.X-One}|{header.none}|", "a, b||");
    check("{method:base64} {method:hex}", "UFVU 505554");
}
