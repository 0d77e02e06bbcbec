//! What a script can ask of its stream, and what it can tell.

use sluis_rules::MetaValue;

use crate::support::{Outcome, eval, failure, run};

#[track_caller]
fn check(expression: &str, expected: &str) {
    assert_eq!(eval(expression), expected, "{expression}");
}

#[test]
fn what_the_configuration_says_is_read() {
    for of in ["metadata()", "filterContext()", "route():metadata()"] {
        check(&format!("h:{of}:get('text')"), "a");
        check(&format!("h:{of}:get('number')"), "1.5");
        check(&format!("h:{of}:get('nothing')"), "nil");
        check(&format!("h:{of}:get('missing')"), "nil");
        check(&format!("h:{of}:get('fields').deep[1]"), "true");
    }
    check("h:virtualHost():metadata():get('text')", "nil");
    check("h:filterContext()['text']", "a");
    check("h:filterContext()['missing']", "nil");
    let walk = "(function() local s = '' for k, v in pairs(h:metadata()) do s = s .. k .. ' ' end return s end)()";
    check(walk, "fields nothing number text ");
}

#[test]
fn dynamic_metadata_is_set_and_read() {
    let (outcome, stream) = run("local meta = h:streamInfo():dynamicMetadata()
        meta:set('ns', 'list', {1, 'two', {three = true}})
        meta:set('ns', 'empty', {})
        meta:set('ns', 'nothing', nil)
        assert(meta:get('ns').list[3].three and meta:get('missing') == nil)
        local seen = 0
        for name, fields in pairs(meta) do seen = seen + 1 assert(fields.list[1] == 1) end
        assert(seen == 1)
        local connection = h:connectionStreamInfo():dynamicMetadata()
        assert(connection:get('istio_authn').who == 'ada')
        assert(h:connectionStreamInfo():dynamicTypedMetadata('x') == nil)
        assert(h:streamInfo():dynamicTypedMetadata('x') == nil)
        assert(h:streamInfo():filterState():get('x') == nil)
        assert(h:streamInfo():filterState():get('x', 'field') == nil)");
    assert_eq!(outcome.unwrap(), Outcome::Continue);
    let list = stream.metadata.get("ns", &["list"]).unwrap();
    let MetaValue::List(list) = list else { panic!("{list:?}") };
    assert_eq!(list[..2], [MetaValue::Number(1.0), MetaValue::text("two")]);
    assert_eq!(stream.metadata.get("ns", &["empty"]), Some(&MetaValue::fields([].into())));
    assert_eq!(stream.metadata.get("ns", &["nothing"]), Some(&MetaValue::Null));
}

#[test]
fn what_cannot_be_metadata_is_refused() {
    let set =
        |value: &str| failure(&format!("h:streamInfo():dynamicMetadata():set('a', 'b', {value})"));
    assert!(set("print").contains("unexpected type 'function'"));
    assert!(set("{[true] = 1}").contains("unexpected type boolean in table key"));
    assert!(set("{1, x = 2}").contains("in table key"));
    let deep = "local t = {} for i = 1, 100 do t = {t} end";
    assert!(
        failure(&format!("{deep} h:streamInfo():dynamicMetadata():set('a', 'b', t)"))
            .contains("too large")
    );
    let wide = "local t = {} for i = 1, 5000 do t[i] = i end";
    assert!(
        failure(&format!("{wide} h:streamInfo():dynamicMetadata():set('a', 'b', t)"))
            .contains("too large")
    );
    let ring = "local t = {} t.t = t h:streamInfo():dynamicMetadata():set('a', 'b', t)";
    assert!(failure(ring).contains("too large"));
    let sparse = "h:streamInfo():dynamicMetadata():set('a', 'b', {[1e8] = 1})";
    assert!(failure(sparse).contains("too large"));
}

#[test]
fn the_stream_tells_of_itself() {
    check("h:streamInfo():routeName()", "by-name");
    check("h:streamInfo():virtualClusterName()", "");
    check("h:streamInfo():requestedServerName()", "api.data.local");
    check("h:streamInfo():downstreamRemoteAddress()", "192.0.2.1:5");
    check("h:streamInfo():downstreamDirectRemoteAddress()", "192.0.2.2:5");
    check("h:streamInfo():downstreamLocalAddress()", "192.0.2.3:443");
    check("h:streamInfo():downstreamDirectLocalAddress()", "192.0.2.4:443");
}

#[test]
fn every_method_of_tls_answers() {
    let ssl = "h:streamInfo():downstreamSslConnection()";
    check(&format!("{ssl}:tlsVersion()"), "TlsVersion");
    check(&format!("{ssl}:peerCertificateValidated()"), "false");
    check(
        &format!("table.concat({ssl}:dnsSansPeerCertificate(), ',')"),
        "DnsSansPeerCertificate,second",
    );
    check(&format!("{ssl}:validFromPeerCertificate()"), "1");
    check(&format!("{ssl}:expirationPeerCertificate()"), "2000000000");
    check(&format!("{ssl}:parsedSubjectPeerCertificate():commonName()"), "name");
    check(
        &format!("table.concat({ssl}:parsedSubjectPeerCertificate():organizationName(), ',')"),
        "o1,o2",
    );
    for method in [
        "sha256PeerCertificateDigest",
        "serialNumberPeerCertificate",
        "issuerPeerCertificate",
        "subjectPeerCertificate",
        "subjectLocalCertificate",
        "urlEncodedPemEncodedPeerCertificate",
        "urlEncodedPemEncodedPeerCertificateChain",
        "sessionId",
        "ciphersuiteId",
        "ciphersuiteString",
    ] {
        check(&format!("type({ssl}:{method}())"), "string");
    }
    for method in [
        "uriSanLocalCertificate",
        "uriSanPeerCertificate",
        "dnsSansLocalCertificate",
        "oidsPeerCertificate",
        "oidsLocalCertificate",
    ] {
        check(&format!("type({ssl}:{method}())"), "table");
    }
}

#[test]
fn effects_are_told() {
    let (outcome, stream) = run("h:clearRouteCache()
        h:setUpstreamOverrideHost('192.168.21.13:80', true)
        h:streamInfo():drainConnectionUponCompletion()");
    assert_eq!(outcome.unwrap(), Outcome::Continue);
    let effects = stream.effects;
    assert!(effects.clears_route && effects.drains && !effects.has_changed_head);
    assert_eq!(effects.override_host, Some(("192.168.21.13:80".to_owned(), true)));
    for host in ["'example.com'", "''", "nil", "'1.2.3'"] {
        failure(&format!("h:setUpstreamOverrideHost({host})"));
    }
    for host in ["'::1'", "'[::1]:80'", "'[::1]'"] {
        assert!(run(&format!("h:setUpstreamOverrideHost({host})")).0.is_ok(), "{host}");
    }
}

#[test]
fn timestamps_have_the_resolution_that_is_asked_for() {
    check("#h:timestampString()", "13");
    check("#h:timestampString(EnvoyTimestampResolution.MILLISECOND)", "13");
    failure("h:timestamp(EnvoyTimestampResolution.MICROSECOND)");
    failure("h:timestampString(7)");
}
