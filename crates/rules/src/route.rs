//! Which route a request takes: virtual host by name, then the first route that matches.
//!
//! In:    a [`RouteTable`] and the request's facts ([`RequestFacts`]).
//! Out:   the route with its virtual host, or why there is none.
//! Never: draws random numbers or reads clocks: a weighted choice takes a number from the caller.
//!
//! Start at [`RouteTable::route`].

mod action;
mod hash;
mod hosts;
mod index;
mod predicate;
mod retry;

use std::sync::Arc;

pub use action::{
    DirectResponse, Forward, GrpcTimeout, HeaderAction, HeaderEdit, HeaderMutations, HeaderText,
    HostRewrite, Mirror, MirrorTarget, PathRedirect, PathRewrite, Redirect, RouteAction,
    RouteUpgrade, Target, WeightedCluster, WeightedClusters,
};
pub use hash::{HashCookie, HashPolicy, HashSource, RequestHash, hash_of};
pub(crate) use hosts::{DuplicateDomain, HostTable};
pub(crate) use index::RouteIndex;
pub use predicate::{
    CookieMatch, HeaderMatch, HeaderValues, PathMatch, QueryMatch, RequestFacts, RouteMatch,
    is_grpc_type,
};
pub(crate) use predicate::{HeaderTest, QueryTest, path_of};
pub use retry::{Backoff, RateLimitedBackoff, ResetFormat, RetryNames, RetryOn, RetryPolicy};

use crate::Metadata;
use crate::{CorsPolicy, FilterOverride, FilterSetting};

/// A table of virtual hosts and their routes (one RDS resource).
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTable {
    /// The table's name.
    pub name: Arc<str>,
    /// The virtual hosts in the order of the resource.
    pub virtual_hosts: Vec<VirtualHost>,
    /// What is done to the headers of every request and response.
    pub mutations: HeaderMutations,
    /// Whether a port in the host is ignored when a virtual host is looked for.
    pub ignore_port: bool,
    /// Whether the route's header mutations are applied last, and so win. Default false: the
    /// table's are applied last.
    pub most_specific_mutations_win: bool,
    /// Clusters that get a copy of requests, where no virtual host and no route says.
    pub mirrors: Vec<Mirror>,
    /// What is said of HTTP filters for all hosts.
    pub filters: Vec<FilterOverride>,
    pub(crate) hosts: HostTable,
}

/// The routes of some host names.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualHost {
    /// The virtual host's name.
    pub name: Arc<str>,
    /// The host names, as written.
    pub domains: Vec<Arc<str>>,
    /// The routes, in order.
    pub routes: Vec<Arc<Route>>,
    /// Whether plain HTTP is redirected to HTTPS.
    pub require_tls: TlsRequirement,
    /// What is done to the headers of every request and response.
    pub mutations: HeaderMutations,
    /// How requests are tried again where a route does not say.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Whether the upstream request carries `x-envoy-attempt-count`.
    pub request_attempt_count: bool,
    /// Whether the response carries `x-envoy-attempt-count`.
    pub response_attempt_count: bool,
    /// Clusters that get a copy of requests, where a route does not say.
    pub mirrors: Option<Vec<Mirror>>,
    /// The host's CORS policy in Envoy's older place.
    pub cors: Option<Arc<CorsPolicy>>,
    /// What is said of HTTP filters for this host.
    pub filters: Vec<FilterOverride>,
    /// What is said to filters here, by their names; `None` is nothing.
    pub metadata: Option<Arc<Metadata>>,
    pub(crate) index: RouteIndex,
}

/// When plain HTTP is redirected to HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TlsRequirement {
    /// Never.
    None,
    /// When the client is not internal.
    External,
    /// Always.
    All,
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The route's name; may be empty.
    pub name: Arc<str>,
    /// What a request must be like.
    pub matches: RouteMatch,
    /// What is done with it.
    pub action: RouteAction,
    /// What is done to the headers of the request and its response.
    pub mutations: HeaderMutations,
    /// The user's resource that the route comes from, as Istio writes it into the metadata.
    pub origin: Option<Arc<str>>,
    /// What is said of HTTP filters for this route.
    pub filters: Vec<FilterOverride>,
    /// What is said to filters here, by their names; `None` is nothing.
    pub metadata: Option<Arc<Metadata>>,
}

/// The route that a request takes.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'t> {
    /// The table it was found in.
    pub table: &'t RouteTable,
    /// The virtual host of the request's host.
    pub virtual_host: &'t VirtualHost,
    /// The route.
    pub route: &'t Arc<Route>,
}

/// Why a request has no route.
#[derive(Clone, Copy, Debug)]
pub enum NoRoute<'t> {
    /// No virtual host has the request's host.
    NoVirtualHost,
    /// No route of the virtual host matches.
    NoRoute {
        /// The virtual host of the request's host.
        virtual_host: &'t VirtualHost,
    },
    /// The request is plain HTTP where HTTPS is required: it is redirected (301) to the same URL
    /// with scheme `https`, unless the requirement is [`TlsRequirement::External`] and the client
    /// is internal; then ask [`RouteTable::route_within`].
    HttpsRequired {
        /// The virtual host of the request's host.
        virtual_host: &'t VirtualHost,
    },
}

impl RouteTable {
    /// Finds the route of a request.
    ///
    /// The virtual host is that of the exact host name, else of the longest suffix wildcard
    /// (`*.example.com`), else of the longest prefix wildcard (`example.*`), else `*`; case does
    /// not matter. Of its routes the first that matches is taken.
    ///
    /// # Errors
    ///
    /// [`NoRoute`] says what was missing.
    pub fn route<'t>(&'t self, request: &impl RequestFacts) -> Result<Matched<'t>, NoRoute<'t>> {
        let virtual_host = self.virtual_host(request.authority()).ok_or(NoRoute::NoVirtualHost)?;
        if virtual_host.require_tls != TlsRequirement::None && request.scheme() != "https" {
            return Err(NoRoute::HttpsRequired { virtual_host });
        }
        self.route_within(virtual_host, request)
    }

    /// Finds the route of a request among those of one virtual host of this table.
    ///
    /// # Errors
    ///
    /// [`NoRoute::NoRoute`] when none matches.
    pub fn route_within<'t>(
        &'t self,
        virtual_host: &'t VirtualHost,
        request: &impl RequestFacts,
    ) -> Result<Matched<'t>, NoRoute<'t>> {
        virtual_host
            .index
            .first_match(&virtual_host.routes, request)
            .map(|route| Matched { table: self, virtual_host, route })
            .ok_or(NoRoute::NoRoute { virtual_host })
    }

    /// Finds the virtual host of a host name, which may have a port.
    #[must_use]
    pub fn virtual_host(&self, authority: &str) -> Option<&VirtualHost> {
        let host = if self.ignore_port { without_port(authority) } else { authority };
        self.hosts.find(host).map(|at| &self.virtual_hosts[at])
    }

    /// The number of routes in all virtual hosts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.virtual_hosts.iter().map(|host| host.routes.len()).sum()
    }

    /// Whether there is no route at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'t> Matched<'t> {
    /// The header mutations that apply, in the order in which they are applied.
    pub fn mutations(&self) -> impl Iterator<Item = &'t HeaderMutations> + use<'t> {
        let mut all = [&self.route.mutations, &self.virtual_host.mutations, &self.table.mutations];
        if self.table.most_specific_mutations_win {
            all.reverse();
        }
        all.into_iter().filter(|mutations| !mutations.is_empty())
    }

    /// How the request is tried again: as the route says, else as the virtual host says.
    #[must_use]
    pub fn retry(&self) -> Option<&'t Arc<RetryPolicy>> {
        match &self.route.action {
            RouteAction::Forward(forward) => {
                forward.retry.as_ref().or(self.virtual_host.retry.as_ref())
            }
            _ => None,
        }
    }

    /// The clusters that get a copy of the request.
    #[must_use]
    pub fn mirrors(&self) -> &'t [Mirror] {
        let RouteAction::Forward(forward) = &self.route.action else { return &[] };
        let own = forward.mirrors.as_deref().or(self.virtual_host.mirrors.as_deref());
        own.unwrap_or(&self.table.mirrors)
    }

    /// What is said of the HTTP filter of this name, the most specific first.
    pub fn settings<'n>(
        &self,
        filter: &'n str,
    ) -> impl Iterator<Item = &'t FilterSetting> + use<'t, 'n> {
        let all = [&self.route.filters, &self.virtual_host.filters, &self.table.filters];
        all.into_iter()
            .flatten()
            .filter(move |said| &*said.name == filter)
            .map(|said| &said.setting)
    }

    /// Whether the HTTP filter of this name sees the request, when it is off unless a route says
    /// otherwise, or the other way round.
    #[must_use]
    pub fn is_off(&self, filter: &str, disabled: bool) -> bool {
        match self.settings(filter).next() {
            None => disabled,
            Some(setting) => *setting == FilterSetting::Disabled,
        }
    }

    /// The CORS policies in their older place, the most specific first.
    pub fn cors(&self) -> impl Iterator<Item = &'t Arc<CorsPolicy>> + use<'t> {
        let of_route = match &self.route.action {
            RouteAction::Forward(forward) => forward.cors.as_ref(),
            _ => None,
        };
        of_route.into_iter().chain(self.virtual_host.cors.as_ref())
    }
}

/// The host without its port; an IPv6 literal keeps its brackets.
pub(crate) fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        // A colon inside brackets belongs to an IPv6 literal.
        Some(colon) if authority[colon..].contains(']') => authority,
        Some(colon) if authority[colon + 1..].bytes().all(|b| b.is_ascii_digit()) => {
            &authority[..colon]
        }
        _ => authority,
    }
}
