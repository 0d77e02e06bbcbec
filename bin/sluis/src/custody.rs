//! The values of credentials: ordered as the mesh says, fetched by the custodian, put into the mesh.
//!
//! In:    the mesh's Credentials; what the custodian keeps.
//! Out:   orders; changes of the held values; reports, faults and metrics.
//! Never: a value in a report, a fault or a metric.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sluis_control::{Control, Exposition};
use sluis_custody::{
    Account, Custodian, Entries, ExecOrigin, Fetcher, FileOrigin, Ledger, Order, Orders, Origin,
    Refresh, Schedule, Value, VaultAuth, VaultEngine, VaultOrigin, Version,
};
use sluis_envoy::Kind as WireKind;
use sluis_model::{Age, Batch, Snapshot, held_key, held_values, is_held};
use sluis_nouns::ObjectName;
use sluis_resources::{
    Credential, Fault, FileSource, Key, Kind, Resource, SecretRefSource, SecretSource, SecretValue,
    Spec, VaultAuth as WrittenAuth, VaultEngine as WrittenEngine,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::state::StateDir;

/// Lets others read the files of a Credential's source.
const READABLE: &str = "sluis.dev/readable-by-others";
/// On a Secret: when its values are void, and what they are called.
const NOT_AFTER: &str = "sluis.dev/not-after";
const VERSION: &str = "sluis.dev/version";

/// Longest wait of who asks for a refresh: the command line waits ten seconds.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// What is counted of one credential.
type Count = fn(&Account) -> u64;

/// The hand that orders and asks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Custody {
    orders: watch::Sender<Orders>,
    wishes: mpsc::Sender<Refresh>,
    ledger: watch::Receiver<Ledger>,
    fetcher: Fetcher,
    held: Arc<Mutex<BTreeMap<Key, Arc<Version>>>>,
}

/// How one credential stands with its source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CustodyReport {
    /// The Credential's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The kind of source.
    pub source: String,
    /// The version in use.
    pub version: Option<String>,
    /// The names of its entries.
    pub entries: Vec<String>,
    /// When it ends.
    pub not_after: Option<String>,
    /// When it came into use.
    pub changed: Option<String>,
    /// The version before, while its grace lasts.
    pub previous: Option<String>,
    /// Until when.
    pub previous_until: Option<String>,
    /// When the source last answered.
    pub fetched: Option<String>,
    /// `ok`, `expiring`, `failing` (the last good version is in use), `waiting`, `withdrawn`.
    pub state: String,
    /// The kind of failure, for programs.
    pub reason: Option<String>,
    /// The failure, for people.
    pub detail: Option<String>,
    /// The gateways that are given it.
    pub gateways: Vec<String>,
}

/// What asking the source now would change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct RotationPlan {
    /// How it stands.
    pub now: CustodyReport,
    /// Whether other values would come into use.
    pub is_change: bool,
    /// What the source calls what it has.
    pub version: Option<String>,
    /// The entries that differ, by name.
    pub differing: Vec<String>,
    /// Why the source gives nothing.
    pub failure: Option<String>,
    /// How long the version before would be kept.
    pub grace_seconds: u64,
}

impl Custody {
    /// A custodian, to be run, and the hand that orders.
    pub(crate) fn new() -> (Self, Custodian) {
        let fetcher = Fetcher::new(variable);
        let (orders, ordered) = watch::channel(Orders::new());
        let (custodian, wishes, ledger) = Custodian::new(fetcher.clone(), ordered);
        (Self { orders, wishes, ledger, fetcher, held: Arc::default() }, custodian)
    }

    /// Orders what the mesh says; paths are relative to `base`.
    pub(crate) fn order(&self, snapshot: &Snapshot, base: &Path, state: &StateDir) {
        let orders = snapshot.resources().filter_map(|resource| {
            let Spec::Credential(credential) = &resource.spec else { return None };
            let order = order(resource, credential, snapshot, base, state);
            Some((resource.meta.name.clone(), order))
        });
        let orders: Orders = orders.collect();
        self.orders.send_if_modified(|before| {
            let is_other = *before != orders;
            *before = orders;
            is_other
        });
    }

    /// Waits until something has changed with the custodian.
    pub(crate) fn changes(&self) -> watch::Receiver<Ledger> {
        self.ledger.clone()
    }

    /// What is to change of the values that the mesh holds. `None` when nothing is.
    pub(crate) fn batch(&self) -> Option<Batch> {
        let ledger = self.ledger.borrow().clone();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch::default();
        let mut there = BTreeSet::new();
        for (name, account) in ledger.iter() {
            for (age, version) in
                [(Age::Current, &account.current), (Age::Previous, &account.previous)]
            {
                let Some(version) = version else { continue };
                let key = held_key(name, age);
                there.insert(key.clone());
                if held.get(&key).is_none_or(|old| old != version) {
                    batch.upserts.push(held_values(name, age, data(version)));
                    held.insert(key, Arc::clone(version));
                }
            }
        }
        batch.removals = held.keys().filter(|key| !there.contains(*key)).cloned().collect();
        held.retain(|key, _| there.contains(key));
        (!batch.upserts.is_empty() || !batch.removals.is_empty()).then_some(batch)
    }

    /// How all credentials stand.
    pub(crate) fn reports(&self, control: &Control) -> Vec<CustodyReport> {
        let ledger = self.ledger.borrow().clone();
        let given = given(control);
        ledger.iter().map(|(name, account)| report(name, account, &given)).collect()
    }

    /// Asks the source of one credential now; how it stands afterwards. `None` when there is no such
    /// credential.
    pub(crate) async fn refresh(
        &self,
        name: &ObjectName,
        control: &Control,
    ) -> Option<CustodyReport> {
        let (done, answered) = oneshot::channel();
        self.wishes.send(Refresh { name: name.clone(), done }).await.ok()?;
        let account = match timeout(ANSWER_MAX, answered).await {
            Ok(answer) => answer.ok()??,
            // It is asked, and has not answered yet.
            Err(_) => self.ledger.borrow().get(name)?.clone(),
        };
        Some(report(name, &account, &given(control)))
    }

    /// Asks the source of one credential, and changes nothing.
    pub(crate) async fn plan(&self, name: &ObjectName, control: &Control) -> Option<RotationPlan> {
        let order = self.orders.borrow().get(name).cloned()?;
        let account = self.ledger.borrow().get(name).cloned().unwrap_or_default();
        let fetched = timeout(ANSWER_MAX, self.fetcher.fetch(&order.origin)).await;
        let now = report(name, &account, &given(control));
        let grace_seconds = order.schedule.grace.as_secs();
        let mut plan = RotationPlan {
            now,
            is_change: false,
            version: None,
            differing: Vec::new(),
            failure: None,
            grace_seconds,
        };
        match fetched {
            Err(_) => plan.failure = Some(format!("no answer within {ANSWER_MAX:?}")),
            Ok(Err(error)) => plan.failure = Some(error.to_string()),
            Ok(Ok(fetched)) => {
                plan.version = match fetched.label {
                    sluis_custody::Label::Told(label) => Some(label),
                    sluis_custody::Label::Changed(at) => Some(rfc3339(at)),
                    sluis_custody::Label::None => None,
                };
                let none = Entries::new();
                let before = account.current.as_ref().map_or(&none, |current| &current.entries);
                let names: BTreeSet<&String> =
                    before.keys().chain(fetched.entries.keys()).collect();
                let differs = |entry: &&String| before.get(*entry) != fetched.entries.get(*entry);
                plan.differing = names.into_iter().filter(differs).cloned().collect();
                plan.is_change = !plan.differing.is_empty();
            }
        }
        Some(plan)
    }

    /// What is wrong with sources, as faults of their Credentials.
    pub(crate) fn faults(&self, snapshot: &Snapshot) -> Vec<Fault> {
        let ledger = self.ledger.borrow().clone();
        let faults = ledger.iter().filter_map(|(name, account)| {
            let key = Key { kind: Kind::Credential, name: name.clone() };
            let at = snapshot.get(&key)?.meta.at.clone();
            fault(account).map(|(message, help, is_error)| {
                let fault =
                    if is_error { Fault::error(at, message) } else { Fault::warning(at, message) };
                fault.of(key.to_string()).field("spec.source").help(help)
            })
        });
        faults.collect()
    }

    /// Adds what is counted.
    pub(crate) fn expose(&self, text: &mut Exposition) {
        let ledger = self.ledger.borrow().clone();
        if ledger.is_empty() {
            return;
        }
        let named: Vec<(String, &Account)> =
            ledger.iter().map(|(name, account)| (name.to_string(), account)).collect();
        text.family("sluis_credential_ready", "gauge", "Whether there is a version to use.");
        for (name, account) in &named {
            let labels = [("credential", name.as_str()), ("source", account.status.source)];
            text.sample("sluis_credential_ready", &labels, u8::from(account.current.is_some()));
        }
        text.family("sluis_credential_failing", "gauge", "Why the source gives nothing now.");
        for (name, account) in &named {
            if let Some((reason, ..)) = &account.status.failing {
                let labels = [("credential", name.as_str()), ("reason", reason.as_str())];
                text.sample("sluis_credential_failing", &labels, 1);
            }
        }
        expose_ends(text, &named);
        let counters: [(&str, &str, Count); 3] = [
            ("sluis_credential_fetches_total", "Answers of the source.", |a| a.status.fetches),
            ("sluis_credential_failures_total", "Failures of the source.", |a| a.status.failures),
            ("sluis_credential_rotations_total", "Changes of the values.", |a| a.status.rotations),
        ];
        for (metric, help, count) in counters {
            text.family(metric, "counter", help);
            for (name, account) in &named {
                text.sample(metric, &[("credential", name)], count(account));
            }
        }
    }
}

/// When versions end, for alerts.
fn expose_ends(text: &mut Exposition, named: &[(String, &Account)]) {
    let now = SystemTime::now();
    let help = "Seconds until the version in use is void; -1 when it was withdrawn.";
    text.family("sluis_credential_expires_in_seconds", "gauge", help);
    for (name, account) in named {
        let end = account.current.as_ref().and_then(|current| current.not_after);
        let left = match end {
            Some(end) => end.duration_since(now).unwrap_or_default().as_secs().to_string(),
            None if account.status.withdrawn.is_some() => "-1".to_owned(),
            None => continue,
        };
        text.sample("sluis_credential_expires_in_seconds", &[("credential", name)], left);
    }
    let help = "Whether the version in use ends within the time that is warned of.";
    text.family("sluis_credential_expires_soon", "gauge", help);
    for (name, account) in named {
        let soon = u8::from(account.status.expires_soon);
        text.sample("sluis_credential_expires_soon", &[("credential", name)], soon);
    }
}

/// A variable of this process.
fn variable(name: &str) -> Option<Value> {
    use std::os::unix::ffi::OsStringExt as _;
    std::env::var_os(name).map(|value| Value::new(value.into_vec()))
}

/// The values as the mesh holds them, with what is about them.
fn data(version: &Version) -> BTreeMap<String, SecretValue> {
    let values = version.entries.iter();
    let mut data: BTreeMap<String, SecretValue> =
        values.map(|(entry, value)| (entry.clone(), SecretValue::new(value.expose()))).collect();
    data.insert("@version".to_owned(), SecretValue::new(version.label.as_str()));
    if let Some(end) = version.not_after {
        data.insert("@not_after".to_owned(), SecretValue::new(rfc3339(end)));
    }
    data
}

/// The gateways that are given each secret, by its name.
fn given(control: &Control) -> BTreeMap<String, Vec<String>> {
    let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for client in control.clients() {
        let name = client.view.name.to_string();
        for secret in client.config.encoded_for(&client.peer).of(WireKind::Secret) {
            // One value of a credential is its credential all the same.
            let secret = secret.name.split(['?', '#']).next().unwrap_or_default().to_owned();
            let gateways = given.entry(secret).or_default();
            if !gateways.contains(&name) {
                gateways.push(name.clone());
            }
        }
    }
    given
}

fn report(
    name: &ObjectName,
    account: &Account,
    given: &BTreeMap<String, Vec<String>>,
) -> CustodyReport {
    let Account { current, previous, status } = account;
    let (reason, detail) = match &status.failing {
        Some((reason, text, _)) => (Some(reason.as_str().to_owned()), Some(text.clone())),
        None => (None, None),
    };
    let state = match (current, status.withdrawn) {
        (None, Some(_)) => "withdrawn",
        (None, None) if status.failing.is_some() => "failing",
        (None, None) => "waiting",
        (Some(_), _) if status.failing.is_some() => "stale",
        (Some(_), _) if status.expires_soon => "expiring",
        (Some(_), _) => "ok",
    };
    let secret = format!("credential://{}/{}", name.namespace, name.name);
    CustodyReport {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        source: status.source.to_owned(),
        version: current.as_ref().map(|current| current.label.clone()),
        entries: current
            .as_ref()
            .map(|current| current.entries.keys().cloned().collect())
            .unwrap_or_default(),
        not_after: current.as_ref().and_then(|current| current.not_after).map(rfc3339),
        changed: status.changed.map(rfc3339),
        previous: previous.as_ref().map(|previous| previous.label.clone()),
        previous_until: status.previous_until.map(rfc3339),
        fetched: status.fetched.map(rfc3339),
        state: state.to_owned(),
        reason,
        detail,
        gateways: given.get(&secret).cloned().unwrap_or_default(),
    }
}

/// What is wrong, what follows, and whether requests are refused for it.
fn fault(account: &Account) -> Option<(String, &'static str, bool)> {
    let Account { current, status, .. } = account;
    match (&status.failing, current) {
        (Some((reason, text, _)), None) => {
            let message = format!("there is no version to use ({}): {text}", reason.as_str());
            Some((message, "requests that need it are refused until the source answers", true))
        }
        (Some((reason, text, _)), Some(_)) => {
            let message = format!("the source fails ({}): {text}", reason.as_str());
            Some((message, "the last version that it gave stays in use, for a while", false))
        }
        (None, Some(current)) if status.expires_soon => {
            let end = current.not_after.map(rfc3339).unwrap_or_default();
            let message =
                format!("version {} ends at {end}, and there is no newer one", current.label);
            Some((message, "from then on requests that need it are refused", false))
        }
        (None, None) if status.withdrawn.is_some() => {
            let message = "the version in use has expired".to_owned();
            Some((message, "requests that need it are refused until the source has another", true))
        }
        _ => None,
    }
}

fn order(
    resource: &Resource,
    credential: &Credential,
    snapshot: &Snapshot,
    base: &Path,
    state: &StateDir,
) -> Order {
    let name = &resource.meta.name;
    let says = |annotation: &str| resource.meta.annotations.get(annotation).map(String::as_str);
    let origin = match &credential.source {
        SecretSource::SecretRef(source) => object(name, source, snapshot),
        SecretSource::File(written) => Origin::File {
            files: files(written, base),
            readable_by_others: says(READABLE) == Some("true"),
        },
        SecretSource::Env(variables) => Origin::Env(variables.clone()),
        SecretSource::Exec(source) => Origin::Exec(ExecOrigin {
            command: source.command.clone(),
            environment: source.environment.clone(),
            timeout: source.timeout,
            keys: source.keys.clone(),
        }),
        SecretSource::Vault(source) => Origin::Vault(Box::new(VaultOrigin {
            address: source.address.clone(),
            namespace: source.namespace.clone(),
            roots: source.ca_certificates.as_ref().map(|path| base.join(path)),
            auth: auth(&source.auth, base),
            engine: engine(&source.engine),
        })),
        SecretSource::Sealed(texts) => {
            Origin::Sealed { texts: texts.clone(), identities: state.sealing_key(&name.namespace) }
        }
    };
    let rotation = &credential.rotation;
    let schedule = Schedule {
        refresh: rotation.refresh,
        grace: rotation.grace,
        alert_before: rotation.alert_before,
        max_stale: rotation.max_stale,
    };
    Order { origin, schedule }
}

/// A Secret of the Credential's own namespace.
fn object(credential: &ObjectName, source: &SecretRefSource, snapshot: &Snapshot) -> Origin {
    let name = ObjectName::new(&*credential.namespace, source.name.as_str());
    let key = Key { kind: Kind::Secret, name };
    let found = snapshot.get(&key).filter(|_| !is_held(&key));
    let entries = found.and_then(|found| match &found.spec {
        Spec::Secret(secret) => {
            let values = secret.data.iter();
            let values = values.map(|(entry, value)| (entry.clone(), Value::new(value.expose())));
            Some(values.collect())
        }
        _ => None,
    });
    let word = |annotation: &str| found?.meta.annotations.get(annotation).cloned();
    Origin::Object {
        what: key.to_string(),
        entries,
        label: word(VERSION),
        not_after: word(NOT_AFTER),
        keys: source.keys.clone(),
    }
}

fn files(written: &FileSource, base: &Path) -> FileOrigin {
    match written {
        FileSource::Each(paths) => {
            let paths = paths.iter().map(|(entry, path)| (entry.clone(), base.join(path)));
            FileOrigin::Each(paths.collect())
        }
        FileSource::Directory(path) => FileOrigin::Folder(base.join(path)),
        FileSource::Json { path, keys } => {
            FileOrigin::Json { path: base.join(path), keys: keys.clone() }
        }
    }
}

fn auth(written: &WrittenAuth, base: &Path) -> VaultAuth {
    match written {
        WrittenAuth::TokenFile(path) => VaultAuth::TokenFile(base.join(path)),
        WrittenAuth::TokenEnv(name) => VaultAuth::TokenEnv(name.clone()),
        WrittenAuth::AppRole { mount, role_id, secret_id_file } => VaultAuth::AppRole {
            mount: mount.clone(),
            role_id: role_id.clone(),
            secret_id_file: base.join(secret_id_file),
        },
        WrittenAuth::Kubernetes { mount, role, token_file } => VaultAuth::Kubernetes {
            mount: mount.clone(),
            role: role.clone(),
            token_file: base.join(token_file),
        },
    }
}

fn engine(written: &WrittenEngine) -> VaultEngine {
    match written {
        WrittenEngine::Kv { mount, path, keys } => {
            VaultEngine::Kv { mount: mount.clone(), path: path.clone(), keys: keys.clone() }
        }
        WrittenEngine::Transit { mount, key, ciphertexts } => VaultEngine::Transit {
            mount: mount.clone(),
            key: key.clone(),
            ciphertexts: ciphertexts.clone(),
        },
    }
}

fn rfc3339(at: SystemTime) -> String {
    let time = OffsetDateTime::from(at).replace_nanosecond(0).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}
