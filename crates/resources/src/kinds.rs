//! The types of the kinds, one module each. Plain data; the readers are in `read`.

pub(crate) mod authorization;
pub(crate) mod core;
pub(crate) mod credential;
pub(crate) mod credential_grant;
pub(crate) mod credential_source;
pub(crate) mod destination_rule;
pub(crate) mod envoy_filter;
pub(crate) mod gateway;
pub(crate) mod gateway_api;
pub(crate) mod mesh_config;
pub(crate) mod mesh_policy;
pub(crate) mod network_policy;
pub(crate) mod peer_authentication;
pub(crate) mod provider;
pub(crate) mod proxy_config;
pub(crate) mod request_authentication;
pub(crate) mod service_entry;
pub(crate) mod shared;
pub(crate) mod sidecar;
pub(crate) mod target;
pub(crate) mod telemetry;
pub(crate) mod tls;
pub(crate) mod virtual_service;
pub(crate) mod wasm_plugin;
pub(crate) mod workload;
pub(crate) mod workload_group;
