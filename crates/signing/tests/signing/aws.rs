//! The examples that AWS publishes.

use sluis_signing::{
    AwsSigV4, Digest, HashAlgorithm, Kind, Place, SignError, SignedFields, Signer,
};

use crate::{Request, lines, request, signer};

fn kind(service: &str, s3: bool) -> AwsSigV4 {
    AwsSigV4 {
        service: service.into(),
        region: "us-east-1".into(),
        access_key_id_key: "id".into(),
        secret_access_key_key: "secret".into(),
        body_bytes_max: 1024,
        payload_field: s3,
        s3,
        ..AwsSigV4::default()
    }
}

/// The keys of the test suite and of the guide, which differ in one character.
fn suite(kind: AwsSigV4) -> Signer {
    let secret: &[u8] = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    signer(Kind::AwsSigV4(kind), &[("id", b"AKIDEXAMPLE"), ("secret", secret)])
}

fn guide(kind: AwsSigV4) -> Signer {
    let secret: &[u8] = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    signer(Kind::AwsSigV4(kind), &[("id", b"AKIAIOSFODNN7EXAMPLE"), ("secret", secret)])
}

#[track_caller]
fn check(mut request: Request, body: &[u8], signer: &Signer, names: &str, signature: &str) {
    request.body = Some(Digest::of(HashAlgorithm::Sha256, body));
    let lines = lines(&request.sign(signer).unwrap());
    let end = format!("SignedHeaders={names}, Signature={signature}");
    let last = lines.last().unwrap();
    assert!(last.ends_with(&end), "{last}");
}

/// The test suite: `get-vanilla` and its kin.
#[test]
fn the_test_suite_agrees() {
    let suite = suite(kind("service", false));
    let get = |target| request("GET", "example.amazonaws.com", target);
    let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    for target in ["/", "//", "/./", "/example/..", "/a/b/../.."] {
        check(get(target), b"", &suite, "host;x-amz-date", vanilla);
    }
    check(
        request("POST", "example.amazonaws.com", "/"),
        b"",
        &suite,
        "host;x-amz-date",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    );
    check(
        get("/?Param2=value2&Param1=value1"),
        b"",
        &suite,
        "host;x-amz-date",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    );
}

/// The reference guide: `ListUsers`.
#[test]
fn the_example_of_iam_agrees() {
    let mut kind = kind("iam", false);
    kind.signed_fields = SignedFields::Listed(vec!["Content-Type".into()]);
    let request = request("GET", "iam.amazonaws.com", "/?Action=ListUsers&Version=2010-05-08")
        .field("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .field("accept", "*/*");
    let signature = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    check(request, b"", &suite(kind), "content-type;host;x-amz-date", signature);
}

/// The guide of S3: "Examples: Signature Calculations in AWS Signature Version 4".
#[test]
fn the_examples_of_s3_agree() {
    let mut kind = kind("s3", true);
    kind.signed_fields = SignedFields::Listed(vec!["date".into(), "range".into()]);
    let guide = guide(kind);
    let at = |method, target| {
        request(method, "examplebucket.s3.amazonaws.com", target).at(1_369_353_600)
    };
    check(
        at("GET", "/test.txt").field("range", "bytes=0-9"),
        b"",
        &guide,
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    );
    check(
        at("PUT", "/test$file.text")
            .field("date", "Fri, 24 May 2013 00:00:00 GMT")
            .field("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        b"Welcome to Amazon S3.",
        &guide,
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    );
    check(
        at("GET", "/?lifecycle"),
        b"",
        &guide,
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    );
    check(
        at("GET", "/?max-keys=2&prefix=J"),
        b"",
        &guide,
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    );
}

/// The guide of S3: "Authenticating Requests: Using Query Parameters".
#[test]
fn the_presigned_example_of_s3_agrees() {
    let place = Place::Query { expires_seconds: 86_400 };
    let guide = guide(AwsSigV4 { place, ..kind("s3", true) });
    assert_eq!(guide.scheme().needs_body(), None);
    let target = "/test.txt?X-Amz-Signature=theirs&x-amz-date=theirs";
    let request = request("GET", "examplebucket.s3.amazonaws.com", target).at(1_369_353_600);
    let edits = request.sign(&guide).unwrap();
    assert_eq!(lines(&edits), [""; 0]);
    assert_eq!(
        edits.path_and_query().unwrap(),
        "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    let check = |s3: bool, target: &str, refusal: Option<SignError>| {
        let signer = guide(AwsSigV4 { unsigned_payload: true, ..kind("s3", s3) });
        assert_eq!(request("GET", "h", target).sign(&signer).err(), refusal, "{target}");
    };
    let path = |what| Some(SignError::AmbiguousPath { what });
    let query = |what| Some(SignError::AmbiguousQuery { what });
    check(true, "/a%2fb", path("an encoded slash"));
    check(true, "/a/../b", path("a segment of dots"));
    check(true, "/a/%2E%2e/b", path("a segment of dots"));
    check(true, "/a%2", path("a % without two digits"));
    check(true, "/a//b%20c!", None);
    check(false, "/a%2fb/../c", None);
    check(false, "/?a=%zz", query("a % without two digits"));
    check(false, "/?a=1&&b=2", query("an empty parameter"));
    check(false, "*", Some(SignError::Target));
}
