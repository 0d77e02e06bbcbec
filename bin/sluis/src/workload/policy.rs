//! What a command of `sluis exec` may do, as the annotations of its WorkloadEntry say.
//!
//! In:    annotations by name; the folder from which relative paths are taken.
//! Out:   a [`JailPolicy`], which travels to `exec` as JSON; or which annotation is not understood.
//! Never: looks whether a path exists: it may come before the first command does.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sluis_capture::jail::UnixSockets;

const READ_ONLY: &str = "sluis.dev/read-only";
const WRITABLE: &str = "sluis.dev/writable";
const UNIX_SOCKETS: &str = "sluis.dev/unix-sockets";
const CLEAN_ENV: &str = "sluis.dev/clean-env";
const CA_CERTIFICATES: &str = "sluis.dev/ca-certificates";

/// What a command in the workload's jail may do, besides what it may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JailPolicy {
    /// What it cannot change.
    pub read_only: Vec<PathBuf>,
    /// What it can, within those.
    pub writable: Vec<PathBuf>,
    /// Which Unix sockets it can call.
    pub unix_sockets: UnixSockets,
    /// Variables with names of secrets are taken away, also when nobody asks.
    pub clean_env: bool,
    /// Authorities, in PEM, that it should trust besides the system's: who signs what gateways show.
    pub ca_certificates: Vec<PathBuf>,
}

/// Reads the annotations.
///
/// # Errors
///
/// The annotation, and what is wrong with it.
pub(super) fn read<'a>(
    annotation: impl Fn(&str) -> Option<&'a str>,
    base: &Path,
) -> Result<JailPolicy, (&'static str, String)> {
    let paths = |key| -> Vec<PathBuf> {
        super::list(annotation(key)).iter().map(|path| base.join(path)).collect()
    };
    let unix_sockets = match annotation(UNIX_SOCKETS).map(str::trim) {
        Some("none") => UnixSockets::None,
        Some("any") => UnixSockets::Any,
        _ => UnixSockets::Only(paths(UNIX_SOCKETS)),
    };
    let clean_env = match annotation(CLEAN_ENV) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => return Err((CLEAN_ENV, format!("{other:?} is neither true nor false"))),
    };
    let policy = JailPolicy {
        read_only: paths(READ_ONLY),
        writable: paths(WRITABLE),
        unix_sockets,
        clean_env,
        ca_certificates: paths(CA_CERTIFICATES),
    };
    if policy.read_only.is_empty() && !policy.writable.is_empty() {
        return Err((WRITABLE, format!("nothing is read-only: say so with {READ_ONLY}")));
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(annotations: &[(&str, &'static str)]) -> Result<JailPolicy, String> {
        let find = |key: &str| annotations.iter().find(|(name, _)| *name == key).map(|(_, v)| *v);
        read(find, Path::new("/mesh")).map_err(|(key, message)| format!("{key}: {message}"))
    }

    #[test]
    fn paths_are_taken_from_the_folder_of_the_mesh() {
        let policy = read_of(&[
            (READ_ONLY, "/"),
            (WRITABLE, "work, /tmp"),
            (UNIX_SOCKETS, "agent.sock"),
            (CA_CERTIFICATES, "client/ca.crt"),
            (CLEAN_ENV, "true"),
        ]);
        let expected = JailPolicy {
            read_only: vec!["/".into()],
            writable: vec!["/mesh/work".into(), "/tmp".into()],
            unix_sockets: UnixSockets::Only(vec!["/mesh/agent.sock".into()]),
            clean_env: true,
            ca_certificates: vec!["/mesh/client/ca.crt".into()],
        };
        assert_eq!(policy, Ok(expected));
    }

    #[test]
    fn without_annotations_sockets_of_others_are_covered_and_nothing_else_changes() {
        assert_eq!(read_of(&[]), Ok(JailPolicy::default()));
        assert_eq!(read_of(&[(UNIX_SOCKETS, "none")]).unwrap().unix_sockets, UnixSockets::None);
        assert_eq!(read_of(&[(UNIX_SOCKETS, "any")]).unwrap().unix_sockets, UnixSockets::Any);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let error = read_of(&[(CLEAN_ENV, "yes")]).unwrap_err();
        assert_eq!(error, "sluis.dev/clean-env: \"yes\" is neither true nor false");
        assert!(read_of(&[(WRITABLE, "/tmp")]).unwrap_err().contains("sluis.dev/read-only"));
    }
}
