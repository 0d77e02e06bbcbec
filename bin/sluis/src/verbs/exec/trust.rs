//! The authorities that a command should trust, offered by the variables that programs read.
//!
//! In:    files of the workload's annotation, the mesh's roots, what the caller's variables name.
//! Out:   bundles in PEM, and variables that name them.
//! Never: a private key: of a file only certificates are taken, and one that holds a key is refused.
//!
//! Most variables replace a program's own list. Such a variable gets the file that it named before, else
//! the system's roots, with our authorities after them. Those of Node and Deno add to their own list.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Variables whose file takes the place of all other roots, and who reads them.
const REPLACING: [&str; 13] = [
    "SSL_CERT_FILE",        // OpenSSL, and so Python, Ruby, PHP, wget, git; Go; rustls
    "CURL_CA_BUNDLE",       // curl; Python's requests
    "REQUESTS_CA_BUNDLE",   // Python's requests
    "PIP_CERT",             // pip
    "HTTPLIB2_CA_CERTS",    // Python's httplib2
    "GIT_SSL_CAINFO",       // git
    "AWS_CA_BUNDLE",        // AWS's command line and libraries
    "CARGO_HTTP_CAINFO",    // cargo
    "NIX_SSL_CERT_FILE",    // nix
    "HEX_CACERTS_PATH",     // Elixir's hex
    "PERL_LWP_SSL_CA_FILE", // Perl's LWP
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", // Google's command line
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", // gRPC's C core: C++, Python, Ruby
];

/// Variables whose file comes to a program's own roots.
const ADDING: [&str; 2] = [
    "NODE_EXTRA_CA_CERTS", // Node, npm
    "DENO_CERT",           // Deno
];

/// Where systems keep their roots in one file.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt", // Debian, Arch, Gentoo, NixOS
    "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, Red Hat
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // the same, newer
    "/etc/ssl/ca-bundle.pem",             // SUSE
    "/etc/ssl/cert.pem",                  // Alpine
];

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A file for a command: where it is to lie, and what it holds.
pub(crate) type File = (PathBuf, String);

/// What a command is offered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Files to be made.
    pub files: Vec<File>,
    /// Variables that name them.
    pub variables: Vec<(String, OsString)>,
}

/// Makes bundles, to lie in `folder`, of the `given` files and the mesh's `roots`.
///
/// # Errors
///
/// When one of the given files cannot be read, holds no certificate, or holds a key.
pub(crate) fn offer(
    folder: &Path,
    given: &[PathBuf],
    roots: &Path,
    current: &BTreeMap<OsString, OsString>,
) -> Result<Offer> {
    let mut ours = String::new();
    for path in given {
        ours.push_str(&read_given(path)?);
    }
    ours.push_str(&fs::read_to_string(roots).map(|text| certificates(&text)).unwrap_or_default());
    if ours.is_empty() {
        return Ok(Offer::default());
    }
    let system = SYSTEM.iter().map(Path::new).find(|path| path.is_file());
    let mut offer = Offer::default();
    let mut made: BTreeMap<Option<PathBuf>, PathBuf> = BTreeMap::new();
    for name in REPLACING {
        let base = match current.get(&OsString::from(name)).map(PathBuf::from) {
            // A folder cannot be added to: the caller's word stands.
            Some(folder) if folder.is_dir() => continue,
            Some(file) if file.is_file() => Some(file),
            _ => system.map(Path::to_path_buf),
        };
        let next = match made.len() {
            0 => folder.join("ca-certificates.pem"),
            count => folder.join(format!("ca-certificates-{}.pem", count + 1)),
        };
        let path = match made.get(&base) {
            Some(path) => path.clone(),
            None => {
                let known = base.as_deref().map(fs::read).transpose();
                let known = known.with_context(|| format!("the roots that {name} names"))?;
                let known = known.unwrap_or_default();
                offer
                    .files
                    .push((next.clone(), certificates(&String::from_utf8_lossy(&known)) + &ours));
                made.insert(base, next.clone());
                next
            }
        };
        offer.variables.push((name.to_owned(), path.into()));
    }
    add(&mut offer, folder, &ours, current);
    Ok(offer)
}

/// The variables that add: each with what it named before.
fn add(offer: &mut Offer, folder: &Path, ours: &str, current: &BTreeMap<OsString, OsString>) {
    for (number, name) in ADDING.iter().enumerate() {
        let before = current.get(&OsString::from(name)).and_then(|path| fs::read(path).ok());
        let before = before.map(|bytes| certificates(&String::from_utf8_lossy(&bytes)));
        let path = folder.join(format!("ca-added-{}.pem", number + 1));
        offer.files.push((path.clone(), before.unwrap_or_default() + ours));
        offer.variables.push(((*name).to_owned(), path.into()));
    }
}

fn read_given(path: &Path) -> Result<String> {
    let told = || format!("{} (sluis.dev/ca-certificates)", path.display());
    let text = fs::read(path).with_context(told)?;
    let text = String::from_utf8_lossy(&text);
    if text.contains("PRIVATE KEY-----") {
        bail!("{}: holds a private key: name a file of certificates alone", told());
    }
    let found = certificates(&text);
    if found.is_empty() {
        bail!("{}: holds no certificate in PEM", told());
    }
    Ok(found)
}

/// The certificates of a text in PEM, and nothing else of it.
fn certificates(text: &str) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let Some((body, after)) = after.split_once(END) else { break };
        found.push_str(&format!("{BEGIN}{body}{END}\n"));
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(name: &str) -> String {
        format!("{BEGIN}\n{name}\n{END}\n")
    }

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn add(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    fn variable<'a>(offer: &'a Offer, name: &str) -> &'a str {
        let (_, path) = offer.variables.iter().find(|(known, _)| known == name).unwrap();
        &offer.files.iter().find(|(at, _)| at.as_os_str() == path).unwrap().1
    }

    #[test]
    fn a_list_that_is_replaced_holds_what_it_held_and_ours() {
        let files = Files::new();
        let ca = files.add("ca.crt", &format!("the platform's:\n{}", pem("platform")));
        let roots = files.add("roots.pem", &pem("mesh"));
        let own = files.add("own.pem", &pem("own"));
        let current = BTreeMap::from([
            ("GIT_SSL_CAINFO".into(), own.clone().into()),
            ("NODE_EXTRA_CA_CERTS".into(), own.into()),
            ("REQUESTS_CA_BUNDLE".into(), files.0.path().into()),
        ]);
        let offer = offer(Path::new("/jail"), &[ca], &roots, &current).unwrap();
        let ours = pem("platform") + &pem("mesh");
        assert_eq!(variable(&offer, "GIT_SSL_CAINFO"), pem("own") + &ours);
        assert_eq!(variable(&offer, "NODE_EXTRA_CA_CERTS"), pem("own") + &ours);
        assert_eq!(variable(&offer, "DENO_CERT"), ours);
        assert!(variable(&offer, "SSL_CERT_FILE").ends_with(&ours));
        let named: Vec<_> = offer.variables.iter().map(|(name, _)| name.as_str()).collect();
        assert!(!named.contains(&"REQUESTS_CA_BUNDLE"), "a folder stays");
        assert!(offer.files.iter().all(|(path, _)| path.parent() == Some(Path::new("/jail"))));
    }

    #[test]
    fn a_file_that_is_no_bundle_is_refused_by_name() {
        let files = Files::new();
        let key = pem("x") + "-----BEGIN EC PRIVATE KEY-----\nx\n-----END EC PRIVATE KEY-----\n";
        for (text, told) in [("nothing", "no certificate"), (key.as_str(), "private key")] {
            let path = files.add("ca.crt", text);
            let error = offer(Path::new("/jail"), &[path], Path::new("/none"), &BTreeMap::new());
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.contains(told) && error.contains("ca.crt"), "{error}");
        }
        let missing = vec![files.0.path().join("missing")];
        let error = offer(Path::new("/jail"), &missing, Path::new("/none"), &BTreeMap::new());
        assert!(format!("{:#}", error.unwrap_err()).contains("missing"));
    }

    #[test]
    fn nothing_to_offer_changes_nothing() {
        let found = offer(Path::new("/jail"), &[], Path::new("/none"), &BTreeMap::new()).unwrap();
        assert_eq!(found, Offer::default());
    }
}
