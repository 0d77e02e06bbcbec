//! The endpoint of a dynamic cluster: the host that the client named, resolved by us.
//!
//! In:    the host of a request or of a TLS hello, what the cluster may reach.
//! Out:   an address that may be reached, or why not.
//! Never: believes an address of the client's; reaches a private address unless the cluster says so.

use std::{net::SocketAddr, sync::Arc};

use sluis_rules::{Address, Discovery, DynamicForward};

use super::{ConnectContext, ConnectError, Dialer, Pick, Target};
use crate::{config::Backend, names::is_private, stats::Counter};

impl Dialer {
    /// Chooses an endpoint; of a dynamic cluster by the name that the client chose.
    ///
    /// # Errors
    ///
    /// Those of [`Dialer::pick`]; [`ConnectError::Forbidden`] and [`ConnectError::Name`].
    pub(crate) async fn choose(
        &self,
        backend: &Arc<Backend>,
        context: &ConnectContext<'_>,
    ) -> Result<Pick, ConnectError> {
        let Discovery::DynamicForward(forward) = &backend.discovery else {
            return self.pick(backend, context);
        };
        let Some(target) = context.target.filter(|target| !target.host.is_empty()) else {
            self.stats().inc(Counter::UpstreamNoHost);
            return Err(ConnectError::NoEndpoint { cluster: Arc::clone(&backend.name) });
        };
        let address = self.named(backend, forward, target).await?;
        if self.peek_config().is_own(address) {
            self.stats().inc(Counter::UpstreamLoops);
            return Err(ConnectError::Loop { address });
        }
        let named = Some(Arc::from(target.host));
        Ok(Pick { named, ..Pick::plain(Address::Socket(address)) })
    }

    async fn named(
        &self,
        backend: &Backend,
        forward: &Arc<DynamicForward>,
        target: Target<'_>,
    ) -> Result<SocketAddr, ConnectError> {
        let host = target.host.trim_end_matches('.');
        let forbidden = |reason| ConnectError::Forbidden {
            cluster: Arc::clone(&backend.name),
            host: host.to_owned(),
            reason,
        };
        if target.sni.is_some_and(|sni| !sni.trim_end_matches('.').eq_ignore_ascii_case(host)) {
            return Err(forbidden("dynamic_forward_host_differs_from_sni"));
        }
        if !forward.reach.holds(host) {
            return Err(forbidden("dynamic_forward_host_not_allowed"));
        }
        let names = Arc::clone(&self.peek_config().names);
        let found = names.resolve(forward, host).await.map_err(|source| ConnectError::Name {
            cluster: Arc::clone(&backend.name),
            host: host.to_owned(),
            source,
        })?;
        // Of a name with private and public addresses only the public ones are left.
        let allowed = |ip: &&std::net::IpAddr| forward.reach.allow_private || !is_private(**ip);
        let Some(ip) = found.iter().find(allowed) else {
            return Err(forbidden("dynamic_forward_address_not_allowed"));
        };
        let default = if backend.tls.is_some() { 443 } else { 80 };
        Ok(SocketAddr::new(*ip, target.port.unwrap_or(default)))
    }
}
