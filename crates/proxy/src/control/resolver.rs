//! Resolves the names of DNS clusters, and again before they grow old; and those that workers ask
//! for.
//!
//! In:    the clusters of the newest configuration; questions of workers.
//! Out:   the addresses of each name; a word when some changed.
//! Never: forgets good addresses because a look-up failed; asks for more than a few names at once.

use std::{
    cell::RefCell, collections::HashMap, io, net::IpAddr, rc::Rc, sync::Arc, time::Duration,
};

use sluis_rules::{Cluster, DnsOptions, DynamicForward, EndpointAddress};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::dns::{Found, look_up};
use crate::{
    names::{DynamicNames, Key as NameKey, NameError, Question},
    random::Random,
};

/// Look-ups at once.
const LOOKUPS_MAX: usize = 64;

/// The shortest time between two look-ups of a name, whatever the configuration says.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// A name, how it is looked up, and the cache that it is for (none for clusters).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    host: Arc<str>,
    options: Arc<DnsOptions>,
    cache: Option<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<IpAddr>,
    /// Whether a look-up has ended, well or not.
    is_answered: bool,
    is_running: bool,
    /// Look-ups that failed, one after the other.
    failures: u32,
    due: Instant,
    /// Of a name that workers ask for.
    dynamic: Option<Dynamic>,
}

#[derive(Debug)]
struct Dynamic {
    forward: Arc<DynamicForward>,
    waiters: Vec<oneshot::Sender<Result<Vec<IpAddr>, NameError>>>,
}

impl Entry {
    fn new(dynamic: Option<Dynamic>) -> Self {
        Self {
            addresses: Vec::new(),
            is_answered: false,
            is_running: false,
            failures: 0,
            due: Instant::now(),
            dynamic,
        }
    }
}

/// The names that clusters and workers need.
#[derive(Debug)]
pub(crate) struct Resolver {
    entries: RefCell<HashMap<Key, Entry>>,
    wanted: Notify,
    changed: Notify,
    names: Arc<DynamicNames>,
    random: Random,
}

impl Resolver {
    /// A resolver that answers what workers ask `names` for.
    pub(crate) fn new(names: Arc<DynamicNames>) -> Self {
        Self {
            entries: RefCell::default(),
            wanted: Notify::new(),
            changed: Notify::new(),
            names,
            random: Random::from_os(),
        }
    }

    /// Wants the names of exactly these clusters.
    pub(crate) fn want<'c>(&self, clusters: impl Iterator<Item = &'c Arc<Cluster>>) {
        let mut entries = self.entries.borrow_mut();
        let mut before = std::mem::take(&mut *entries);
        for cluster in clusters {
            let mut options = None;
            for endpoint in &cluster.endpoints.list {
                let EndpointAddress::Name { host, .. } = &endpoint.address else { continue };
                let options =
                    Arc::clone(options.get_or_insert_with(|| Arc::new(cluster.dns.clone())));
                let key = Key { host: Arc::clone(host), options, cache: None };
                let known = entries.remove(&key).or_else(|| before.remove(&key));
                entries.insert(key, known.unwrap_or_else(|| Entry::new(None)));
            }
        }
        entries.extend(before.into_iter().filter(|(_, entry)| entry.dynamic.is_some()));
        self.wanted.notify_one();
    }

    /// The addresses of a name, as this cluster wants them; empty while they are unknown.
    pub(crate) fn addresses(&self, cluster: &Cluster, host: &str) -> Vec<IpAddr> {
        let options = Arc::new(cluster.dns.clone());
        let key = Key { host: host.into(), options, cache: None };
        self.entries.borrow().get(&key).map(|entry| entry.addresses.clone()).unwrap_or_default()
    }

    /// The names of which nothing has been heard yet.
    pub(crate) fn unanswered(&self) -> Vec<Arc<str>> {
        let entries = self.entries.borrow();
        let waiting = entries.iter().filter(|(_, e)| !e.is_answered && e.dynamic.is_none());
        waiting.map(|(key, _)| Arc::clone(&key.host)).collect()
    }

    /// Waits until some addresses have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Looks names up, for ever.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut lookups: JoinSet<(Key, io::Result<Found>)> = JoinSet::new();
        let mut questions = self.names.take_questions();
        loop {
            let next = self.start_due(&mut lookups);
            let due = async {
                match next {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wanted.notified() => {}
                () = due => {}
                Some(question) = ask(&mut questions) => self.take(question),
                Some(done) = lookups.join_next() => {
                    if let Ok((key, found)) = done {
                        self.settle(&key, found);
                    }
                }
            }
        }
    }

    /// Takes a worker's question in.
    fn take(&self, question: Question) {
        let Question { key: (cache, host), forward, reply } = question;
        let mut entries = self.entries.borrow_mut();
        let options = Arc::new(forward.dns.clone());
        let key = Key { host, options, cache: Some(Arc::clone(&cache)) };
        let held = entries.keys().filter(|known| known.cache.as_ref() == Some(&cache)).count();
        if !entries.contains_key(&key) && held >= forward.max_hosts as usize {
            // Who asked may have gone.
            drop(reply.send(Err(NameError::TooMany)));
            return;
        }
        let dynamic = Dynamic { forward, waiters: Vec::new() };
        let entry = entries.entry(key).or_insert_with(|| Entry::new(Some(dynamic)));
        let Some(dynamic) = &mut entry.dynamic else { return };
        match (entry.addresses.is_empty(), entry.failures) {
            (false, _) => drop(reply.send(Ok(entry.addresses.clone()))),
            // It failed a moment ago: to ask again at once would not help.
            (true, 1..) if entry.due > Instant::now() => {
                drop(reply.send(Err(NameError::Unresolved)));
            }
            _ => dynamic.waiters.push(reply),
        }
    }

    /// Starts the look-ups that are due; says when the next one is.
    fn start_due(&self, lookups: &mut JoinSet<(Key, io::Result<Found>)>) -> Option<Instant> {
        let now = Instant::now();
        let mut entries = self.entries.borrow_mut();
        self.forget_unused(&mut entries, now);
        let mut next: Option<Instant> = None;
        for (key, entry) in entries.iter_mut().filter(|(_, entry)| !entry.is_running) {
            if entry.due > now {
                next = Some(next.map_or(entry.due, |next| next.min(entry.due)));
            } else if lookups.len() < LOOKUPS_MAX {
                entry.is_running = true;
                let key = key.clone();
                lookups.spawn_local(async move {
                    let found = look_up(&key.host, &key.options).await;
                    (key, found)
                });
            }
        }
        next
    }

    /// Forgets names that workers have not asked for in a while.
    fn forget_unused(&self, entries: &mut HashMap<Key, Entry>, now: Instant) {
        entries.retain(|key, entry| {
            let (Some(dynamic), Some(cache)) = (&entry.dynamic, &key.cache) else { return true };
            if entry.is_running || entry.due > now || !dynamic.waiters.is_empty() {
                return true;
            }
            let name: NameKey = (Arc::clone(cache), Arc::clone(&key.host));
            let is_used =
                self.names.idle(&name).is_some_and(|idle| idle < dynamic.forward.host_ttl);
            if !is_used {
                self.names.publish(&name, None);
            }
            is_used
        });
    }

    fn settle(&self, key: &Key, found: io::Result<Found>) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key) else { return };
        entry.is_running = false;
        entry.failures = if found.is_ok() { 0 } else { entry.failures.saturating_add(1) };
        let ttl = found.as_ref().ok().and_then(|found| found.ttl);
        entry.due = Instant::now() + self.wait(&key.options, entry.failures, ttl);
        let is_first = !std::mem::replace(&mut entry.is_answered, true);
        let mut is_changed = false;
        match found {
            Ok(Found { addresses, .. }) if addresses != entry.addresses => {
                debug!(host = %key.host, ?addresses, "name resolved");
                entry.addresses = addresses;
                is_changed = true;
            }
            Ok(_) => {}
            // Once per failure would be a line every few seconds.
            Err(error) if is_first => warn!(host = %key.host, %error, "name cannot be resolved"),
            Err(error) => {
                debug!(host = %key.host, %error, kept = entry.addresses.len(), "name cannot be resolved again");
            }
        }
        if entry.addresses.is_empty() && entry.failures == 0 {
            // Nothing to be told: for those who ask that is a failure.
            entry.failures = u32::from(entry.dynamic.is_some());
        }
        match (&mut entry.dynamic, &key.cache) {
            (Some(dynamic), Some(cache)) => {
                let name = (Arc::clone(cache), Arc::clone(&key.host));
                let known = (!entry.addresses.is_empty()).then(|| entry.addresses.clone());
                if is_changed {
                    self.names.publish(&name, known.clone());
                }
                for waiter in dynamic.waiters.drain(..) {
                    // Who asked may have gone.
                    drop(waiter.send(known.clone().ok_or(NameError::Unresolved)));
                }
            }
            _ if is_changed || is_first => self.changed.notify_one(),
            _ => {}
        }
    }

    /// The time to the next look-up.
    fn wait(&self, options: &DnsOptions, failures: u32, ttl: Option<Duration>) -> Duration {
        let jitter = |most: Duration| {
            let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
            Duration::from_millis(self.random.below(most + 1))
        };
        if let (1.., Some((base, max))) = (failures, options.failure) {
            // Full jitter on a doubling wait, as Envoy.
            let most = base.saturating_mul(1 << (failures - 1).min(16)).min(max);
            return jitter(most).max(REFRESH_MIN.min(base));
        }
        let life = ttl.filter(|ttl| options.respect_ttl && !ttl.is_zero() && failures == 0);
        let wait = life.unwrap_or(options.refresh).max(options.min_refresh).max(REFRESH_MIN);
        wait + jitter(options.jitter)
    }
}

async fn ask(questions: &mut Option<mpsc::Receiver<Question>>) -> Option<Question> {
    match questions {
        Some(questions) => questions.recv().await,
        None => std::future::pending().await,
    }
}
