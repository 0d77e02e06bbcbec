//! Records as events of the Open Cybersecurity Schema Framework, version 1.8.0: class HTTP Activity
//! (4002), profiles Host and Security Control.
//!
//! In:    a line with a use.
//! Out:   the event as JSON; what OCSF has no place for is under `unmapped`.
//! Never: leaves out a refusal, or tells more than the line does.

use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::record::{Line, Use, Verdict};

/// The version of the schema.
pub const OCSF_VERSION: &str = "1.8.0";

/// The class and its category.
const HTTP_ACTIVITY: u32 = 4002;
const NETWORK_ACTIVITY: u32 = 4;

/// An activity that the class does not know.
const OTHER: u32 = 99;

/// The profiles whose attributes are used.
const PROFILES: [&str; 2] = ["host", "security_control"];

/// The event of one use.
#[must_use]
pub fn event(line: &Line, used: &Use) -> Value {
    let (activity, activity_name) = activity(&used.what.method);
    let mut event = Map::new();
    let mut set = |key: &str, value: Value| {
        if !value.is_null() {
            event.insert(key.to_owned(), value);
        }
    };
    set("activity_id", json!(activity));
    set("activity_name", json!(activity_name));
    set("category_uid", json!(NETWORK_ACTIVITY));
    set("category_name", json!("Network Activity"));
    set("class_uid", json!(HTTP_ACTIVITY));
    set("class_name", json!("HTTP Activity"));
    set("type_uid", json!(HTTP_ACTIVITY * 100 + activity));
    set("type_name", json!(format!("HTTP Activity: {activity_name}")));
    set("time", json!(milliseconds(&line.time)));
    set("duration", json!(used.result.milliseconds));
    set("message", json!(message(used)));
    set("metadata", metadata(line));
    judgement(used, &mut set);
    set("actor", actor(used));
    set("src_endpoint", endpoint(&used.who.source, None, None));
    let cluster = Some(used.destination.cluster.as_str());
    set("dst_endpoint", endpoint(&used.destination.endpoint, Some(host(used).0), cluster));
    set("http_request", request(used));
    if used.result.status != 0 {
        set("http_response", json!({"code": used.result.status}));
        set("status_code", json!(used.result.status.to_string()));
    }
    set(
        "traffic",
        json!({"bytes_in": used.result.bytes_received, "bytes_out": used.result.bytes_sent}),
    );
    if let Some(grant) = &used.grant {
        set("policy", json!({"name": grant, "type": "CredentialGrant"}));
    }
    set("unmapped", unmapped(line, used));
    Value::Object(event)
}

/// What was decided, how it ended, and how grave that is.
fn judgement(used: &Use, set: &mut impl FnMut(&str, Value)) {
    let is_refusal = used.verdict.is_refusal();
    let (severity, severity_name) = match used.verdict {
        Verdict::Injected | Verdict::Without => (1, "Informational"),
        Verdict::Denied | Verdict::Unavailable => (3, "Medium"),
        // Something wanted the secret to go where it may not.
        Verdict::Guarded => (4, "High"),
    };
    set("severity_id", json!(severity));
    set("severity", json!(severity_name));
    let is_success = !is_refusal && (1..400).contains(&used.result.status);
    set("status_id", json!(if is_success { 1 } else { 2 }));
    set("status", json!(if is_success { "Success" } else { "Failure" }));
    if !used.result.details.is_empty() {
        set("status_detail", json!(used.result.details));
    }
    let (action, action_name) = match used.verdict {
        Verdict::Injected => (4, "Modified"),
        Verdict::Without => (1, "Allowed"),
        _ => (2, "Denied"),
    };
    set("action_id", json!(action));
    set("action", json!(action_name));
    let (disposition, disposition_name) = if is_refusal { (2, "Blocked") } else { (1, "Allowed") };
    set("disposition_id", json!(disposition));
    set("disposition", json!(disposition_name));
    set("is_alert", json!(used.verdict == Verdict::Guarded));
}

fn metadata(line: &Line) -> Value {
    json!({
        "version": OCSF_VERSION,
        "product": {"name": "Sluis", "vendor_name": "Sluis"},
        "profiles": PROFILES,
        "log_name": "audit",
        "sequence": line.seq,
        "original_time": line.time,
    })
}

/// The workload, and the user whose token it carried. Nobody is no actor.
fn actor(used: &Use) -> Value {
    let mut actor = Map::new();
    if let Some(principal) = &used.who.principal {
        actor.insert("app_uid".to_owned(), json!(principal));
        actor.insert("app_name".to_owned(), json!(principal));
    }
    if let Some(user) = &used.who.user {
        actor.insert("user".to_owned(), json!({"uid": user.subject, "domain": user.issuer}));
        actor.insert("idp".to_owned(), json!({"name": user.issuer}));
    }
    if actor.is_empty() { Value::Null } else { Value::Object(actor) }
}

/// ADDRESS:PORT with names.
fn endpoint(address: &str, hostname: Option<&str>, service: Option<&str>) -> Value {
    let mut endpoint = Map::new();
    if let Some((ip, port)) = address.rsplit_once(':') {
        endpoint.insert("ip".to_owned(), json!(ip.trim_matches(['[', ']'])));
        if let Ok(port) = port.parse::<u16>() {
            endpoint.insert("port".to_owned(), json!(port));
        }
    } else if !address.is_empty() {
        endpoint.insert("name".to_owned(), json!(address));
    }
    for (key, name) in [("hostname", hostname), ("svc_name", service)] {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            endpoint.insert(key.to_owned(), json!(name));
        }
    }
    if endpoint.is_empty() { Value::Null } else { Value::Object(endpoint) }
}

/// The request's host without its port, and the port.
fn host(used: &Use) -> (&str, Option<u16>) {
    let host = used.what.host.as_str();
    match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

fn request(used: &Use) -> Value {
    let (name, port) = host(used);
    let (path, query) = match used.what.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (used.what.path.as_str(), None),
    };
    let mut url = Map::new();
    url.insert("scheme".to_owned(), json!(used.what.scheme));
    url.insert("hostname".to_owned(), json!(name));
    url.insert("path".to_owned(), json!(path));
    if let Some(query) = query {
        url.insert("query_string".to_owned(), json!(query));
    }
    if let Some(port) = port {
        url.insert("port".to_owned(), json!(port));
    }
    let mut request = Map::new();
    // The schema knows no others; those are under `unmapped`.
    if activity(&used.what.method).0 != OTHER {
        request.insert("http_method".to_owned(), json!(used.what.method));
    }
    request.insert("url".to_owned(), Value::Object(url));
    if !used.what.request_id.is_empty() {
        request.insert("uid".to_owned(), json!(used.what.request_id));
    }
    Value::Object(request)
}

fn unmapped(line: &Line, used: &Use) -> Value {
    json!({
        "http_method": used.what.method,
        "credential": used.credential,
        "verdict": used.verdict,
        "would": used.would,
        "verified": used.destination.verified,
        "attempt": used.attempt,
        "traceparent": used.what.traceparent,
        "prev": line.prev,
    })
}

fn message(used: &Use) -> String {
    let credential = used.credential.as_ref().map_or("no credential", |one| &one.name);
    let Use { what, verdict, .. } = used;
    format!("{credential} {}: {} {}{}", verdict.word(), what.method, what.host, what.path)
}

fn activity(method: &str) -> (u32, &'static str) {
    match method {
        "CONNECT" => (1, "Connect"),
        "DELETE" => (2, "Delete"),
        "GET" => (3, "Get"),
        "HEAD" => (4, "Head"),
        "OPTIONS" => (5, "Options"),
        "POST" => (6, "Post"),
        "PUT" => (7, "Put"),
        "TRACE" => (8, "Trace"),
        "PATCH" => (9, "Patch"),
        _ => (OTHER, "Other"),
    }
}

/// Milliseconds since the epoch, as OCSF's `timestamp_t`.
fn milliseconds(time: &str) -> i64 {
    let at = OffsetDateTime::parse(time, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Credential, Destination, Entry, Outcome, User, What, Who};

    /// What OCSF 1.8.0 requires of every event, and of those with these objects.
    const REQUIRED: [&str; 7] = [
        "/activity_id",
        "/category_uid",
        "/class_uid",
        "/metadata/product",
        "/severity_id",
        "/time",
        "/type_uid",
    ];

    fn line(used: Use) -> (Line, Use) {
        let entry = Entry::Use(Box::new(used.clone()));
        let time = "2026-11-22T12:00:00.123456Z".to_owned();
        (Line { seq: 7, time, entry, prev: String::new(), signature: None }, used)
    }

    fn full() -> Use {
        Use {
            who: Who {
                principal: Some("spiffe://cluster.local/ns/team-a/sa/notebook".to_owned()),
                user: Some(User { issuer: "https://id".to_owned(), subject: "anna".to_owned() }),
                source: "[2001:db8::1]:4711".to_owned(),
            },
            what: What {
                method: "POST".to_owned(),
                scheme: "https".to_owned(),
                host: "api.data.local:8443".to_owned(),
                path: "/graphql?user".to_owned(),
                request_id: "r-1".to_owned(),
                traceparent: String::new(),
            },
            credential: Some(Credential { name: "egress/api".to_owned(), ..Default::default() }),
            grant: Some("egress/notebooks".to_owned()),
            destination: Destination {
                cluster: "outbound|443||api.data.local".to_owned(),
                endpoint: "192.0.2.1:443".to_owned(),
                verified: Some("api.data.local".to_owned()),
            },
            result: Outcome { status: 200, ..Outcome::default() },
            ..Use::default()
        }
    }

    #[test]
    fn what_the_schema_requires_is_there_for_full_and_empty_records() {
        for used in [full(), Use::default()] {
            let (line, used) = line(used);
            let event = event(&line, &used);
            for place in REQUIRED {
                assert!(event.pointer(place).is_some_and(|value| !value.is_null()), "{place}");
            }
            assert!(
                event.get("dst_endpoint").is_some()
                    || event.get("src_endpoint").is_some()
                    || used == Use::default()
            );
            assert!(event.get("http_request").is_some());
        }
    }

    #[test]
    fn a_use_is_an_allowed_modification_and_a_refusal_is_a_block() {
        let (line, mut used) = line(full());
        let found = event(&line, &used);
        assert_eq!(found["type_uid"], 400_206);
        assert_eq!(found["time"], 1_795_348_800_123_i64);
        assert_eq!((&found["action_id"], &found["disposition_id"]), (&json!(4), &json!(1)));
        assert_eq!(found["src_endpoint"], json!({"ip": "2001:db8::1", "port": 4711}));
        assert_eq!(found["http_request"]["url"]["port"], 8443);
        used.verdict = Verdict::Guarded;
        let found = event(&line, &used);
        assert_eq!((&found["action_id"], &found["disposition_id"]), (&json!(2), &json!(2)));
        assert_eq!((&found["status_id"], &found["is_alert"]), (&json!(2), &json!(true)));
    }
}
