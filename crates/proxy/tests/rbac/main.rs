//! Random policies on random requests and connections, through our proxy and through a real Envoy:
//! every decision, with the policy that it names, must be equal.
//!
//! Runs where `ENVOY_BIN` names an Envoy. `RBAC_PAIRS` says how many pairs of a policy set and a
//! request (default 5,000), `RBAC_SEED` where the random numbers begin.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[expect(dead_code, reason = "shared with the tests of the shell; not every helper is used here")]
#[path = "../proxy/harness.rs"]
mod harness;

mod clients;
mod draw;
mod engines;
mod policies;
mod requests;
mod round;

use std::time::Instant;

use draw::Draw;
use round::Round;

/// Pairs of one configuration: more would meet the same policies too often.
const ROUND_PAIRS: usize = 10_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn random_policies_decide_as_in_envoy() {
    let Some(envoy) = std::env::var_os("ENVOY_BIN") else { return };
    let pairs = usize::try_from(setting("RBAC_PAIRS", 5_000)).unwrap();
    let seed = setting("RBAC_SEED", 1);
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut requests, mut connections, mut denied) = (0, 0, 0);
    for number in 0.. {
        let size = ROUND_PAIRS.min(pairs - requests);
        if size == 0 {
            break;
        }
        let round = Round::new(&mut Draw::new(seed.wrapping_mul(1_000) + number), size);
        let outcome = runtime.block_on(round.run(envoy.as_ref()));
        assert!(
            outcome.differences.is_empty(),
            "seed {seed}, round {number}: {} differences\n{}",
            outcome.differences.len(),
            outcome.differences.into_iter().take(5).collect::<Vec<_>>().join("\n")
        );
        requests += size;
        connections += outcome.connections;
        denied += outcome.denied;
    }
    // A generator that always gets the same answer proves nothing.
    assert!(denied * 10 > requests && denied * 10 < requests * 9, "{denied} of {requests} denied");
    eprintln!(
        "{requests} requests and {connections} connections decided alike, {denied} denied, in {:.1} s",
        started.elapsed().as_secs_f32()
    );
}
