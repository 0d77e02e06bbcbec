//! What Istio's webhook refuses of routes, rules, gateways and entries is refused, and what it takes is
//! taken. Cases follow the rules of Istio's `pkg/config/validation`.

use super::{networking, parse};

/// Checks that Istio's verdict on an object is ours, and that a refusal names the field.
#[track_caller]
fn check(kind: &str, spec: &str, refused_at: Option<&str>) {
    let parsed = parse("f.yaml", &networking(kind, spec));
    let errors: Vec<String> =
        parsed.faults.iter().filter(|fault| fault.is_error()).map(ToString::to_string).collect();
    match refused_at {
        None => assert!(errors.is_empty(), "{spec}\n{errors:#?}"),
        Some(path) => {
            let is_named = errors.iter().any(|fault| fault.contains(&format!(" spec{path}: ")));
            assert!(is_named, "{spec}\nwanted {path}\n{errors:#?}");
        }
    }
}

#[test]
fn http_routes_are_judged_as_istio_does() {
    let route = "route: [{destination: {host: a.b}}]";
    let check = |rule: &str, refused_at: Option<&str>| {
        let spec = format!("hosts: [a.b]\nhttp: [{{{rule}}}]");
        let path = refused_at.map(|path| format!(".http[0]{path}"));
        check("VirtualService", &spec, path.as_deref());
    };
    let with = |rest: &str| format!("{route}, {rest}");
    check("route: []", Some(".route"));
    check("name: x", Some(".route"));
    check("route: [{destination: {host: '*'}}]", Some(".route[0].destination.host"));
    check("route: [{destination: {host: '*.a.b'}}]", None);
    check("route: [{destination: {host: a, subset: a_b}}]", Some(".route[0].destination.subset"));
    check("route: [{destination: {host: a}, weight: 0}]", None);
    check("route: [{destination: {host: a}}, {destination: {host: b}}]", Some(".route"));
    check(&with("timeout: 0s"), Some(".timeout"));
    check(&with("timeout: 1us"), Some(".timeout"));
    check(&with("timeout: 1500us"), Some(".timeout"));
    check(&with("match: [{uri: {prefix: ''}}]"), None);
    check(&with("match: [{uri: {}}]"), None);
    check(&with("match: [{uri: {regex: ''}}]"), Some(".match[0].uri.regex"));
    check(&with("match: [{method: {prefix: ''}}]"), Some(".match[0].method.prefix"));
    check(&with("match: [{headers: {':path': {exact: a}}}]"), None);
    check(&with("match: [{headers: {':x': {exact: a}}}]"), Some(".match[0].headers.:x"));
    check(&with("match: [{withoutHeaders: {x: {regex: '*'}}}]"), None);
    check(&with("match: [{sourceNamespace: a.b}]"), Some(".match[0].sourceNamespace"));
    check(&with("match: [{sourceLabels: {'a b': c}}]"), Some(".match[0].sourceLabels.a b"));
    check(&with("headers: {request: {set: {Host: a}}}"), None);
    check(&with("headers: {request: {set: {':path': a}}}"), Some(".headers.request.set.:path"));
    check(&with("headers: {request: {remove: [host]}}"), Some(".headers.request.remove[0]"));
    check(&with("headers: {response: {add: {host: a}}}"), Some(".headers.response.add.host"));
    check(&with("headers: {request: {add: {a: '%b'}}}"), Some(".headers.request.add.a"));
    let twice = "rewrite: {authority: a}, headers: {request: {set: {host: b}}}";
    check(&with(twice), Some(".headers.request"));
    check(&with("rewrite: {}"), Some(".rewrite"));
    check(
        &with("rewrite: {uriRegexRewrite: {match: a, rewrite: ''}}"),
        Some(".rewrite.uriRegexRewrite.rewrite"),
    );
    check(&with("retries: {attempts: 0, retryOn: 5xx}"), Some(".retries.retryOn"));
    check(&with("retries: {attempts: 0}"), None);
    check(&with("retries: {attempts: 1, retryOn: '5xx,503'}"), None);
    check(&with("retries: {attempts: 1, retryOn: sometimes}"), Some(".retries.retryOn"));
    check(&with("fault: {}"), Some(".fault"));
    check(&with("fault: {abort: {httpStatus: 700}}"), Some(".fault.abort.httpStatus"));
    check(&with("fault: {abort: {grpcStatus: GONE}}"), Some(".fault.abort.grpcStatus"));
    check(&with("fault: {abort: {grpcStatus: UNAVAILABLE}}"), None);
    let little = "fault: {abort: {httpStatus: 500, percentage: {value: 0.00001}}}";
    check(&with(little), Some(".fault.abort.percentage.value"));
    check(&with("fault: {delay: {exponentialDelay: 1s}}"), Some(".fault.delay.exponentialDelay"));
    check(&with("corsPolicy: {allowMethods: [FETCH]}"), Some(".corsPolicy.allowMethods[0]"));
    check(&with("corsPolicy: {allowHeaders: ['a b']}"), Some(".corsPolicy.allowHeaders[0]"));
    check(&with("corsPolicy: {maxAge: 1500ms}"), Some(".corsPolicy.maxAge"));
    check(&with("corsPolicy: {allowOrigin: ['*']}"), None);
    check(&with("mirror: {host: a}, mirrors: [{destination: {host: a}}]"), Some(".mirrors"));
    check("redirect: {}", Some(".redirect"));
    check("redirect: {redirectCode: 302}", Some(".redirect"));
    check("redirect: {scheme: ftp}", Some(".redirect.scheme"));
    check("redirect: {uri: /a}, fault: {abort: {httpStatus: 500}}", Some(".fault"));
    check("redirect: {uri: /a}, rewrite: {uri: /a}", Some(".rewrite"));
    let rewrite = "match: [{uri: {exact: /a}}], redirect: {prefixRewrite: /b}";
    check(rewrite, Some(".redirect"));
    check("directResponse: {status: 200}, rewrite: {uri: /a}", Some(".rewrite"));
    check("delegate: {name: a}, timeout: 1s", None);
}

#[test]
fn the_rest_of_a_virtual_service_is_judged_as_istio_does() {
    let rest = "http: [{route: [{destination: {host: a.b}}]}]";
    let check = |spec: &str, refused_at: Option<&str>| {
        check("VirtualService", &format!("{spec}\n{rest}"), refused_at);
    };
    check("hosts: [a.b, '*.b']", Some(".hosts[1]"));
    check("hosts: ['*']", Some(".hosts[0]"));
    check("hosts: ['*']\ngateways: [mesh, g]", None);
    check("hosts: [1.2.3]", Some(".hosts[0]"));
    check("hosts: [1.2.3.4]", None);
    check("hosts: [a.b]\nexportTo: ['~']", Some(".exportTo[0]"));
    check("hosts: [a.b]\nexportTo: ['.', default]", Some(".exportTo[1]"));
    check("hosts: [a.b]\nexportTo: ['*', x]", Some(".exportTo"));
    let sni = "hosts: ['outbound_.80_._.a.b']\ngateways: [g]\ntls: [{match: [{sniHosts: \
               ['outbound_.80_._.a.b']}], route: [{destination: {host: a.b}}]}]";
    check(sni, None);
}

#[test]
fn destination_rules_are_judged_as_istio_does() {
    let check = |policy: &str, refused_at: Option<&str>| {
        let path = refused_at.map(|path| format!(".trafficPolicy{path}"));
        check("DestinationRule", &format!("host: a\ntrafficPolicy: {{{policy}}}"), path.as_deref());
    };
    check("", Some(""));
    check("portLevelSettings: [{port: {number: 1}}]", Some(".portLevelSettings[0]"));
    check("connectionPool: {}", Some(".connectionPool"));
    let upgrade = "connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}";
    check(upgrade, Some(".connectionPool.http.useClientProtocol"));
    let ping = "connectionPool: {http: {http2KeepAlive: {interval: 1s}}}";
    check(ping, Some(".connectionPool.http.http2KeepAlive.timeout"));
    check("connectionPool: {tcp: {idleTimeout: 0s}}", None);
    let local = "outlierDetection: {consecutiveLocalOriginFailures: 1}";
    check(local, Some(".outlierDetection.consecutiveLocalOriginFailures"));
    check(
        "outlierDetection: {maxEjectionPercent: 101}",
        Some(".outlierDetection.maxEjectionPercent"),
    );
    let balance = |text: &str, path: Option<&str>| {
        let path = path.map(|path| format!(".loadBalancer{path}"));
        check(&format!("loadBalancer: {{{text}}}"), path.as_deref());
    };
    let hash = |rest: &str| format!("consistentHash: {{useSourceIp: true, {rest}}}");
    balance(&hash("maglev: {tableSize: 12}"), Some(".consistentHash.maglev.tableSize"));
    balance(&hash("maglev: {tableSize: 65537}"), None);
    balance(&hash("minimumRingSize: 1, ringHash: {}"), Some(".consistentHash.minimumRingSize"));
    balance("consistentHash: {httpCookie: {name: ''}}", Some(".consistentHash.httpCookie.name"));
    balance("warmup: {duration: 1s, aggression: 0}", Some(".warmup.aggression"));
    let locality = |rest: &str| format!("localityLbSetting: {{{rest}}}");
    balance(&locality("failover: [{from: a, to: a}]"), Some(".localityLbSetting.failover[0]"));
    balance(&locality("failover: [{from: a, to: b/c}]"), Some(".localityLbSetting.failover[0]"));
    let overlap = "distribute: [{from: a/*, to: {b: 100}}, {from: a/z/*, to: {b: 100}}]";
    balance(&locality(overlap), Some(".localityLbSetting.distribute"));
    check("tls: {mode: ISTIO_MUTUAL, clientCertificate: a}", None);
    check(
        "tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: a}",
        Some(".tls.caCertificates"),
    );
    check("tls: {mode: SIMPLE, credentialName: a, caCrl: b}", Some(".tls.caCrl"));
    check("tunnel: {targetHost: 'a b', targetPort: 1}", Some(".tunnel.targetHost"));
    check("tunnel: {targetHost: a.b, targetPort: 1}, proxyProtocol: {}", Some(".proxyProtocol"));
    let selected = "host: a\nworkloadSelector: {matchLabels: {a: b}}\nexportTo: [x]";
    self::check("DestinationRule", selected, Some(".exportTo"));
}

#[test]
fn gateways_are_judged_as_istio_does() {
    let check = |server: &str, refused_at: Option<&str>| {
        let path = refused_at.map(|path| format!(".servers[0]{path}"));
        check("Gateway", &format!("servers: [{{{server}}}]"), path.as_deref());
    };
    let http = "port: {number: 80, name: http, protocol: HTTP}";
    let https = "port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b]";
    check(&format!("{http}, hosts: [a]"), Some(".hosts[0]"));
    check(&format!("{http}, hosts: ['*a.b']"), Some(".hosts[0]"));
    check(&format!("{http}, hosts: [ns/*.b, 10.0.0.1, '*']"), None);
    check(&format!("{http}, hosts: [a.b], tls: {{}}"), None);
    check(&format!("{http}, hosts: [a.b], tls: {{mode: SIMPLE}}"), Some(".tls"));
    check("port: {number: 80, name: '', protocol: HTTP}, hosts: [a.b]", Some(".port.name"));
    let target = "port: {number: 80, name: a, protocol: HTTP, targetPort: 1}, hosts: [a.b]";
    check(target, Some(".port.targetPort"));
    check("port: {number: 0, name: a, protocol: HTTP}, hosts: [a.b]", Some(".port"));
    let socket = "port: {number: 0, name: a, protocol: HTTP}, bind: 'unix:///a', hosts: [a.b]";
    check(socket, None);
    let tls = |tls: &str| format!("{https}, tls: {{{tls}}}");
    let files = "serverCertificate: a, privateKey: b";
    check(&tls(&format!("mode: OPTIONAL_MUTUAL, {files}")), Some(".tls.caCertificates"));
    check(&tls(&format!("mode: SIMPLE, {files}, credentialName: c")), Some(".tls.credentialName"));
    check(&tls(&format!("mode: SIMPLE, {files}, caCrl: c")), Some(".tls.caCrl"));
    check(&tls("mode: MUTUAL, credentialName: c"), None);
    check(&tls("mode: MUTUAL, credentialName: c, caCrl: d"), Some(".tls.caCrl"));
    check(&tls("mode: SIMPLE, credentialNames: [a, b, c]"), Some(".tls.credentialNames"));
    let dotted = "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a.b}\n";
    let faults = super::faults(dotted);
    assert!(faults.iter().any(|fault| fault.contains("metadata.name: the name of a Gateway")));
}

#[test]
fn service_entries_are_judged_as_istio_does() {
    let check = |spec: &str, refused_at: Option<&str>| {
        check("ServiceEntry", &spec.replace("; ", "\n"), refused_at);
    };
    let port = "ports: [{number: 80, name: http, protocol: HTTP}]";
    check("hosts: ['*.a.b']; resolution: DNS", Some(".hosts[0]"));
    check("hosts: [a.b]; resolution: DYNAMIC_DNS", Some(".hosts[0]"));
    check(&format!("hosts: ['*.a.b']; resolution: DYNAMIC_DNS; {port}"), None);
    check("hosts: ['*.a']; resolution: DYNAMIC_DNS; addresses: [1.1.1.1]", Some(".addresses"));
    let tcp = "ports: [{number: 80, name: tcp, protocol: TCP}]";
    check(&format!("hosts: ['*.a']; resolution: DYNAMIC_DNS; {tcp}"), Some(".ports[0]"));
    check(&format!("hosts: [a.b, c.d]; resolution: STATIC; {tcp}"), Some(".ports[0]"));
    check(&format!("hosts: [a.b, c.d]; {tcp}"), None);
    check("hosts: [a.b]; ports: [{number: 80, name: a_b}]", Some(".ports[0].name"));
    check("hosts: [a.b]; exportTo: ['~']", None);
    check("hosts: [a.b]; exportTo: ['~', x]", Some(".exportTo"));
    let none = "hosts: [a.b]; resolution: DNS; endpoints: [{network: n}]";
    check(none, Some(".endpoints[0]"));
    let unix = "hosts: [a.b]; resolution: STATIC; endpoints: [{address: 'unix:///a'}]";
    check(unix, Some(".endpoints[0]"));
    check(&format!("{unix}; {port}"), None);
    let labels =
        "hosts: [a.b]; resolution: STATIC; endpoints: [{address: 1.1.1.1, labels: {a: '-'}}]";
    check(labels, Some(".endpoints[0].labels.a"));
}
