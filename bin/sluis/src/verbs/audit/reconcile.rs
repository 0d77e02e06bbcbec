//! `sluis audit reconcile`: do sidecars and gateways tell the same story?
//!
//! In:    access logs of sidecars (Istio's text or JSON form), access and audit logs of gateways.
//! Out:   what only one side tells of; exit 3 when there is something.
//! Never: matches one record twice. A connection is known by its address and port in its time; a
//!        request on it by its identifier, or, as gateways give requests new ones (Envoy's rule for
//!        clients from outside), by its method and path, in order.

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
    /// The request's method and path, without values of its query.
    target: Option<String>,
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
                target: Some(format!("{} {}", used.what.method, used.what.path)),
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
                target: one.target.clone(),
                span: one.span,
                bytes: Some(one.bytes_received),
                is_connection: one.is_connection,
            });
        }
    }
    Ok(merged(told))
}

/// One record for each request that a gateway tells of twice: in its access log, and in its audit log
/// once for each try. The access log has the target as it came, and all bytes.
fn merged(mut told: Vec<Told>) -> Vec<Told> {
    // The access log was read last.
    told.reverse();
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let mut merged: Vec<Told> = Vec::new();
    for one in told {
        let Some(id) = one.request_id.clone() else {
            merged.push(one);
            continue;
        };
        match places.get(&(one.address.clone(), id.clone())) {
            Some(place) => {
                let span = &mut merged[*place].span;
                *span = (span.0.min(one.span.0), span.1.max(one.span.1));
            }
            None => {
                places.insert((one.address.clone(), id), merged.len());
                merged.push(one);
            }
        }
    }
    merged
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
        target: one.target.clone(),
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
    // For each record of a sidecar, what of the gateways' is the same.
    let mut partners: Vec<Vec<&Told>> = vec![Vec::new(); sidecars.len()];
    let mut ordered: Vec<&Told> = gateways.iter().collect();
    // Those whose identifier is known to both come first: they leave no doubt.
    let is_known = |told: &Told| {
        let of = sent_by.get(told.address.as_str()).map_or(&[][..], Vec::as_slice);
        told.request_id.is_some()
            && of.iter().any(|place| sidecars[*place].request_id == told.request_id)
    };
    ordered.sort_by_key(|told| (!is_known(told), told.span));
    for told in ordered {
        let of = sent_by.get(told.address.as_str()).map_or(&[][..], Vec::as_slice);
        let free = |place: &usize| sidecars[*place].is_connection || partners[*place].is_empty();
        let same_id = |place: &usize| {
            told.request_id.is_some() && sidecars[*place].request_id == told.request_id
        };
        let fitting = |place: &&usize| free(place) && matches(&sidecars[**place], told, slack);
        let found = of.iter().filter(fitting).find(|place| same_id(place));
        match found.or_else(|| of.iter().find(fitting)) {
            Some(place) => partners[*place].push(told),
            None => {
                let what = "the gateway received it, and no sidecar says it sent it";
                findings.push(finding("unsent", told, what.to_owned()));
            }
        }
    }
    for (sent, partners) in sidecars.iter().zip(&partners) {
        if partners.is_empty() {
            let what = "the sidecar sent it, and no gateway says it received it";
            findings.push(finding("unreceived", sent, what.to_owned()));
        } else {
            findings.extend(compare_bytes(sent, partners));
        }
    }
    findings.sort_by(|a, b| (&a.at, &a.by, &a.address).cmp(&(&b.at, &b.by, &b.address)));
    findings
}

/// Bytes of one request are the same on both sides; those of a connection are no fewer than the
/// bodies within it.
fn compare_bytes(sent: &Told, partners: &[&Told]) -> Option<Finding> {
    let ours = sent.bytes?;
    let bodies = partners.iter().filter(|told| !told.is_connection);
    let theirs: u64 = bodies.clone().filter_map(|told| told.bytes).sum();
    let is_known = bodies.clone().any(|told| told.bytes.is_some());
    let differs = if sent.is_connection { theirs > ours } else { is_known && theirs != ours };
    let what = format!("the sidecar sent {ours} bytes, the gateway received {theirs}");
    differs.then(|| finding("bytes", sent, what))
}

/// The places of records by their connection, in order of time.
fn by_address(all: &[Told]) -> HashMap<&str, Vec<usize>> {
    let mut by_address: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, told) in all.iter().enumerate() {
        by_address.entry(told.address.as_str()).or_default().push(place);
    }
    for places in by_address.values_mut() {
        places.sort_by_key(|place| all[*place].span);
    }
    by_address
}

/// Whether both may tell of the same: at the same time, and the same request where both know one.
fn matches(sent: &Told, received: &Told, slack: i128) -> bool {
    let overlap = sent.span.0 <= received.span.1 + slack && received.span.0 <= sent.span.1 + slack;
    let same = match (&sent.target, &received.target) {
        (Some(ours), Some(theirs)) => ours == theirs || sent.request_id == received.request_id,
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
            target: Some("GET /".to_owned()).filter(|_| !request_id.is_empty()),
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
        let mut other = told("e/gw", "10.0.0.1:1000", "s", 500);
        other.target = Some("POST /other".to_owned());
        check(&sent, &[other], &["unreceived", "unsent"]);
        let later = told("e/gw", "10.0.0.1:1000", "r", 3_600_000);
        check(&sent, &[later], &["unreceived", "unsent"]);
    }

    #[test]
    fn requests_that_got_other_identifiers_match_one_to_one() {
        let of = |by: &str, ids: [&str; 3]| {
            let told = |(number, id): (usize, &&str)| {
                told(by, "10.0.0.1:1000", id, 500 + 20 * number as i128)
            };
            ids.iter().enumerate().map(told).collect::<Vec<_>>()
        };
        let (sent, received) = (of("a/app", ["a", "b", "c"]), of("e/gw", ["x", "y", "z"]));
        check(&sent, &received, &[]);
        check(&sent[1..], &received, &["unsent"]);
        check(&sent, &received[..2], &["unreceived"]);
        // The gateway's two logs tell of one request.
        assert_eq!(merged(vec![received[0].clone(), received[0].clone()]).len(), 1);
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
