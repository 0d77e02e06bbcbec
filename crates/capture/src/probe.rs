//! Tries every way out of where it runs, and says of each whether it is closed.
//!
//! In:    [`Targets`]: addresses outside that answer (else a closed way looks like a silent server).
//! Out:   a [`Finding`] for each way, in the order of [`ways`]; each takes at most the time given.
//! Never: sends more than a few bytes to anybody, or changes anything.
//!
//! A connection that a packet filter or a jail brings to the sidecar is closed as a way *around* it:
//! what the sidecar lets through is policy, and its own log's business. The kernel tells: the other end
//! of such a connection is a socket of this very namespace, which `/proc/net/tcp` lists. A name query was
//! taken when the same query to an address where nobody is gets an answer too.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

/// Addresses at which nobody is: networks for benchmarks (RFC 2544, RFC 5180).
const NOBODY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 53));
const NOBODY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 53));

/// How often a connection that was closed at once is made again: perhaps before we could look at it.
/// How often its other end is looked for here.
const LOOKS_MAX: usize = 3;

/// Time between two looks.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The address at which clouds give out credentials of the machine.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// The mark that Istio's TPROXY rules let pass.
const MARK: u32 = 1337;

/// Ports outside that other programs than browsers use.
const OTHER_PORTS: [u16; 6] = [22, 25, 80, 853, 8080, 15443];

/// UDP ports outside: time, QUIC, WireGuard.
const UDP_PORTS: [u16; 3] = [123, 443, 51820];

/// The sidecar's own ports on loopback: administration, capture in both directions.
const SIDECAR_PORTS: [(u16, &str); 4] = [
    (15000, "sidecar's administration"),
    (15004, "sidecar's debug interface"),
    (15001, "sidecar's outbound port, called itself"),
    (15006, "sidecar's inbound port, called itself"),
];

/// The control plane's ports: xDS with and without TLS, debug pages, webhooks.
const CONTROL_PORTS: [u16; 4] = [15010, 15012, 15014, 15017];

/// Sockets of services that act for whoever calls them.
const SOCKETS: [&str; 8] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/libvirt/libvirt-sock",
    "/run/dbus/system_bus_socket",
    "/run/systemd/private",
    "/run/snapd.socket",
];

/// Where the ways lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Addresses outside the mesh, which answer on the ports that are tried.
    pub outside: Vec<IpAddr>,
    /// The port that surely answers there. Default in the command line: 443.
    pub port: u16,
    /// The control plane, whose ports a workload has no business with.
    pub control: Option<IpAddr>,
}

/// One way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What is tried.
    pub name: String,
    /// Where it leads.
    pub target: String,
    attempt: Attempt,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Attempt {
    Tcp { to: SocketAddr, mark: Option<u32> },
    Udp { to: SocketAddr },
    Names { to: SocketAddr },
    Ping { to: IpAddr, is_raw: bool },
    PacketSocket,
    Local { port: u16 },
    UnixSocket(String),
}

/// What came of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was tried.
    pub way: String,
    /// Where it led.
    pub target: String,
    /// Whether it led there.
    pub is_open: bool,
    /// Whether it may be open though nobody answered: a datagram was sent, and neither this host nor the
    /// network said that it was refused. An answer is not needed to carry something out.
    pub is_doubtful: bool,
    /// What was seen.
    pub detail: String,
}

/// All ways that are known.
#[must_use]
pub fn ways(targets: &Targets) -> Vec<Way> {
    let mut all = Vec::new();
    for ip in &targets.outside {
        outside(&mut all, *ip, targets.port);
    }
    let tcp = |to: SocketAddr| Attempt::Tcp { to, mark: None };
    let metadata = SocketAddr::new(METADATA, 80);
    all.push(way("machine's metadata", metadata.to_string(), tcp(metadata)));
    for (port, name) in SIDECAR_PORTS {
        all.push(way(name, format!("127.0.0.1:{port}"), Attempt::Local { port }));
    }
    for port in CONTROL_PORTS {
        if let Some(ip) = targets.control {
            let to = SocketAddr::new(ip, port);
            all.push(way("control plane", to.to_string(), tcp(to)));
        }
    }
    all.push(way("packet socket", "every interface".to_owned(), Attempt::PacketSocket));
    for path in SOCKETS {
        let path = path.to_owned();
        all.push(way("unix socket of the machine", path.clone(), Attempt::UnixSocket(path)));
    }
    all
}

fn way(name: &str, target: String, attempt: Attempt) -> Way {
    Way { name: name.to_owned(), target, attempt }
}

fn outside(all: &mut Vec<Way>, ip: IpAddr, port: u16) {
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let mut add = |name: String, to: SocketAddr, attempt| {
        all.push(Way { name, target: to.to_string(), attempt });
    };
    let at = |port| SocketAddr::new(ip, port);
    let tcp = |to, mark| Attempt::Tcp { to, mark };
    add(format!("TCP over {family}"), at(port), tcp(at(port), None));
    add(format!("TCP over {family} with a mark"), at(port), tcp(at(port), Some(MARK)));
    for other in OTHER_PORTS {
        add(format!("TCP over {family}, other port"), at(other), tcp(at(other), None));
    }
    if let IpAddr::V4(v4) = ip {
        let mapped = SocketAddr::new(v4.to_ipv6_mapped().into(), port);
        add("TCP over IPv4 from an IPv6 socket".to_owned(), mapped, tcp(mapped, None));
    }
    for other in UDP_PORTS {
        add(format!("UDP over {family}"), at(other), Attempt::Udp { to: at(other) });
    }
    let names = Attempt::Names { to: at(53) };
    add("DNS of a foreign server over UDP".to_owned(), at(53), names);
    add("DNS of a foreign server over TCP".to_owned(), at(53), tcp(at(53), None));
    for is_raw in [false, true] {
        let name = if is_raw { "ICMP from a raw socket" } else { "ICMP" };
        all.push(way(name, ip.to_string(), Attempt::Ping { to: ip, is_raw }));
    }
}

/// A question for an address (RFC 1035 §4.1).
fn query() -> Vec<u8> {
    let mut bytes = vec![0x53, 0x4c, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["sluis-probe", "example"] {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

impl Way {
    /// A single connection, for a caller that has made itself another user.
    #[must_use]
    pub fn tcp(name: &str, to: SocketAddr) -> Self {
        way(name, to.to_string(), Attempt::Tcp { to, mark: None })
    }

    /// Tries it, for at most `within` (twice that where there is something to read).
    #[must_use]
    pub fn attempt(&self, within: Duration) -> Finding {
        let outcome = match &self.attempt {
            Attempt::Tcp { to, mark } => tcp(*to, *mark, within),
            Attempt::Udp { to } => udp(*to, within),
            Attempt::Names { to } => names(*to, within),
            Attempt::Ping { to, is_raw } => ping(*to, *is_raw, within),
            Attempt::PacketSocket => packet_socket(),
            Attempt::Local { port } => local(*port, within),
            Attempt::UnixSocket(path) => unix_socket(Path::new(path)),
        };
        let (is_open, detail) = match outcome {
            Ok(Seen::Open(detail)) => (true, detail.to_owned()),
            Ok(Seen::Closed(detail)) => (false, detail.to_owned()),
            Err(error) => (false, told(&error)),
        };
        let is_doubtful = detail == SENT;
        Finding {
            way: self.name.clone(),
            target: self.target.clone(),
            is_open,
            is_doubtful,
            detail,
        }
    }
}

/// Tries all ways at once.
#[must_use]
pub fn attempt_all(ways: &[Way], within: Duration) -> Vec<Finding> {
    std::thread::scope(|scope| {
        let attempts: Vec<_> =
            ways.iter().map(|way| scope.spawn(move || way.attempt(within))).collect();
        attempts
            .into_iter()
            .zip(ways)
            .map(|(attempt, way)| {
                // A probe that could not be made proves nothing, so it must not look closed.
                attempt.join().unwrap_or_else(|_| Finding {
                    way: way.name.clone(),
                    target: way.target.clone(),
                    is_open: true,
                    is_doubtful: false,
                    detail: "the probe itself failed".to_owned(),
                })
            })
            .collect()
    })
}

enum Seen {
    Open(&'static str),
    Closed(&'static str),
}

fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer".to_owned(),
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted".to_owned(),
        io::ErrorKind::NotFound => "not there".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "unreachable".to_owned()
        }
        _ => error.to_string(),
    }
}

const SENT: &str = "sent, and nobody answered: it may have left";
const TAKEN: &str = "taken by the sidecar";
const LOCAL: &str = "every address is local here";

fn tcp(to: SocketAddr, mark: Option<u32>, within: Duration) -> io::Result<Seen> {
    for _ in 0..LOOKS_MAX {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(mark) = mark {
            setsockopt(&socket, sockopt::Mark, &mark)?;
        }
        socket.connect_timeout(&to.into(), within)?;
        let own = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        if is_seen(|| has_peer_here(own))? {
            return Ok(Seen::Closed(TAKEN));
        }
        socket.set_nonblocking(true)?;
        if is_open_still(&socket) {
            return Ok(Seen::Open("connected"));
        }
    }
    Ok(Seen::Open("connected, and closed at once"))
}

fn is_open_still(mut socket: &Socket) -> bool {
    match socket.read(&mut [0; 1]) {
        Ok(length) => length > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Whether one of some looks finds it. A socket may not be in the kernel's tables yet, and they are
/// read piece by piece while others come and go; what is seen once is there.
fn is_seen(mut look: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    for number in 0..LOOKS_MAX {
        if number > 0 {
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
        if look()? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a socket of this namespace has this one as its peer.
fn has_peer_here(own: SocketAddr) -> io::Result<bool> {
    let own = SocketAddr::new(own.ip().to_canonical(), own.port());
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let text = match std::fs::read_to_string(table) {
            Ok(text) => text,
            // No IPv6 here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let peers = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2));
        if peers.filter_map(socket_address).any(|peer| peer == own) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An address as `/proc/net/tcp` writes it: words of 32 bits in the machine's order, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word =
        |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// Whether packets for an address stay in this namespace.
fn is_local(ip: IpAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind((unspecified(ip), 0))?;
    socket.connect((ip, 9))?;
    let own = socket.local_addr()?.ip();
    Ok(own.is_loopback() || own == ip)
}

fn udp(to: SocketAddr, within: Duration) -> io::Result<Seen> {
    if is_local(to.ip())? {
        return Ok(Seen::Closed(LOCAL));
    }
    doubted(exchange(to, b"sluis probe\n", within).map(Seen::Open))
}

/// Silence after a datagram that could be sent proves nothing.
fn doubted(outcome: io::Result<Seen>) -> io::Result<Seen> {
    match outcome {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) =>
        {
            Ok(Seen::Closed(SENT))
        }
        other => other,
    }
}

fn names(to: SocketAddr, within: Duration) -> io::Result<Seen> {
    if is_local(to.ip())? {
        return Ok(Seen::Closed(LOCAL));
    }
    let seen = match exchange(to, &query(), within) {
        Ok(seen) => seen,
        Err(error) => return doubted(Err(error)),
    };
    let nobody = if to.is_ipv4() { NOBODY_V4 } else { NOBODY_V6 };
    let is_taken = exchange(SocketAddr::new(nobody, to.port()), &query(), within).is_ok();
    Ok(if is_taken { Seen::Closed(TAKEN) } else { Seen::Open(seen) })
}

const ANSWERED: &str = "answered";
const REACHED: &str = "came there, and was refused by the host itself";

/// Sends a datagram, and waits for one. A refusal by the very host is an answer too: what was sent came
/// there. One by a router or by this host's own filter is an error.
fn exchange(to: SocketAddr, payload: &[u8], within: Duration) -> io::Result<&'static str> {
    let socket = UdpSocket::bind((unspecified(to.ip()), 0))?;
    match to {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    socket.connect(to)?;
    socket.set_read_timeout(Some(within))?;
    let done = socket.send(payload).and_then(|_| socket.recv(&mut [0; 2048]));
    match done {
        Ok(_) => Ok(ANSWERED),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if refuser(&socket) == Some(to.ip()) { Ok(REACHED) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

/// Who said that a datagram is refused: the kernel keeps the sender of such messages (ip(7)).
fn refuser(socket: &UdpSocket) -> Option<IpAddr> {
    let mut payload = [0; 64];
    let mut parts = [io::IoSliceMut::new(&mut payload)];
    let mut space = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags).ok()?;
    message.cmsgs().ok()?.find_map(|one| match one {
        ControlMessageOwned::Ipv4RecvErr(_, Some(from)) => {
            Some(Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)).into())
        }
        ControlMessageOwned::Ipv6RecvErr(_, Some(from)) => {
            Some(Ipv6Addr::from(from.sin6_addr.s6_addr).into())
        }
        _ => None,
    })
}

fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn ping(to: IpAddr, is_raw: bool, within: Duration) -> io::Result<Seen> {
    if is_local(to)? {
        return Ok(Seen::Closed(LOCAL));
    }
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let kind = if is_raw { Type::RAW } else { Type::DGRAM };
    let mut socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_read_timeout(Some(within))?;
    socket.connect(&SocketAddr::new(to, 0).into())?;
    let mut packet = [request, 0, 0, 0, 0x53, 0x4c, 0, 1];
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    socket.send(&packet)?;
    let mut buffer = [0; 256];
    let length = match socket.read(&mut buffer) {
        Ok(length) => length,
        Err(error) => return doubted(Err(error)),
    };
    // A raw socket of IPv4 has the IP header in front (raw(7)).
    let start = if is_raw && to.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
    let is_reply = buffer[..length].get(start) == Some(&reply);
    Ok(if is_reply { Seen::Open("answered") } else { Seen::Closed("refused") })
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(folded & 0xffff).unwrap_or(0)
}

/// Whoever has one writes past every packet filter of this namespace.
fn packet_socket() -> io::Result<Seen> {
    let others = std::fs::read_dir("/sys/class/net").map_or(0, |entries| entries.count());
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Packet,
        nix::sys::socket::SockType::Raw,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    );
    match socket {
        Ok(_) if others == 1 => Ok(Seen::Closed("there is no interface but loopback")),
        Ok(_) => Ok(Seen::Open("can be made: no rule of this host holds for it")),
        Err(Errno::EPERM | Errno::EACCES) => Ok(Seen::Closed("not permitted")),
        Err(error) => Err(error.into()),
    }
}

fn local(port: u16, within: Duration) -> io::Result<Seen> {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&to, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.write_all(b"GET /config_dump HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut buffer = [0; 64];
    match stream.read(&mut buffer) {
        Ok(0) => Ok(Seen::Closed("closed without an answer")),
        Ok(_) => Ok(Seen::Open("answers")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Ok(Seen::Closed("closed without an answer"))
        }
        Err(error) => Err(error),
    }
}

fn unix_socket(path: &Path) -> io::Result<Seen> {
    UnixStream::connect(path).map(|_| Seen::Open("connected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_loopback_is_not_outside() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Way::tcp("here", server.local_addr().unwrap());
        let finding = way.attempt(Duration::from_secs(5));
        assert!(!finding.is_open, "{finding:?}");
        assert_eq!(finding.detail, TAKEN);
    }

    #[test]
    fn one_look_that_misses_a_socket_makes_no_way_out() {
        let mut looks = [false, true].into_iter();
        assert!(is_seen(|| Ok(looks.next().unwrap())).unwrap());
        assert!(!is_seen(|| Ok(false)).unwrap());
    }

    #[test]
    fn a_datagram_that_the_host_itself_refuses_came_there() {
        for ip in ["127.0.0.1", "::1"] {
            let gone = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
            let to = gone.local_addr().unwrap();
            drop(gone);
            assert_eq!(exchange(to, b"x", Duration::from_secs(5)).unwrap(), REACHED, "{to}");
        }
    }

    #[test]
    fn silence_after_a_datagram_is_doubtful() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let seen = exchange(silent.local_addr().unwrap(), b"x", Duration::from_millis(50));
        let Ok(Seen::Closed(detail)) = doubted(seen.map(Seen::Open)) else {
            panic!("not doubtful")
        };
        assert_eq!(detail, SENT);
    }

    #[test]
    fn a_local_port_that_answers_is_open() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        });
        let finding =
            way("x", String::new(), Attempt::Local { port }).attempt(Duration::from_secs(5));
        answering.join().unwrap();
        assert!(finding.is_open, "{finding:?}");
    }

    #[test]
    fn the_kernels_addresses_are_read() {
        let read = |text: &str| socket_address(text).map(|address| address.to_string());
        let host_order = u32::from_ne_bytes([127, 0, 0, 1]);
        assert_eq!(read(&format!("{host_order:08X}:1F90")).as_deref(), Some("127.0.0.1:8080"));
        let last = u32::from_ne_bytes([0, 0, 0, 1]);
        assert_eq!(read(&format!("{:024X}{last:08X}:0050", 0)).as_deref(), Some("[::1]:80"));
        assert_eq!(read("rem_address"), None);
    }

    #[test]
    fn every_kind_of_way_is_tried_for_both_families() {
        let outside = vec!["198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let control = Some("10.0.0.1".parse().unwrap());
        let all = ways(&Targets { outside, port: 443, control });
        for name in [
            "TCP over IPv4",
            "TCP over IPv6",
            "TCP over IPv4 with a mark",
            "TCP over IPv4 from an IPv6 socket",
            "UDP over IPv6",
            "DNS of a foreign server over UDP",
            "DNS of a foreign server over TCP",
            "ICMP",
            "ICMP from a raw socket",
            "packet socket",
            "machine's metadata",
            "control plane",
            "sidecar's administration",
        ] {
            assert!(all.iter().any(|way| way.name == name), "{name}");
        }
    }
}
