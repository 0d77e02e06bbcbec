//! How a cluster chooses endpoints: the old fields and the newer extensions say the same things.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::cluster::v3::{
            Cluster as PbCluster, LoadBalancingPolicy,
            cluster::{
                CommonLbConfig, LbConfig, LbPolicy as PbPolicy, LbSubsetConfig,
                LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, SlowStartConfig,
                common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier},
                lb_subset_config::LbSubsetSelector,
            },
        },
        extensions::load_balancing_policies::{
            common::v3::{
                ConsistentHashingLbConfig as NewHashing, LocalityLbConfig,
                SlowStartConfig as NewSlowStart, locality_lb_config,
            },
            least_request::v3::LeastRequest,
            maglev::v3::Maglev,
            random::v3::Random,
            ring_hash::v3::RingHash,
            round_robin::v3::RoundRobin,
            subset::v3::{Subset, subset::LbSubsetSelector as NewSelector},
            wrr_locality::v3::WrrLocality,
        },
        r#type::v3::Percent,
    },
    google::protobuf::{Struct, UInt64Value, Value, value::Kind as ValueKind},
};

use super::{
    at::{At, fields, message_of, refuse},
    messages,
};
use crate::{Fallback, HashFunction, Labels, LbPolicy, Selector, SlowStart, Subsets};

/// Envoy's default and greatest number of places on a ring.
const RING_MIN: u64 = 1024;
const RING_MAX: u64 = 8 * 1024 * 1024;

/// Envoy's default and greatest number of slots of a Maglev table.
const MAGLEV_SLOTS: u64 = 65537;
const MAGLEV_SLOTS_MAX: u64 = 5_000_011;

/// Policies in policies.
const DEPTH_MAX: usize = 4;

/// Everything that a cluster says about choosing.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) policy: LbPolicy,
    pub(super) slow_start: Option<SlowStart>,
    pub(super) subsets: Option<Arc<Subsets>>,
    pub(super) locality_weighted: bool,
    pub(super) panic_threshold: u8,
    pub(super) ignores_new_hosts: bool,
}

impl Choice {
    fn of(policy: LbPolicy) -> Self {
        Self {
            policy,
            slow_start: None,
            subsets: None,
            locality_weighted: false,
            panic_threshold: 50,
            ignores_new_hosts: false,
        }
    }
}

pub(super) fn choice(at: &At<'_>, cluster: &PbCluster) -> Option<Choice> {
    let common = common(&at.field("common_lb_config"), cluster.common_lb_config.as_ref());
    let mut choice = match &cluster.load_balancing_policy {
        Some(list) => extension(&at.field("load_balancing_policy"), list, 0)?,
        None => old(at, cluster, &common)?,
    };
    choice.panic_threshold = common.panic_threshold;
    choice.ignores_new_hosts = common.ignores_new_hosts;
    if cluster.load_balancing_policy.is_none() {
        choice.locality_weighted = common.locality_weighted;
        let at = at.field("lb_subset_config");
        if let Some(config) =
            cluster.lb_subset_config.as_ref().filter(|c| !c.subset_selectors.is_empty())
        {
            choice.subsets = old_subsets(&at, config).map(Arc::new);
        }
    }
    Some(choice)
}

struct Common {
    panic_threshold: u8,
    locality_weighted: bool,
    ignores_new_hosts: bool,
    by_hostname: bool,
}

fn common(at: &At<'_>, config: Option<&CommonLbConfig>) -> Common {
    let mut common = Common {
        panic_threshold: 50,
        locality_weighted: false,
        ignores_new_hosts: false,
        by_hostname: false,
    };
    let Some(config) = config else { return common };
    fields!(at, config => CommonLbConfig {
        use {
            healthy_panic_threshold, locality_config_specifier, ignore_new_hosts_until_first_hc,
            consistent_hashing_lb_config,
        }
        // When updates are merged, which connections are closed when they are, and which states an
        // endpoint that a session is bound to may have.
        accept { update_merge_window, close_connections_on_host_set_change, override_host_status }
        refuse {}
    });
    common.panic_threshold =
        percent(&at.field("healthy_panic_threshold"), healthy_panic_threshold.as_ref(), 50.0) as u8;
    common.ignores_new_hosts = *ignore_new_hosts_until_first_hc;
    match locality_config_specifier {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            common.locality_weighted = true;
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => {
            // Without a cluster of its own kind (`local_cluster_name`) Envoy routes by no zone.
            let at = at.field("zone_aware_lb_config");
            refuse(&at, "fail_traffic_on_panic", &config.fail_traffic_on_panic);
        }
    }
    if let Some(config) = consistent_hashing_lb_config {
        fields!(&at.field("consistent_hashing_lb_config"), config => ConsistentHashingLbConfig {
            use { use_hostname_for_hashing }
            accept {}
            refuse { hash_balance_factor }
        });
        common.by_hostname = *use_hostname_for_hashing;
    }
    common
}

fn percent(at: &At<'_>, value: Option<&Percent>, default: f64) -> f64 {
    let value = value.map_or(default, |percent| percent.value);
    if !(0.0..=100.0).contains(&value) {
        at.fault("is not between 0 and 100");
    }
    value.clamp(0.0, 100.0)
}

fn old(at: &At<'_>, cluster: &PbCluster, common: &Common) -> Option<Choice> {
    let mut choice = Choice::of(match PbPolicy::try_from(cluster.lb_policy) {
        Ok(PbPolicy::RoundRobin) => LbPolicy::RoundRobin,
        Ok(PbPolicy::LeastRequest) => {
            LbPolicy::LeastRequest { choices: 2, bias: 1.0, is_full_scan: false }
        }
        Ok(PbPolicy::Random) => LbPolicy::Random,
        Ok(PbPolicy::RingHash) => ring(at, &RingHashLbConfig::default(), common.by_hostname),
        Ok(PbPolicy::Maglev) => maglev(at, None, common.by_hostname),
        Ok(PbPolicy::ClusterProvided) => LbPolicy::ClusterProvided,
        _ => {
            at.field("lb_policy").unsupported();
            return None;
        }
    });
    match (choice.policy, &cluster.lb_config) {
        (LbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            let at = at.field("round_robin_lb_config");
            let config = config.slow_start_config.as_ref();
            choice.slow_start = slow_start(&at.field("slow_start_config"), config);
        }
        (LbPolicy::LeastRequest { .. }, Some(LbConfig::LeastRequestLbConfig(config))) => {
            let at = at.field("least_request_lb_config");
            fields!(&at, config => LeastRequestLbConfig {
                use { choice_count, active_request_bias, slow_start_config }
                accept {}
                refuse {}
            });
            let bias = active_request_bias.as_ref().map_or(1.0, |bias| bias.default_value);
            choice.policy = least(&at, messages::number(choice_count.as_ref()), bias, false);
            choice.slow_start =
                slow_start(&at.field("slow_start_config"), slow_start_config.as_ref());
        }
        (LbPolicy::RingHash { .. }, Some(LbConfig::RingHashLbConfig(config))) => {
            choice.policy = ring(&at.field("ring_hash_lb_config"), config, common.by_hostname);
        }
        (
            LbPolicy::Maglev { .. },
            Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size })),
        ) => {
            let at = at.field("maglev_lb_config");
            choice.policy = maglev(&at, table_size.as_ref(), common.by_hostname);
        }
        // As in Envoy, the settings of another policy are no fault.
        _ => {}
    }
    Some(choice)
}

fn least(at: &At<'_>, choices: Option<u32>, bias: f64, is_full_scan: bool) -> LbPolicy {
    if bias < 0.0 || !bias.is_finite() {
        at.field("active_request_bias").fault("must be at least 0");
    }
    let choices = choices.unwrap_or(2);
    if choices < 2 {
        at.field("choice_count").fault("must be at least 2");
    }
    LbPolicy::LeastRequest { choices, bias: bias.max(0.0), is_full_scan }
}

fn ring(at: &At<'_>, config: &RingHashLbConfig, by_hostname: bool) -> LbPolicy {
    fields!(at, config => RingHashLbConfig {
        use { minimum_ring_size, hash_function, maximum_ring_size }
        accept {}
        refuse {}
    });
    let function = match hash_function {
        0 => HashFunction::Xx,
        1 => HashFunction::Murmur2,
        _ => {
            at.field("hash_function").unsupported();
            HashFunction::Xx
        }
    };
    ring_of(at, minimum_ring_size.as_ref(), maximum_ring_size.as_ref(), function, by_hostname)
}

fn ring_of(
    at: &At<'_>,
    min: Option<&UInt64Value>,
    max: Option<&UInt64Value>,
    function: HashFunction,
    by_hostname: bool,
) -> LbPolicy {
    let min = min.map_or(RING_MIN, |value| value.value);
    let max = max.map_or(RING_MAX, |value| value.value);
    if max > RING_MAX || min > max || min == 0 {
        at.fault(format!(
            "needs a minimum ring size of 1 to the maximum, and that at most {RING_MAX}"
        ));
    }
    LbPolicy::RingHash { min, max: max.min(RING_MAX), function, by_hostname }
}

fn maglev(at: &At<'_>, size: Option<&UInt64Value>, by_hostname: bool) -> LbPolicy {
    let slots = size.map_or(MAGLEV_SLOTS, |value| value.value);
    if slots > MAGLEV_SLOTS_MAX || !is_prime(slots) {
        at.field("table_size").fault(format!("is not a prime of at most {MAGLEV_SLOTS_MAX}"));
        return LbPolicy::Maglev { slots: MAGLEV_SLOTS, by_hostname };
    }
    LbPolicy::Maglev { slots, by_hostname }
}

fn is_prime(number: u64) -> bool {
    number > 2 && (2..).take_while(|by| by * by <= number).all(|by| !number.is_multiple_of(by))
}

fn slow_start(at: &At<'_>, config: Option<&SlowStartConfig>) -> Option<SlowStart> {
    let config = config?;
    fields!(at, config => SlowStartConfig {
        use { slow_start_window, aggression, min_weight_percent }
        accept {}
        refuse {}
    });
    let window = messages::duration(&at.field("slow_start_window"), slow_start_window.as_ref())?;
    let aggression = aggression.as_ref().map_or(1.0, |value| value.default_value);
    if aggression <= 0.0 || !aggression.is_finite() {
        at.field("aggression").fault("must be above 0");
    }
    let min = percent(&at.field("min_weight_percent"), min_weight_percent.as_ref(), 10.0) / 100.0;
    (!window.is_zero()).then_some(SlowStart { window, aggression, min })
}

fn new_slow_start(at: &At<'_>, config: Option<&NewSlowStart>) -> Option<SlowStart> {
    let config = config.cloned()?;
    let old = SlowStartConfig {
        slow_start_window: config.slow_start_window,
        aggression: config.aggression,
        min_weight_percent: config.min_weight_percent,
    };
    slow_start(&at.field("slow_start_config"), Some(&old))
}

/// Whether localities are weighted.
fn locality(at: &At<'_>, config: Option<&LocalityLbConfig>) -> bool {
    match config.and_then(|config| config.locality_config_specifier.as_ref()) {
        None => false,
        Some(locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => true,
        Some(locality_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => {
            let at = at.field("locality_lb_config");
            let at = at.field("zone_aware_lb_config");
            refuse(&at, "fail_traffic_on_panic", &config.fail_traffic_on_panic);
            false
        }
    }
}

fn hashing(at: &At<'_>, config: Option<&NewHashing>) -> bool {
    let Some(config) = config else { return false };
    fields!(&at.field("consistent_hashing_lb_config"), config => NewHashing {
        use { use_hostname_for_hashing }
        accept {}
        refuse { hash_balance_factor, hash_policy }
    });
    *use_hostname_for_hashing
}

/// The first of a list of policies that is known, as Envoy takes it.
fn extension(at: &At<'_>, list: &LoadBalancingPolicy, depth: usize) -> Option<Choice> {
    let at = at.field("policies");
    for (index, policy) in list.policies.iter().enumerate() {
        let at = at.nth(index);
        let at = at.field("typed_extension_config");
        let at = at.field("typed_config");
        let any = policy.typed_extension_config.as_ref().and_then(|c| c.typed_config.as_ref());
        let Some(any) = any.filter(|_| depth < DEPTH_MAX) else {
            at.fault("is missing or nested too deep");
            return None;
        };
        if let Some(choice) = known(&at, message_of(any), any, depth) {
            return choice;
        }
    }
    at.fault("names no policy that is supported");
    None
}

#[expect(deprecated, reason = "fields that moved are still written by older control planes")]
fn known(
    at: &At<'_>,
    name: &str,
    any: &envoy_types::pb::google::protobuf::Any,
    depth: usize,
) -> Option<Option<Choice>> {
    let of = |policy, slow_start, locality_weighted| {
        Some(Choice { slow_start, locality_weighted, ..Choice::of(policy) })
    };
    Some(match name {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
            at.unpack::<RoundRobin>(any).and_then(|config| {
                let weighted = locality(at, config.locality_lb_config.as_ref());
                let slow = new_slow_start(at, config.slow_start_config.as_ref());
                of(LbPolicy::RoundRobin, slow, weighted)
            })
        }
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
            at.unpack::<LeastRequest>(any).and_then(|config| {
                let bias = config.active_request_bias.as_ref().map_or(1.0, |b| b.default_value);
                let is_full_scan = config.selection_method == 1
                    || messages::flag(config.enable_full_scan.as_ref(), false);
                let choices = messages::number(config.choice_count.as_ref());
                let weighted = locality(at, config.locality_lb_config.as_ref());
                let slow = new_slow_start(at, config.slow_start_config.as_ref());
                of(least(at, choices, bias, is_full_scan), slow, weighted)
            })
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            at.unpack::<Random>(any).and_then(|config| {
                of(LbPolicy::Random, None, locality(at, config.locality_lb_config.as_ref()))
            })
        }
        "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" => {
            at.unpack::<RingHash>(any).and_then(|config| {
                let by_hostname = config.use_hostname_for_hashing
                    || hashing(at, config.consistent_hashing_lb_config.as_ref());
                refuse(at, "hash_balance_factor", &config.hash_balance_factor);
                let function = match config.hash_function {
                    2 => HashFunction::Murmur2,
                    _ => HashFunction::Xx,
                };
                let (min, max) = (&config.minimum_ring_size, &config.maximum_ring_size);
                let policy = ring_of(at, min.as_ref(), max.as_ref(), function, by_hostname);
                of(policy, None, config.locality_weighted_lb_config.is_some())
            })
        }
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev" => {
            at.unpack::<Maglev>(any).and_then(|config| {
                let by_hostname = hashing(at, config.consistent_hashing_lb_config.as_ref());
                let policy = maglev(at, config.table_size.as_ref(), by_hostname);
                of(policy, None, config.locality_weighted_lb_config.is_some())
            })
        }
        "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided" => {
            of(LbPolicy::ClusterProvided, None, false)
        }
        "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality" => {
            at.unpack::<WrrLocality>(any).and_then(|config| {
                let inner = config.endpoint_picking_policy.unwrap_or_default();
                let choice = extension(&at.field("endpoint_picking_policy"), &inner, depth + 1)?;
                Some(Choice { locality_weighted: true, ..choice })
            })
        }
        "envoy.extensions.load_balancing_policies.subset.v3.Subset" => {
            at.unpack::<Subset>(any).and_then(|config| new_subsets(at, &config, depth))
        }
        _ => return None,
    })
}

fn new_subsets(at: &At<'_>, config: &Subset, depth: usize) -> Option<Choice> {
    let inner = config.subset_lb_policy.clone().unwrap_or_default();
    let choice = extension(&at.field("subset_lb_policy"), &inner, depth + 1)?;
    refuse(at, "allow_redundant_keys", &config.allow_redundant_keys);
    let old = |selector: &NewSelector| LbSubsetSelector {
        keys: selector.keys.clone(),
        fallback_policy: selector.fallback_policy,
        fallback_keys_subset: selector.fallback_keys_subset.clone(),
        single_host_per_subset: selector.single_host_per_subset,
    };
    let old = LbSubsetConfig {
        fallback_policy: config.fallback_policy,
        default_subset: config.default_subset.clone(),
        subset_selectors: config.subset_selectors.iter().map(old).collect(),
        locality_weight_aware: config.locality_weight_aware,
        scale_locality_weight: config.scale_locality_weight,
        panic_mode_any: config.panic_mode_any,
        list_as_any: config.list_as_any,
        metadata_fallback_policy: config.metadata_fallback_policy,
    };
    Some(Choice { subsets: Some(Arc::new(old_subsets(at, &old)?)), ..choice })
}

fn old_subsets(at: &At<'_>, config: &LbSubsetConfig) -> Option<Subsets> {
    fields!(at, config => LbSubsetConfig {
        use { fallback_policy, default_subset, subset_selectors, locality_weight_aware }
        accept { scale_locality_weight }
        refuse { panic_mode_any, list_as_any, metadata_fallback_policy }
    });
    // Subsets are then shared by locality weights, as every set of endpoints is here.
    let _ = locality_weight_aware;
    let sorted = |keys: &[String]| {
        let mut keys: Vec<Arc<str>> = keys.iter().map(|key| key.as_str().into()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    };
    let mut selectors = Vec::new();
    for (index, selector) in subset_selectors.iter().enumerate() {
        let at = at.field("subset_selectors");
        let at = at.nth(index);
        fields!(&at, selector => LbSubsetSelector {
            use { keys, fallback_policy, fallback_keys_subset }
            accept {}
            refuse { single_host_per_subset }
        });
        let (keys, fewer) = (sorted(keys), sorted(fallback_keys_subset));
        let fallback = match fallback_policy {
            0 => None,
            1 => Some(Fallback::None),
            2 => Some(Fallback::Any),
            3 => Some(Fallback::Default),
            4 => Some(Fallback::Keys),
            _ => {
                at.field("fallback_policy").unsupported();
                return None;
            }
        };
        let is_fewer = fewer.len() < keys.len() && fewer.iter().all(|key| keys.contains(key));
        if fallback == Some(Fallback::Keys) && (!is_fewer || fewer.is_empty()) {
            at.field("fallback_keys_subset").fault("is not a part of keys");
            return None;
        }
        selectors.push(Selector { keys, fallback, fewer });
    }
    let fallback = match fallback_policy {
        0 => Fallback::None,
        1 => Fallback::Any,
        2 => Fallback::Default,
        _ => {
            at.field("fallback_policy").unsupported();
            return None;
        }
    };
    Some(Subsets { selectors, fallback, default: labels(default_subset.as_ref()) })
}

/// Metadata as sorted pairs of key and canonical text.
pub(super) fn labels(metadata: Option<&Struct>) -> Labels {
    let pairs = metadata.into_iter().flat_map(|metadata| &metadata.fields);
    let mut pairs: Vec<(Arc<str>, Arc<str>)> =
        pairs.map(|(key, value)| (key.as_str().into(), text(value).into())).collect();
    pairs.sort_unstable();
    pairs.into()
}

/// A text that two values share exactly when they are equal.
fn text(value: &Value) -> String {
    match &value.kind {
        None | Some(ValueKind::NullValue(_)) => "null".to_owned(),
        Some(ValueKind::BoolValue(value)) => value.to_string(),
        Some(ValueKind::NumberValue(value)) => value.to_string(),
        Some(ValueKind::StringValue(value)) => format!("{value:?}"),
        Some(ValueKind::ListValue(list)) => {
            format!("[{}]", list.values.iter().map(text).collect::<Vec<_>>().join(","))
        }
        Some(ValueKind::StructValue(all)) => {
            let mut pairs: Vec<String> =
                all.fields.iter().map(|(key, value)| format!("{key:?}:{}", text(value))).collect();
            pairs.sort_unstable();
            format!("{{{}}}", pairs.join(","))
        }
    }
}
