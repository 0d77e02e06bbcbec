//! `sluis audit reconcile`: do sidecars and gateways tell the same story?
//!
//! In:    access logs of sidecars (Istio's text or JSON form), access and audit logs of gateways.
//! Out:   what only one side tells of; exit 3 when there is something.
//! Never: matches by guess: a connection is known by its address and port in its time, a request by
//!        its identifier.

mod access;

use std::{collections::HashMap, process::ExitCode, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};
use sluis_audit::{Entry, Line};
use sluis_nouns::ObjectName;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use self::access::Access;
use super::{
    ReconcileOptions,
    files::{self, Log},
};
use crate::{
    output::{self, Format, Table},
    state::StateDir,
};

/// Something is unmatched.
const EXIT_UNMATCHED: u8 = 3;

/// What one side says of one connection or request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    /// Who says it, NAMESPACE/NAME.
    by: String,
    /// The client's end of the connection to the gateway.
    address: String,
    /// The request's identifier, where there is one.
    request_id: Option<String>,
    /// From and to, in milliseconds since the epoch.
    span: (i128, i128),
    /// Bytes that went to the gateway, or that it received; `None` when the log does not say.
    bytes: Option<u64>,
    /// Whether the bytes are of a connection, and not of a request's body.
    is_connection: bool,
}

/// What does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    kind: &'static str,
    by: String,
    address: String,
    request_id: String,
    at: String,
    what: String,
}

/// Compares.
///
/// # Errors
///
/// When a log cannot be read.
pub(super) fn run(state: &StateDir, options: &ReconcileOptions) -> Result<ExitCode> {
    let logs = files::find(Ok(state.clone()), &options.which)?;
    let mut gateways = Vec::new();
    let mut hosts = HashMap::new();
    for log in &logs {
        gateways.extend(received(state, log, &mut hosts)?);
    }
    let mut sidecars = Vec::new();
    let mut silent = Vec::new();
    for workload in access::workloads(state)? {
        if logs.iter().any(|log| log.workload.as_ref() == Some(&workload)) {
            continue;
        }
        let accesses = access::read(&state.workload(&workload).log())?;
        if accesses.is_empty() {
            silent.push(workload.to_string());
        }
        let to_gateway = |one: &Access| {
            hosts.contains_key(one.upstream_host.rsplit_once(':').map_or("", |(ip, _)| ip))
        };
        sidecars
            .extend(accesses.iter().filter(|one| to_gateway(one)).map(|one| sent(&workload, one)));
    }
    let findings = compare(&sidecars, &gateways, options.tolerance);
    print(&findings, (sidecars.len(), gateways.len()), &silent, options.output)?;
    let is_clean = findings.is_empty();
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNMATCHED) })
}

/// What a gateway says it received: its access log, and its audit log where that has more.
fn received(state: &StateDir, log: &Log, hosts: &mut HashMap<String, String>) -> Result<Vec<Told>> {
    let mut told = Vec::new();
    log.each_line(|line| {
        learn_address(&line, &log.name, hosts);
        if let Entry::Use(used) = &line.entry {
            let end = milliseconds(&line.time);
            told.push(Told {
                by: log.name.clone(),
                address: used.who.source.clone(),
                request_id: Some(used.what.request_id.clone()).filter(|id| !id.is_empty()),
                span: (end - i128::from(used.result.milliseconds), end),
                bytes: Some(used.result.bytes_sent).filter(|_| used.attempt <= 1),
                is_connection: false,
            });
        }
    })?;
    if let Some(workload) = &log.workload {
        for one in access::read(&state.workload(workload).log())? {
            told.push(Told {
                by: log.name.clone(),
                address: one.downstream_remote.clone(),
                request_id: one.request_id.clone(),
                span: one.span,
                bytes: Some(one.bytes_received),
                is_connection: one.is_connection,
            });
        }
    }
    Ok(told)
}

/// The gateway's address, from its node's identifier: `router~ADDRESS~NAME~DOMAIN`.
fn learn_address(line: &Line, name: &str, hosts: &mut HashMap<String, String>) {
    let writer = match &line.entry {
        Entry::Start(writer) | Entry::Continue(writer) => writer,
        Entry::Restart(reopening) => &reopening.writer,
        _ => return,
    };
    if let Some(address) = writer.node.split('~').nth(1) {
        hosts.insert(address.to_owned(), name.to_owned());
    }
}

fn sent(workload: &ObjectName, one: &Access) -> Told {
    Told {
        by: workload.to_string(),
        address: one.upstream_local.clone(),
        request_id: one.request_id.clone(),
        span: one.span,
        bytes: Some(one.bytes_received),
        is_connection: one.is_connection,
    }
}

/// What only one side tells of, or both differently.
fn compare(sidecars: &[Told], gateways: &[Told], tolerance: Duration) -> Vec<Finding> {
    let slack = i128::try_from(tolerance.as_millis()).unwrap_or(i128::MAX / 4);
    let mut findings = Vec::new();
    let sent_by = by_address(sidecars);
    let received_by = by_address(gateways);
    for told in gateways {
        let candidates = sent_by.get(told.address.as_str()).map_or(&[][..], Vec::as_slice);
        if !candidates.iter().any(|sent| matches(sent, told, slack)) {
            let what = "the gateway received it, and no sidecar says it sent it";
            findings.push(finding("unsent", told, what.to_owned()));
        }
    }
    for sent in sidecars {
        let candidates = received_by.get(sent.address.as_str()).map_or(&[][..], Vec::as_slice);
        let matching: Vec<&&Told> =
            candidates.iter().filter(|told| matches(sent, told, slack)).collect();
        if matching.is_empty() {
            let what = "the sidecar sent it, and no gateway says it received it";
            findings.push(finding("unreceived", sent, what.to_owned()));
            continue;
        }
        findings.extend(compare_bytes(sent, &matching));
    }
    findings.sort_by(|a, b| (&a.at, &a.by, &a.address).cmp(&(&b.at, &b.by, &b.address)));
    findings.dedup();
    findings
}

/// Bytes of one request are the same on both sides; those of a connection are no fewer than the
/// bodies within it.
fn compare_bytes(sent: &Told, matching: &[&&Told]) -> Option<Finding> {
    let ours = sent.bytes?;
    if sent.is_connection {
        // The gateway's access log and audit log may both tell of one request: the larger counts.
        let mut bodies: HashMap<Option<&str>, u64> = HashMap::new();
        for told in matching.iter().filter(|told| !told.is_connection) {
            let most = bodies.entry(told.request_id.as_deref()).or_default();
            *most = (*most).max(told.bytes.unwrap_or(0));
        }
        let theirs: u64 = bodies.values().sum();
        let what = format!("the sidecar sent {ours} bytes, the gateway received {theirs}");
        return (theirs > ours).then(|| finding("bytes", sent, what));
    }
    let theirs = matching
        .iter()
        .filter(|told| !told.is_connection && told.request_id == sent.request_id)
        .find_map(|told| told.bytes.filter(|theirs| *theirs != ours))?;
    let what = format!("the sidecar sent {ours} bytes, the gateway received {theirs}");
    Some(finding("bytes", sent, what))
}

fn by_address(all: &[Told]) -> HashMap<&str, Vec<&Told>> {
    let mut by_address: HashMap<&str, Vec<&Told>> = HashMap::new();
    for told in all {
        by_address.entry(told.address.as_str()).or_default().push(told);
    }
    by_address
}

/// Whether both tell of the same: the same connection at the same time, and the same request where
/// both know one.
fn matches(sent: &Told, received: &Told, slack: i128) -> bool {
    let overlap = sent.span.0 <= received.span.1 + slack && received.span.0 <= sent.span.1 + slack;
    let same = match (&sent.request_id, &received.request_id) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => true,
    };
    overlap && same
}

fn finding(kind: &'static str, told: &Told, what: String) -> Finding {
    Finding {
        kind,
        by: told.by.clone(),
        address: told.address.clone(),
        request_id: told.request_id.clone().unwrap_or_default(),
        at: moment(told.span.1),
        what,
    }
}

fn print(
    findings: &[Finding],
    (sent, received): (usize, usize),
    silent: &[String],
    format: Format,
) -> Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        let list: Vec<Value> = findings
            .iter()
            .map(|one| {
                json!({
                    "kind": one.kind, "by": one.by, "address": one.address,
                    "request_id": one.request_id, "time": one.at, "what": one.what,
                })
            })
            .collect();
        let value = json!({
            "sent": sent, "received": received, "unmatched": list, "without_access_log": silent,
        });
        return output::print_value(&value, format);
    }
    let mut table = Table::new(&["TIME", "KIND", "BY", "CONNECTION", "REQUEST ID", "WHAT"]);
    for one in findings {
        let cells = [&one.at, one.kind, &one.by, &one.address, &one.request_id, &one.what];
        table.row(cells.map(str::to_owned).to_vec());
    }
    if !findings.is_empty() {
        output::print(&table.render())?;
    }
    for workload in silent {
        output::print(&format!("note: {workload} has no access log, so nothing of it matches\n"))?;
    }
    output::print(&format!(
        "{sent} records of sidecars towards gateways, {received} of gateways: {} unmatched\n",
        findings.len()
    ))
}

fn milliseconds(time: &str) -> i128 {
    OffsetDateTime::parse(time, &Rfc3339).map_or(0, |at| at.unix_timestamp_nanos() / 1_000_000)
}

fn moment(milliseconds: i128) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(milliseconds * 1_000_000);
    at.map(|at| sluis_audit::timestamp(at.into())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(by: &str, address: &str, request_id: &str, at: i128) -> Told {
        Told {
            by: by.to_owned(),
            address: address.to_owned(),
            request_id: Some(request_id.to_owned()).filter(|id| !id.is_empty()),
            span: (at - 10, at),
            bytes: Some(100),
            is_connection: request_id.is_empty(),
        }
    }

    #[track_caller]
    fn check(sidecars: &[Told], gateways: &[Told], expected: &[&str]) {
        let found = compare(sidecars, gateways, Duration::from_secs(5));
        let kinds: Vec<&str> = found.iter().map(|one| one.kind).collect();
        assert_eq!(kinds, expected, "{found:#?}");
    }

    #[test]
    fn what_both_sides_tell_of_matches() {
        let sent =
            [told("a/app", "10.0.0.1:1000", "", 500), told("a/app", "10.0.0.1:2000", "r", 900)];
        let received =
            [told("e/gw", "10.0.0.1:1000", "q", 505), told("e/gw", "10.0.0.1:2000", "r", 901)];
        check(&sent, &received, &[]);
    }

    #[test]
    fn what_one_side_tells_of_is_named() {
        let sent = [told("a/app", "10.0.0.1:1000", "r", 500)];
        check(&sent, &[], &["unreceived"]);
        check(&[], &sent, &["unsent"]);
        // Another request of the same connection, and the same port an hour later.
        check(&sent, &[told("e/gw", "10.0.0.1:1000", "s", 500)], &["unreceived", "unsent"]);
        let later = told("e/gw", "10.0.0.1:1000", "r", 3_600_000);
        check(&sent, &[later], &["unreceived", "unsent"]);
    }

    #[test]
    fn bytes_that_differ_are_named() {
        let sent = told("a/app", "10.0.0.1:1000", "r", 500);
        let mut received = told("e/gw", "10.0.0.1:1000", "r", 500);
        received.bytes = Some(99);
        check(std::slice::from_ref(&sent), &[received], &["bytes"]);
        // A connection carries heads and TLS besides bodies; bodies cannot be more.
        let connection = told("a/app", "10.0.0.1:1000", "", 500);
        let mut body = told("e/gw", "10.0.0.1:1000", "r", 500);
        body.bytes = Some(60);
        check(std::slice::from_ref(&connection), &[body.clone()], &[]);
        body.bytes = Some(101);
        check(&[connection], &[body], &["bytes"]);
    }
}
