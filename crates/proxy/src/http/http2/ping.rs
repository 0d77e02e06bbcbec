//! Asks a peer whether it is still there.

use std::time::Duration;

use h2::{Ping, PingPong};
use sluis_rules::Http2Keepalive;
use tokio::time::{sleep, timeout};

use crate::random::Random;

/// How often a connection without pings of its own is looked at: hardly ever.
const NEVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Sends pings as configured. Returns when an answer has not come in time.
pub(super) async fn keep_asking(
    ping: &mut Option<PingPong>,
    settings: Option<Http2Keepalive>,
    random: &Random,
) {
    let interval = settings.and_then(|settings| settings.interval.map(|every| (settings, every)));
    let (Some(ping), Some((settings, every))) = (ping.as_mut(), interval) else {
        return sleep_for_ever().await;
    };
    loop {
        let spread = every.as_nanos() * u128::from(settings.jitter_percent) / 100;
        let spread = u64::try_from(spread).unwrap_or(u64::MAX).max(1);
        sleep(every + Duration::from_nanos(random.below(spread))).await;
        match timeout(settings.timeout, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection has ended; its driver knows.
            Ok(Err(_)) => return sleep_for_ever().await,
            Err(_) => return,
        }
    }
}

async fn sleep_for_ever() {
    loop {
        sleep(NEVER).await;
    }
}
