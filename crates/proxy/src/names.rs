//! Names that workers ask for while they serve (dynamic clusters), answered by the control thread.
//!
//! In:    questions of workers; answers of the resolver.
//! Out:   addresses; from the cache without a lock.
//! Never: holds up a worker: who asks waits on a task of its own.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use sluis_rules::DynamicForward;
use tokio::sync::{mpsc, oneshot};

/// Questions on their way to the control thread.
const QUESTIONS_MAX: usize = 4096;

/// A cache's name, and a host in lower case.
pub(crate) type Key = (Arc<str>, Arc<str>);

/// One question of a worker.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) key: Key,
    pub(crate) forward: Arc<DynamicForward>,
    pub(crate) reply: oneshot::Sender<Result<Vec<IpAddr>, NameError>>,
}

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// DNS knows none, or does not answer.
    #[error("the name cannot be resolved")]
    Unresolved,
    /// The cache is full.
    #[error("there are as many names as may be")]
    TooMany,
    /// Too many wait for answers.
    #[error("too many wait for names")]
    Overflow,
}

/// An answer in the cache.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) addresses: Vec<IpAddr>,
    /// When it was last used, in milliseconds after the cache began.
    used: AtomicU64,
}

/// What workers and the control thread share.
#[derive(Debug)]
pub struct DynamicNames {
    answers: ArcSwap<HashMap<Key, Arc<Answer>>>,
    ask: mpsc::Sender<Question>,
    questions: Mutex<Option<mpsc::Receiver<Question>>>,
    waiting: AtomicU32,
    began: Instant,
}

impl Default for DynamicNames {
    fn default() -> Self {
        let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
        Self {
            answers: ArcSwap::default(),
            ask,
            questions: Mutex::new(Some(questions)),
            waiting: AtomicU32::new(0),
            began: Instant::now(),
        }
    }
}

impl DynamicNames {
    /// The addresses of a host.
    ///
    /// # Errors
    ///
    /// [`NameError`].
    pub(crate) async fn resolve(
        &self,
        forward: &Arc<DynamicForward>,
        host: &str,
    ) -> Result<Vec<IpAddr>, NameError> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let key: Key = (Arc::clone(&forward.cache), host.into());
        if let Some(answer) = self.answers.load().get(&key) {
            answer.used.store(self.now(), Ordering::Relaxed);
            return Ok(answer.addresses.clone());
        }
        let _waiting = Waiting::new(&self.waiting, forward.max_pending)?;
        let (reply, answer) = oneshot::channel();
        let question = Question { key, forward: Arc::clone(forward), reply };
        self.ask.try_send(question).map_err(|_| NameError::Overflow)?;
        answer.await.unwrap_or(Err(NameError::Unresolved))
    }

    /// The control thread's end; there is one.
    pub(crate) fn take_questions(&self) -> Option<mpsc::Receiver<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Publishes the answer to a name; none when it is forgotten.
    pub(crate) fn publish(&self, key: &Key, addresses: Option<Vec<IpAddr>>) {
        let mut answers = HashMap::clone(&self.answers.load());
        match addresses {
            Some(addresses) => {
                let used = answers.get(key).map_or(self.now(), |a| a.used.load(Ordering::Relaxed));
                let answer = Answer { addresses, used: AtomicU64::new(used) };
                answers.insert(key.clone(), Arc::new(answer));
            }
            None => drop(answers.remove(key)),
        }
        self.answers.store(Arc::new(answers));
    }

    /// How long nobody has asked for a name.
    pub(crate) fn idle(&self, key: &Key) -> Option<Duration> {
        let used = self.answers.load().get(key)?.used.load(Ordering::Relaxed);
        Some(Duration::from_millis(self.now().saturating_sub(used)))
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis().try_into().unwrap_or(u64::MAX)
    }
}

/// One who waits for an answer.
struct Waiting<'w>(&'w AtomicU32);

impl<'w> Waiting<'w> {
    fn new(count: &'w AtomicU32, max: u32) -> Result<Self, NameError> {
        let before = count.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(count);
        if before < max { Ok(waiting) } else { Err(NameError::Overflow) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an address must not be reached by a name that a client chose: what is not on the public
/// Internet, and the metadata services of clouds.
#[must_use]
pub(crate) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                // 169.254.169.254 is one of these.
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_documentation()
                || ip.is_multicast()
                || a == 0
                || a >= 240
                // Shared by carriers' customers (RFC 6598), and benchmarks (RFC 2544).
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (b == 18 || b == 19))
                || (a == 192 && b == 0 && ip.octets()[2] == 0)
        }
        IpAddr::V6(ip) => {
            let embedded = ip.to_ipv4_mapped().or_else(|| embedded_v4(ip));
            if let Some(v4) = embedded {
                return is_private(IpAddr::V4(v4));
            }
            // fd00:ec2::254 is unique local.
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                // Site-local (deprecated), documentation, discard-only.
                || ip.segments()[0] & 0xffc0 == 0xfec0
                || (ip.segments()[0] == 0x2001 && ip.segments()[1] == 0xdb8)
                || ip.segments()[..4] == [0x100, 0, 0, 0]
        }
    }
}

/// The IPv4 address inside an IPv6 one that a gateway would unwrap: NAT64 (RFC 6052), 6to4, and the
/// deprecated compatible form.
fn embedded_v4(ip: std::net::Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let of =
        |high: u16, low: u16| std::net::Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b) {
        (0x64, 0xff9b) => Some(of(g, h)),
        (0x2002, _) => Some(of(b, c)),
        (0, 0) if [c, d, e, f] == [0; 4] && (g, h) > (0, 1) => Some(of(g, h)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known_in_all_their_forms() {
        for address in [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "::127.0.0.1",
            "ff02::1",
        ] {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "2606:4700::1111", "100.128.0.1", "::ffff:1.1.1.1"] {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }
}
