//! Access logs of proxies, in Istio's text form and its JSON form.
//!
//! In:    a proxy's log: access lines among events.
//! Out:   what connects two proxies: addresses, times, identifiers, bytes.
//! Never: takes an event for an access line.

use std::{fs, io, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;
use sluis_audit::target_without_values;
use sluis_nouns::ObjectName;

use super::{super::files, milliseconds};
use crate::state::StateDir;

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// From and to, in milliseconds since the epoch.
    pub(super) span: (i128, i128),
    pub(super) bytes_received: u64,
    pub(super) request_id: Option<String>,
    /// The method and the path, without values of its query.
    pub(super) target: Option<String>,
    pub(super) upstream_host: String,
    pub(super) upstream_local: String,
    pub(super) downstream_remote: String,
    /// Whether it is of a connection, not of a request.
    pub(super) is_connection: bool,
}

/// The fields of Istio's text form after its time, by place.
const FIELDS: usize = 21;

/// All workloads that have a folder.
pub(super) fn workloads(state: &StateDir) -> Result<Vec<ObjectName>> {
    let mut found = Vec::new();
    let root = state.root().join("workloads");
    let list = |path: &Path| match fs::read_dir(path) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    for namespace in list(&root).with_context(|| root.display().to_string())? {
        for workload in list(&namespace.path())? {
            let (space, name) = (namespace.file_name(), workload.file_name());
            found.push(ObjectName::new(&*space.to_string_lossy(), &*name.to_string_lossy()));
        }
    }
    found.sort_by_key(ToString::to_string);
    Ok(found)
}

/// The access lines of a proxy's log; none when there is no log.
pub(super) fn read(path: &Path) -> Result<Vec<Access>> {
    let mut found = Vec::new();
    let read = files::each(path, |line, _| {
        let Ok(line) = std::str::from_utf8(line) else { return };
        found.extend(if line.starts_with('{') { of_json(line) } else { of_text(line) });
    });
    match read {
        Ok(()) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(found),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// `[TIME] "METHOD PATH PROTOCOL" CODE FLAGS DETAILS …`.
fn of_text(line: &str) -> Option<Access> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let start = milliseconds(time);
    let fields = fields(rest);
    if start == 0 || fields.len() < FIELDS {
        return None;
    }
    let duration: i128 = fields[8].parse().unwrap_or(0);
    let mut request = fields[0].split(' ');
    let target = request.next().zip(request.next());
    Some(Access {
        span: (start, start + duration),
        bytes_received: fields[6].parse().ok()?,
        request_id: present(fields[12]),
        target: target.and_then(|(method, path)| target_of(method, path)),
        upstream_host: fields[14].to_owned(),
        upstream_local: fields[16].to_owned(),
        downstream_remote: fields[18].to_owned(),
        is_connection: fields[0].starts_with("- "),
    })
}

fn of_json(line: &str) -> Option<Access> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |key: &str| match value.get(key) {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let start = milliseconds(&text("start_time"));
    if start == 0 {
        return None;
    }
    Some(Access {
        span: (start, start + i128::from(number("duration").unwrap_or(0))),
        bytes_received: number("bytes_received")?,
        request_id: present(&text("request_id")),
        target: target_of(&text("method"), &text("path")),
        upstream_host: text("upstream_host"),
        upstream_local: text("upstream_local_address"),
        downstream_remote: text("downstream_remote_address"),
        is_connection: present(&text("method")).is_none(),
    })
}

fn target_of(method: &str, path: &str) -> Option<String> {
    present(method).map(|method| format!("{method} {}", target_without_values(path)))
}

fn present(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty() && text != "-")
}

/// Cuts a line at its spaces, but not within quotes.
fn fields(mut rest: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').map_or((rest, ""), |(field, after)| (field, after)),
        };
        fields.push(field);
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"[2026-11-22T12:00:00.100Z] "POST /graphql HTTP/1.1" 200 - via_upstream - "-" 17 35 12 11 "-" "curl/8" "req-1" "api.data.local" "127.0.5.2:443" outbound|443||api.data.local 127.0.0.1:40002 240.240.0.1:443 127.0.0.1:40000 api.data.local -"#;
    const TCP: &str = r#"[2026-11-22T12:00:00.100Z] "- - -" 0 - - - "-" 517 3000 12 - "-" "-" "-" "-" "127.0.5.2:443" outbound|443||gw 127.0.0.1:40002 240.240.0.1:443 127.0.0.1:40000 api.data.local -"#;

    #[test]
    fn istios_text_form_is_read() {
        let found = of_text(TEXT).unwrap();
        assert_eq!(found.span.1 - found.span.0, 12);
        assert_eq!((found.bytes_received, found.request_id.as_deref()), (17, Some("req-1")));
        assert_eq!(found.target.as_deref(), Some("POST /graphql"));
        assert_eq!(found.upstream_local, "127.0.0.1:40002");
        assert_eq!(found.upstream_host, "127.0.5.2:443");
        assert_eq!(found.downstream_remote, "127.0.0.1:40000");
        assert!(!found.is_connection);
    }

    #[test]
    fn a_connection_has_no_method() {
        let found = of_text(TCP).unwrap();
        assert!(found.is_connection && found.request_id.is_none());
        assert_eq!(found.bytes_received, 517);
    }

    #[test]
    fn istios_json_form_is_read() {
        let line = r#"{"start_time":"2026-11-22T12:00:00.100Z","duration":12,"bytes_received":17,
            "request_id":"req-1","upstream_host":"127.0.5.2:443","method":"POST","path":"/graphql",
            "upstream_local_address":"127.0.0.1:40002","downstream_remote_address":"127.0.0.1:40000"}"#;
        assert_eq!(of_json(line), of_text(TEXT));
    }

    #[test]
    fn an_event_is_no_access_line() {
        assert_eq!(of_text("2026-11-22T12:00:00Z  INFO ready node=x"), None);
        assert_eq!(of_json(r#"{"timestamp":"x"}"#), None);
    }
}
