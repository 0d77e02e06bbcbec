//! Resolves the names of DNS clusters, and again before they grow old.
//!
//! In:    the clusters of the newest configuration.
//! Out:   the addresses of each name; a word when some changed.
//! Never: forgets good addresses because a look-up failed; asks for more than a few names at once.

use std::{
    cell::RefCell, collections::HashMap, io, net::IpAddr, rc::Rc, sync::Arc, time::Duration,
};

use sluis_rules::{Cluster, DnsFamily, EndpointAddress};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

/// Look-ups at once: each takes a thread of the runtime's pool while it waits.
const LOOKUPS_MAX: usize = 8;

/// The shortest time between two look-ups of a name, whatever the configuration says.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// A name and the address families that are wanted of it.
type Key = (Arc<str>, DnsFamily);

#[derive(Debug)]
struct Entry {
    addresses: Vec<IpAddr>,
    /// Whether a look-up has ended, well or not.
    is_answered: bool,
    is_running: bool,
    refresh: Duration,
    due: Instant,
}

/// The names that clusters need.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    entries: RefCell<HashMap<Key, Entry>>,
    wanted: Notify,
    changed: Notify,
}

impl Resolver {
    /// Wants the names of exactly these clusters.
    pub(crate) fn want<'c>(&self, clusters: impl Iterator<Item = &'c Arc<Cluster>>) {
        let mut entries = self.entries.borrow_mut();
        let mut before = std::mem::take(&mut *entries);
        let now = Instant::now();
        for cluster in clusters {
            let refresh = cluster.dns.refresh.max(REFRESH_MIN);
            for endpoint in &cluster.endpoints.list {
                let EndpointAddress::Name { host, .. } = &endpoint.address else { continue };
                let key = (Arc::clone(host), cluster.dns.family);
                let known = entries.remove(&key).or_else(|| before.remove(&key));
                let entry = match known {
                    Some(known) => Entry { refresh: known.refresh.min(refresh), ..known },
                    None => Entry {
                        addresses: Vec::new(),
                        is_answered: false,
                        is_running: false,
                        refresh,
                        due: now,
                    },
                };
                entries.insert(key, entry);
            }
        }
        self.wanted.notify_one();
    }

    /// The addresses of a name, as this cluster wants them; empty while they are unknown.
    pub(crate) fn addresses(&self, cluster: &Cluster, host: &str) -> Vec<IpAddr> {
        let key = (Arc::from(host), cluster.dns.family);
        self.entries.borrow().get(&key).map(|entry| entry.addresses.clone()).unwrap_or_default()
    }

    /// The names of which nothing has been heard yet.
    pub(crate) fn unanswered(&self) -> Vec<Arc<str>> {
        let entries = self.entries.borrow();
        entries.iter().filter(|(_, e)| !e.is_answered).map(|((host, _), _)| host.clone()).collect()
    }

    /// Waits until some addresses have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Looks names up, for ever.
    pub(crate) async fn run(self: Rc<Self>) {
        let mut lookups: JoinSet<(Key, io::Result<Vec<IpAddr>>)> = JoinSet::new();
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
                Some(done) = lookups.join_next() => {
                    if let Ok((key, found)) = done {
                        self.settle(&key, found);
                    }
                }
            }
        }
    }

    /// Starts the look-ups that are due; says when the next one is.
    fn start_due(&self, lookups: &mut JoinSet<(Key, io::Result<Vec<IpAddr>>)>) -> Option<Instant> {
        let now = Instant::now();
        let mut entries = self.entries.borrow_mut();
        let mut next: Option<Instant> = None;
        for (key, entry) in entries.iter_mut().filter(|(_, entry)| !entry.is_running) {
            if entry.due > now {
                next = Some(next.map_or(entry.due, |next| next.min(entry.due)));
            } else if lookups.len() < LOOKUPS_MAX {
                entry.is_running = true;
                let key = key.clone();
                lookups.spawn_local(async move {
                    let found = look_up(&key.0, key.1).await;
                    (key, found)
                });
            }
        }
        next
    }

    fn settle(&self, key: &Key, found: io::Result<Vec<IpAddr>>) {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key) else { return };
        entry.is_running = false;
        entry.due = Instant::now() + entry.refresh;
        let is_first = !std::mem::replace(&mut entry.is_answered, true);
        match found {
            Ok(addresses) if addresses != entry.addresses => {
                debug!(host = %key.0, ?addresses, "name resolved");
                entry.addresses = addresses;
                self.changed.notify_one();
            }
            Ok(_) => {}
            Err(error) => {
                // Once per failure would be a line every few seconds.
                if is_first {
                    warn!(host = %key.0, %error, "name cannot be resolved");
                } else {
                    debug!(host = %key.0, %error, kept = entry.addresses.len(), "name cannot be resolved again");
                }
            }
        }
        if is_first {
            self.changed.notify_one();
        }
    }
}

async fn look_up(host: &str, family: DnsFamily) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host, 0)).await?;
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) =
        found.map(|address| address.ip()).partition(IpAddr::is_ipv4);
    let mut wanted = match family {
        DnsFamily::V4Only => v4,
        DnsFamily::V6Only => v6,
        DnsFamily::V4Preferred => {
            if v4.is_empty() {
                v6
            } else {
                v4
            }
        }
        DnsFamily::V6Preferred => {
            if v6.is_empty() {
                v4
            } else {
                v6
            }
        }
        DnsFamily::All => [v4, v6].concat(),
    };
    // Servers turn the order; a turned order is no change.
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}
