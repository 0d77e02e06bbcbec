//! Orders come, change and go; values follow.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::*;
use crate::{Origin, Reason, Schedule, Value};

/// A world with one variable, which may be taken away.
struct World {
    value: Arc<Mutex<String>>,
    is_there: Arc<AtomicBool>,
    orders: watch::Sender<Orders>,
    wishes: mpsc::Sender<Refresh>,
    ledger: watch::Receiver<Ledger>,
    _stop: oneshot::Sender<()>,
}

fn name(text: &str) -> ObjectName {
    ObjectName::new("egress", text)
}

fn order(refresh: Duration) -> Order {
    let origin = Origin::Env(BTreeMap::from([("key".to_owned(), "API_KEY".to_owned())]));
    let hour = Duration::from_secs(3600);
    let schedule = Schedule { refresh, grace: hour, alert_before: hour, max_stale: hour };
    Order { origin, schedule }
}

impl World {
    fn start() -> Self {
        let value = Arc::new(Mutex::new("one".to_owned()));
        let is_there = Arc::new(AtomicBool::new(true));
        let (read, there) = (Arc::clone(&value), Arc::clone(&is_there));
        let fetcher = Fetcher::new(move |_| {
            there.load(Ordering::SeqCst).then(|| Value::new(read.lock().unwrap().as_str()))
        });
        let (orders, ordered) = watch::channel(Orders::new());
        let (custodian, wishes, ledger) = Custodian::new(fetcher, ordered);
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(custodian.run(async { drop(stopped.await) }));
        Self { value, is_there, orders, wishes, ledger, _stop: stop }
    }

    async fn until(&mut self, wanted: impl FnMut(&Ledger) -> bool) -> Ledger {
        let waiting = self.ledger.wait_for(wanted);
        let seen = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        seen.expect("in time").unwrap().clone()
    }

    async fn refresh(&self, text: &str) -> Option<Account> {
        let (done, answered) = oneshot::channel();
        self.wishes.send(Refresh { name: name(text), done }).await.unwrap();
        answered.await.unwrap()
    }
}

fn value(ledger: &Ledger, text: &str) -> Option<Vec<u8>> {
    let version = ledger.get(&name(text))?.current.clone()?;
    Some(version.entries["key"].expose().to_vec())
}

#[tokio::test]
async fn what_is_ordered_is_fetched_and_what_is_no_longer_is_forgotten() {
    let mut world = World::start();
    let orders = Orders::from([(name("a"), order(Duration::from_secs(3600)))]);
    world.orders.send_replace(orders);
    world.until(|ledger| value(ledger, "a").as_deref() == Some(b"one")).await;
    world.orders.send_replace(Orders::new());
    world.until(|ledger| ledger.is_empty()).await;
}

#[tokio::test]
async fn a_wish_asks_at_once_and_a_change_keeps_the_version_before() {
    let mut world = World::start();
    let orders = Orders::from([(name("a"), order(Duration::from_secs(3600)))]);
    world.orders.send_replace(orders);
    world.until(|ledger| value(ledger, "a").is_some()).await;
    *world.value.lock().unwrap() = "two".to_owned();
    let account = world.refresh("a").await.unwrap();
    assert_eq!(account.current.unwrap().entries["key"].expose(), b"two");
    assert_eq!(account.previous.unwrap().entries["key"].expose(), b"one");
    assert!(world.refresh("unknown").await.is_none());
}

#[tokio::test]
async fn a_source_that_fails_is_told_and_the_value_stays() {
    let mut world = World::start();
    world.orders.send_replace(Orders::from([(name("a"), order(Duration::from_secs(1)))]));
    world.until(|ledger| value(ledger, "a").is_some()).await;
    world.is_there.store(false, Ordering::SeqCst);
    let failing = |ledger: &Ledger| {
        let account = ledger.get(&name("a"));
        account.is_some_and(|account| account.status.failing.is_some())
    };
    let ledger = world.until(failing).await;
    assert_eq!(value(&ledger, "a").as_deref(), Some(b"one".as_slice()));
    let (reason, text, _) = ledger[&name("a")].status.failing.clone().unwrap();
    assert_eq!(reason, Reason::Missing);
    assert!(text.contains("API_KEY"), "{text}");
    world.is_there.store(true, Ordering::SeqCst);
    world.until(|ledger| !failing(ledger)).await;
}
