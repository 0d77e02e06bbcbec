//! Whether a running mesh is well, by what it says of itself.
//!
//! In:    its report, the state of its authority and its log, the time.
//! Out:   a category of checks for each of its parts.
//! Never: asks anything itself.

use std::io;

use sluis_ca::{Audit, AuthorityStatus, Phase};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::finding::{Category, Check};
use crate::status::{ProxyReport, Report};

/// An authority that ends sooner should be changed: as `linkerd check` has it.
const AUTHORITY_MIN: Duration = Duration::days(60);

/// A proxy that lacks what it should have for longer is stuck, seconds.
const STALE_MAX: u64 = 30;

/// Certificates are renewed around half their life; one with less than this part left was not.
const LEFT_MIN: u32 = 4;

/// The most faults that are told in full.
const FAULTS_TOLD: usize = 5;

pub(super) fn control_plane(report: &Report) -> Category {
    let answers = Check::new(format!("the control plane answers ({})", report.control_plane));
    let is_error = |level: &str| level == "error";
    let refused = Check::new("nothing in the configuration is refused");
    let told = |wanted: bool| {
        let faults = report.details.iter().zip(&report.faults);
        let texts: Vec<&str> = faults
            .filter(|(detail, _)| is_error(&detail.level) == wanted)
            .map(|(_, text)| text.as_str())
            .collect();
        let more = texts.len().saturating_sub(FAULTS_TOLD);
        let mut shown = texts[..texts.len() - more].join("\n");
        if more > 0 {
            shown.push_str(&format!("\n… and {more} more"));
        }
        shown
    };
    let warnings = report.details.len().saturating_sub(report.errors);
    let refused = if report.errors > 0 {
        refused.error(told(true)).hint("`sluis status` shows all of them")
    } else if warnings > 0 {
        refused.warning(told(false)).hint("`sluis status` shows all of them")
    } else {
        refused
    };
    Category::new("control plane", vec![answers, refused])
}

pub(super) fn authority(
    status: &AuthorityStatus,
    log: &io::Result<Audit>,
    now: OffsetDateTime,
) -> Category {
    let hint = "`sluis ca rotate` begins a change without a failed request";
    let mut checks =
        vec![lasts("what signs certificates lasts", &status.issuer.not_after, now).hint(hint)];
    for root in &status.roots {
        let description = format!("the root {} lasts", &root.sha256[..root.sha256.len().min(12)]);
        checks.push(lasts(&description, &root.not_after, now).hint(hint));
    }
    let stable = Check::new("no change of the root waits");
    checks.push(match (&status.phase, status.waiting_for.len()) {
        (Phase::Stable, _) => stable,
        (phase, count) => stable
            .warning(format!("{phase:?} since {}, waiting for {count} certificates", status.since))
            .hint("`sluis ca status` says for whom; `sluis ca rotate` takes the next step"),
    });
    let whole = Check::new("the log of issued certificates is whole");
    checks.push(match log {
        Ok(audit) if audit.breaks.is_empty() => whole,
        Ok(audit) => {
            whole.error(audit.breaks.join("\n")).hint("somebody has changed it: `sluis ca log`")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => whole.warning("there is none yet"),
        Err(error) => whole.error(error.to_string()),
    });
    Category::new("certificate authority", checks)
}

/// A certificate of the authority that ends late enough.
fn lasts(description: &str, until: &str, now: OffsetDateTime) -> Check {
    let check = Check::new(format!("{description} (until {until})"));
    match OffsetDateTime::parse(until, &Rfc3339) {
        Ok(end) if end <= now => check.error("it has ended"),
        Ok(end) if end - now < AUTHORITY_MIN => {
            check.warning(format!("{} days are left", (end - now).whole_days()))
        }
        Ok(_) => check,
        Err(_) => check.warning("that is no time"),
    }
}

pub(super) fn proxies(report: &Report, life_seconds: u64, now: OffsetDateTime) -> Category {
    let mut checks: Vec<Check> = Vec::new();
    for proxy in &report.proxies {
        let name = format!("{}/{}", proxy.namespace, proxy.name);
        checks.push(runs(proxy, &name));
        checks.push(is_in_sync(proxy, &name));
        checks.push(has_certificate(proxy, &name, life_seconds, now));
    }
    if checks.is_empty() {
        let hint = "annotate a WorkloadEntry with sluis.dev/run: sidecar or gateway";
        checks.push(Check::new("there are proxies").warning("there is none").hint(hint));
    }
    Category::new("proxies", checks)
}

fn runs(proxy: &ProxyReport, name: &str) -> Check {
    let check = Check::new(format!("{name} runs ({})", proxy.role));
    let hint = format!("`sluis logs {name}` says why");
    match proxy.process.as_str() {
        "running" if proxy.restarts > 0 => check
            .warning(format!("it ended {} times and was started again", proxy.restarts))
            .hint(hint),
        // Somebody else runs it; whether it is connected is the next question.
        "running" | "not run here" => check,
        "starting" => check.warning("it is starting"),
        other => check.error(other).hint(hint),
    }
}

fn is_in_sync(proxy: &ProxyReport, name: &str) -> Check {
    let check = Check::new(format!("{name} has the current configuration"));
    if !proxy.is_connected {
        return check.error("it is not connected").hint(format!("`sluis logs {name}`"));
    }
    let told = |state: &str| -> Vec<String> {
        let kinds = proxy.sync.iter().filter(|(_, sync)| sync.state == state);
        kinds
            .filter(|(_, sync)| state != "STALE" || sync.age_seconds > STALE_MAX)
            .map(|(kind, sync)| match &sync.detail {
                Some(detail) => format!("{kind} {state}: {detail}"),
                None => format!("{kind} {state} for {} s", sync.age_seconds),
            })
            .collect()
    };
    let (refused, stale) = (told("NACK"), told("STALE"));
    if !refused.is_empty() {
        check.error(refused.join("\n")).hint("what it refuses stays as it was before")
    } else if !stale.is_empty() {
        check.warning(stale.join("\n")).hint(format!("`sluis logs {name}`"))
    } else {
        check
    }
}

fn has_certificate(
    proxy: &ProxyReport,
    name: &str,
    life_seconds: u64,
    now: OffsetDateTime,
) -> Check {
    let check = Check::new(format!("{name} has a certificate"));
    let Some(until) = &proxy.certificate_ends else {
        return check.error("none was issued").hint(format!("`sluis logs {name}`"));
    };
    let Ok(end) = OffsetDateTime::parse(until, &Rfc3339) else {
        return check.warning(format!("{until} is no time"));
    };
    let life = Duration::seconds(i64::try_from(life_seconds).unwrap_or(i64::MAX));
    if end <= now {
        check.error(format!("it ended at {until}"))
    } else if end - now < life / LEFT_MIN {
        check.warning(format!("it ends at {until} and was not renewed"))
    } else {
        check
    }
}

#[cfg(test)]
mod tests;
