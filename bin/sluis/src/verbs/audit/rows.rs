//! Which records are shown, and how they look to people.

use std::{
    io::IsTerminal as _,
    time::{Duration, SystemTime},
};

use anyhow::{Result, bail};
use clap::Args;
use sluis_audit::{Entry, Line, Use, timestamp};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::output::Table;

/// Which records.
#[derive(Args, Debug, Default)]
pub(super) struct Filters {
    /// From this time on: RFC 3339, or a date
    #[arg(long, value_name = "TIME")]
    from: Option<String>,

    /// Until this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,

    /// The last so long: 30m, 2h, 7d
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    since: Option<Duration>,

    /// Of this client: its identity or a part of it, or a user's subject
    #[arg(long, value_name = "TEXT")]
    principal: Option<String>,

    /// With this credential: NAMESPACE/NAME or NAME
    #[arg(long, value_name = "NAME")]
    credential: Option<String>,

    /// Refusals only
    #[arg(long)]
    denied: bool,
}

/// The same, ready for use.
#[derive(Debug)]
pub(super) struct Filter {
    from: Option<String>,
    to: Option<String>,
    principal: Option<String>,
    credential: Option<String>,
    denied: bool,
}

impl Filters {
    /// Checks the times.
    pub(super) fn compile(&self) -> Result<Filter> {
        let since = self.since.and_then(|since| SystemTime::now().checked_sub(since));
        let from = match (&self.from, since) {
            (Some(_), Some(_)) => bail!("--from and --since both say where to begin"),
            (Some(text), None) => Some(moment(text)?),
            (None, since) => since.map(timestamp),
        };
        Ok(Filter {
            from,
            to: self.to.as_deref().map(moment).transpose()?,
            principal: self.principal.clone(),
            credential: self.credential.clone(),
            denied: self.denied,
        })
    }
}

/// A time as lines write it, so that text compares as time does.
fn moment(text: &str) -> Result<String> {
    let whole = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    match OffsetDateTime::parse(&whole, &Rfc3339) {
        Ok(at) => Ok(timestamp(at.into())),
        Err(error) => bail!("{text:?} is no time, such as 2026-11-22T13:00:00Z: {error}"),
    }
}

impl Filter {
    /// Whether the line is shown. Lines that are about the log itself are, unless records are
    /// chosen by what they hold.
    pub(super) fn takes(&self, line: &Line) -> bool {
        if self.from.as_ref().is_some_and(|from| line.time < *from)
            || self.to.as_ref().is_some_and(|to| line.time >= *to)
        {
            return false;
        }
        let is_chosen = self.principal.is_some() || self.credential.is_some() || self.denied;
        match &line.entry {
            Entry::Use(used) => self.takes_use(used),
            Entry::Checkpoint(_) => false,
            _ => !is_chosen,
        }
    }

    fn takes_use(&self, used: &Use) -> bool {
        let is_client = self.principal.as_ref().is_none_or(|wanted| {
            let user = used.who.user.as_ref().is_some_and(|user| user.subject == *wanted);
            user || used.who.principal.as_ref().is_some_and(|id| id.contains(wanted.as_str()))
        });
        let is_credential = self.credential.as_ref().is_none_or(|wanted| {
            used.credential.as_ref().is_some_and(|one| {
                one.name == *wanted || one.name.rsplit('/').next() == Some(wanted)
            })
        });
        is_client && is_credential && (!self.denied || used.verdict.is_refusal())
    }
}

const HEADER: [&str; 8] =
    ["TIME", "VERDICT", "CLIENT", "METHOD", "URL", "CREDENTIAL", "STATUS", "DETAILS"];
const WIDE: [&str; 15] = [
    "SEQ",
    "TIME",
    "GATEWAY",
    "VERDICT",
    "CLIENT",
    "USER",
    "SOURCE",
    "METHOD",
    "URL",
    "CREDENTIAL",
    "GRANT",
    "ENDPOINT",
    "STATUS",
    "DETAILS",
    "REQUEST ID",
];

/// The records as a table.
pub(super) fn table(records: &[(String, Line)], is_wide: bool) -> String {
    let mut table = Table::new(if is_wide { &WIDE } else { &HEADER });
    for (log, line) in records {
        table.row(if is_wide { wide(log, line) } else { narrow(line) });
    }
    coloured(table.render())
}

/// The records without a header, for those that follow.
pub(super) fn lines(records: &[(String, Line)]) -> String {
    let rendered = table(records, false);
    rendered.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

fn narrow(line: &Line) -> Vec<String> {
    let Entry::Use(used) = &line.entry else {
        let mut cells = vec![String::new(); HEADER.len()];
        cells[0] = clean(&line.time);
        cells[1] = event(&line.entry);
        return cells;
    };
    vec![
        clean(&line.time),
        used.verdict.word().to_owned(),
        client(used),
        clean(&used.what.method),
        url(used),
        credential(used),
        used.result.status.to_string(),
        clean(&used.result.details),
    ]
}

fn wide(log: &str, line: &Line) -> Vec<String> {
    let Entry::Use(used) = &line.entry else {
        let mut cells = vec![String::new(); WIDE.len()];
        cells[0] = line.seq.to_string();
        cells[1] = clean(&line.time);
        cells[2] = clean(log);
        cells[3] = event(&line.entry);
        return cells;
    };
    let user = used.who.user.as_ref();
    vec![
        line.seq.to_string(),
        clean(&line.time),
        clean(log),
        used.verdict.word().to_owned(),
        client(used),
        user.map(|user| clean(&user.subject)).unwrap_or_default(),
        clean(&used.who.source),
        clean(&used.what.method),
        url(used),
        credential(used),
        used.grant.as_deref().map(clean).unwrap_or_default(),
        clean(&used.destination.endpoint),
        used.result.status.to_string(),
        clean(&used.result.details),
        clean(&used.what.request_id),
    ]
}

fn event(entry: &Entry) -> String {
    match entry {
        Entry::Start(_) => "(log begins)".to_owned(),
        Entry::Continue(_) => "(next file)".to_owned(),
        Entry::Restart(reopening) if reopening.closed => "(restart)".to_owned(),
        Entry::Restart(_) => "(restart after a kill)".to_owned(),
        Entry::Gap(gap) => format!("({} lost)", gap.lost),
        Entry::Checkpoint(_) => "(checkpoint)".to_owned(),
        Entry::Use(_) => String::new(),
    }
}

/// The identity in short: `ns/sa` of the mesh's form.
fn client(used: &Use) -> String {
    let Some(id) = &used.who.principal else { return clean(&used.who.source) };
    let short = id.split_once("/ns/").and_then(|(_, rest)| rest.split_once("/sa/"));
    short.map_or_else(|| clean(id), |(space, account)| clean(&format!("{space}/{account}")))
}

fn url(used: &Use) -> String {
    clean(&format!("{}://{}{}", used.what.scheme, used.what.host, used.what.path))
}

fn credential(used: &Use) -> String {
    let Some(credential) = &used.credential else { return String::new() };
    match credential.version.as_str() {
        "" => clean(&credential.name),
        version => clean(&format!("{} ({version})", credential.name)),
    }
}

/// Text of peers for a terminal: no control characters, no line ends.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Refusals in red, where there is a terminal that wants colour.
fn coloured(text: String) -> String {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if no_color || !std::io::stdout().is_terminal() {
        return text;
    }
    let is_refusal = |line: &str| {
        [" denied ", " unavailable ", " guarded "].iter().any(|word| line.contains(word))
    };
    let mut painted = String::new();
    for line in text.lines() {
        if is_refusal(line) {
            painted.push_str(&format!("\x1b[31m{line}\x1b[0m\n"));
        } else {
            painted.push_str(&format!("{line}\n"));
        }
    }
    painted
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluis_audit::{Credential, Verdict};

    fn line(time: &str, change: impl FnOnce(&mut Use)) -> Line {
        let mut used = Use::default();
        used.who.principal = Some("spiffe://cluster.local/ns/team-a/sa/notebook".to_owned());
        used.credential = Some(Credential { name: "egress/api".to_owned(), ..Default::default() });
        change(&mut used);
        let entry = Entry::Use(Box::new(used));
        Line { seq: 1, time: time.to_owned(), entry, prev: String::new(), signature: None }
    }

    #[track_caller]
    fn check(filters: Filters, expected: [bool; 2]) {
        let filter = filters.compile().unwrap();
        let injected = line("2026-11-22T12:00:00.000000Z", |_| ());
        let denied = line("2026-11-22T13:00:00.000000Z", |used| {
            used.verdict = Verdict::Denied;
            used.who.principal = None;
            used.credential = None;
        });
        assert_eq!([&injected, &denied].map(|line| filter.takes(line)), expected, "{filters:?}");
    }

    #[test]
    fn records_are_chosen_by_time_client_credential_and_verdict() {
        let text = |text: &str| Some(text.to_owned());
        check(Filters::default(), [true, true]);
        check(Filters { denied: true, ..Filters::default() }, [false, true]);
        check(Filters { credential: text("api"), ..Filters::default() }, [true, false]);
        check(Filters { credential: text("egress/api"), ..Filters::default() }, [true, false]);
        check(Filters { credential: text("other/api"), ..Filters::default() }, [false, false]);
        check(Filters { principal: text("team-a"), ..Filters::default() }, [true, false]);
        check(Filters { from: text("2026-11-22T12:30:00Z"), ..Filters::default() }, [false, true]);
        check(
            Filters { to: text("2026-11-22T13:30:00+01:00"), ..Filters::default() },
            [true, false],
        );
        check(Filters { from: text("2026-11-23"), ..Filters::default() }, [false, false]);
        assert!(Filters { from: text("noon"), ..Filters::default() }.compile().is_err());
    }

    #[test]
    fn what_a_peer_wrote_cannot_act_on_a_terminal() {
        let line = line("t", |used| used.what.path = "/\u{1b}[2J\n".to_owned());
        let shown = table(&[("egress/gateway".to_owned(), line)], false);
        assert!(!shown.contains('\u{1b}') && shown.lines().count() == 2, "{shown:?}");
    }
}
