//! The rules as text, against what Istio's own init container is known to make.

use std::collections::BTreeMap;

use super::rules::Family;
use super::*;

fn nft(written: &Written) -> String {
    script(Backend::Nft, &Rules::of(&written.settings().unwrap()))
}

fn as_iptables(written: &Written) -> String {
    script(Backend::Iptables, &Rules::of(&written.settings().unwrap()))
}

fn annotated(annotations: &[(&str, &str)]) -> Written {
    let all: BTreeMap<String, String> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Written::from_annotations(&all).unwrap()
}

/// All of `lines`, in this order, perhaps with others between them.
#[track_caller]
fn check_order(text: &str, lines: &[&str]) {
    let mut rest = text.lines().map(str::trim);
    for line in lines {
        assert!(rest.any(|found| found == *line), "{line:?} is missing or too late in\n{text}");
    }
}

#[test]
fn by_default_all_tcp_is_captured_but_the_sidecars_own() {
    check_order(
        &nft(&Written::default()),
        &[
            "chain nat_prerouting {",
            "meta l4proto tcp tcp dport 15008 return",
            "meta l4proto tcp redirect to :15006",
            "chain nat_output {",
            "oifname \"lo\" ip saddr 127.0.0.6 return",
            "oifname \"lo\" ip6 saddr ::6 return",
            "meta l4proto tcp oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != { 15008 } meta skuid 1337 redirect to :15006",
            "oifname \"lo\" meta skuid != 1337 meta skgid != 1337 return",
            "meta skuid 1337 return",
            "meta l4proto tcp oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != { 15008 } meta skgid 1337 redirect to :15006",
            "meta skgid 1337 return",
            "ip daddr 127.0.0.1 return",
            "ip6 daddr ::1 return",
            "meta l4proto tcp redirect to :15001",
        ],
    );
}

#[test]
fn annotations_say_what_is_left_out() {
    let written = annotated(&[
        ("traffic.sidecar.istio.io/excludeInboundPorts", "8080"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "3306, 6379"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/8,fd00::/8"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.1.0.0/16"),
        ("traffic.sidecar.istio.io/includeOutboundPorts", "443"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "net1"),
        ("traffic.sidecar.istio.io/kubevirtInterfaces", "k6t-eth0"),
    ]);
    check_order(
        &nft(&written),
        &[
            "iifname \"k6t-eth0\" meta l4proto tcp ip daddr 10.0.0.0/8 redirect to :15001",
            "iifname \"k6t-eth0\" return",
            "iifname \"net1\" return",
            "meta l4proto tcp tcp dport 8080 return",
            "meta l4proto tcp tcp dport 15020 return",
            "meta l4proto tcp tcp dport 15021 return",
            "meta l4proto tcp tcp dport 15090 return",
            "meta l4proto tcp redirect to :15006",
            "oifname \"net1\" return",
            "meta l4proto tcp tcp dport 3306 return",
            "meta l4proto udp udp dport 6379 return",
            "ip daddr 10.1.0.0/16 return",
            "meta l4proto tcp tcp dport 443 redirect to :15001",
            "meta l4proto tcp ip daddr 10.0.0.0/8 redirect to :15001",
            "meta l4proto tcp ip6 daddr fd00::/8 redirect to :15001",
        ],
    );
}

#[test]
fn empty_lists_capture_nothing_and_are_not_all() {
    let written = annotated(&[
        ("traffic.sidecar.istio.io/includeInboundPorts", ""),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", ""),
    ]);
    let text = nft(&written);
    assert!(!text.contains("redirect to :15001"), "{text}");
    assert!(!text.contains("meta l4proto tcp redirect to :15006"), "{text}");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Written), expected: &str) {
        let mut written = Written::default();
        change(&mut written);
        let faults = written.settings().unwrap_err();
        let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert!(text.join("; ").contains(expected), "{expected} in {text:?}");
    }
    check(|w| w.inbound = "80,http".into(), "included inbound ports: \"http\"");
    check(|w| w.outbound_excluded = "70000".into(), "excluded outbound ports: \"70000\"");
    check(|w| w.ranges = "10.0.0.0/33".into(), "included outbound ranges: \"10.0.0.0/33\"");
    check(|w| w.interfaces_excluded = "eth0\"; flush".into(), "excluded interfaces");
    check(|w| w.mode = "MAYBE".into(), "interception mode: \"MAYBE\"");
    check(|w| w.outbound_port = 0, "outbound port");
    check(
        |w| {
            w.proxy_uids.clear();
            w.proxy_gids.clear();
        },
        "the sidecar would be sent to itself",
    );
    let unknown = BTreeMap::from([("traffic.sidecar.istio.io/excludeAll".into(), "1".into())]);
    let faults = Written::from_annotations(&unknown).unwrap_err();
    assert!(faults[0].to_string().contains("excludeAll"), "{faults:?}");
}

#[test]
fn names_are_captured_over_udp_and_tcp_and_the_sidecar_may_ask() {
    let written = Written { dns_servers: "*".into(), ..Written::default() };
    check_order(
        &nft(&written),
        &[
            "meta l4proto udp udp sport 53 ct zone set 1",
            "meta l4proto udp udp dport 53 meta skgid 1337 ct zone set 1",
            "meta l4proto udp udp dport 53 meta skuid != 1337 meta skgid != 1337 ct zone set 2",
            "oifname \"lo\" meta l4proto tcp tcp dport != { 53 } meta skuid != 1337 meta skgid != 1337 return",
            "meta skgid 1337 return",
            "meta l4proto tcp tcp dport 53 redirect to :15053",
            "meta l4proto udp udp dport 53 redirect to :15053",
        ],
    );
    let one = Written { dns_servers: "10.96.0.10".into(), ..Written::default() };
    check_order(
        &nft(&one),
        &["meta l4proto udp udp dport 53 ip daddr 10.96.0.10 redirect to :15053"],
    );
}

#[test]
fn tproxy_keeps_the_clients_address() {
    let written = Written { mode: "TPROXY".into(), ..Written::default() };
    let text = nft(&written);
    check_order(
        &text,
        &[
            "chain mangle_prerouting {",
            "meta l4proto tcp meta mark 1337 ct mark set meta mark",
            "meta l4proto tcp meta mark 1337 return",
            "meta l4proto tcp ip saddr 127.0.0.6 iifname \"lo\" return",
            "meta l4proto tcp iifname \"lo\" meta mark != 1338 return",
            "meta l4proto tcp ct state established,related meta mark set 1337 accept",
            "meta l4proto tcp ip daddr != 127.0.0.1 tproxy ip to :15006 meta mark set 1337 accept",
            "meta l4proto tcp ip6 daddr != ::1 tproxy ip6 to :15006 meta mark set 1337 accept",
            "meta l4proto tcp ct mark 1337 meta mark set ct mark",
        ],
    );
    assert!(!text.contains("meta l4proto tcp redirect to :15006"), "{text}");
}

#[test]
fn iptables_has_the_same_rules_in_chains_of_our_own() {
    let written = Written { dns_servers: "*".into(), is_closed: true, ..Written::default() };
    let text = as_iptables(&written);
    check_order(
        &text,
        &[
            "*raw",
            ":SLUIS_OUTPUT - [0:0]",
            "*nat",
            ":SLUIS_PREROUTING - [0:0]",
            "-A PREROUTING -j SLUIS_PREROUTING",
            "-A SLUIS_PREROUTING -p tcp -j REDIRECT --to-ports 15006",
            "-A SLUIS_OUTPUT -p tcp -o lo ! -d 127.0.0.1 -m multiport ! --dports 53,15008 -m owner --uid-owner 1337 -j REDIRECT --to-ports 15006",
            "-A SLUIS_OUTPUT -p tcp -j REDIRECT --to-ports 15001",
            "COMMIT",
            "*filter",
            "-A SLUIS_OUTPUT -j REJECT --reject-with icmp-admin-prohibited",
            "# ip6tables-restore --noflush",
            "-A SLUIS_OUTPUT -p icmpv6 --icmpv6-type 135 -j RETURN",
        ],
    );
    let (v4, v6) = text.split_once("# ip6tables").unwrap();
    assert!(!v4.contains("::1") && !v6.contains("127.0.0.1"), "{text}");
}

#[test]
fn rules_that_are_there_already_are_replaced_and_not_doubled() {
    let saved = "*nat\n:PREROUTING ACCEPT [0:0]\n:SLUIS_PREROUTING - [0:0]\n:SLUIS_OUTPUT - [0:0]\n\
                 -A PREROUTING -j SLUIS_PREROUTING\n-A OUTPUT -j SLUIS_OUTPUT\nCOMMIT\n";
    let rules = Rules::of(&Written::default().settings().unwrap());
    let again = iptables::script(Some(&rules), Family::V4, saved);
    check_order(
        &again,
        &["-D PREROUTING -j SLUIS_PREROUTING", "-A PREROUTING -j SLUIS_PREROUTING"],
    );
    let gone = iptables::script(None, Family::V4, saved);
    check_order(
        &gone,
        &[
            "*nat",
            ":SLUIS_OUTPUT - [0:0]",
            "-D PREROUTING -j SLUIS_PREROUTING",
            "-D OUTPUT -j SLUIS_OUTPUT",
            "-X SLUIS_OUTPUT",
        ],
    );
    assert_eq!(iptables::script(None, Family::V4, ""), "");
}

#[test]
fn a_closed_namespace_refuses_what_the_sidecar_cannot_take() {
    let written = Written { is_closed: true, ..Written::default() };
    check_order(
        &nft(&written),
        &[
            "chain filter_output {",
            "ip daddr 127.0.0.0/8 return",
            "meta skgid 1337 return",
            "ct state established,related return",
            "counter reject with icmpx admin-prohibited",
        ],
    );
    assert!(!nft(&Written::default()).contains("filter_output"));
}
