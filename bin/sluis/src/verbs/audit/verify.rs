//! `sluis audit verify`: is each line as it was written, and does the end vouch for itself?
//!
//! In:    logs, the mesh's roots, the identity of each workload's proxy, its running head.
//! Out:   what is wrong, with file and line; exit 79.
//! Never: trusts a signer for saying who it is.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use envoy_types::pb::{
    envoy::config::bootstrap::v3::Bootstrap, google::protobuf::value::Kind as ValueKind,
};
use prost::Message as _;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use sluis_audit::{Checkpoint, Line, Report, Verifier, chain};
use sluis_tls::{Roots, verify_statement};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    VerifyOptions,
    files::{self, Log},
};
use crate::{
    api,
    output::{self, Format},
    state::StateDir,
};

/// The log was changed, or nobody vouches for its end.
const EXIT_BROKEN: u8 = 79;

/// Breaks that are printed for one log.
const BREAKS_SHOWN_MAX: usize = 20;

/// One log with what was found.
struct Verdict {
    log: Log,
    report: Report,
    /// What is wrong with its end.
    end: Option<String>,
}

impl Verdict {
    fn is_whole(&self) -> bool {
        self.report.breaks.is_empty() && self.end.is_none()
    }
}

/// Verifies.
///
/// # Errors
///
/// When a log or the roots cannot be read.
pub(super) fn run(state: Result<StateDir>, options: &VerifyOptions) -> Result<ExitCode> {
    let known = state.as_ref().ok().cloned();
    let logs = files::find(state, &options.which)?;
    let roots = roots(known.as_ref(), &options.roots)?;
    let mut verdicts = Vec::new();
    for log in logs {
        let expected = options.signer.clone().or_else(|| signer_of(known.as_ref()?, &log));
        verdicts.push(verify(log, known.as_ref(), &roots, expected.as_deref(), options.open_end)?);
    }
    match options.output {
        Format::Json | Format::Yaml => {
            let value = verdicts.iter().map(value).collect();
            output::print_value(&Value::Array(value), options.output)?;
        }
        _ => verdicts.iter().try_for_each(|verdict| output::print(&text(verdict)))?,
    }
    let is_whole = verdicts.iter().all(Verdict::is_whole);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(EXIT_BROKEN) })
}

fn verify(
    log: Log,
    state: Option<&StateDir>,
    roots: &Roots,
    expected: Option<&str>,
    open_end: bool,
) -> Result<Verdict> {
    // Before the file: what is written meanwhile is beyond it, and not missing.
    let running = state.and_then(|state| running_head(state, &log));
    let mut signers = BTreeSet::new();
    let mut meets_head = None;
    let mut verifier =
        Verifier::new(|line: &Line, checkpoint: &Checkpoint, statement, signature| {
            let signer = signed_by(roots, line, checkpoint, (statement, signature))?;
            if expected.is_some_and(|expected| expected != signer) {
                return Err(format!("it is by {signer}, not by {}", expected.unwrap_or_default()));
            }
            signers.insert(signer.clone());
            if signers.len() > 1 {
                return Err(format!("{signer} is another signer than before"));
            }
            Ok(signer)
        });
    for path in log.files()? {
        verifier.file(&path.display().to_string());
        let read = files::each(&path, |text, has_end| {
            // The writer may be in the middle of its last line.
            let is_being_written = !has_end && running.is_some();
            if is_being_written {
                return;
            }
            let line = verifier.line(text, has_end);
            if let (Some(line), Some((seq, hash))) = (line, &running)
                && line.seq == *seq
            {
                meets_head = Some(chain::hash(text) == *hash);
            }
        });
        if let Err(error) = read {
            verifier.unreadable(&error.to_string());
        }
    }
    let report = verifier.finish();
    let end = match (&running, meets_head) {
        (Some(_), Some(true)) => None,
        (Some((seq, _)), Some(false)) => {
            Some(format!("record {seq} is not what the running proxy wrote"))
        }
        (Some((seq, _)), None) => {
            Some(format!("the end is missing: the running proxy has written up to record {seq}"))
        }
        (None, _) if report.is_closed || open_end => None,
        (None, _) => Some(
            "it does not end with a closing checkpoint: its writer was killed, or its end was \
             removed (--open-end accepts that)"
                .to_owned(),
        ),
    };
    Ok(Verdict { log, report, end })
}

/// Who signed a checkpoint, by the certificate as it was valid then.
fn signed_by(
    roots: &Roots,
    line: &Line,
    checkpoint: &Checkpoint,
    (statement, signature): (&[u8], &[u8]),
) -> Result<String, String> {
    let at = OffsetDateTime::parse(&line.time, &Rfc3339).map_err(|error| error.to_string())?;
    let chain: Vec<CertificateDer<'static>> = checkpoint
        .chain
        .iter()
        .map(|one| STANDARD.decode(one).map(CertificateDer::from))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("its certificates cannot be read: {error}"))?;
    let signed = (checkpoint.scheme.as_str(), statement, signature);
    let peer =
        verify_statement(roots, at.into(), &chain, signed).map_err(|error| error.to_string())?;
    match (&peer.id, peer.uris.as_slice()) {
        (Some(id), _) => Ok(id.to_string()),
        (None, [uri]) => Ok(uri.clone()),
        _ => Err("its certificate names no identity".to_owned()),
    }
}

/// The roots given, or all that this mesh ever had: older checkpoints are of older roots.
fn roots(state: Option<&StateDir>, given: &[PathBuf]) -> Result<Roots> {
    let mut paths = given.to_vec();
    if paths.is_empty() {
        let Some(state) = state else { bail!("no roots to judge signatures by; use --roots") };
        paths.push(state.ca().join("root-cert.pem"));
        for entry in fs::read_dir(state.ca()).into_iter().flatten().flatten() {
            let path = entry.path().join("root-cert.pem");
            if path.exists() {
                paths.push(path);
            }
        }
    }
    let mut pem = Vec::new();
    for path in &paths {
        pem.extend(fs::read(path).with_context(|| format!("roots {}", path.display()))?);
        pem.push(b'\n');
    }
    Roots::from_pem(&pem).context("roots")
}

/// The identity that the workload's proxy was started with.
fn signer_of(state: &StateDir, log: &Log) -> Option<String> {
    let path = state.workload(log.workload.as_ref()?).bootstrap();
    let fields = metadata(&path)?;
    let field = |key: &str| match fields.get(key)?.kind.as_ref()? {
        ValueKind::StringValue(text) => Some(text.clone()),
        _ => None,
    };
    Some(format!(
        "spiffe://{}/ns/{}/sa/{}",
        field("SLUIS_TRUST_DOMAIN")?,
        field("NAMESPACE")?,
        field("SERVICE_ACCOUNT")?
    ))
}

fn metadata(
    bootstrap: &Path,
) -> Option<std::collections::HashMap<String, envoy_types::pb::google::protobuf::Value>> {
    let message = Bootstrap::decode(&*fs::read(bootstrap).ok()?).ok()?;
    Some(message.node?.metadata?.fields)
}

/// What the running proxy says that it has written last: number and hash.
fn running_head(state: &StateDir, log: &Log) -> Option<(u64, String)> {
    let socket = state.workload(log.workload.as_ref()?).admin_socket();
    let head = api::get_from(&socket, "/audit").ok()?;
    Some((head.get("seq")?.as_u64()?, head.get("hash")?.as_str()?.to_owned()))
}

fn value(verdict: &Verdict) -> Value {
    let Verdict { log, report, end } = verdict;
    let breaks: Vec<Value> = report
        .breaks
        .iter()
        .map(|found| json!({"file": &*found.file, "line": found.line, "what": found.what}))
        .collect();
    json!({
        "log": log.name,
        "whole": verdict.is_whole(),
        "breaks": breaks,
        "end": end,
        "notes": report.notes,
        "lines": report.lines,
        "uses": report.uses,
        "checkpoints": report.checkpoints,
        "unsigned": report.unsigned,
        "lost": report.lost,
        "signers": report.signers,
        "head": report.head.as_ref().map(|(seq, hash)| json!({"seq": seq, "hash": hash})),
    })
}

fn text(verdict: &Verdict) -> String {
    let Verdict { log, report, end } = verdict;
    let mut text = String::new();
    for found in report.breaks.iter().take(BREAKS_SHOWN_MAX) {
        text.push_str(&format!("{}:{}: {}\n", found.file, found.line, found.what));
    }
    let untold = report.breaks.len().saturating_sub(BREAKS_SHOWN_MAX) as u64 + report.breaks_untold;
    if untold > 0 {
        text.push_str(&format!("… and {untold} more\n"));
    }
    if let Some(end) = end {
        text.push_str(&format!("{}: {end}\n", log.path.display()));
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    let signers: Vec<&str> = report.signers.keys().map(String::as_str).collect();
    text.push_str(&format!(
        "{}: {}, {} records, {} checkpoints{}{}\n",
        log.name,
        if verdict.is_whole() { "whole" } else { "NOT WHOLE" },
        report.uses,
        report.checkpoints,
        if signers.is_empty() { String::new() } else { format!(" by {}", signers.join(", ")) },
        if report.unsigned > 0 {
            format!(", {} lines not signed yet", report.unsigned)
        } else {
            String::new()
        },
    ));
    text
}
