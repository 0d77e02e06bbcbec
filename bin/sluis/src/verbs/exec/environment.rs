//! Which variables a command gets.
//!
//! In:    the caller's variables; the wishes of the command line and of the workload's annotations.
//! Out:   changes to them: a value, or nothing for one that is taken away.
//! Never: reads the environment itself, or tells a value.
//!
//! What gateways get as secrets is always taken away: `--keep-env` does not bring it back. Variables that
//! lead to a proxy are taken away in the jail, where everything goes through one already. With
//! `--clean-env` all goes that looks like a secret ([`is_secret`]). `--env` has the last word.

use std::ffi::{OsStr, OsString};

/// A change of one variable; without a value it is taken away.
pub(crate) type Change = (OsString, Option<OsString>);

/// What is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// Names of variables that gateways get as secrets.
    pub secrets: Vec<String>,
    /// Take away what looks like a secret.
    pub is_clean: bool,
    /// Take away what leads to a proxy.
    pub is_without_proxies: bool,
    /// Names that are kept all the same; a `*` at the end stands for any rest.
    pub kept: Vec<String>,
    /// What is offered unless it is set otherwise.
    pub offered: Vec<(String, OsString)>,
    /// What is set.
    pub set: Vec<(String, String)>,
}

impl Wishes {
    /// The changes to the caller's variables.
    pub(crate) fn changes(&self, current: &[(OsString, OsString)]) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        for (name, value) in current {
            if self.is_gone(&name.to_string_lossy(), value) {
                changes.push((name.clone(), None));
            }
        }
        changes.extend(self.offered.iter().map(|(name, value)| (name.into(), Some(value.clone()))));
        changes.extend(self.set.iter().map(|(name, value)| (name.into(), Some(value.into()))));
        changes
    }

    fn is_gone(&self, name: &str, value: &OsStr) -> bool {
        if self.secrets.iter().any(|secret| secret == name) {
            return true;
        }
        let is_unwanted = (self.is_without_proxies && is_proxy(name))
            || (self.is_clean && (is_secret(name) || has_password(&value.to_string_lossy())));
        is_unwanted && !self.kept.iter().any(|pattern| fits(pattern, name))
    }
}

/// Parts of names that only secrets have.
const TELLING: [&str; 9] = [
    "TOKEN",
    "SECRET",
    "PASSW",
    "PASSPHRASE",
    "CREDENTIAL",
    "APIKEY",
    "ACCESSKEY",
    "PRIVATEKEY",
    "KEYRING",
];

/// Words, between underscores, that only secrets have.
const WORDS: [&str; 9] = ["KEY", "KEYS", "AUTH", "JWT", "PAT", "SAS", "DSN", "COOKIE", "PASS"];

/// Whether a variable of this name is likely to hold a secret, or the way to somebody who has one
/// (`SSH_AUTH_SOCK`).
pub(crate) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let mut words = name.split(['_', '-', '.']);
    TELLING.iter().any(|part| name.contains(part))
        || words.any(|word| WORDS.contains(&word))
        // PWD and OLDPWD are folders.
        || name.ends_with("_PWD")
}

/// A URL with a user's password: `postgres://user:password@host/`.
fn has_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn is_proxy(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    matches!(name.as_str(), "HTTP_PROXY" | "HTTPS_PROXY" | "ALL_PROXY" | "FTP_PROXY" | "NO_PROXY")
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::assignment;

    #[track_caller]
    fn check(wishes: &Wishes, gone: &[&str]) {
        let current: Vec<(OsString, OsString)> = [
            ("PATH", "/bin"),
            ("PWD", "/home/me"),
            ("OLDPWD", "/"),
            ("EDITOR", "vi"),
            ("KEYBOARD", "us"),
            ("AUTHOR", "me"),
            ("MONKEY_NAME", "x"),
            ("BASE_URL", "https://example.com/a:b@c"),
            ("GITHUB_TOKEN", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_ACCESS_KEY_ID", "x"),
            ("PGPASSWORD", "x"),
            ("OPENAI_API_KEY", "x"),
            ("USER_JWT", "x"),
            ("SSH_AUTH_SOCK", "/tmp/agent"),
            ("DATABASE_URL", "postgres://me:pw@db/x"),
            ("MYSQL_PWD", "x"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/x.json"),
            ("npm_config_apikey", "x"),
            ("https_proxy", "http://127.0.0.1:1"),
            ("GATEWAY_ONLY", "x"),
        ]
        .into_iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
        let changes = wishes.changes(&current);
        let found: Vec<_> = changes
            .iter()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect();
        assert_eq!(found, gone);
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn what_gateways_get_as_secrets_is_taken_away_whatever_is_kept() {
        let secrets = names(&["GATEWAY_ONLY"]);
        check(&Wishes { secrets, kept: names(&["*"]), ..Wishes::default() }, &["GATEWAY_ONLY"]);
    }

    #[test]
    fn a_clean_environment_has_nothing_that_looks_like_a_secret() {
        let wishes = Wishes { is_clean: true, ..Wishes::default() };
        let secrets = [
            "GITHUB_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_ACCESS_KEY_ID",
            "PGPASSWORD",
            "OPENAI_API_KEY",
            "USER_JWT",
            "SSH_AUTH_SOCK",
            "DATABASE_URL",
            "MYSQL_PWD",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "npm_config_apikey",
        ];
        check(&wishes, &secrets);
        let kept = names(&["AWS_*", "USER_JWT", "SSH_AUTH_SOCK"]);
        let left: Vec<&str> = secrets
            .into_iter()
            .filter(|name| {
                !name.starts_with("AWS_") && *name != "USER_JWT" && *name != "SSH_AUTH_SOCK"
            })
            .collect();
        check(&Wishes { kept, ..wishes }, &left);
    }

    #[test]
    fn proxies_are_for_those_who_have_no_sidecar() {
        let wishes = Wishes { is_without_proxies: true, ..Wishes::default() };
        check(&wishes, &["https_proxy"]);
        check(&Wishes { kept: names(&["https_proxy"]), ..wishes }, &[]);
    }

    #[test]
    fn what_is_set_comes_after_what_is_offered_and_taken_away() {
        let wishes = Wishes {
            is_clean: true,
            offered: vec![("MY_TOKEN".to_owned(), "offered".into())],
            set: vec![assignment("MY_TOKEN=a=b").unwrap()],
            ..Wishes::default()
        };
        let changes = wishes.changes(&[("MY_TOKEN".into(), "x".into())]);
        let last = changes.last().unwrap();
        assert_eq!(last, &("MY_TOKEN".into(), Some("a=b".into())));
        assert!(assignment("=x").is_err() && assignment("NAME").is_err());
    }
}
