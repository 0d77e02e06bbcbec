//! What a script may ask about its request, its route and its connection.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use sluis_rules::{Address, Matched, MetaFields, Metadata, Route};
use sluis_script::{AddressOf, Facts, FieldsOf, Tls, TlsList, TlsText};
use sluis_tls::{Description, describe};

use crate::{
    conn::ConnectionFacts,
    http::{shared::Shared, strand::Ground},
};

/// Where the metadata for scripts are, whatever the filter is called (as in Envoy).
const CANONICAL: &str = "envoy.filters.http.lua";

/// What is known when a script starts.
pub(super) struct Told {
    place: Rc<dyn Ground>,
    config: Rc<Shared>,
    route: Option<Arc<Route>>,
    host: Option<Arc<Metadata>>,
    client: Option<SocketAddr>,
    name: Arc<str>,
    context: Option<Arc<MetaFields>>,
}

impl Told {
    pub(super) fn new(
        (place, config): (&Rc<dyn Ground>, &Rc<Shared>),
        (matched, client): (Option<&Matched<'_>>, Option<SocketAddr>),
        (name, context): (Arc<str>, Option<Arc<MetaFields>>),
    ) -> Self {
        Self {
            place: Rc::clone(place),
            config: Rc::clone(config),
            route: matched.map(|matched| Arc::clone(matched.route)),
            host: matched.and_then(|matched| matched.virtual_host.metadata.clone()),
            client,
            name,
            context,
        }
    }

    fn connection(&self) -> &ConnectionFacts {
        self.place.connection()
    }

    fn peer(&self) -> Option<Description> {
        let peer = self.connection().peer.as_ref()?;
        describe(peer.chain.first()?).ok()
    }

    fn own(&self) -> Option<Description> {
        describe(self.connection().own_certificate.as_ref()?).ok()
    }
}

impl Facts for Told {
    fn protocol(&self) -> &str {
        self.place.protocol().name()
    }

    fn route_name(&self) -> &str {
        self.route.as_ref().map_or("", |route| &route.name)
    }

    fn server_name(&self) -> &str {
        self.connection().sni.as_deref().unwrap_or_default()
    }

    fn address(&self, which: AddressOf) -> String {
        let facts = self.connection();
        let text = |address: &Address| address.to_string();
        match which {
            AddressOf::Remote => match self.client {
                Some(client) => client.to_string(),
                None => text(&facts.remote),
            },
            AddressOf::DirectRemote => text(&facts.direct_remote),
            AddressOf::Local | AddressOf::DirectLocal => text(&facts.local),
        }
    }

    fn fields(&self, of: FieldsOf) -> Option<&MetaFields> {
        let route = || self.route.as_ref()?.metadata.as_ref();
        match of {
            FieldsOf::Metadata => {
                let route = route()?;
                route.namespace(&self.name).or_else(|| route.namespace(CANONICAL))
            }
            FieldsOf::Route => route()?.namespace(&self.name),
            FieldsOf::VirtualHost => self.host.as_ref()?.namespace(&self.name),
            FieldsOf::Context => self.context.as_deref(),
        }
    }

    fn connection_metadata(&self) -> Option<&Metadata> {
        Some(&self.connection().metadata)
    }

    fn tls(&self) -> Option<&dyn Tls> {
        self.connection().tls_terminated.then_some(self)
    }

    fn knows_cluster(&self, name: &str) -> bool {
        self.config.backend(name).is_some()
    }
}

impl Tls for Told {
    fn has_peer(&self) -> bool {
        self.connection().peer.is_some()
    }

    fn text(&self, what: TlsText) -> String {
        let facts = self.connection();
        let of_peer = || facts.peer.as_ref();
        match what {
            TlsText::Sha256PeerCertificateDigest => of_peer().map(|peer| peer.hash()),
            TlsText::SerialNumberPeerCertificate => self.peer().map(|peer| peer.serial),
            TlsText::IssuerPeerCertificate => self.peer().map(|peer| peer.issuer),
            TlsText::SubjectPeerCertificate => of_peer().map(|peer| peer.subject.clone()),
            TlsText::SubjectLocalCertificate => self.own().map(|own| own.subject),
            TlsText::UrlEncodedPemEncodedPeerCertificate => {
                of_peer().map(|peer| peer.pem_of_leaf())
            }
            TlsText::UrlEncodedPemEncodedPeerCertificateChain => {
                of_peer().map(|peer| peer.pem_of_chain())
            }
            // TLS 1.3 has none that means anything, and the library tells of none.
            TlsText::SessionId => None,
            TlsText::CiphersuiteId => {
                let id = facts.session.map_or(0xffff, |session| session.cipher_id);
                Some(format!("0x{id:04x}"))
            }
            TlsText::CiphersuiteString => facts.session.map(|session| session.cipher.to_owned()),
            TlsText::TlsVersion => facts.session.map(|session| session.version.to_owned()),
        }
        .unwrap_or_default()
    }

    fn list(&self, what: TlsList) -> Vec<String> {
        let facts = self.connection();
        match what {
            TlsList::UriSanLocalCertificate => self.own().map(|own| own.uris),
            TlsList::UriSanPeerCertificate => facts.peer.as_ref().map(|peer| peer.uris.clone()),
            TlsList::DnsSansPeerCertificate => {
                facts.peer.as_ref().map(|peer| peer.dns_names.clone())
            }
            TlsList::DnsSansLocalCertificate => self.own().map(|own| own.dns_names),
            TlsList::OidsPeerCertificate => self.peer().map(|peer| peer.oids),
            TlsList::OidsLocalCertificate => self.own().map(|own| own.oids),
        }
        .unwrap_or_default()
    }

    fn validity(&self) -> (i64, i64) {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            i64::try_from(since).unwrap_or(i64::MAX)
        };
        self.peer().map_or((0, 0), |peer| (seconds(peer.not_before), seconds(peer.not_after)))
    }

    fn parsed_subject(&self) -> Option<(String, Vec<String>)> {
        self.peer().map(|peer| (peer.common_name, peer.organizations))
    }
}
