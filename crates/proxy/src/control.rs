//! The control thread: what the proxy should do, from the bootstrap and from xDS, to the workers.
//!
//! In:    updates from the xDS client, DNS answers, changes of secrets.
//! Out:   published configurations; why an update is rejected.
//! Never: publishes a listener before what it names has come or a bounded wait has passed; takes
//!        back what works because something new does not.
//!
//! Start at [`Control::take`] and [`Control::publish`].

pub(crate) mod admin;
mod checks;
mod dns;
mod exchange;
pub(crate) mod handoff;
mod health;
mod key_sets;
pub(crate) mod nameserver;
mod outlier;
pub(crate) mod probes;
pub(crate) mod resolver;
mod watches;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use envoy_types::pb::envoy::{
    config::{core::v3::data_source::Specifier, listener::v3::Listener as ListenerMessage},
    extensions::transport_sockets::tls::v3::{Secret as SecretMessage, secret::Type as SecretType},
};
use sluis_envoy::{Kind, ResourceSet};
use sluis_rules::{Fault, Runtime, compile};
use sluis_tls::SecretStore;
use sluis_xds::{Subscriptions, Update};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{info, warn};
use zeroize::Zeroize as _;

use self::{checks::unusable, key_sets::KeySets, resolver::Resolver, watches::Watches};
use crate::{
    bound::bind_all,
    config::{Config, chains},
};

/// How long a changed listener waits for its routes, endpoints, addresses and certificates.
const WARM_WAIT_MAX: Duration = Duration::from_secs(5);

/// The name that stands for everything of a kind.
const EVERYTHING: &str = "*";

/// How the names of credentials' secrets begin.
const CREDENTIAL: &str = "credential://";

/// How the names of the versions before end.
const PREVIOUS: &str = "#previous";

/// The prefixes and names of secrets that do not come over ADS.
const OWN_SECRETS: [&str; 5] = ["default", "ROOTCA", "file-cert:", "file-root:", "file-crl:"];

/// The state of the control thread.
pub(crate) struct Control {
    store: SecretStore,
    resolver: Rc<Resolver>,
    config: watch::Sender<Arc<Config>>,
    subscriptions: Option<Subscriptions>,
    /// Whether the workload's names are answered here.
    wants_names: bool,
    /// What the proxy should hold: the fixed resources and those that xDS sent.
    wanted: ResourceSet,
    /// Names that the control plane has answered for, with a resource or by saying there is none.
    answered: BTreeSet<(Kind, String)>,
    /// Kinds of which at least one delivery has come.
    seen: BTreeSet<Kind>,
    /// The compiled form of `wanted`, listeners that still wait included.
    compiled: Arc<Runtime>,
    /// The listeners as they were last published: they stay while new ones wait.
    listeners: BTreeMap<String, Arc<ListenerMessage>>,
    /// Until when new listeners wait.
    warm_by: Option<Instant>,
    is_ready: bool,
    watches: Watches,
    key_sets: KeySets,
}

/// What a control thread is made of.
pub(crate) struct Parts {
    pub(crate) store: SecretStore,
    pub(crate) resolver: Rc<Resolver>,
    pub(crate) config: watch::Sender<Arc<Config>>,
    pub(crate) subscriptions: Option<Subscriptions>,
    pub(crate) wants_names: bool,
}

impl Control {
    /// Starts with the fixed resources, which must compile.
    ///
    /// # Errors
    ///
    /// Why they do not.
    pub(crate) fn new(parts: Parts, fixed: ResourceSet) -> Result<Self, Vec<String>> {
        let Parts { store, resolver, config, subscriptions, wants_names } = parts;
        let mut control = Self {
            store,
            resolver,
            config,
            subscriptions,
            wants_names,
            wanted: fixed,
            answered: BTreeSet::new(),
            seen: BTreeSet::new(),
            compiled: Arc::default(),
            listeners: BTreeMap::new(),
            warm_by: None,
            is_ready: false,
            watches: Watches::default(),
            key_sets: KeySets::default(),
        };
        for secret in control.wanted.secrets.values() {
            control.store.put(secret).map_err(|error| vec![error.to_string()])?;
        }
        control.wanted.secrets.retain(|_, secret| !holds_values(secret));
        let faults = control.compile();
        if faults.is_empty() { Ok(control) } else { Err(texts(&faults)) }
    }

    /// Takes in one update and publishes what came of it. Returns why parts of it are rejected.
    pub(crate) fn take(&mut self, update: &Update) -> Vec<String> {
        let mut refusals = self.absorb(update);
        self.seen.insert(update.kind);
        let touched = |fault: &Fault| fault.kind == update.kind;
        let faults = self.compile();
        refusals.extend(texts(faults.iter().filter(|fault| touched(fault))));
        for fault in faults.iter().filter(|fault| !touched(fault)) {
            warn!(%fault, "resource still rejected");
        }
        refusals.extend(self.publish());
        refusals
    }

    /// Takes the resources over into what is wanted; says which cannot be.
    fn absorb(&mut self, update: &Update) -> Vec<String> {
        let kind = update.kind;
        let mut refusals = Vec::new();
        let mut names = Vec::new();
        for resource in &update.upserts {
            match self.wanted.insert(kind, resource) {
                Ok(name) => names.push(name),
                Err(rejected) => {
                    refusals.push(format!("{rejected}: {}", rejected.source));
                }
            }
        }
        // The version before is there before the new one is used: it may be needed at once.
        names.sort_by_key(|name| !name.ends_with(PREVIOUS));
        for name in names {
            if kind == Kind::Secret {
                refusals.extend(self.keep(&name));
            }
            self.answered.insert((kind, name));
        }
        for name in &update.removed {
            self.wanted.remove(kind, name);
            if kind == Kind::Secret
                && let Err(error) = self.store.remove(name)
            {
                refusals.push(format!("{kind} {name}: {error}"));
            }
            self.answered.insert((kind, name.clone()));
        }
        refusals
    }

    /// Gives a secret to the store. Values stay there alone, where nobody else can see them.
    fn keep(&mut self, name: &str) -> Option<String> {
        let secret = self.wanted.secrets.get(name)?;
        let refusal = self.store.put(secret).err();
        if holds_values(secret)
            && let Some(secret) = self.wanted.secrets.remove(name)
        {
            wipe(secret);
        }
        refusal.map(|error| format!("{} {name}: {error}", Kind::Secret))
    }

    /// Compiles what is wanted, and subscribes to what that names.
    fn compile(&mut self) -> Vec<Fault> {
        let mut done = compile(&self.wanted, Some(&self.compiled));
        let settings = Arc::clone(&self.config.borrow().settings);
        let unusable = unusable(&done.runtime, &self.compiled, &settings);
        if !unusable.is_empty() {
            // As for any other fault: the last good form stays, or the listener is absent.
            let mut usable = self.wanted.clone();
            for fault in &unusable {
                match self.listeners.get(&fault.name) {
                    Some(good) => drop(usable.listeners.insert(fault.name.clone(), good.clone())),
                    None => drop(usable.listeners.remove(&fault.name)),
                }
            }
            let mut again = compile(&usable, Some(&self.compiled));
            again.faults.extend(unusable);
            done = again;
        }
        self.compiled = done.runtime;
        self.subscribe();
        self.resolver.want(self.compiled.clusters.values());
        done.faults
    }

    /// Subscribes to what the compiled and the published listeners and clusters name, and forgets
    /// what nobody names any more.
    fn subscribe(&mut self) {
        let Some(subscriptions) = &self.subscriptions else { return };
        let published = Arc::clone(&self.config.borrow().runtime);
        let runtimes = [&*self.compiled, &*published];
        let union = |names: fn(&Runtime) -> Vec<Arc<str>>| -> BTreeSet<String> {
            runtimes
                .iter()
                .flat_map(|runtime| names(runtime))
                .map(|name| name.to_string())
                .collect()
        };
        let routes = union(Runtime::route_names);
        let assignments = union(Runtime::assignment_names);
        let secrets: BTreeSet<String> = runtimes
            .iter()
            .flat_map(|runtime| [all_secret_names(runtime), previous_secret_names(runtime)])
            .flatten()
            .filter(|name| !is_own_secret(name))
            .collect();
        self.wanted.routes.retain(|name, _| routes.contains(name));
        self.wanted.endpoints.retain(|name, _| assignments.contains(name));
        self.answered.retain(|(kind, name)| match kind {
            Kind::Route => routes.contains(name),
            Kind::Endpoints => assignments.contains(name),
            Kind::Secret => secrets.contains(name),
            _ => false,
        });
        subscriptions.set(Kind::Route, routes);
        subscriptions.set(Kind::Endpoints, assignments);
        subscriptions.set(Kind::Secret, secrets);
        if self.wants_names {
            subscriptions.set(Kind::NameTable, BTreeSet::from([EVERYTHING.to_owned()]));
        }
    }

    /// What listeners name and nobody has sent yet.
    fn missing(&self) -> Vec<String> {
        let runtime = &self.compiled;
        let unanswered = |kind: Kind, name: &str| !self.answered.contains(&(kind, name.to_owned()));
        let routes = runtime
            .route_names()
            .into_iter()
            .filter(|name| !runtime.routes.contains_key(name) && unanswered(Kind::Route, name));
        let assignments = runtime.assignment_names().into_iter().filter(|name| {
            !self.wanted.endpoints.contains_key(&**name) && unanswered(Kind::Endpoints, name)
        });
        let mut missing: Vec<String> = routes
            .map(|name| format!("route {name}"))
            .chain(assignments.map(|name| format!("endpoints {name}")))
            .collect();
        missing.extend(
            self.resolver.unanswered().into_iter().map(|name| format!("address of {name}")),
        );
        let config = self.config.borrow();
        let checked = runtime.clusters.values().filter(|cluster| !cluster.health_checks.is_empty());
        let unknown = checked.filter(|cluster| match config.backend(&cluster.name) {
            Some(backend) => watches::is_unknown(backend),
            None => !cluster.endpoints.list.is_empty(),
        });
        missing.extend(unknown.map(|cluster| format!("health of {}", cluster.name)));
        missing.extend(all_secret_names(runtime).into_iter().filter_map(|name| {
            // That a credential has no value is an answer: requests that need it are refused.
            if name.starts_with(CREDENTIAL) && !unanswered(Kind::Secret, &name) {
                return None;
            }
            let slot = self.store.slot(&name).ok()?;
            slot.get().is_none().then(|| format!("secret {name}"))
        }));
        missing
    }

    /// Gives the workers what is ready. Returns why listeners cannot listen.
    pub(crate) fn publish(&mut self) -> Vec<String> {
        let now = Instant::now();
        let is_news = self.wanted.listeners != self.listeners;
        let missing = if is_news { self.missing() } else { Vec::new() };
        if missing.is_empty() {
            self.warm_by = None;
        } else {
            let by = *self.warm_by.get_or_insert(now + WARM_WAIT_MAX);
            if now < by {
                info!(?missing, "new listeners wait");
                return self.send(&self.with_old_listeners());
            }
            warn!(?missing, "new listeners start without all that they name");
            self.warm_by = None;
        }
        self.listeners.clone_from(&self.wanted.listeners);
        let refusals = self.send(&Arc::clone(&self.compiled));
        // Only now are the names of the listeners before needed by nobody.
        self.subscribe();
        if self.subscriptions.is_none() || self.seen.contains(&Kind::Listener) {
            self.is_ready = true;
        }
        refusals
    }

    /// The newest clusters, endpoints and routes under the listeners of before.
    fn with_old_listeners(&self) -> Arc<Runtime> {
        let mut set = self.wanted.clone();
        set.listeners.clone_from(&self.listeners);
        compile(&set, Some(&self.compiled)).runtime
    }

    fn send(&mut self, runtime: &Arc<Runtime>) -> Vec<String> {
        let before = Arc::clone(&self.config.borrow());
        let (bound, errors) = bind_all(runtime, &before.bound, before.settings.workers);
        let resolve = |cluster: &_, host: &str| self.resolver.addresses(cluster, host);
        let next = before.next(Arc::clone(runtime), resolve, &self.store, bound);
        self.watches.follow(next.backends());
        self.config.send_replace(Arc::new(next));
        self.key_sets.follow(runtime, &self.config);
        let texts = errors.iter().map(|error| error.to_string()).collect::<Vec<_>>();
        texts.iter().for_each(|error| warn!("{error}"));
        texts
    }

    /// Rings when [`Self::publish`] may find that what listeners wait for is there.
    pub(crate) fn health_known(&self) -> Rc<Notify> {
        Rc::clone(&self.watches.known)
    }

    /// When to call [`Self::publish`] again although nothing came.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.warm_by
    }

    /// Whether the listeners that were asked for have been published once.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// What the proxy should hold.
    pub(crate) fn wanted(&self) -> &ResourceSet {
        &self.wanted
    }
}

/// Whether a secret is the workload's own or in files.
fn is_own_secret(name: &str) -> bool {
    OWN_SECRETS.iter().any(|own| match own.strip_suffix(':') {
        Some(_) => name.starts_with(own),
        None => name == *own,
    })
}

fn all_secret_names(runtime: &Runtime) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut add = |name: &sluis_rules::SecretName| {
        names.insert(name.as_str().to_owned());
    };
    for tls in chains(runtime).filter_map(|chain| chain.tls.as_ref()) {
        tls.certificates.iter().for_each(&mut add);
        tls.validation
            .iter()
            .for_each(|v| std::iter::once(&v.roots).chain(&v.crl).for_each(&mut add));
    }
    for cluster in runtime.clusters.values() {
        let own = cluster.endpoints.list.iter().filter_map(|endpoint| endpoint.tls.as_ref());
        cluster.filters.iter().flat_map(|filter| filter.secrets()).for_each(&mut add);
        for tls in own.chain(&cluster.tls) {
            tls.certificate.iter().for_each(&mut add);
            tls.validation
                .iter()
                .for_each(|v| std::iter::once(&v.roots).chain(&v.crl).for_each(&mut add));
        }
    }
    names
}

/// Values of credentials that are used while they are there, and that nothing waits for.
fn previous_secret_names(runtime: &Runtime) -> BTreeSet<String> {
    let filters = runtime.clusters.values().flat_map(|cluster| &cluster.filters);
    let names = filters.flat_map(|filter| filter.previous_secrets());
    names.map(|name| name.as_str().to_owned()).collect()
}

/// Whether a secret holds values that only the store may hold.
fn holds_values(secret: &SecretMessage) -> bool {
    matches!(secret.r#type, Some(SecretType::GenericSecret(_)))
}

/// Overwrites what a message holds, where nobody else has it.
fn wipe(secret: Arc<SecretMessage>) {
    let Some(message) = Arc::into_inner(secret) else { return };
    let Some(SecretType::GenericSecret(generic)) = message.r#type else { return };
    for source in generic.secrets.into_values().chain(generic.secret) {
        match source.specifier {
            Some(Specifier::InlineBytes(mut bytes)) => bytes.zeroize(),
            Some(Specifier::InlineString(mut text)) => text.zeroize(),
            _ => {}
        }
    }
}

fn texts<'f>(faults: impl IntoIterator<Item = &'f Fault>) -> Vec<String> {
    faults.into_iter().map(ToString::to_string).collect()
}
