//! Asks a peer whether it is still there.

use std::{future::pending, time::Duration};

use sluis_rules::Http2Keepalive;
use tokio::time::{sleep, timeout};

use super::wire::Wire;
use crate::random::Random;

/// Sends pings as configured. Returns when an answer has not come in time.
pub(super) async fn keep_asking(wire: &Wire, settings: Option<Http2Keepalive>, random: &Random) {
    let interval = settings.and_then(|settings| settings.interval.map(|every| (settings, every)));
    let Some((settings, every)) = interval else { return pending().await };
    loop {
        let spread = every.as_nanos() * u128::from(settings.jitter_percent) / 100;
        let spread = u64::try_from(spread).unwrap_or(u64::MAX).max(1);
        sleep(every + Duration::from_nanos(random.below(spread))).await;
        let before = wire.see(sluis_http2::Connection::pongs);
        wire.with(sluis_http2::Connection::ping);
        let answer = async {
            while wire.see(sluis_http2::Connection::pongs) == before {
                wire.news.notified().await;
            }
        };
        if timeout(settings.timeout, answer).await.is_err() {
            return;
        }
    }
}
