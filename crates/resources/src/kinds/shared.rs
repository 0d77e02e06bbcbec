//! Values that several kinds have in common: protocols, visibility, TLS versions.

use std::fmt;

/// What a port speaks, as Istio names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP/2 in the clear.
    Http2,
    /// gRPC in the clear.
    Grpc,
    /// gRPC-Web in the clear.
    GrpcWeb,
    /// HTTP under TLS.
    Https,
    /// Anything under TLS, told apart by SNI.
    Tls,
    /// Opaque bytes.
    Tcp,
    /// MongoDB's protocol, forwarded as bytes.
    Mongo,
    /// MySQL's protocol, forwarded as bytes.
    Mysql,
    /// Redis' protocol, forwarded as bytes.
    Redis,
    /// HTTP proxy protocol (CONNECT) of Istio.
    HttpProxy,
    /// Istio's HTTP-based tunnel.
    Hbone,
    /// Datagrams.
    Udp,
    /// Nothing known is written: told from the first bytes.
    Unknown,
}

impl Protocol {
    /// Reads Istio's name of a protocol, in any letter case. `None` for names Istio does not know.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "mongo" => Self::Mongo,
            "mysql" => Self::Mysql,
            "redis" => Self::Redis,
            "http_proxy" => Self::HttpProxy,
            "hbone" => Self::Hbone,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// Reads the protocol of a Service's port: `appProtocol` first, then the port name's part before
    /// the first dash (`https-api`), else unknown.
    pub fn of_service_port(app_protocol: Option<&str>, port_name: &str) -> Self {
        if let Some(app) = app_protocol {
            return match app.to_ascii_lowercase().as_str() {
                // https://kubernetes.io/docs/concepts/services-networking/service/#application-protocol
                "kubernetes.io/h2c" => Self::Http2,
                "kubernetes.io/ws" => Self::Http,
                "kubernetes.io/wss" => Self::Https,
                name => Self::from_name(name).unwrap_or(Self::Unknown),
            };
        }
        let name = port_name.to_ascii_lowercase();
        if name == "grpc-web" || name.starts_with("grpc-web-") {
            return Self::GrpcWeb;
        }
        let prefix = name.split('-').next().unwrap_or_default();
        Self::from_name(prefix).unwrap_or(Self::Unknown)
    }

    /// Returns whether requests can be read in the clear.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb | Self::HttpProxy)
    }

    /// Returns whether the bytes are TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }

    /// Returns Istio's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Mongo => "Mongo",
            Self::Mysql => "MySQL",
            Self::Redis => "Redis",
            Self::HttpProxy => "HTTP_PROXY",
            Self::Hbone => "HBONE",
            Self::Udp => "UDP",
            Self::Unknown => "UnsupportedProtocol",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of `exportTo`: who sees the object. An empty list means the mesh-wide default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExportTo {
    /// `*`: every namespace.
    All,
    /// `.`: the object's own namespace.
    Same,
    /// `~`: nobody.
    None,
    /// One namespace by name.
    Namespace(String),
}

/// A version of TLS, oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// The default: at least 1.2, up to the newest.
    #[default]
    Auto,
    /// TLS 1.0.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}
