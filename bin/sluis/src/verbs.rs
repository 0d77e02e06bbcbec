//! What `sluis` can do, one file for each verb.

pub(crate) mod audit;
pub(crate) mod authn;
pub(crate) mod ca;
pub(crate) mod capture;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod control_plane;
pub(crate) mod credentials;
pub(crate) mod exec;
pub(crate) mod get;
pub(crate) mod grants;
pub(crate) mod logs;
pub(crate) mod probe;
pub(crate) mod proxy;
pub(crate) mod proxy_config;
pub(crate) mod proxy_status;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod validate;

use anyhow::{Result, bail};
use sluis_nouns::{ObjectName, is_dns_name};

use crate::arguments::WorkloadArgument;

/// The workload meant: `NAMESPACE/NAME`, istioctl's `NAME.NAMESPACE`, or `NAME` with `-n`.
///
/// # Errors
///
/// When it is none of these, or not made of DNS labels.
pub(crate) fn workload_name(argument: &WorkloadArgument) -> Result<ObjectName> {
    let text = argument.workload.as_str();
    let (namespace, name) = match (text.split_once('/'), text.rsplit_once('.')) {
        (Some((namespace, name)), _) => (namespace, name),
        (None, Some((name, namespace))) => (namespace, name),
        (None, None) => (argument.namespace.as_str(), text),
    };
    if !is_dns_name(namespace) || !is_dns_name(name) {
        bail!("{text:?} names no workload; write NAMESPACE/NAME");
    }
    Ok(ObjectName::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let argument = WorkloadArgument { workload: text.to_owned(), namespace: "shop".to_owned() };
        let found = workload_name(&argument).ok().map(|name| name.to_string());
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn a_workload_is_named_as_kubectl_or_istioctl_would() {
        check("egress/gateway", Some("egress/gateway"));
        check("gateway.egress", Some("egress/gateway"));
        check("gateway", Some("shop/gateway"));
        check("egress/../x", None);
        check("", None);
    }
}
