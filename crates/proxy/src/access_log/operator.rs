//! The operators: what each one takes from a record.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sluis_http1::{Fields, Known, RequestHead};
use sluis_rules::{Address, MetaValue, fields_json};

use super::{
    grpc::{self, GrpcForm},
    record::Record,
    time::TimeFormat,
    value::Value,
};

/// Longest format; a longer one is a mistake.
pub(super) const FORMAT_BYTES_MAX: usize = 16 * 1024;

/// Why a format string was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// An operator that is not known.
    #[error("unknown operator %{name}%")]
    Unknown {
        /// Its name.
        name: Arc<str>,
    },
    /// An operator that is known, with arguments that make no sense.
    #[error("operator %{name}% has bad arguments: {reason}")]
    Arguments {
        /// Its name.
        name: Arc<str>,
        /// What is wrong.
        reason: &'static str,
    },
    /// A `%` that starts no operator.
    #[error("malformed operator at byte {at}")]
    Malformed {
        /// Where.
        at: usize,
    },
    /// Longer than anybody needs.
    #[error("format is longer than {FORMAT_BYTES_MAX} bytes")]
    TooLong,
}

/// One operator with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    kind: Kind,
    length_max: Option<usize>,
}

#[derive(Clone, Debug)]
enum Kind {
    StartTime(TimeFormat),
    Request(Header),
    Response(Header),
    Trailer(Header),
    Grpc(GrpcForm),
    Protocol,
    ResponseCode,
    ResponseFlags,
    ResponseFlagsLong,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    UpstreamTransportFailure,
    DownstreamTransportFailure,
    BytesReceived,
    BytesSent,
    Duration,
    RequestDuration,
    ResponseDuration,
    ResponseTxDuration,
    UpstreamHost(Part),
    UpstreamLocal(Part),
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamAttempts,
    DownstreamLocal(Part),
    DownstreamRemote(Part),
    DownstreamDirectRemote(Part),
    DownstreamPeer,
    DownstreamTls,
    DownstreamTlsVersion,
    DownstreamTlsCipher,
    ServerName,
    RouteName,
    RouteOrigin,
    ConnectionId,
    FilterChain,
    /// The namespace, and the path within it.
    DynamicMetadata(Box<str>, Box<[Box<str>]>),
    /// Known, and never there with us.
    Nothing,
}

/// Which part of an address.
#[derive(Clone, Copy, Debug)]
enum Part {
    Whole,
    Host,
    Port,
}

/// A header, or another in its place.
#[derive(Clone, Debug)]
struct Header {
    first: HeaderName,
    second: Option<HeaderName>,
}

#[derive(Clone, Debug)]
enum HeaderName {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    Known(Known),
    Other(Box<[u8]>),
}

impl Operator {
    pub(super) fn parse(
        name: &str,
        arguments: Option<&str>,
        length_max: Option<usize>,
    ) -> Result<Self, FormatError> {
        let fault = |reason| FormatError::Arguments { name: name.into(), reason };
        let kind = match (name, arguments) {
            ("START_TIME", arguments) => {
                let format = arguments.unwrap_or_default();
                Kind::StartTime(TimeFormat::parse(format).ok_or_else(|| fault("time format"))?)
            }
            ("REQ", Some(header)) => Kind::Request(header_of(header).map_err(fault)?),
            ("RESP", Some(header)) => Kind::Response(header_of(header).map_err(fault)?),
            ("TRAILER", Some(header)) => Kind::Trailer(header_of(header).map_err(fault)?),
            ("GRPC_STATUS", Some(how)) => {
                Kind::Grpc(GrpcForm::parse(how).ok_or_else(|| fault("not a form of a status"))?)
            }
            ("DYNAMIC_METADATA", Some(path)) => {
                let mut names = path.split(':');
                let namespace = names.next().filter(|name| !name.is_empty());
                Kind::DynamicMetadata(
                    namespace.ok_or_else(|| fault("no namespace"))?.into(),
                    names.map(Box::from).collect(),
                )
            }
            ("REQ" | "RESP" | "TRAILER" | "DYNAMIC_METADATA", None) => {
                return Err(fault("none given"));
            }
            (_, Some(_)) if plain(name).is_some() => return Err(fault("none expected")),
            (_, None) => plain(name).ok_or_else(|| FormatError::Unknown { name: name.into() })?,
            _ => return Err(FormatError::Unknown { name: name.into() }),
        };
        Ok(Self { kind, length_max })
    }

    pub(super) fn length_max(&self) -> Option<usize> {
        self.length_max
    }

    /// What the operator says of a record.
    pub(super) fn value<'r>(&'r self, record: &Record<'r>) -> Value<'r> {
        let connection = record.connection;
        match &self.kind {
            Kind::StartTime(format) => Value::Time(format, record.start),
            Kind::Request(header) => of_request(header, record),
            Kind::Response(header) => of_response(header, record),
            Kind::Trailer(header) => of_trailers(header, record),
            Kind::Grpc(form) => grpc::status(*form, record),
            Kind::Protocol => Value::text(record.protocol),
            Kind::ResponseCode => Value::Number(u64::from(record.response_code)),
            Kind::ResponseFlags => Value::List(record.flags.names()),
            Kind::ResponseFlagsLong => Value::List(record.flags.long_names()),
            Kind::ResponseCodeDetails => Value::text(record.response_code_details),
            Kind::ConnectionTerminationDetails => {
                Value::text(record.connection_termination_details)
            }
            Kind::UpstreamTransportFailure => Value::text(record.upstream_transport_failure),
            Kind::DownstreamTransportFailure => Value::text(record.downstream_transport_failure),
            Kind::BytesReceived => Value::Number(record.bytes_received),
            Kind::BytesSent => Value::Number(record.bytes_sent),
            Kind::Duration => millis(Some(record.duration)),
            Kind::RequestDuration => millis(record.request_duration),
            Kind::ResponseDuration => millis(record.response_duration),
            Kind::ResponseTxDuration => {
                millis(record.response_duration.map(|first| record.duration.saturating_sub(first)))
            }
            Kind::UpstreamHost(part) => {
                record.upstream_host.map_or(Value::Absent, |address| of_address(address, *part))
            }
            Kind::UpstreamLocal(part) => {
                record.upstream_local.map_or(Value::Absent, |address| of_socket(address, *part))
            }
            Kind::UpstreamCluster => {
                Value::text(record.upstream_cluster_stat.or(record.upstream_cluster))
            }
            Kind::UpstreamClusterRaw => Value::text(record.upstream_cluster),
            Kind::UpstreamAttempts => Value::Number(u64::from(record.upstream_attempts)),
            Kind::DownstreamLocal(part) => of_address(&connection.local, *part),
            Kind::DownstreamRemote(part) => match record.client {
                Some(client) => of_socket(client, *part),
                None => of_address(&connection.remote, *part),
            },
            Kind::DownstreamDirectRemote(part) => of_address(&connection.direct_remote, *part),
            Kind::DownstreamPeer => {
                let uris = connection.peer.as_ref().map_or(&[][..], |peer| &peer.uris);
                match uris {
                    [] => Value::Absent,
                    [uri] => Value::Bytes(uri.as_bytes()),
                    uris => Value::Built(uris.join(",").into_bytes().into()),
                }
            }
            Kind::DownstreamTls => Value::text(connection.tls_terminated.then_some("TLS")),
            Kind::DownstreamTlsVersion => Value::text(connection.session.map(|tls| tls.version)),
            Kind::DownstreamTlsCipher => Value::text(connection.session.map(|tls| tls.cipher)),
            Kind::ServerName => Value::text(connection.sni.as_deref()),
            Kind::RouteName => Value::text(Some(record.route_name)),
            Kind::RouteOrigin => Value::text(record.route_origin),
            Kind::ConnectionId => Value::Number(connection.id),
            Kind::FilterChain => Value::text(Some(&*connection.chain)),
            Kind::DynamicMetadata(namespace, path) => of_metadata(namespace, path, record),
            Kind::Nothing => Value::Absent,
        }
    }
}

/// A text as it is, anything else as JSON; of no path all that the namespace says.
fn of_metadata<'r>(namespace: &str, path: &[Box<str>], record: &Record<'r>) -> Value<'r> {
    let Some(metadata) = record.metadata else { return Value::Absent };
    let mut json = String::new();
    if path.is_empty() {
        let Some(fields) = metadata.namespace(namespace) else { return Value::Absent };
        fields_json(fields, &mut json);
    } else {
        match metadata.get(namespace, path) {
            None => return Value::Absent,
            Some(MetaValue::Text(text)) => return Value::Bytes(text.as_bytes()),
            Some(value) => value.write_json(&mut json),
        }
    }
    Value::Built(json.into_bytes().into())
}

/// The operators without arguments.
fn plain(name: &str) -> Option<Kind> {
    Some(match name {
        "GRPC_STATUS" => Kind::Grpc(GrpcForm::Camel),
        "GRPC_STATUS_NUMBER" => Kind::Grpc(GrpcForm::Number),
        "PROTOCOL" => Kind::Protocol,
        "RESPONSE_CODE" => Kind::ResponseCode,
        "RESPONSE_FLAGS" => Kind::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Kind::ResponseFlagsLong,
        "RESPONSE_CODE_DETAILS" => Kind::ResponseCodeDetails,
        "CONNECTION_TERMINATION_DETAILS" => Kind::ConnectionTerminationDetails,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Kind::UpstreamTransportFailure,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Kind::DownstreamTransportFailure,
        "BYTES_RECEIVED" => Kind::BytesReceived,
        "BYTES_SENT" => Kind::BytesSent,
        "DURATION" => Kind::Duration,
        "REQUEST_DURATION" => Kind::RequestDuration,
        "RESPONSE_DURATION" => Kind::ResponseDuration,
        "RESPONSE_TX_DURATION" => Kind::ResponseTxDuration,
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => Kind::UpstreamHost(Part::Whole),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Kind::UpstreamHost(Part::Host),
        "UPSTREAM_REMOTE_PORT" => Kind::UpstreamHost(Part::Port),
        "UPSTREAM_LOCAL_ADDRESS" => Kind::UpstreamLocal(Part::Whole),
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Kind::UpstreamLocal(Part::Host),
        "UPSTREAM_LOCAL_PORT" => Kind::UpstreamLocal(Part::Port),
        "UPSTREAM_CLUSTER" => Kind::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Kind::UpstreamClusterRaw,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Kind::UpstreamAttempts,
        "DOWNSTREAM_LOCAL_ADDRESS" => Kind::DownstreamLocal(Part::Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Kind::DownstreamLocal(Part::Host),
        "DOWNSTREAM_LOCAL_PORT" => Kind::DownstreamLocal(Part::Port),
        "DOWNSTREAM_REMOTE_ADDRESS" => Kind::DownstreamRemote(Part::Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Kind::DownstreamRemote(Part::Host),
        "DOWNSTREAM_REMOTE_PORT" => Kind::DownstreamRemote(Part::Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Kind::DownstreamDirectRemote(Part::Whole),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Kind::DownstreamDirectRemote(Part::Host),
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Kind::DownstreamDirectRemote(Part::Port),
        "DOWNSTREAM_PEER_URI_SAN" => Kind::DownstreamPeer,
        "DOWNSTREAM_TLS_VERSION" => Kind::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Kind::DownstreamTlsCipher,
        "DOWNSTREAM_TRANSPORT" => Kind::DownstreamTls,
        "REQUESTED_SERVER_NAME" => Kind::ServerName,
        "ROUTE_NAME" => Kind::RouteName,
        "SLUIS_ROUTE_ORIGIN" => Kind::RouteOrigin,
        "CONNECTION_ID" => Kind::ConnectionId,
        "FILTER_CHAIN_NAME" => Kind::FilterChain,
        "VIRTUAL_CLUSTER_NAME" => Kind::Nothing,
        _ => return None,
    })
}

fn header_of(text: &str) -> Result<Header, &'static str> {
    let (first, second) = match text.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (text, None),
    };
    let second = second.map(HeaderName::parse).transpose()?;
    Ok(Header { first: HeaderName::parse(first)?, second })
}

impl HeaderName {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let lower = text.to_ascii_lowercase();
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b);
        Ok(match lower.as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            ":status" => Self::Status,
            "" => return Err("empty header name"),
            name if !name.bytes().all(is_token) => return Err("not a header name"),
            name => match Known::of(name.as_bytes()) {
                Some(known) => Self::Known(known),
                None => Self::Other(name.as_bytes().into()),
            },
        })
    }

    fn of_fields<'r>(&self, fields: &'r Fields) -> Option<&'r [u8]> {
        match self {
            Self::Known(known) => fields.get(*known),
            Self::Other(name) => fields.get_name(name),
            _ => None,
        }
    }

    fn of_request<'r>(&self, request: &'r RequestHead, is_tls: bool) -> Option<&'r [u8]> {
        match self {
            Self::Method => Some(request.method_name()),
            Self::Path => Some(request.path()),
            Self::Authority => Some(request.authority()),
            Self::Scheme => Some(if is_tls { b"https".as_slice() } else { b"http" }),
            _ => self.of_fields(&request.fields),
        }
        .filter(|value| !value.is_empty())
    }
}

fn of_request<'r>(header: &Header, record: &Record<'r>) -> Value<'r> {
    let Some(request) = record.request else { return Value::Absent };
    let is_tls = record.connection.tls_terminated;
    let found = header
        .first
        .of_request(request, is_tls)
        .or_else(|| header.second.as_ref().and_then(|name| name.of_request(request, is_tls)));
    found.map_or(Value::Absent, Value::Bytes)
}

fn of_response<'r>(header: &Header, record: &Record<'r>) -> Value<'r> {
    if matches!(header.first, HeaderName::Status) {
        return Value::Number(u64::from(record.response_code));
    }
    let Some(fields) = record.response else { return Value::Absent };
    let found = header
        .first
        .of_fields(fields)
        .or_else(|| header.second.as_ref().and_then(|name| name.of_fields(fields)));
    found.map_or(Value::Absent, Value::Bytes)
}

fn of_trailers<'r>(header: &Header, record: &Record<'r>) -> Value<'r> {
    let Some(trailers) = record.trailers else { return Value::Absent };
    let find = |name: &HeaderName| match name {
        HeaderName::Known(known) => trailers.get(known.name()),
        HeaderName::Other(name) => trailers.get(std::str::from_utf8(name).ok()?),
        _ => None,
    };
    let found = find(&header.first).or_else(|| header.second.as_ref().and_then(find));
    found.map_or(Value::Absent, |value| Value::Bytes(value.as_bytes()))
}

fn of_address(address: &Address, part: Part) -> Value<'_> {
    match address {
        Address::Socket(address) => of_socket(*address, part),
        Address::Pipe(path) => match part {
            Part::Whole | Part::Host => Value::Bytes(path.as_os_str().as_encoded_bytes()),
            Part::Port => Value::Absent,
        },
        Address::Internal(name) => match part {
            Part::Whole | Part::Host => Value::Bytes(name.as_bytes()),
            Part::Port => Value::Absent,
        },
    }
}

fn of_socket<'r>(address: SocketAddr, part: Part) -> Value<'r> {
    match part {
        Part::Whole => Value::Socket(address),
        Part::Host => Value::Host(address.ip()),
        Part::Port => Value::Number(u64::from(address.port())),
    }
}

fn millis<'r>(duration: Option<Duration>) -> Value<'r> {
    duration.map_or(Value::Absent, |time| {
        Value::Number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    })
}
