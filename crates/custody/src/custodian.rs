//! Keeps all credentials fresh.
//!
//! In:    the orders, whenever they change; wishes to look now.
//! Out:   a [`Ledger`] whenever something is in force that was not, or a status changes.
//! Never: asks one source twice at a time, or more than a few at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    sync::Arc,
    time::SystemTime,
};

use aws_lc_rs::rand;
use sluis_nouns::ObjectName;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinSet},
    time::{Instant, sleep_until},
};
use tracing::{error, info, warn};

use crate::{Account, FetchError, Fetched, Fetcher, Keeper, Order};

/// What is to be kept.
pub type Orders = BTreeMap<ObjectName, Order>;
/// What is in force.
pub type Ledger = Arc<BTreeMap<ObjectName, Account>>;

/// Sources that are asked at once: enough that a slow one does not hold up the others, few enough that
/// a restart is no storm.
const ASKED_MAX: usize = 8;
/// Longest that the loop sleeps.
const SLEEP_MAX: std::time::Duration = std::time::Duration::from_secs(3600);
/// Wishes that wait.
const WISHES_MAX: usize = 16;

/// A wish to ask a source now.
pub struct Refresh {
    /// Which credential.
    pub name: ObjectName,
    /// Told when the source has answered.
    pub done: oneshot::Sender<Option<Account>>,
}

/// Keeps all credentials fresh until told to stop.
pub struct Custodian {
    fetcher: Fetcher,
    orders: watch::Receiver<Orders>,
    wishes: mpsc::Receiver<Refresh>,
    ledger: watch::Sender<Ledger>,
    kept: BTreeMap<ObjectName, Kept>,
    asked: JoinSet<Result<Fetched, FetchError>>,
    names: HashMap<Id, (ObjectName, Arc<Order>)>,
}

/// One credential.
struct Kept {
    order: Arc<Order>,
    keeper: Keeper,
    due: Instant,
    waiting: Vec<oneshot::Sender<Option<Account>>>,
}

impl Custodian {
    /// A custodian of nothing yet, and the hand that sends it wishes.
    #[must_use]
    pub fn new(
        fetcher: Fetcher,
        orders: watch::Receiver<Orders>,
    ) -> (Self, mpsc::Sender<Refresh>, watch::Receiver<Ledger>) {
        let (wish, wishes) = mpsc::channel(WISHES_MAX);
        let (ledger, read) = watch::channel(Ledger::default());
        let (kept, asked, names) = Default::default();
        (Self { fetcher, orders, wishes, ledger, kept, asked, names }, wish, read)
    }

    /// Runs until `shutdown` or until nobody gives orders any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the questions under way; what was read stays as it was read last.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        self.take_orders();
        loop {
            self.ask_those_due();
            let wake = self.wake();
            tokio::select! {
                () = &mut shutdown => return,
                changed = self.orders.changed() => match changed {
                    Ok(()) => self.take_orders(),
                    Err(_) => return,
                },
                Some(wish) = self.wishes.recv() => self.wish(wish),
                Some(answer) = self.asked.join_next_with_id() => self.answered(answer),
                () = sleep_until(wake) => self.pass(),
            }
        }
    }

    /// Follows the orders: what is no longer wanted is forgotten at once, what comes from elsewhere now
    /// is asked for at once, and its values stay until there are others.
    fn take_orders(&mut self) {
        let orders = self.orders.borrow_and_update().clone();
        self.kept.retain(|name, _| orders.contains_key(name));
        for (name, order) in orders {
            match self.kept.get_mut(&name) {
                Some(kept) if *kept.order == order => {}
                Some(kept) => {
                    kept.keeper.reschedule(order.schedule.clone());
                    kept.order = Arc::new(order);
                    kept.due = Instant::now();
                }
                None => {
                    let (kind, schedule) = (order.origin.kind(), order.schedule.clone());
                    let keeper = Keeper::new(kind, schedule, order.origin.is_watched());
                    let (order, due) = (Arc::new(order), Instant::now());
                    self.kept.insert(name, Kept { order, keeper, due, waiting: Vec::new() });
                }
            }
        }
        self.publish();
    }

    fn ask_those_due(&mut self) {
        let now = Instant::now();
        let busy: BTreeSet<&ObjectName> = self.names.values().map(|(name, _)| name).collect();
        let due: Vec<(ObjectName, Arc<Order>)> = self
            .kept
            .iter()
            .filter(|(name, kept)| kept.due <= now && !busy.contains(name))
            .take(ASKED_MAX.saturating_sub(busy.len()))
            .map(|(name, kept)| (name.clone(), Arc::clone(&kept.order)))
            .collect();
        for (name, order) in due {
            let (fetcher, asked) = (self.fetcher.clone(), Arc::clone(&order));
            let task = self.asked.spawn(async move { fetcher.fetch(&asked.origin).await });
            self.names.insert(task.id(), (name, order));
        }
    }

    fn answered(
        &mut self,
        answer: Result<(Id, Result<Fetched, FetchError>), tokio::task::JoinError>,
    ) {
        let (id, answer) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let panicked = FetchError::Malformed("its reader panicked".to_owned());
                (error.id(), Err(panicked))
            }
        };
        let Some((name, asked)) = self.names.remove(&id) else { return };
        let Some(kept) = self.kept.get_mut(&name) else { return };
        if !Arc::ptr_eq(&asked, &kept.order) {
            // It was asked of another source than is in force now.
            return;
        }
        let before = kept.keeper.account().clone();
        let wait = kept.keeper.on(answer, SystemTime::now(), draw());
        kept.due = Instant::now() + wait;
        let after = kept.keeper.account();
        tell(&name, &before, after);
        for waiting in kept.waiting.drain(..) {
            // Who asked may have gone.
            let _ = waiting.send(Some(after.clone()));
        }
        self.publish();
    }

    fn wish(&mut self, wish: Refresh) {
        match self.kept.get_mut(&wish.name) {
            Some(kept) => {
                kept.due = Instant::now();
                kept.waiting.push(wish.done);
            }
            // Who asked may have gone.
            None => drop(wish.done.send(None)),
        }
    }

    /// When something is due, or ends by itself.
    fn wake(&self) -> Instant {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let busy: BTreeSet<&ObjectName> = self.names.values().map(|(name, _)| name).collect();
        let is_full = busy.len() >= ASKED_MAX;
        let due = self.kept.iter().filter(|(name, _)| !is_full && !busy.contains(name));
        let due = due.map(|(_, kept)| kept.due);
        let changes = self.kept.values().filter_map(|kept| kept.keeper.next_change());
        let changes = changes.map(|at| now + at.duration_since(clock).unwrap_or_default());
        due.chain(changes).min().unwrap_or(now + SLEEP_MAX).min(now + SLEEP_MAX)
    }

    fn pass(&mut self) {
        let now = SystemTime::now();
        let mut is_changed = false;
        for (name, kept) in &mut self.kept {
            let before = kept.keeper.account().clone();
            if kept.keeper.pass(now) {
                tell(name, &before, kept.keeper.account());
                is_changed = true;
            }
        }
        if is_changed {
            self.publish();
        }
    }

    fn publish(&self) {
        let accounts = self.kept.iter();
        let accounts = accounts.map(|(name, kept)| (name.clone(), kept.keeper.account().clone()));
        self.ledger.send_replace(Arc::new(accounts.collect()));
    }
}

/// Logs what people would like to know, each thing once.
fn tell(name: &ObjectName, before: &Account, after: &Account) {
    let label = |account: &Account| account.current.as_ref().map(|one| one.label.clone());
    let (old, new) = (label(before), label(after));
    if let Some(version) = new.as_ref().filter(|_| old != new) {
        info!(credential = %name, version, source = after.status.source, "credential read");
    }
    let reason = |account: &Account| account.status.failing.as_ref().map(|(reason, ..)| *reason);
    match (&before.status.failing, &after.status.failing) {
        (_, Some((why, error, _))) if reason(before) != reason(after) => {
            let has_value = after.current.is_some();
            warn!(credential = %name, reason = why.as_str(), error, has_value, "source fails");
        }
        (Some(_), None) => info!(credential = %name, "source answers again"),
        _ => {}
    }
    if let Some(why) = after.status.withdrawn.filter(|_| before.status.withdrawn.is_none()) {
        error!(credential = %name, why, "credential withdrawn: requests that need it are refused");
    }
    if after.status.expires_soon && !before.status.expires_soon {
        let version = label(after).unwrap_or_default();
        warn!(credential = %name, version, "credential expires soon and there is no newer one");
    }
}

fn draw() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers all ask together, which is no fault.
    let _ = rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests;
