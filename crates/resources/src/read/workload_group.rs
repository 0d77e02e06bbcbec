//! Reads WorkloadGroup and ProxyConfig (the kind).

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::Labels;

use super::forms::{checked, read_fields};
use super::shared::{LabelSelector, some_of};
use crate::kinds::proxy_config::WorkloadProxyConfig;
use crate::kinds::service_entry::WorkloadEntry;
use crate::kinds::workload_group::{ProbeMethod, ReadinessProbe, WorkloadGroup};
use crate::value::{Fields, Value};

read_fields! {
    WorkloadGroup => workload_group,
    Metadata => metadata,
    Template => template,
    ReadinessProbe => probe,
    HttpGet => http_get,
    Header => header,
    TcpSocket => tcp_socket,
    Exec => exec,
    Grpc => grpc,
    WorkloadProxyConfig => proxy_config,
    Image => image,
}

fn workload_group(fields: &mut Fields<'_, '_>) -> Option<WorkloadGroup> {
    let Metadata { labels, annotations } = fields.or_default("metadata");
    let template: Option<Template> = fields.req("template");
    let probe = fields.opt("probe");
    Some(WorkloadGroup { labels, annotations, template: template?.0, probe })
}

#[derive(Default)]
struct Metadata {
    labels: Labels,
    annotations: BTreeMap<String, String>,
}

fn metadata(fields: &mut Fields<'_, '_>) -> Option<Metadata> {
    let labels = fields.or_default("labels");
    Some(Metadata { labels, annotations: fields.or_default("annotations") })
}

/// A WorkloadEntry whose address is not required.
struct Template(WorkloadEntry);

fn template(fields: &mut Fields<'_, '_>) -> Option<Template> {
    super::service_entry::workload_fields(fields).map(Template)
}

fn probe(fields: &mut Fields<'_, '_>) -> Option<ReadinessProbe> {
    fields.at_most_one(&["httpGet", "tcpSocket", "exec", "grpc"]);
    let http = fields.opt("httpGet").map(|HttpGet(method)| method);
    let tcp = fields.opt("tcpSocket").map(|TcpSocket(method)| method);
    let exec = fields.opt("exec").map(|Exec(command)| ProbeMethod::Exec(command));
    let grpc = fields.opt("grpc").map(|Grpc(method)| method);
    let written = ["httpGet", "tcpSocket", "exec", "grpc"].map(|name| fields.has(name));
    if !written.contains(&true) {
        fields.value().fault::<()>("one of httpGet, tcpSocket, exec and grpc is required");
    }
    let seconds = |fields: &mut Fields<'_, '_>, name| {
        Duration::from_secs(u64::from(fields.or_default::<u32>(name)))
    };
    let initial_delay = seconds(fields, "initialDelaySeconds");
    let timeout = seconds(fields, "timeoutSeconds");
    let period = seconds(fields, "periodSeconds");
    let success_threshold = fields.or_default("successThreshold");
    let failure_threshold = fields.or_default("failureThreshold");
    Some(ReadinessProbe {
        initial_delay,
        timeout,
        period,
        success_threshold,
        failure_threshold,
        method: http.or(tcp).or(exec).or(grpc)?,
    })
}

struct HttpGet(ProbeMethod);

fn http_get(fields: &mut Fields<'_, '_>) -> Option<HttpGet> {
    let tls = fields.get("scheme").and_then(|value| {
        checked(&value, |text| match text {
            "" | "HTTP" => Ok(false),
            "HTTPS" => Ok(true),
            other => Err(format!("{other:?} is neither HTTP nor HTTPS")),
        })
    });
    let headers: Vec<Header> = fields.or_default("httpHeaders");
    let (host, path) = (fields.opt("host"), fields.opt("path"));
    let port = fields.req("port");
    Some(HttpGet(ProbeMethod::Http {
        host,
        port: port?,
        path,
        tls: tls.unwrap_or_default(),
        headers: headers.into_iter().map(|Header(name, value)| (name, value)).collect(),
    }))
}

struct Header(String, String);

fn header(fields: &mut Fields<'_, '_>) -> Option<Header> {
    let name = fields.get("name").and_then(|value| checked(&value, header_name));
    if fields.get("name").is_none() {
        fields.missing("name");
    }
    let value = fields.or_default("value");
    Some(Header(name?, value))
}

/// Istio: the name of a probe's header has letters, digits, dashes and underscores.
fn header_name(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if text.is_empty() || !text.bytes().all(fits) {
        return Err(format!("{text:?} is not the name of a header"));
    }
    Ok(text.to_owned())
}

struct TcpSocket(ProbeMethod);

fn tcp_socket(fields: &mut Fields<'_, '_>) -> Option<TcpSocket> {
    let (host, port) = (fields.opt("host"), fields.req("port"));
    Some(TcpSocket(ProbeMethod::Tcp { host, port: port? }))
}

struct Exec(Vec<String>);

fn exec(fields: &mut Fields<'_, '_>) -> Option<Exec> {
    some_of(fields, "command").map(Exec)
}

struct Grpc(ProbeMethod);

fn grpc(fields: &mut Fields<'_, '_>) -> Option<Grpc> {
    let port = fields.get("port").as_ref().and_then(Value::read);
    Some(Grpc(ProbeMethod::Grpc { port, service: fields.opt("service") }))
}

fn proxy_config(fields: &mut Fields<'_, '_>) -> Option<WorkloadProxyConfig> {
    let selector = fields.opt("selector").map(|LabelSelector(labels)| labels);
    fields.never_used(&["image"], "proxies are not started from images here");
    Some(WorkloadProxyConfig {
        selector: selector.filter(|labels| !labels.is_empty()),
        concurrency: fields.opt("concurrency"),
        environment: fields.or_default("environmentVariables"),
        image_type: fields.opt("image").and_then(|Image(kind)| kind),
    })
}

struct Image(Option<String>);

fn image(fields: &mut Fields<'_, '_>) -> Option<Image> {
    Some(Image(fields.opt("imageType")))
}
