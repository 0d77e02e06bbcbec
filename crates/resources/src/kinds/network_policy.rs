//! NetworkPolicy of Kubernetes: which pods may talk to which, by address and port.

use sluis_nouns::{Cidr, SourceRef};

use super::mesh_policy::ObjectSelector;

/// `networking.k8s.io/v1` NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// `podSelector`: of the policy's namespace; empty selects all of them.
    pub pods: ObjectSelector,
    /// `ingress`, when `policyTypes` has `Ingress`: then nothing else may come in.
    pub ingress: Option<Vec<NetworkRule>>,
    /// `egress`, when `policyTypes` has `Egress`: then nothing else may go out.
    pub egress: Option<Vec<NetworkRule>>,
}

/// One of `ingress` or `egress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRule {
    /// Where the rule is written.
    pub at: SourceRef,
    /// `from` or `to`; none means everybody.
    pub peers: Vec<NetworkPeer>,
    /// `ports`; none means all.
    pub ports: Vec<NetworkPort>,
}

/// One of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkPeer {
    /// `ipBlock`.
    Block {
        /// `cidr`.
        range: Cidr,
        /// `except`: parts of it that are not meant.
        except: Vec<Cidr>,
    },
    /// `namespaceSelector` and `podSelector`.
    Pods {
        /// The namespaces; `None` means the policy's own.
        namespaces: Option<ObjectSelector>,
        /// The pods in them; `None` means all.
        pods: Option<ObjectSelector>,
    },
}

/// One of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPort {
    /// `protocol`. Default TCP.
    pub protocol: NetworkProtocol,
    /// `port`; `None` means all of the protocol.
    pub port: Option<NetworkPortName>,
    /// `endPort`: the last of several.
    pub end: Option<u16>,
}

/// `port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkPortName {
    /// A number.
    Number(u16),
    /// The name of a port of a container.
    Name(String),
}

/// `protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NetworkProtocol {
    /// TCP. The default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}
