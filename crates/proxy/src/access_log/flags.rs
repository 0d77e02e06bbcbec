//! Response flags: what went wrong with a request or connection, as Envoy names it.

use smallvec::SmallVec;

macro_rules! flags {
    ($($variant:ident, $short:literal, $long:literal, $help:literal;)*) => {
        /// One thing that went wrong (`%RESPONSE_FLAGS%`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Flag {
            $(#[doc = $help] $variant,)*
        }

        const ALL: &[(Flag, &str, &str)] = &[$((Flag::$variant, $short, $long),)*];
    };
}

flags! {
    UpstreamRetryLimitExceeded, "URX", "UpstreamRetryLimitExceeded", "No tries were left.";
    NoHealthyUpstream, "UH", "NoHealthyUpstream", "The cluster has no endpoint to go to.";
    UpstreamConnectionFailure, "UF", "UpstreamConnectionFailure", "No connection to the endpoint.";
    UpstreamOverflow, "UO", "UpstreamOverflow", "A circuit breaker was open.";
    NoRouteFound, "NR", "NoRouteFound", "No route matched, or no filter chain.";
    DelayInjected, "DI", "DelayInjected", "The fault filter made the request wait.";
    FaultInjected, "FI", "FaultInjected", "The fault filter answered.";
    RateLimited, "RL", "RateLimited", "The rate limit was reached.";
    NoClusterFound, "NC", "NoClusterFound", "The route names a cluster that does not exist.";
    DurationTimeout, "DT", "DurationTimeout", "The stream or connection reached its greatest age.";
    DownstreamConnectionTermination, "DC", "DownstreamConnectionTermination", "The client went away.";
    FailedLocalHealthCheck, "LH", "FailedLocalHealthCheck", "The local service failed its health check.";
    UpstreamRequestTimeout, "UT", "UpstreamRequestTimeout", "The response took too long.";
    LocalReset, "LR", "LocalReset", "We ended the upstream request.";
    UpstreamRemoteReset, "UR", "UpstreamRemoteReset", "The endpoint ended the request.";
    UpstreamConnectionTermination, "UC", "UpstreamConnectionTermination", "The endpoint closed the connection.";
    StreamIdleTimeout, "SI", "StreamIdleTimeout", "Nothing moved on the stream.";
    DownstreamProtocolError, "DPE", "DownstreamProtocolError", "The request was malformed.";
    UpstreamProtocolError, "UPE", "UpstreamProtocolError", "The response was malformed.";
    UpstreamMaxStreamDuration, "UMSDR", "UpstreamMaxStreamDurationReached", "The upstream request reached its greatest age.";
    DownstreamRemoteReset, "DR", "DownstreamRemoteReset", "The client reset the stream.";
    DnsResolutionFailed, "DF", "DnsResolutionFailed", "The host that the client named has no address.";
    DropOverload, "DO", "DropOverload", "Dropped because the control plane asked for it.";
    UnconditionalDropOverload, "UDO", "UnconditionalDropOverload", "Dropped as all requests are.";
    UnauthorizedExternalService, "UAEX", "UnauthorizedExternalService", "The authorization service said no, or nothing.";
    CredentialDenied, "CRD", "CredentialDenied", "No grant covers the request, or it was used too often.";
    CredentialUnavailable, "CRU", "CredentialUnavailable", "There was no secret, or nothing could be signed with it.";
    CredentialGuarded, "CRG", "CredentialGuarded", "The credential must not go where the request goes.";
    CredentialEchoed, "CRE", "CredentialEchoed", "The response held the secret.";
    OverloadManager, "OM", "OverloadManagerTerminated", "Too much was under way.";
}

/// Bits of a flag's place in [`Flags`]: room for 63.
const PLACE_BITS: u32 = 6;

/// A set of [`Flag`]s, in the order in which they were set: Envoy's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    set: u32,
    /// Places of the flags (counted from 1), the first one lowest; ten at most, and no more go
    /// wrong with one request.
    order: u64,
}

impl Flag {
    /// The short name, as `UH`.
    #[must_use]
    pub fn short(self) -> &'static str {
        ALL[self as usize].1
    }

    /// The flag of a short name.
    #[must_use]
    pub fn of(short: &str) -> Option<Self> {
        ALL.iter().find(|(_, name, _)| *name == short).map(|(flag, ..)| *flag)
    }
}

impl Flags {
    /// Adds a flag.
    pub fn set(&mut self, flag: Flag) {
        if self.has(flag) {
            return;
        }
        let before = self.set.count_ones();
        self.set |= 1 << (flag as u8);
        if (before + 1) * PLACE_BITS <= u64::BITS {
            self.order |= (flag as u64 + 1) << (before * PLACE_BITS);
        }
    }

    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.set == 0
    }

    /// Whether this went wrong.
    #[must_use]
    pub fn has(self, flag: Flag) -> bool {
        self.set & (1 << (flag as u8)) != 0
    }

    /// The short names, in their order.
    pub(crate) fn names(self) -> SmallVec<[&'static str; 4]> {
        self.each().map(|(_, short, _)| *short).collect()
    }

    /// The long names, in their order.
    pub(crate) fn long_names(self) -> SmallVec<[&'static str; 4]> {
        self.each().map(|(.., long)| *long).collect()
    }

    fn each(self) -> impl Iterator<Item = &'static (Flag, &'static str, &'static str)> {
        let places = (0..u64::BITS / PLACE_BITS)
            .map(move |at| (self.order >> (at * PLACE_BITS)) & ((1 << PLACE_BITS) - 1));
        places
            .take_while(|place| *place > 0)
            .filter_map(|place| ALL.get(usize::try_from(place).ok()?.checked_sub(1)?))
    }
}

impl From<Flag> for Flags {
    fn from(flag: Flag) -> Self {
        let mut flags = Self::default();
        flags.set(flag);
        flags
    }
}
