//! What several tests of the authority share: openssl, requests, an operator's authority.

use std::{fs, path::Path, process::Command};

use sluis_nouns::WorkloadId;
use sluis_tls::Clock;

use crate::{Authority, AuthorityConfig, CaFiles, OpenError, SigningRequest};

pub(crate) fn open(dir: &Path) -> Result<Authority, OpenError> {
    Authority::open(dir, AuthorityConfig::default(), Clock::system())
}

pub(crate) fn notebook() -> WorkloadId {
    "spiffe://cluster.local/ns/team-a/sa/notebook".parse().unwrap()
}

/// Runs openssl in `dir` and answers what it printed.
#[track_caller]
pub(crate) fn openssl(dir: &Path, arguments: &str) -> String {
    let out = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "openssl {arguments}: {text}{errors}");
    text
}

/// A request by openssl, for a key of this kind and with names that it should not get.
pub(crate) fn request(dir: &Path, key: &str) -> SigningRequest {
    SigningRequest::from_pem(&request_pem(dir, key, "spiffe://cluster.local/ns/egress/sa/gateway"))
        .unwrap()
}

/// The same as text, with a URI name of choice.
pub(crate) fn request_pem(dir: &Path, key: &str, uri: &str) -> String {
    let names = format!("-addext subjectAltName=URI:{uri},DNS:evil");
    openssl(
        dir,
        &format!("req -new -nodes -newkey {key} -keyout key -subj /CN=evil {names} -out csr"),
    );
    fs::read_to_string(dir.join("csr")).unwrap()
}

/// An operator's authority by openssl: a root, and `ca-cert.pem` under it with these extensions.
pub(crate) struct Operator<'a> {
    pub(crate) dir: &'a Path,
    /// As `openssl req -newkey` takes it.
    pub(crate) key: &'a str,
    /// Extensions of `ca-cert.pem`, one on a line.
    pub(crate) extensions: &'a str,
    /// How many days `ca-cert.pem` is valid.
    pub(crate) days: i32,
}

pub(crate) const CA: &str = "basicConstraints=critical,CA:true,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
const P256: &str = "ec -pkeyopt ec_paramgen_curve:P-256";

impl<'a> Operator<'a> {
    pub(crate) fn new(dir: &'a Path) -> Self {
        Self { dir, key: P256, extensions: CA, days: 100 }
    }

    /// Makes the files of `cacerts`; the chain as Istio's own tool writes it, with the root.
    pub(crate) fn make(&self, root: &str) -> CaFiles {
        let dir = self.dir;
        fs::create_dir_all(dir).unwrap();
        let root_cert = format!("{root}-cert");
        if !dir.join(&root_cert).exists() {
            openssl(
                dir,
                &format!(
                    "req -x509 -new -nodes -newkey {P256} -keyout {root}-key -out {root_cert} \
                     -days 1000 -subj /O=Operator/CN={root} \
                     -addext keyUsage=critical,keyCertSign,cRLSign"
                ),
            );
        }
        openssl(
            dir,
            &format!(
                "req -new -nodes -newkey {} -keyout ca-key.pem -out ca.csr -subj /O=Operator/CN=mesh",
                self.key
            ),
        );
        fs::write(dir.join("ext"), self.extensions).unwrap();
        let days = format!("-days {}", self.days);
        openssl(
            dir,
            &format!(
                "x509 -req -in ca.csr -CA {root_cert} -CAkey {root}-key -CAcreateserial \
                 -out ca-cert.pem {days} -extfile ext"
            ),
        );
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let (cert, roots) = (read("ca-cert.pem"), read(&root_cert));
        CaFiles { chain: format!("{cert}{roots}"), key: read("ca-key.pem"), cert, roots }
    }
}
