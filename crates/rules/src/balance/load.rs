//! How priorities share the traffic by their health, and which of them panic.
//!
//! The arithmetic is Envoy's to the unit (`LoadBalancerBase`): a percentage that is rounded
//! otherwise would send hashed requests to another priority.

/// How one priority is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Endpoints, or their weights where health is counted by weight; new ones left out.
    pub(super) healthy: u64,
    pub(super) degraded: u64,
    pub(super) total: u64,
    /// Endpoints by number: what decides about panic.
    pub(super) usable_hosts: u64,
    pub(super) hosts: u64,
    /// All endpoints, new ones included.
    pub(super) all_hosts: u64,
}

/// What each priority gets, in percent. Healthy and degraded together are 100.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loads {
    pub(super) healthy: Vec<u32>,
    pub(super) degraded: Vec<u32>,
    /// Whether a priority uses all of its endpoints, whatever their health.
    pub(super) panics: Vec<bool>,
    /// What each priority could take, healthy and degraded, in percent.
    able: [Vec<u32>; 2],
}

impl Loads {
    /// The shares when some priorities are left out, healthy and degraded; `None` when nothing would
    /// be left. Envoy's arithmetic (`previous_priorities`).
    pub(super) fn without(&self, is_out: impl Fn(usize) -> bool) -> Option<[Vec<u32>; 2]> {
        let keep = |able: &Vec<u32>| -> Vec<u32> {
            let of = |(at, able): (usize, &u32)| if is_out(at) { 0 } else { *able };
            able.iter().enumerate().map(of).collect()
        };
        let [healthy, degraded] = [keep(&self.able[0]), keep(&self.able[1])];
        let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        if total == 0 {
            return None;
        }
        let mut loads = [vec![0; healthy.len()], vec![0; degraded.len()]];
        let mut left = 100;
        let first = distribute(&mut loads[0], &healthy, &mut left, total);
        let first_degraded = distribute(&mut loads[1], &degraded, &mut left, total);
        match (first, first_degraded) {
            (Some(first), _) => loads[0][first] += left,
            (None, Some(first)) => loads[1][first] += left,
            (None, None) => {}
        }
        Some(loads)
    }
}

pub(super) fn loads(standings: &[Standing], overprovisioning: u32, panic_threshold: u8) -> Loads {
    let availability = |part: fn(&Standing) -> u64| -> Vec<u32> {
        let of = |standing: &Standing| match standing.total {
            0 => 0,
            total => (u64::from(overprovisioning) * part(standing) / total).min(100) as u32,
        };
        standings.iter().map(of).collect()
    };
    let healthy = availability(|standing| standing.healthy);
    let degraded = availability(|standing| standing.degraded);
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    let mut loads = Loads {
        healthy: vec![0; standings.len()],
        degraded: vec![0; standings.len()],
        panics: vec![false; standings.len()],
        able: [healthy.clone(), degraded.clone()],
    };
    if standings.is_empty() {
        return loads;
    }
    if total > 0 {
        let mut left = 100;
        let first_healthy = distribute(&mut loads.healthy, &healthy, &mut left, total);
        let first_degraded = distribute(&mut loads.degraded, &degraded, &mut left, total);
        // What rounding left over.
        match (first_healthy, first_degraded) {
            (Some(first), _) => loads.healthy[first] += left,
            (None, Some(first)) => loads.degraded[first] += left,
            (None, None) => {}
        }
    }
    if panic_threshold == 0 && total == 0 {
        // Somebody must have it; there is no healthy endpoint to take it.
        loads.healthy[0] = 100;
        return loads;
    }
    for (panics, standing) in loads.panics.iter_mut().zip(standings) {
        // With a whole 100 % elsewhere no priority needs to panic.
        *panics = total < 100 && is_in_panic(standing, panic_threshold);
    }
    if loads.panics.iter().all(|panics| *panics) {
        total_panic(&mut loads, standings);
    }
    loads
}

/// Each gets what it can take of what is left; says which the first is that can take any.
fn distribute(
    loads: &mut [u32],
    availability: &[u32],
    left: &mut u32,
    total: u32,
) -> Option<usize> {
    for (load, available) in loads.iter_mut().zip(availability) {
        *load = (available * 100 / total).min(*left);
        *left -= *load;
    }
    availability.iter().position(|available| *available > 0)
}

fn is_in_panic(standing: &Standing, threshold: u8) -> bool {
    let percent = match standing.hosts {
        0 => 0.0,
        hosts => 100.0 * standing.usable_hosts as f64 / hosts as f64,
    };
    percent < f64::from(threshold)
}

/// When all panic, they share by how many endpoints they have.
fn total_panic(loads: &mut Loads, standings: &[Standing]) {
    let total: u64 = standings.iter().map(|standing| standing.all_hosts).sum();
    loads.degraded.fill(0);
    let mut left = 100;
    for (load, standing) in loads.healthy.iter_mut().zip(standings) {
        *load = (standing.all_hosts * 100).checked_div(total).unwrap_or(0) as u32;
        left -= *load;
    }
    let first = standings.iter().position(|standing| standing.all_hosts > 0).unwrap_or(0);
    loads.healthy[first] += left;
}
