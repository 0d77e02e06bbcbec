//! When and how a request is tried again.

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    config::route::v3::{
        RetryPolicy as PbRetry,
        retry_policy::{
            RateLimitedRetryBackOff, ResetHeaderFormat, RetryBackOff, RetryHostPredicate,
            RetryPriority, retry_priority,
        },
    },
    extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig,
};

use super::matches;
use crate::{
    Backoff, RateLimitedBackoff, ResetFormat, RetryNames, RetryOn, RetryPolicy,
    compile::{
        at::{At, fields, message_of},
        messages,
    },
};

const BACKOFF: Duration = Duration::from_millis(25);

/// The longest wait is this many first waits where it is not set.
const BACKOFF_FACTOR: u32 = 10;

/// The longest wait that a response may ask for where it is not set.
const RESET_MAX: Duration = Duration::from_secs(300);

const PREVIOUS_PRIORITIES: &str =
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";

const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";

pub(super) fn retry(at: &At<'_>, policy: Option<&PbRetry>) -> Option<Arc<RetryPolicy>> {
    let policy = policy?;
    fields!(at, policy => PbRetry {
        use {
            retry_on, num_retries, per_try_timeout, retry_host_predicate, per_try_idle_timeout,
            host_selection_retry_max_attempts, retriable_status_codes, retry_back_off,
            retriable_headers, retriable_request_headers, rate_limited_retry_back_off,
            retry_priority,
        }
        accept {}
        refuse { retry_options_predicates, refresh_cluster_on_retry }
    });
    let on = RetryOn::read(retry_on, RetryNames::Both, |name| {
        at.field("retry_on").fault(format!("{name:?} is not supported"));
    });
    let hosts = at.field("retry_host_predicate");
    for (index, RetryHostPredicate { name, config_type: _ }) in
        retry_host_predicate.iter().enumerate()
    {
        if name != PREVIOUS_HOSTS {
            hosts.nth(index).fault(format!("{name:?} is not supported"));
        }
    }
    let status = |(index, status): (usize, &u32)| match u16::try_from(*status) {
        Ok(status @ 100..=599) => Some(status),
        _ => {
            at.field("retriable_status_codes").nth(index).fault("is not a status");
            None
        }
    };
    let limit = |field: &str, value: Option<&_>| messages::limit(&at.field(field), value, None);
    Some(Arc::new(RetryPolicy {
        on,
        retries: messages::number(num_retries.as_ref()).unwrap_or(1),
        per_try_timeout: limit("per_try_timeout", per_try_timeout.as_ref()),
        per_try_idle_timeout: limit("per_try_idle_timeout", per_try_idle_timeout.as_ref()),
        statuses: retriable_status_codes.iter().enumerate().filter_map(status).collect(),
        backoff: backoff(&at.field("retry_back_off"), retry_back_off.as_ref()),
        reset: rate_limited_retry_back_off
            .as_ref()
            .map(|value| reset(&at.field("rate_limited_retry_back_off"), value)),
        host_attempts: if retry_host_predicate.is_empty() {
            0
        } else {
            u32::try_from(*host_selection_retry_max_attempts).unwrap_or(0).max(1)
        },
        priorities_after: retry_priority
            .as_ref()
            .and_then(|value| priority(&at.field("retry_priority"), value)),
        response_headers: matches::headers_of(&at.field("retriable_headers"), retriable_headers),
        request_headers: matches::headers_of(
            &at.field("retriable_request_headers"),
            retriable_request_headers,
        ),
    }))
}

/// After how many tries priorities are left out.
fn priority(at: &At<'_>, value: &RetryPriority) -> Option<u32> {
    let Some(retry_priority::ConfigType::TypedConfig(any)) = &value.config_type else {
        at.field("typed_config").fault("is missing");
        return None;
    };
    let at = at.field("typed_config");
    match message_of(any) {
        PREVIOUS_PRIORITIES => {
            let config = at.unpack::<PreviousPrioritiesConfig>(any)?;
            if config.update_frequency < 1 {
                at.field("update_frequency").fault("must be at least 1");
            }
            u32::try_from(config.update_frequency).ok().filter(|every| *every > 0)
        }
        other => {
            at.fault(format!("{other} is not supported"));
            None
        }
    }
}

fn backoff(at: &At<'_>, value: Option<&RetryBackOff>) -> Backoff {
    let interval = |field: &str, value| {
        messages::duration(&at.field(field), value).filter(|interval| !interval.is_zero())
    };
    let base = value
        .and_then(|value| interval("base_interval", value.base_interval.as_ref()))
        .unwrap_or(BACKOFF);
    let max = value
        .and_then(|value| interval("max_interval", value.max_interval.as_ref()))
        .unwrap_or_else(|| base.saturating_mul(BACKOFF_FACTOR));
    if max < base {
        at.field("max_interval").fault("is shorter than base_interval");
    }
    Backoff { base, max }
}

fn reset(at: &At<'_>, value: &RateLimitedRetryBackOff) -> RateLimitedBackoff {
    let list = at.field("reset_headers");
    let header = |(index, header): (usize, &_)| {
        let at = list.nth(index);
        let header: &envoy_types::pb::envoy::config::route::v3::retry_policy::ResetHeader = header;
        let format = match ResetHeaderFormat::try_from(header.format) {
            Ok(ResetHeaderFormat::Seconds) => ResetFormat::Seconds,
            Ok(ResetHeaderFormat::UnixTimestamp) => ResetFormat::UnixTime,
            Err(_) => {
                at.field("format").unsupported();
                ResetFormat::Seconds
            }
        };
        (messages::header_name(&at.field("name"), &header.name), format)
    };
    if value.reset_headers.is_empty() {
        list.fault("is empty");
    }
    RateLimitedBackoff {
        headers: value.reset_headers.iter().enumerate().map(header).collect(),
        max: messages::limit(
            &at.field("max_interval"),
            value.max_interval.as_ref(),
            Some(RESET_MAX),
        )
        .unwrap_or(RESET_MAX),
    }
}
