//! The balancer: whom it chooses, and when it chooses nobody.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{Address, CircuitLimits, Discovery, DnsFamily, HttpOptions, UpstreamProtocol};

fn cluster(policy: LbPolicy, panic_threshold: u8) -> Cluster {
    Cluster {
        name: "c".into(),
        discovery: Discovery::Static,
        endpoints: Arc::default(),
        policy,
        panic_threshold,
        connect_timeout: Duration::from_secs(1),
        tls: None,
        auto_sni: false,
        auto_san_validation: false,
        protocol: UpstreamProtocol::Http1,
        http: HttpOptions::default(),
        limits: CircuitLimits::default(),
        bind_source: None,
        tcp_keepalive: None,
        dns_family: DnsFamily::All,
        dns_refresh: Duration::from_secs(5),
        respect_dns_ttl: false,
        buffer_limit: 1,
    }
}

/// One endpoint per (weight, priority, health).
fn endpoints(list: &[(u32, u32, Health)]) -> Vec<Endpoint> {
    let endpoint = |(port, (weight, priority, health)): (u16, &(u32, u32, Health))| Endpoint {
        address: EndpointAddress::Fixed(Address::Socket(([127, 0, 0, 1], port).into())),
        hostname: None,
        weight: *weight,
        priority: *priority,
        health: *health,
        locality: Arc::default(),
        tls: None,
    };
    (1..).zip(list).map(endpoint).collect()
}

const UP: Health = Health::Healthy;
const DOWN: Health = Health::Unhealthy;

/// How often each of the endpoints is picked in 1000 picks.
fn shares(policy: LbPolicy, panic: u8, list: &[(u32, u32, Health)]) -> Vec<u32> {
    let endpoints = endpoints(list);
    let balancer = Balancer::new(&cluster(policy, panic), &endpoints, |_| Health::Healthy);
    let mut counts = vec![0; list.len()];
    let (mut turn, mut random) = (0, 1);
    for _ in 0..1000 {
        random = mix(random);
        let mut draw = Draw { random, turn: &mut turn };
        counts[balancer.pick(&mut draw, |_| 0).unwrap()] += 1;
    }
    counts
}

#[track_caller]
fn check_near(counts: &[u32], expected: &[u32]) {
    let near = counts.iter().zip(expected).all(|(count, want)| count.abs_diff(*want) <= 60);
    assert!(near, "{counts:?} is not near {expected:?}");
}

#[test]
fn round_robin_gives_each_endpoint_its_turn() {
    let list = [(1, 0, UP), (1, 0, UP)];
    assert_eq!(shares(LbPolicy::RoundRobin, 50, &list), [500, 500]);
}

#[test]
fn weights_are_shares_and_turns_are_spread() {
    let list = [(5, 0, UP), (1, 0, UP), (4, 0, UP)];
    assert_eq!(shares(LbPolicy::RoundRobin, 50, &list), [500, 100, 400]);
    check_near(&shares(LbPolicy::Random, 50, &list), &[500, 100, 400]);
    assert_eq!(cycle(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(cycle(&[3, 3]), [0u32; 0]);
    assert!(cycle(&[u64::from(u32::MAX), 1]).len() <= 1025);
}

#[test]
fn unhealthy_endpoints_get_nothing_while_enough_others_are_left() {
    let list = [(1, 0, UP), (1, 0, DOWN), (1, 0, UP)];
    assert_eq!(shares(LbPolicy::RoundRobin, 50, &list), [500, 0, 500]);
}

#[test]
fn with_too_few_healthy_endpoints_a_panicking_cluster_uses_all() {
    let list = [(1, 0, UP), (1, 0, DOWN), (1, 0, DOWN), (1, 0, DOWN)];
    assert_eq!(shares(LbPolicy::RoundRobin, 50, &list), [250, 250, 250, 250]);
    assert_eq!(shares(LbPolicy::RoundRobin, 0, &list), [1000, 0, 0, 0]);
}

#[test]
fn the_next_priority_takes_what_the_first_cannot() {
    assert_eq!(shares(LbPolicy::RoundRobin, 0, &[(1, 0, UP), (1, 1, UP)]), [1000, 0]);
    assert_eq!(shares(LbPolicy::RoundRobin, 0, &[(1, 0, DOWN), (1, 1, UP)]), [0, 1000]);
    // Half of the first is healthy: 70 % stay, by the overprovisioning of 1.4.
    let list = [(1, 0, UP), (1, 0, DOWN), (1, 1, UP)];
    check_near(&shares(LbPolicy::RoundRobin, 0, &list), &[700, 0, 300]);
}

#[test]
fn the_least_loaded_of_two_is_taken() {
    let endpoints = endpoints(&[(1, 0, UP), (1, 0, UP)]);
    let policy = LbPolicy::LeastRequest { choices: 2 };
    let balancer = Balancer::new(&cluster(policy, 50), &endpoints, |_| Health::Healthy);
    let (mut turn, mut random, mut busy) = (0, 1, 0);
    for _ in 0..1000 {
        random = mix(random);
        let mut draw = Draw { random, turn: &mut turn };
        busy += u32::from(balancer.pick(&mut draw, |at| if at == 0 { 9 } else { 0 }) == Ok(0));
    }
    // Only when the busy one is drawn twice.
    check_near(&[busy], &[250]);
}

#[test]
fn no_endpoint_has_a_reason() {
    let pick = |policy, list: &[(u32, u32, Health)]| {
        let balancer = Balancer::new(&cluster(policy, 0), &endpoints(list), |_| Health::Healthy);
        balancer.pick(&mut Draw { random: 1, turn: &mut 0 }, |_| 0)
    };
    assert_eq!(pick(LbPolicy::RoundRobin, &[]), Err(NoEndpoint::Empty));
    assert_eq!(pick(LbPolicy::RoundRobin, &[(1, 0, DOWN)]), Err(NoEndpoint::NoneHealthy));
    assert_eq!(pick(LbPolicy::ClusterProvided, &[]), Err(NoEndpoint::ClusterProvided));
}

#[test]
fn a_local_observation_can_only_worsen_health() {
    let endpoints = endpoints(&[(1, 0, UP), (1, 0, DOWN)]);
    let cluster = cluster(LbPolicy::RoundRobin, 0);
    let balancer =
        Balancer::new(&cluster, &endpoints, |at| if at == 0 { DOWN } else { Health::Healthy });
    let picked = balancer.pick(&mut Draw { random: 1, turn: &mut 0 }, |_| 0);
    assert_eq!(picked, Err(NoEndpoint::NoneHealthy));
}
