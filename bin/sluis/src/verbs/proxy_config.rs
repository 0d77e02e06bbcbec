//! `sluis proxy-config KIND WORKLOAD`: what a proxy is told to do, with istioctl's columns.
//!
//! In:    the xDS resources that the control plane has for the workload, as JSON.
//! Out:   a table, or the resources themselves.
//! Never: a key: secrets are described by their certificates.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    api,
    cli::{ConfigKind, ProxyConfigOptions},
    output::{self, Format, Table},
    state::StateDir,
    verbs::workload_name,
};

/// Prints what was asked for.
///
/// # Errors
///
/// When no `sluis up` runs, or it knows no such workload.
pub(crate) fn run(options: &ProxyConfigOptions) -> Result<ExitCode> {
    let name = workload_name(&options.workload)?;
    let state = StateDir::locate(options.state.state_dir.clone())?;
    let kind = match options.kind {
        ConfigKind::Listeners => "listeners",
        ConfigKind::Routes => "routes",
        ConfigKind::Clusters => "clusters",
        ConfigKind::Endpoints => "endpoints",
        // Only the proxy itself knows which certificates it holds.
        ConfigKind::Secrets => "",
    };
    let resources = if kind.is_empty() {
        let mut held = api::get_from(&state.workload(&name).admin_socket(), "/certs")?;
        // The proxy tells of itself beside its secrets; every kind prints as an array.
        match held.get_mut("secrets") {
            Some(secrets) => secrets.take(),
            None => held,
        }
    } else {
        let path = format!("/v1/workloads/{}/{}/config/{kind}", name.namespace, name.name);
        api::get(&state, &path)?
    };
    if matches!(options.output, Format::Json | Format::Yaml) {
        output::print_value(&resources, options.output)?;
    } else {
        output::print(&table(options.kind, &resources).render())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(kind: ConfigKind, resources: &Value) -> Table {
    let resources = items(resources);
    match kind {
        ConfigKind::Listeners => listeners(resources),
        ConfigKind::Routes => routes(resources),
        ConfigKind::Clusters => clusters(resources),
        ConfigKind::Endpoints => endpoints(resources),
        ConfigKind::Secrets => secrets(resources, OffsetDateTime::now_utc()),
    }
}

fn listeners(resources: &[Value]) -> Table {
    let mut table = Table::new(&["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    for listener in resources {
        let (address, port) = address(&listener["address"]);
        let default = listener.get("default_filter_chain").into_iter();
        for chain in items(&listener["filter_chains"]).iter().chain(default) {
            table.row(vec![address.clone(), port.clone(), chain_match(chain), destination(chain)]);
        }
    }
    table
}

fn chain_match(chain: &Value) -> String {
    let rule = &chain["filter_chain_match"];
    let mut parts = Vec::new();
    if let Some(protocol) = rule["transport_protocol"].as_str() {
        parts.push(format!("Trans: {protocol}"));
    }
    for (label, field) in [("App", "application_protocols"), ("SNI", "server_names")] {
        let values: Vec<&str> = items(&rule[field]).iter().filter_map(Value::as_str).collect();
        if !values.is_empty() {
            parts.push(format!("{label}: {}", values.join(",")));
        }
    }
    for range in items(&rule["prefix_ranges"]) {
        parts.push(format!("Addr: {}/{}", text(&range["address_prefix"]), range["prefix_len"]));
    }
    if let Some(port) = rule["destination_port"].as_u64() {
        parts.push(format!("Port: {port}"));
    }
    if parts.is_empty() { "ALL".to_owned() } else { parts.join("; ") }
}

fn destination(chain: &Value) -> String {
    for filter in items(&chain["filters"]) {
        let config = &filter["typed_config"];
        if let Some(cluster) = config["cluster"].as_str() {
            return format!("Cluster: {cluster}");
        }
        if let Some(name) = config["rds"]["route_config_name"].as_str() {
            return format!("Route: {name}");
        }
        if let Some(name) = config["route_config"]["name"].as_str() {
            return format!("Inline Route: {name}");
        }
        let weighted = items(&config["weighted_clusters"]["clusters"]);
        if !weighted.is_empty() {
            let shown =
                weighted.iter().map(|one| format!("{} {}", text(&one["name"]), one["weight"]));
            return format!("Clusters: {}", shown.collect::<Vec<_>>().join(", "));
        }
    }
    "Non-HTTP/Non-TCP".to_owned()
}

fn routes(resources: &[Value]) -> Table {
    let mut table = Table::new(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"]);
    for config in resources {
        for host in items(&config["virtual_hosts"]) {
            let domains: Vec<&str> =
                items(&host["domains"]).iter().filter_map(Value::as_str).collect();
            let name = text(&config["name"]);
            let row = |matching: String, source: String| {
                vec![name.clone(), text(&host["name"]), domains.join(", "), matching, source]
            };
            if items(&host["routes"]).is_empty() {
                table.row(row("(none: 404)".to_owned(), String::new()));
            }
            for route in items(&host["routes"]) {
                table.row(row(route_match(&route["match"]), source(route)));
            }
        }
    }
    table
}

fn route_match(rule: &Value) -> String {
    let path = ["prefix", "path", "path_separated_prefix"]
        .iter()
        .find_map(|form| rule[*form].as_str().map(|path| (*form, path)));
    match path {
        Some(("path", path)) => path.to_owned(),
        Some((_, path)) => format!("{}*", path),
        None => format!("regex {}", text(&rule["safe_regex"]["regex"])),
    }
}

fn clusters(resources: &[Value]) -> Table {
    let mut table =
        Table::new(&["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"]);
    for cluster in resources {
        let name = text(&cluster["name"]);
        let parts: Vec<&str> = name.split('|').collect();
        let cells = match parts[..] {
            [direction, port, subset, host] => [host, port, subset, direction],
            _ => [name.as_str(), "", "", ""],
        };
        let mut row: Vec<String> = cells.map(str::to_owned).to_vec();
        row.push(discovery(cluster).to_owned());
        row.push(source(cluster));
        table.row(row);
    }
    table
}

/// How the endpoints of a cluster are found, in the words that Envoy had before there were extensions for
/// it.
fn discovery(cluster: &Value) -> &str {
    match cluster["cluster_type"]["name"].as_str() {
        Some("envoy.cluster.dns") => {
            let is_logical =
                &cluster["cluster_type"]["typed_config"]["all_addresses_in_single_endpoint"];
            if is_logical == &Value::Bool(true) { "LOGICAL_DNS" } else { "STRICT_DNS" }
        }
        Some(other) => other,
        None => cluster["type"].as_str().unwrap_or("STATIC"),
    }
}

fn endpoints(resources: &[Value]) -> Table {
    let mut table = Table::new(&["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]);
    for assignment in resources {
        let localities = items(&assignment["endpoints"]).iter();
        for endpoint in localities.flat_map(|locality| items(&locality["lb_endpoints"])) {
            let (host, port) = address(&endpoint["endpoint"]["address"]);
            let status = endpoint["health_status"].as_str().unwrap_or("HEALTHY");
            table.row(vec![
                format!("{host}:{port}"),
                status.to_owned(),
                "OK".to_owned(),
                text(&assignment["cluster_name"]),
            ]);
        }
    }
    table
}

fn secrets(resources: &[Value], now: OffsetDateTime) -> Table {
    let mut table = Table::new(&[
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
        "SPIFFE ID",
    ]);
    for secret in resources {
        let (shown, status) = match secret["kind"].as_str() {
            Some("certificate") => ("Cert Chain", "ACTIVE"),
            Some("roots") => ("CA", "ACTIVE"),
            Some("generic") => ("Generic", "ACTIVE"),
            _ => ("", "WARMING"),
        };
        let time = |field: &str| OffsetDateTime::parse(secret[field].as_str()?, &Rfc3339).ok();
        let valid = match (time("not_before"), time("not_after")) {
            (Some(begin), Some(end)) => (begin <= now && now < end).to_string(),
            _ => String::new(),
        };
        table.row(vec![
            text(&secret["name"]),
            shown.to_owned(),
            status.to_owned(),
            valid,
            text(&secret["serial"]),
            text(&secret["not_after"]),
            text(&secret["not_before"]),
            text(&secret["uris"][0]),
        ]);
    }
    table
}

/// The Istio resource that a wire resource came from, as `name.namespace`.
fn source(resource: &Value) -> String {
    let path =
        resource["metadata"]["filter_metadata"]["istio"]["config"].as_str().unwrap_or_default();
    // `/apis/networking.istio.io/v1/namespaces/NS/KIND/NAME`
    let mut parts = path.rsplit('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(_), Some(namespace)) if !name.is_empty() => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

fn address(address: &Value) -> (String, String) {
    let socket = &address["socket_address"];
    match address["pipe"]["path"].as_str() {
        Some(path) => (path.to_owned(), String::new()),
        None => (text(&socket["address"]), text(&socket["port_value"])),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_name_is_taken_apart_into_istioctls_columns() {
        let cluster = json!([{
            "name": "outbound|443|mitm|gateway.egress.svc.cluster.local",
            "type": "EDS",
            "metadata": {"filter_metadata": {"istio": {
                "config": "/apis/networking.istio.io/v1/namespaces/egress/destination-rule/to-gateway",
            }}},
        }]);
        let shown = table(ConfigKind::Clusters, &cluster).render();
        let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
        let host = "gateway.egress.svc.cluster.local";
        assert_eq!(row, [host, "443", "mitm", "outbound", "EDS", "to-gateway.egress"]);
    }

    #[test]
    fn a_chain_shows_what_it_matches_and_where_it_leads() {
        let listener = json!([{
            "address": {"socket_address": {"address": "0.0.0.0", "port_value": 443}},
            "filter_chains": [{
                "filter_chain_match": {"server_names": ["api.data.local"]},
                "filters": [{"typed_config": {"cluster": "outbound|443||gateway"}}],
            }],
            "default_filter_chain": {"filters": [{"typed_config": {"cluster": "BlackHoleCluster"}}]},
        }]);
        let shown = table(ConfigKind::Listeners, &listener).render();
        assert!(shown.contains("SNI: api.data.local   Cluster: outbound|443||gateway"), "{shown}");
        assert!(shown.contains("ALL                   Cluster: BlackHoleCluster"), "{shown}");
    }

    #[test]
    fn a_certificate_shows_its_identity_and_whether_it_is_valid_now() {
        let secrets = json!([
            {"name": "ROOTCA", "kind": "roots", "fingerprint": "00"},
            {"name": "default", "kind": "certificate", "serial": "0a", "uris": ["spiffe://td/ns/a/sa/b"],
             "not_before": "2026-01-01T00:00:00Z", "not_after": "2026-01-02T00:00:00Z"},
        ]);
        for (now, valid) in [("2026-01-01T12:00:00Z", "true"), ("2026-01-02T00:00:00Z", "false")] {
            let shown = super::secrets(
                secrets.as_array().unwrap(),
                OffsetDateTime::parse(now, &Rfc3339).unwrap(),
            )
            .render();
            let rows: Vec<Vec<&str>> =
                shown.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
            assert_eq!(rows[0], ["ROOTCA", "CA", "ACTIVE", "-", "-", "-", "-", "-"]);
            let (begin, end) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
            let identity = "spiffe://td/ns/a/sa/b";
            assert_eq!(
                rows[1],
                ["default", "Cert", "Chain", "ACTIVE", valid, "0a", end, begin, identity]
            );
        }
    }
}
