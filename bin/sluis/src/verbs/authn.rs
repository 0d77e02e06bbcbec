//! `sluis authn tls-check [WORKLOAD] [HOST]`: whether clients and servers agree on TLS.
//!
//! In:    a running `sluis up`, or files; with `--probe`, the endpoints themselves.
//! Out:   istioctl's table, or JSON or YAML; exit code 65 for a conflict, or for an endpoint that does
//!        otherwise than its configuration says.
//! Never: sends anything but a hello, and one plain request line, to an endpoint.

use std::{net::SocketAddr, process::ExitCode, thread, time::Duration};

use anyhow::{Result, bail};
use sluis_nouns::ObjectName;
use sluis_tls::{TlsAnswer, ask_plain, ask_tls};

use super::validate::{self, EXIT_FAULTS};
use crate::{
    api,
    arguments::WorkloadArgument,
    cli::{AuthnOptions, AuthnVerb, TlsCheckOptions},
    output::{self, Format, Table},
    state::StateDir,
    tls_check::{self, OK, Probe, TlsRow},
    verbs::workload_name,
};

/// How long an endpoint may take to answer a probe: it stands on this machine or network.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// How many rows are probed at the same time.
const PROBES_AT_ONCE: usize = 16;
/// What a sidecar of the mesh offers.
const MESH_PROTOCOLS: [&str; 2] = ["istio", "istio-http/1.1"];

/// Prints the rows.
///
/// # Errors
///
/// When the workload is unknown, no service has the host, or no `sluis up` runs.
pub(crate) fn run(options: &AuthnOptions) -> Result<ExitCode> {
    let AuthnVerb::TlsCheck(options) = &options.verb;
    let mut rows = found(options)?;
    if let Some(host) = &options.host {
        rows.retain(|row| is_meant(row, host, &options.namespace));
        if rows.is_empty() {
            bail!("no service that the client sees has the host {host}");
        }
    }
    if options.probe {
        for some in rows.chunks_mut(PROBES_AT_ONCE) {
            thread::scope(|scope| {
                for row in some {
                    scope.spawn(|| row.probes = probes(row));
                }
            });
        }
    }
    match options.output {
        Format::Json | Format::Yaml => {
            output::print_value(&serde_json::to_value(&rows)?, options.output)?;
        }
        Format::Table | Format::Wide => output::print(&table(&rows, options).render())?,
    }
    let is_well =
        |row: &TlsRow| row.status == OK && row.probes.iter().all(|probe| probe.is_confirmed);
    Ok(if rows.iter().all(is_well) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULTS) })
}

fn found(options: &TlsCheckOptions) -> Result<Vec<TlsRow>> {
    let workload = match &options.workload {
        Some(workload) => {
            let namespace = options.namespace.clone();
            Some(workload_name(&WorkloadArgument { workload: workload.clone(), namespace })?)
        }
        None => None,
    };
    if !options.files.is_empty() {
        let checked = validate::check(&options.files, options.reading)?;
        let snapshot = checked.control.snapshot();
        return tls_check::rows(&snapshot, workload.as_ref(), &options.namespace)
            .map_err(anyhow::Error::msg);
    }
    let state = StateDir::locate(options.state.state_dir.clone())?;
    let path = match &workload {
        Some(ObjectName { namespace, name }) => {
            format!("/v1/tls-check?namespace={namespace}&workload={name}")
        }
        None => format!("/v1/tls-check?namespace={}", options.namespace),
    };
    Ok(serde_json::from_value(api::get(&state, &path)?)?)
}

/// Whether a row is of the host: in full, or as Services are called for short; with or without a port.
fn is_meant(row: &TlsRow, wanted: &str, namespace: &str) -> bool {
    let (host, port) = match wanted.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (wanted, None),
    };
    let is_short = |more: &str| row.host == format!("{host}{more}");
    let own = format!(".{namespace}.svc.cluster.local");
    let is_host = ["", ".cluster.local", ".svc.cluster.local", &own].into_iter().any(is_short);
    is_host && port.is_none_or(|port: u16| port == row.port)
}

fn table(rows: &[TlsRow], options: &TlsCheckOptions) -> Table {
    let mut header =
        vec!["HOST:PORT", "STATUS", "SERVER", "CLIENT", "AUTHN POLICY", "DESTINATION RULE"];
    if options.probe {
        header.extend(["ENDPOINT", "TLS", "PLAIN", "CONFIRMED"]);
    } else if options.output == Format::Wide {
        header.push("ENDPOINTS");
    }
    let mut table = Table::new(&header);
    for row in rows {
        let mut cells = vec![
            format!("{}:{}", row.host, row.port),
            row.status.clone(),
            tls_check::server_shown(&row.server).to_owned(),
            tls_check::client_shown(&row.client).to_owned(),
            row.policy.clone().unwrap_or_default(),
            row.destination_rule.clone().unwrap_or_default(),
        ];
        if !options.probe {
            if options.output == Format::Wide {
                cells.push(row.endpoints.join(","));
            }
            table.row(cells);
            continue;
        }
        if row.probes.is_empty() {
            cells.resize(header.len(), String::new());
            table.row(cells.clone());
        }
        for probe in &row.probes {
            let confirmed = if probe.is_confirmed { "yes" } else { "NO" };
            let (tls, plain) = (probe.tls.clone(), probe.plain.clone());
            let more = [probe.endpoint.clone(), tls, plain, confirmed.to_owned()];
            table.row(cells.iter().take(6).cloned().chain(more).collect());
        }
    }
    table
}

/// Asks each endpoint of a row that has an address and belongs to the mesh.
fn probes(row: &TlsRow) -> Vec<Probe> {
    if row.server == "EXTERNAL" {
        return Vec::new();
    }
    let addresses = row.endpoints.iter().filter_map(|shown| shown.parse::<SocketAddr>().ok());
    addresses.map(|address| probe(row, address)).collect()
}

fn probe(row: &TlsRow, address: SocketAddr) -> Probe {
    let name = format!("outbound_.{}_._.{}", row.port, row.host);
    let tls = ask_tls(address, &name, &MESH_PROTOCOLS, PROBE_WITHIN);
    let plain = ask_plain(address, &row.host, PROBE_WITHIN);
    let demands = matches!(tls, Ok(TlsAnswer::DemandsCertificate));
    // A workload that speaks TLS itself closes plain connections too: that tells nothing.
    let is_taken = plain.as_ref().is_ok_and(|taken| *taken) || row.is_own_tls;
    let is_confirmed = tls.is_ok()
        && plain.is_ok()
        && match row.server.as_str() {
            "STRICT" => demands && plain.as_ref().is_ok_and(|taken| !taken),
            "PERMISSIVE" => demands && is_taken,
            _ => is_taken && (!demands || row.is_own_tls),
        };
    Probe {
        endpoint: address.to_string(),
        tls: match tls {
            Ok(TlsAnswer::DemandsCertificate) => "demands a certificate".to_owned(),
            Ok(TlsAnswer::Takes) => "taken".to_owned(),
            Ok(TlsAnswer::Refuses(why)) => format!("refused: {why}"),
            Err(error) => error.to_string(),
        },
        plain: match plain {
            Ok(true) => "taken".to_owned(),
            Ok(false) => "refused".to_owned(),
            Err(error) => error.to_string(),
        },
        is_confirmed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host: &str) -> TlsRow {
        TlsRow {
            host: host.to_owned(),
            port: 80,
            is_own_tls: false,
            status: "CONFLICT".to_owned(),
            server: "STRICT".to_owned(),
            client: "DISABLE".to_owned(),
            policy: Some("default/shop".to_owned()),
            destination_rule: None,
            endpoints: Vec::new(),
            probes: Vec::new(),
        }
    }

    #[test]
    fn a_host_is_found_by_each_of_its_names() {
        let web = row("web.shop.svc.cluster.local");
        for name in ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "web:80"] {
            assert!(is_meant(&web, name, "shop"), "{name}");
        }
        for name in ["web.other", "we", "web:81", "web.shop.svc.cluster.local:8080"] {
            assert!(!is_meant(&web, name, "shop"), "{name}");
        }
        assert!(!is_meant(&web, "web", "other"));
        assert!(is_meant(&row("a.example.com"), "a.example.com", "shop"));
    }

    #[test]
    fn the_table_is_istioctls() {
        let options = TlsCheckOptions::default();
        assert_eq!(
            table(&[row("web.shop")], &options).render(),
            "HOST:PORT     STATUS     SERVER   CLIENT   AUTHN POLICY   DESTINATION RULE\n\
             web.shop:80   CONFLICT   mTLS     HTTP     default/shop   -\n"
        );
    }
}
