//! The balancer: whom it chooses, and when it chooses nobody.

use std::sync::Arc;

use super::*;
use crate::{Address, Endpoint, Fallback, HashFunction, Selector, Subsets};

fn cluster(policy: LbPolicy, panic_threshold: u8) -> Cluster {
    Cluster { policy, panic_threshold, ..Cluster::new("c") }
}

/// One endpoint per (weight, priority, health).
fn endpoints(list: &[(u32, u32, Health)]) -> Endpoints {
    let endpoint = |(port, (weight, priority, health)): (u16, &(u32, u32, Health))| {
        let address = Address::Socket(([127, 0, 0, 1], port).into());
        Endpoint {
            weight: *weight,
            priority: *priority,
            health: *health,
            ..Endpoint::new(EndpointAddress::Fixed(address))
        }
    };
    Endpoints { list: (1..).zip(list).map(endpoint).collect(), ..Endpoints::default() }
}

const LEAST: LbPolicy = LbPolicy::LeastRequest { choices: 2, bias: 1.0, is_full_scan: false };

/// How often each of the endpoints is picked in 1000 picks.
fn counts(cluster: &Cluster, endpoints: &Endpoints, labels: Option<&Labels>) -> Vec<u32> {
    let balancer = Balancer::new(cluster, endpoints, |_| Health::Healthy);
    let mut counts = vec![0; endpoints.list.len()];
    let (mut turns, mut random) = (Turns::new(7), 1);
    for _ in 0..1000 {
        random = mix(random);
        let mut draw =
            Draw { random, hash: None, labels, attempt: 0, spurned: 0, turns: &mut turns };
        counts[balancer.pick(&mut draw, |_| 0).unwrap()] += 1;
    }
    counts
}

const UP: Health = Health::Healthy;
const DOWN: Health = Health::Unhealthy;

/// The same for a cluster of this policy and panic threshold.
fn shares(policy: LbPolicy, panic: u8, list: &[(u32, u32, Health)]) -> Vec<u32> {
    counts(&cluster(policy, panic), &endpoints(list), None)
}

fn pick(cluster: &Cluster, endpoints: &Endpoints, hash: u64) -> Result<usize, NoEndpoint> {
    let balancer = Balancer::new(cluster, endpoints, |_| Health::Healthy);
    let turns = &mut Turns::new(0);
    let mut draw =
        Draw { random: 1, hash: Some(hash), labels: None, attempt: 0, spurned: 0, turns };
    balancer.pick(&mut draw, |_| 0)
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
    // As in Envoy, a random choice does not look at weights.
    check_near(&shares(LbPolicy::Random, 50, &list), &[333, 333, 333]);
    // Idle endpoints are chosen by weight alone.
    assert_eq!(shares(LEAST, 50, &list), [500, 100, 400]);
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
    let balancer = Balancer::new(&cluster(LEAST, 50), &endpoints, |_| Health::Healthy);
    let (mut turns, mut random, mut busy) = (Turns::new(0), 1, 0);
    for _ in 0..1000 {
        random = mix(random);
        let mut draw =
            Draw { random, hash: None, labels: None, attempt: 0, spurned: 0, turns: &mut turns };
        busy += u32::from(balancer.pick(&mut draw, |at| if at == 0 { 9 } else { 0 }) == Ok(0));
    }
    // Only when the busy one is drawn twice.
    check_near(&[busy], &[250]);
}

#[test]
fn no_endpoint_has_a_reason() {
    let of = |policy, list: &[(u32, u32, Health)]| pick(&cluster(policy, 0), &endpoints(list), 1);
    assert_eq!(of(LbPolicy::RoundRobin, &[]), Err(NoEndpoint::Empty));
    assert_eq!(of(LbPolicy::RoundRobin, &[(1, 0, DOWN)]), Err(NoEndpoint::NoneHealthy));
    assert_eq!(of(LbPolicy::ClusterProvided, &[]), Err(NoEndpoint::ClusterProvided));
}

#[test]
fn a_local_observation_can_only_worsen_health() {
    let endpoints = endpoints(&[(1, 0, UP), (1, 0, DOWN)]);
    let cluster = cluster(LbPolicy::RoundRobin, 0);
    let balancer =
        Balancer::new(&cluster, &endpoints, |at| if at == 0 { DOWN } else { Health::Healthy });
    let turns = &mut Turns::new(0);
    let mut draw = Draw { random: 1, hash: None, labels: None, attempt: 0, spurned: 0, turns };
    assert_eq!(balancer.pick(&mut draw, |_| 0), Err(NoEndpoint::NoneHealthy));
}

#[test]
fn a_new_endpoint_gets_its_share_little_by_little() {
    let endpoints = endpoints(&[(1, 0, UP), (1, 0, UP)]);
    let seen = |at| Observed { share: if at == 1 { 0.25 } else { 1.0 }, ..UP.into() };
    let balancer = Balancer::new(&cluster(LbPolicy::RoundRobin, 50), &endpoints, seen);
    let (mut turns, mut new) = (Turns::new(0), 0);
    for random in 0..1000 {
        let mut draw =
            Draw { random, hash: None, labels: None, attempt: 0, spurned: 0, turns: &mut turns };
        new += u32::from(balancer.pick(&mut draw, |_| 0) == Ok(1));
    }
    check_near(&[new], &[200]);
}

#[test]
fn localities_share_by_their_weights_and_a_weak_one_gives_up_a_part() {
    let mut endpoints = endpoints(&[(1, 0, UP), (1, 0, UP), (1, 0, DOWN), (1, 0, UP)]);
    for (endpoint, (locality, weight)) in
        endpoints.list.iter_mut().zip([("a", 3), ("b", 1), ("b", 1), ("c", 0)])
    {
        (endpoint.locality, endpoint.locality_weight) = (locality.into(), weight);
    }
    let cluster = Cluster { locality_weighted: true, ..cluster(LbPolicy::RoundRobin, 0) };
    // Half of `b` is healthy: its weight counts 70 %.
    check_near(&counts(&cluster, &endpoints, None), &[811, 189, 0, 0]);
}

#[test]
fn degraded_endpoints_get_what_the_healthy_ones_cannot_take() {
    let list = [(1, 0, UP), (1, 0, Health::Degraded), (1, 0, DOWN), (1, 0, DOWN)];
    // Each stands for 35 % of a total of 70 %.
    check_near(&shares(LbPolicy::RoundRobin, 0, &list), &[500, 500, 0, 0]);
}

#[test]
fn subsets_hold_the_endpoints_with_the_metadata_that_is_asked_for() {
    let mut endpoints = endpoints(&[(1, 0, UP), (1, 0, UP), (1, 0, UP)]);
    let labels = |version: &str| -> Labels { [("version".into(), version.into())].into() };
    for (endpoint, version) in endpoints.list.iter_mut().zip(["1", "2", "2"]) {
        endpoint.labels = labels(version);
    }
    let with = |fallback| {
        let selectors =
            vec![Selector { keys: vec!["version".into()], fallback: None, fewer: Vec::new() }];
        let subsets = Subsets { selectors, fallback, default: labels("1") };
        let subsets = Some(Arc::new(subsets));
        Cluster { subsets, ..cluster(LbPolicy::RoundRobin, 50) }
    };
    let any = with(Fallback::Any);
    assert_eq!(counts(&any, &endpoints, Some(&labels("2"))), [0, 500, 500]);
    check_near(&counts(&any, &endpoints, Some(&labels("3"))), &[333, 333, 333]);
    check_near(&counts(&any, &endpoints, None), &[333, 333, 333]);
    assert_eq!(counts(&with(Fallback::Default), &endpoints, None), [1000, 0, 0]);
    assert_eq!(pick(&with(Fallback::None), &endpoints, 1), Err(NoEndpoint::NoneHealthy));
}

#[test]
fn a_key_stays_with_its_endpoint_when_another_comes() {
    let ring = LbPolicy::RingHash {
        min: 1024,
        max: 8 << 20,
        function: HashFunction::Xx,
        by_hostname: false,
    };
    let maglev = LbPolicy::Maglev { slots: 65537, by_hostname: false };
    for policy in [ring, maglev] {
        let cluster = cluster(policy, 50);
        let three = endpoints(&[(1, 0, UP), (1, 0, UP), (1, 0, UP)]);
        let four = endpoints(&[(1, 0, UP), (1, 0, UP), (1, 0, UP), (1, 0, UP)]);
        let (a, b) =
            (Balancer::new(&cluster, &three, |_| UP), Balancer::new(&cluster, &four, |_| UP));
        let mut moved = 0;
        for key in 0..1000_u32 {
            let hash = crate::xx64(&key.to_le_bytes());
            let of = |balancer: &Balancer| {
                let turns = &mut Turns::new(0);
                let draw = &mut Draw {
                    random: 1,
                    hash: Some(hash),
                    labels: None,
                    attempt: 0,
                    spurned: 0,
                    turns,
                };
                balancer.pick(draw, |_| 0).unwrap()
            };
            moved += u32::from(of(&a) != of(&b));
        }
        check_near(&[moved], &[250]);
    }
}

#[test]
fn hashes_are_those_of_the_reference_implementations() {
    assert_eq!(crate::xx64(b"foo"), 3728699739546630719);
    assert_eq!(crate::hash::murmur2(b"foo"), 9631199822919835226);
    assert_eq!(crate::hash::murmur2(b"foobarbaz_qux"), crate::hash::murmur2(b"foobarbaz_qux"));
}

#[test]
fn priorities_that_were_tried_are_left_out_while_another_is_of_use() {
    let endpoints = endpoints(&[(1, 0, UP), (1, 0, UP), (1, 1, UP), (1, 2, UP)]);
    let cluster = cluster(LbPolicy::RoundRobin, 50);
    let balancer = Balancer::new(&cluster, &endpoints, |_| Health::Healthy);
    let priority = |spurned| {
        let turns = &mut Turns::new(0);
        let mut draw = Draw { random: 7, hash: None, labels: None, attempt: 0, spurned, turns };
        endpoints.list[balancer.pick(&mut draw, |_| 0).unwrap()].priority
    };
    let all = [0b000, 0b001, 0b011, 0b101, 0b111].map(priority);
    assert_eq!(all, [0, 1, 2, 1, 0]);
}
