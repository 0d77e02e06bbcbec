//! The SDS names of credentials, made and read in one place.
//!
//! ```text
//! credential://NAMESPACE/NAME                    all values by entry, for our own filter
//! credential://NAMESPACE/NAME#previous           those of the version before
//! credential://NAMESPACE/NAME?value=ENTRY        one value, for filters of Envoy
//! credential://NAMESPACE/NAME?basic=ENTRY:ENTRY  base64(USER:PASSWORD), for filters of Envoy
//! credential://NAMESPACE/NAME?pair=ENTRY:ENTRY   a certificate chain and its key, for TLS
//! ```

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sluis_model::Age;
use sluis_nouns::ObjectName;
use sluis_resources::SecretValue;

use crate::SecretContent;

const SCHEME: &str = "credential://";
const PREVIOUS: &str = "#previous";
const VALUE: &str = "?value=";
const BASIC: &str = "?basic=";
const PAIR: &str = "?pair=";

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CredentialSecret {
    pub(super) credential: ObjectName,
    pub(super) age: Age,
    pub(super) form: Form,
}

/// In which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// All entries.
    All,
    /// One entry.
    Value(String),
    /// RFC 7617: the entries of the user and of the password.
    Basic(String, String),
    /// The entries of a certificate chain and of its key.
    Pair(String, String),
}

/// The name of all values of a credential.
pub(super) fn secret_name(credential: &ObjectName, age: Age) -> String {
    let suffix = match age {
        Age::Current => "",
        Age::Previous => PREVIOUS,
    };
    format!("{SCHEME}{}/{}{suffix}", credential.namespace, credential.name)
}

/// The name of the values of a credential in another form.
pub(super) fn form_name(credential: &ObjectName, form: &Form) -> String {
    let name = secret_name(credential, Age::Current);
    match form {
        Form::All => name,
        Form::Value(entry) => format!("{name}{VALUE}{entry}"),
        Form::Basic(user, password) => format!("{name}{BASIC}{user}:{password}"),
        Form::Pair(chain, key) => format!("{name}{PAIR}{chain}:{key}"),
    }
}

impl CredentialSecret {
    /// Reads a name; `None` for what is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(SCHEME)?;
        let (path, form) = if let Some((path, entry)) = rest.split_once(VALUE) {
            (path, Form::Value(entry.to_owned()))
        } else if let Some((path, entries)) = rest.split_once(BASIC) {
            let (user, password) = entries.split_once(':')?;
            (path, Form::Basic(user.to_owned(), password.to_owned()))
        } else if let Some((path, entries)) = rest.split_once(PAIR) {
            let (chain, key) = entries.split_once(':')?;
            (path, Form::Pair(chain.to_owned(), key.to_owned()))
        } else {
            (rest, Form::All)
        };
        let (path, age) = match path.strip_suffix(PREVIOUS) {
            Some(path) => (path, Age::Previous),
            None => (path, Age::Current),
        };
        let (namespace, name) = path.split_once('/')?;
        let is_plain = |part: &str| !part.is_empty() && !part.contains(['/', '#', '?', ':']);
        (is_plain(namespace) && is_plain(name)).then(|| Self {
            credential: ObjectName::new(namespace, name),
            age,
            form,
        })
    }

    /// What is given for it, of the values that there are.
    pub(super) fn content(&self, held: &BTreeMap<String, SecretValue>) -> Option<SecretContent> {
        match &self.form {
            Form::All => Some(SecretContent::Generic(held.clone())),
            Form::Value(entry) => held.get(entry).cloned().map(SecretContent::Single),
            Form::Basic(user, password) => {
                let (user, password) = (held.get(user)?, held.get(password)?);
                let pair = [user.expose(), b":", password.expose()].concat();
                Some(SecretContent::Single(SecretValue::new(STANDARD.encode(pair))))
            }
            Form::Pair(chain, key) => {
                let (chain, key) = (held.get(chain)?.clone(), held.get(key)?.clone());
                Some(SecretContent::Pair { chain, key })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_what_is_none_is_refused() {
        let api = ObjectName::new("egress", "api");
        for (text, age, form) in [
            ("credential://egress/api", Age::Current, Form::All),
            ("credential://egress/api#previous", Age::Previous, Form::All),
            ("credential://egress/api?value=key", Age::Current, Form::Value("key".into())),
            (
                "credential://egress/api?basic=u:p",
                Age::Current,
                Form::Basic("u".into(), "p".into()),
            ),
        ] {
            let expected = CredentialSecret { credential: api.clone(), age, form };
            assert_eq!(CredentialSecret::parse(text), Some(expected), "{text}");
        }
        assert_eq!(secret_name(&api, Age::Previous), "credential://egress/api#previous");
        for text in [
            "kubernetes://api",
            "credential://api",
            "credential:///api",
            "credential://egress/",
            "credential://egress/a/b",
            "credential://egress/credential:api",
            "credential://egress/api#previous#previous",
            "credential://egress/api?basic=u",
        ] {
            assert_eq!(CredentialSecret::parse(text), None, "{text}");
        }
    }
}
