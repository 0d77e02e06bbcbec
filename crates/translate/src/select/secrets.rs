//! The secrets that a proxy gets from the control plane: what its listeners and clusters name.
//!
//! In:    SDS names with a scheme, and the Secrets and ConfigMaps of the proxy's own namespace.
//! Out:   the secrets that can be given, in order of name; a fault for each other.
//! Never: gives out a Secret of another namespace without its ReferenceGrant, or a key
//!        where only roots were asked for.
//!
//! A name that is not given stays in the listener or cluster: the proxy then refuses its connections.
//!
//! Istio's layouts of a Secret: `tls.crt`, `tls.key`, `ca.crt`, `ca.crl`, or the older `cert`, `key`,
//! `cacert`, `crl`. The roots of `NAME` may be in a Secret of their own, `NAME-cacert`, or with the pair.

use std::collections::BTreeMap;

use sluis_model::is_held;
use sluis_nouns::{ObjectName, SourceRef};
use sluis_resources::{Key, Kind, SecretValue, Spec};

use super::{Selection, secret_names::CredentialSecret};
use crate::{ClusterInput, Fault, ListenerInput, Role, SecretContent, SecretInput};

/// The schemes of names that Kubernetes objects answer for, and the kind of object.
const SCHEMES: [(&str, Kind); 3] = [
    ("kubernetes://", Kind::Secret),
    ("kubernetes-gateway://", Kind::Secret),
    ("configmap://", Kind::ConfigMap),
];

/// The Secret of the mesh's own certificate authority, which no proxy gets.
const AUTHORITY: (&str, &str) = ("istio-system", "cacerts");

/// What stands behind the name of a Secret when its roots are asked for.
pub(super) const ROOTS: &str = "-cacert";

/// Where a Secret holds a pair, and where it holds roots and their revocation list; the first that is
/// there counts.
const PAIRS: [(&str, &str); 2] = [("cert", "key"), ("tls.crt", "tls.key")];
const CAS: [(&str, &str); 2] = [("cacert", "crl"), ("ca.crt", "ca.crl")];

/// Who asks for a secret, for faults: the resource, its place and the field.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) resource: String,
    pub(super) at: SourceRef,
    pub(super) field: String,
}

/// Istio's SDS name for a `credentialName`: the name with its scheme, where it has none.
pub(super) fn sds_name(credential: &str) -> String {
    if credential.contains("://") {
        credential.to_owned()
    } else {
        format!("kubernetes://{credential}")
    }
}

/// The SDS name for the roots of a `credentialName`.
pub(super) fn roots_name(credential: &str) -> String {
    let name = sds_name(credential);
    if name.ends_with(ROOTS) { name } else { name + ROOTS }
}

/// Every secret that listeners, clusters and their filters name.
pub(super) fn select(
    selection: &mut Selection<'_>,
    listeners: &[ListenerInput],
    clusters: &[ClusterInput],
) -> Vec<SecretInput> {
    let mut wanted: BTreeMap<&str, bool> = BTreeMap::new();
    for tls in listeners.iter().flat_map(|one| &one.chains).filter_map(|one| one.tls.as_ref()) {
        wanted.extend(tls.certificates.iter().map(|name| (name.as_str(), false)));
        wanted.extend(tls.client_roots.iter().map(|name| (name.as_str(), true)));
    }
    for cluster in clusters {
        let Some(tls) = &cluster.tls else { continue };
        let named = tls.certificate.iter().chain(&tls.roots).filter(|name| name.contains("://"));
        for name in named {
            if let Some(asker) = rule(selection, cluster.about.config.as_deref()) {
                selection.askers.entry(name.clone()).or_insert(asker);
            }
        }
        wanted.extend(tls.certificate.iter().map(|name| (name.as_str(), false)));
        wanted.extend(tls.roots.iter().map(|name| (name.as_str(), true)));
    }
    let mut secrets = credentials(selection);
    // Certificates of credentials are among those already.
    let is_object = |name: &str| name.contains("://") && CredentialSecret::parse(name).is_none();
    for (name, is_roots) in wanted.into_iter().filter(|(name, _)| is_object(name)) {
        match content(selection, name, is_roots) {
            Ok(content) => secrets.push(SecretInput { name: name.to_owned(), content }),
            Err(message) => report(selection, name, message),
        }
    }
    secrets.sort_by(|a, b| a.name.cmp(&b.name));
    secrets
}

/// The values of credentials that filters name, where there are some now: a gateway without them
/// refuses the requests that need them. Of the versions before, those whose grace lasts.
fn credentials(selection: &Selection<'_>) -> Vec<SecretInput> {
    let view = selection.view;
    if view.role != Role::Gateway {
        return Vec::new();
    }
    let names = selection.credential_secrets.iter().filter_map(|name| {
        let wanted = CredentialSecret::parse(name)?;
        // A filter names those of the proxy's own namespace; this is the wall behind it.
        if wanted.credential.namespace != view.name.namespace {
            return None;
        }
        let held = selection.snapshot.held(&wanted.credential, wanted.age)?;
        Some(SecretInput { name: name.clone(), content: wanted.content(held)? })
    });
    names.collect()
}

/// The DestinationRule of a cluster, by its path in metadata: `…/NAMESPACE/destination-rule/NAME`.
fn rule(selection: &Selection<'_>, config: Option<&str>) -> Option<Asker> {
    let mut path = config?.rsplit('/');
    let (name, _, namespace) = (path.next()?, path.next()?, path.next()?);
    let key = Key { kind: Kind::DestinationRule, name: ObjectName::new(namespace, name) };
    let at = selection.snapshot.get(&key)?.meta.at.clone();
    Some(Asker { resource: key.to_string(), at, field: "tls.credentialName".to_owned() })
}

fn report(selection: &mut Selection<'_>, name: &str, message: String) {
    let fault = match selection.askers.get(name) {
        Some(asker) => Fault::error(asker.at.clone(), message)
            .of(asker.resource.clone())
            .field(asker.field.clone()),
        None => Fault::error(SourceRef::default(), message).of(format!("secret {name}")),
    };
    selection.faults.push(fault.help("connections that need it are refused until it is there"));
}

/// What an SDS name stands for, or why it cannot be given.
fn content(selection: &Selection<'_>, name: &str, is_roots: bool) -> Result<SecretContent, String> {
    let found = SCHEMES.iter().find_map(|(scheme, kind)| Some((name.strip_prefix(scheme)?, *kind)));
    let Some((path, kind)) = found else {
        return Err(format!("{name} is of a scheme that is not known"));
    };
    let own = &*selection.view.name.namespace;
    let (namespace, path) = path.split_once('/').unwrap_or((own, path));
    let target =
        Key { kind, name: ObjectName::new(namespace, path.strip_suffix(ROOTS).unwrap_or(path)) };
    // Values that were fetched are given by credentials' own names alone, to whom filters name them.
    if is_held(&target) {
        return Err(format!("{name} is not a name of Kubernetes"));
    }
    // Who has it is everybody. Istio reads it there, and so do we.
    if target.kind == Kind::Secret && target.name == ObjectName::new(AUTHORITY.0, AUTHORITY.1) {
        return Err(format!("{kind} {namespace}/{path} is the mesh's own certificate authority"));
    }
    // Roots in a ConfigMap are no secret: a BackendTLSPolicy has them for the clients of all namespaces.
    let is_public = is_roots && kind == Kind::ConfigMap;
    let is_granted = selection.view.role == Role::Gateway
        && selection.snapshot.is_granted_to_gateways(own, &target);
    if namespace != own && !is_public && !is_granted {
        return Err(format!("{kind} {namespace}/{path} is of another namespace than the proxy"));
    }
    let own_object = object(selection, kind, namespace, path);
    if !is_roots {
        let data = own_object.ok_or_else(|| missing(kind, namespace, path))?;
        return pair(&data).map_err(|why| format!("{kind} {namespace}/{path} {why}"));
    }
    // The roots' own object first; without one, they are with the pair.
    let with_pair = path.strip_suffix(ROOTS).unwrap_or(path);
    let data = own_object
        .or_else(|| object(selection, kind, namespace, with_pair))
        .ok_or_else(|| missing(kind, namespace, with_pair))?;
    roots(&data).map_err(|why| format!("{kind} {namespace}/{with_pair} {why}"))
}

fn missing(kind: Kind, namespace: &str, name: &str) -> String {
    format!("{kind} {namespace}/{name} does not exist")
}

type Data = BTreeMap<String, SecretValue>;

fn object(selection: &Selection<'_>, kind: Kind, namespace: &str, name: &str) -> Option<Data> {
    let key = Key { kind, name: ObjectName::new(namespace, name) };
    match &selection.snapshot.get(&key)?.spec {
        Spec::Secret(secret) => Some(secret.data.clone()),
        Spec::ConfigMap(map) => {
            let entries = map.data.iter();
            Some(
                entries.map(|(key, text)| (key.clone(), SecretValue::new(text.as_str()))).collect(),
            )
        }
        _ => None,
    }
}

fn pair(data: &Data) -> Result<SecretContent, String> {
    let found = PAIRS
        .iter()
        .find_map(|(chain, key)| Some(((*chain, entry(data, chain)?), (*key, entry(data, key)?))));
    let Some(((chain_name, chain), (key_name, key))) = found else {
        return Err(format!(
            "holds no certificate with its key (tls.crt and tls.key); it has {}",
            names(data)
        ));
    };
    if !holds(chain, b"-----BEGIN CERTIFICATE-----") {
        return Err(format!("holds no PEM certificate in {chain_name}"));
    }
    if !holds(key, b"PRIVATE KEY-----") {
        return Err(format!("holds no PEM key in {key_name}"));
    }
    Ok(SecretContent::Pair { chain: chain.clone(), key: key.clone() })
}

fn roots(data: &Data) -> Result<SecretContent, String> {
    let found = CAS.iter().find_map(|(ca, crl)| Some(((*ca, entry(data, ca)?), entry(data, crl))));
    let Some(((ca_name, ca), crl)) = found else {
        return Err(format!("holds no CA certificate (ca.crt); it has {}", names(data)));
    };
    if !holds(ca, b"-----BEGIN CERTIFICATE-----") {
        return Err(format!("holds no PEM certificate in {ca_name}"));
    }
    if crl.is_some_and(|crl| !holds(crl, b"-----BEGIN X509 CRL-----")) {
        return Err("holds no PEM revocation list beside its CA certificate".to_owned());
    }
    Ok(SecretContent::Roots { roots: ca.clone(), crl: crl.cloned() })
}

fn entry<'a>(data: &'a Data, name: &str) -> Option<&'a SecretValue> {
    data.get(name).filter(|value| !value.expose().is_empty())
}

fn holds(value: &SecretValue, mark: &[u8]) -> bool {
    value.expose().windows(mark.len()).any(|window| window == mark)
}

fn names(data: &Data) -> String {
    if data.is_empty() {
        return "nothing".to_owned();
    }
    data.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
