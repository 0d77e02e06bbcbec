//! Well-known field names as small numbers, so that presence is a bit and comparison an integer.

macro_rules! known {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// A well-known field name. Names compare without regard to case.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $name, "`")] $variant),*
        }

        const NAMES: &[&str] = &[$($name),*];
        const ALL: &[Known] = &[$(Known::$variant),*];
    };
}

known! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AcceptLanguage = "accept-language",
    Authorization = "authorization",
    Baggage = "baggage",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Etag = "etag",
    Expect = "expect",
    Forwarded = "forwarded",
    GrpcStatus = "grpc-status",
    GrpcTimeout = "grpc-timeout",
    Host = "host",
    Http2Settings = "http2-settings",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    Range = "range",
    Referer = "referer",
    RetryAfter = "retry-after",
    Server = "server",
    SetCookie = "set-cookie",
    Te = "te",
    Traceparent = "traceparent",
    Tracestate = "tracestate",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOriginalUrl = "x-envoy-original-url",
    XEnvoyPeerMetadata = "x-envoy-peer-metadata",
    XEnvoyPeerMetadataId = "x-envoy-peer-metadata-id",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XForwardedClientCert = "x-forwarded-client-cert",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedProto = "x-forwarded-proto",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
}

/// Several names, to be looked for at once.
#[derive(Clone, Copy, Debug)]
pub struct Names(pub(crate) u128);

impl Names {
    /// These names.
    pub const fn of(names: &[Known]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < names.len() {
            set |= 1 << (names[at] as u8);
            at += 1;
        }
        Self(set)
    }
}

/// Slots of the hash table.
const SLOTS: usize = 256;

const _: () = assert!(NAMES.len() <= 128, "the presence set has 128 bits");

/// Index of a name plus one; zero is an empty slot.
const TABLE: [u8; SLOTS] = build_table();

const fn build_table() -> [u8; SLOTS] {
    let mut table = [0u8; SLOTS];
    let mut index = 0;
    while index < NAMES.len() {
        let slot = slot_of(NAMES[index].as_bytes());
        assert!(table[slot] == 0, "two names meet: other factors are needed in slot_of");
        table[slot] = index as u8 + 1;
        index += 1;
    }
    table
}

/// Hashes by length and three letters; `| 0x20` folds the case of letters. The factors were found by
/// trying: with them no two names meet, so that one comparison decides.
const fn slot_of(name: &[u8]) -> usize {
    let len = name.len();
    if len == 0 {
        return 0;
    }
    let middle = (name[len / 2] | 0x20) as usize;
    let later = (name[len * 3 / 4] | 0x20) as usize;
    let last = (name[len - 1] | 0x20) as usize;
    (len * 173 + later * 168 + middle * 58 + last * 178) % SLOTS
}

/// Whether a name is a known one but for the case of letters. In known names only lower-case letters
/// have the bit 0x40: where it is, the other's case is folded.
fn is_same(known: &[u8], name: &[u8]) -> bool {
    const LETTERS: u64 = 0x4040_4040_4040_4040;
    if known.len() != name.len() {
        return false;
    }
    let (known_words, known_rest) = known.as_chunks::<8>();
    let (words, rest) = name.as_chunks::<8>();
    let by_words = known_words.iter().zip(words).all(|(known, word)| {
        let (known, word) = (u64::from_le_bytes(*known), u64::from_le_bytes(*word));
        word | ((known & LETTERS) >> 1) == known
    });
    let by_bytes = |(known, byte): (&u8, &u8)| byte | ((known & 0x40) >> 1) == *known;
    by_words && known_rest.iter().zip(rest).all(by_bytes)
}

impl Known {
    /// Finds a name, in any case.
    #[inline]
    pub fn of(name: &[u8]) -> Option<Self> {
        let index = usize::from(TABLE[slot_of(name)]).checked_sub(1)?;
        is_same(NAMES[index].as_bytes(), name).then(|| ALL[index])
    }

    /// The name in lower case.
    #[inline]
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Its bit in a presence set.
    #[inline]
    pub(crate) fn bit(self) -> u128 {
        1 << (self as u8)
    }

    #[inline]
    pub(crate) fn at(index: u8) -> Option<Self> {
        ALL.get(index as usize).copied()
    }

    /// Whether the name belongs to Envoy's own `x-envoy-` family.
    pub fn is_envoy(self) -> bool {
        self.name().starts_with("x-envoy-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for &known in ALL {
            assert_eq!(Known::of(known.name().as_bytes()), Some(known));
            assert_eq!(Known::of(known.name().to_uppercase().as_bytes()), Some(known));
        }
    }

    #[test]
    fn names_have_no_byte_that_folding_could_mistake() {
        for name in NAMES {
            for (at, byte) in name.bytes().enumerate() {
                assert!(matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'), "{name}");
                for other in 0..=255_u8 {
                    let mut changed = name.as_bytes().to_vec();
                    changed[at] = other;
                    let is_same = name.as_bytes().eq_ignore_ascii_case(&changed);
                    assert_eq!(
                        super::is_same(name.as_bytes(), &changed),
                        is_same,
                        "{name} {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn other_names_are_not_found() {
        for name in ["", "hosts", "x-date", "x", "content_length", "x-envoy-unknown"] {
            assert_eq!(Known::of(name.as_bytes()), None, "{name}");
        }
    }
}
