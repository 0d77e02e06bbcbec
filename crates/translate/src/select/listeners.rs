//! Gathers the chains of listeners, so that none claims what another has claimed.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use sluis_nouns::Cidr;

use crate::{ChainInput, Handler, ListenerInput, OutboundPolicy};

/// The listeners of a proxy as they are gathered, by address and port.
#[derive(Default)]
pub(super) struct Listeners {
    all: BTreeMap<(IpAddr, u16), Gathered>,
}

/// What a chain claims: a server name (empty for any), original destinations, protocols.
type Claim = (String, Vec<Cidr>, Vec<String>);

/// Who has claimed something, and what is done with it.
struct Held {
    owner: String,
    handler: Handler,
}

#[derive(Default)]
struct Gathered {
    known_ports: Vec<u16>,
    chains: Vec<ChainInput>,
    claims: BTreeMap<Claim, Held>,
    /// Whether clients speak first on every chain for all connections.
    is_loud: bool,
    is_bound: bool,
}

impl Listeners {
    /// Adds a chain, unless what it claims is taken: the first wins, and Envoy refuses a listener
    /// with two chains for the same connections.
    ///
    /// Server names of the chain that are taken are left out of it. Returns the names that another
    /// chain keeps and treats otherwise (empty text for a chain that claims everything), each with
    /// its owner. `is_silent` says whether its server waits for the client to speak.
    pub(super) fn add(
        &mut self,
        address: IpAddr,
        port: u16,
        owner: &str,
        is_silent: bool,
        mut chain: ChainInput,
    ) -> Vec<(String, String)> {
        let gathered = self.all.entry((address, port)).or_default();
        let names = if chain.server_names.is_empty() {
            vec![String::new()]
        } else {
            std::mem::take(&mut chain.server_names)
        };
        let (mut won, mut refused) = (Vec::new(), Vec::new());
        for name in names {
            let claim = (name.clone(), chain.subnets.clone(), chain.alpn.clone());
            match gathered.claims.entry(claim) {
                Entry::Vacant(free) => {
                    free.insert(Held { owner: owner.to_owned(), handler: chain.handler.clone() });
                    won.push(name);
                }
                Entry::Occupied(taken) if taken.get().handler != chain.handler => {
                    refused.push((name, taken.get().owner.clone()));
                }
                Entry::Occupied(_) => {}
            }
        }
        if won.is_empty() {
            return refused;
        }
        won.retain(|name| !name.is_empty());
        chain.server_names = won;
        let count = gathered.chains.iter().filter(|other| other.name == chain.name).count();
        if count > 0 {
            chain.name = format!("{}#{}", chain.name, gathered.chains.len());
        }
        gathered.is_loud |= !is_silent;
        gathered.chains.push(chain);
        refused
    }

    /// Whether a listener has a chain already.
    pub(super) fn has(&self, address: IpAddr, port: u16) -> bool {
        self.all.get(&(address, port)).is_some_and(|gathered| !gathered.chains.is_empty())
    }

    /// Whether a listener has a chain for all connections that no other claims.
    pub(super) fn has_rest(&self, address: IpAddr, port: u16) -> bool {
        self.rest(address, port).is_some()
    }

    /// Who owns that chain.
    pub(super) fn holder(&self, address: IpAddr, port: u16) -> &str {
        self.rest(address, port).map_or("", |held| &held.owner)
    }

    /// Whether no server of a listener speaks first.
    pub(super) fn is_silent(&self, address: IpAddr, port: u16) -> bool {
        self.all.get(&(address, port)).is_none_or(|gathered| !gathered.is_loud)
    }

    fn rest(&self, address: IpAddr, port: u16) -> Option<&Held> {
        let everything = (String::new(), Vec::new(), Vec::new());
        self.all.get(&(address, port))?.claims.get(&everything)
    }

    /// Has a socket bound for a listener.
    pub(super) fn bind(&mut self, address: IpAddr, port: u16) {
        self.all.entry((address, port)).or_default().is_bound = true;
    }

    /// Adds a port by which users know the listener.
    pub(super) fn know(&mut self, address: IpAddr, port: u16, known: u16) {
        let ports = &mut self.all.entry((address, port)).or_default().known_ports;
        if !ports.contains(&known) {
            ports.push(known);
            ports.sort_unstable();
        }
    }

    /// The listeners, in order of name.
    pub(super) fn finish(
        self,
        is_bound: bool,
        fallback: Option<&OutboundPolicy>,
    ) -> Vec<ListenerInput> {
        let finish = |((address, port), mut gathered): ((IpAddr, u16), Gathered)| {
            let has_names = gathered.chains.iter().any(|chain| !chain.server_names.is_empty());
            for chain in &mut gathered.chains {
                let reads_http = matches!(chain.handler, Handler::Http { .. });
                chain.is_plain_only |=
                    has_names && reads_http && chain.tls.is_none() && chain.server_names.is_empty();
            }
            let claims_all = |chain: &ChainInput| {
                chain.server_names.is_empty() && chain.subnets.is_empty() && !chain.is_plain_only
            };
            let fallback = fallback.filter(|_| !gathered.chains.iter().any(claims_all));
            ListenerInput {
                name: format!("{address}_{port}"),
                address,
                additional: Vec::new(),
                port,
                pipe: None,
                is_internal: false,
                is_bound: is_bound || gathered.is_bound,
                known_ports: gathered.known_ports,
                chains: gathered.chains,
                fallback: fallback.cloned(),
            }
        };
        let mut listeners: Vec<ListenerInput> = self
            .all
            .into_iter()
            .filter(|(_, gathered)| !gathered.chains.is_empty())
            .map(finish)
            .collect();
        listeners.sort_by(|a, b| a.name.cmp(&b.name));
        listeners
    }
}
