//! The rules as text.

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn workload(name: &str, address: &str) -> Workload {
    Workload {
        name: name.to_owned(),
        addresses: vec![ip(address)],
        is_gateway: false,
        egress: None,
        ingress: None,
    }
}

fn allowed(ranges: &[(&str, &[&str])], ports: &[(Transport, u16, u16)]) -> Allowed {
    let range = |text: &str| text.parse::<Cidr>().unwrap();
    let ranges: Vec<_> = ranges
        .iter()
        .map(|(one, except)| (range(one), except.iter().map(|part| range(part)).collect()))
        .collect();
    Allowed {
        why: "shop/p".to_owned(),
        ranges: (!ranges.is_empty()).then_some(ranges),
        ports: (!ports.is_empty()).then(|| ports.to_vec()),
    }
}

fn small() -> Firewall {
    let mut cart = workload("shop/cart", "10.0.0.1");
    cart.egress = Some(vec![
        allowed(
            &[("10.0.0.9", &[]), ("10.8.0.0/16", &["10.8.1.0/24"])],
            &[(Transport::Tcp, 443, 443)],
        ),
        allowed(
            &[],
            &[(Transport::Udp, 53, 53), (Transport::Tcp, 80, 90), (Transport::Tcp, 85, 95)],
        ),
    ]);
    let mut db = workload("shop/db", "10.0.0.2");
    db.ingress = Some(vec![allowed(&[("10.0.0.1", &[])], &[])]);
    let mut gateway = workload("istio-system/gateway", "10.0.0.9");
    gateway.is_gateway = true;
    Firewall {
        workloads: vec![cart, db, gateway],
        control: vec!["10.0.0.100:15012".parse().unwrap()],
        ..Firewall::default()
    }
}

/// The lines of one chain.
fn chain(text: &str, name: &str) -> Vec<String> {
    let lines =
        text.lines().map(str::trim).skip_while(|line| !line.starts_with(&format!("chain {name} ")));
    lines.skip(1).take_while(|line| *line != "}").map(str::to_owned).collect()
}

#[test]
fn a_router_asks_the_sender_first_and_then_the_receiver() {
    let text = small().router(false);
    let forward = chain(&text, "forward");
    assert!(forward.contains(&"ip saddr vmap { 10.0.0.1 : jump from_0, 10.0.0.2 : jump from_1, 10.0.0.9 : jump from_2 }".to_owned()), "{forward:?}");
    assert_eq!(forward.last().unwrap(), "counter reject with icmpx admin-prohibited");
    assert_eq!(
        chain(&text, "from_0"),
        [
            "ip daddr 10.0.0.100 tcp dport 15012 accept",
            "ip daddr { 10.0.0.9 } tcp dport { 443 } goto to # shop/p",
            "ip daddr 10.8.0.0/16 ip daddr != { 10.8.1.0/24 } tcp dport { 443 } goto to # shop/p",
            "tcp dport { 80-95 } goto to # shop/p",
            "udp dport { 53 } goto to # shop/p",
            "counter reject with icmpx admin-prohibited",
        ]
    );
    assert_eq!(
        chain(&text, "from_1"),
        [
            "ip daddr 10.0.0.100 tcp dport 15012 accept",
            "ip daddr @inside4 goto to",
            "ip6 daddr @inside6 goto to",
            "counter reject with icmpx admin-prohibited",
        ]
    );
    assert_eq!(chain(&text, "from_2").last().unwrap(), "goto to");
    assert_eq!(chain(&text, "to"), ["ip daddr vmap { 10.0.0.2 : goto to_1 }", "accept"]);
    assert_eq!(
        chain(&text, "to_1"),
        ["ip saddr { 10.0.0.1 } accept # shop/p", "counter reject with icmpx admin-prohibited"]
    );
}

#[test]
fn strictly_only_gateways_leave_whatever_a_policy_says() {
    let text = small().router(true);
    assert_eq!(
        chain(&text, "from_0")[1],
        "ip daddr != @inside4 counter reject with icmpx admin-prohibited"
    );
    assert!(!chain(&text, "from_2").iter().any(|line| line.contains("@inside")));
}

#[test]
fn a_host_has_the_rules_of_its_own_workload() {
    let text = small().host("shop/db").unwrap();
    assert!(chain(&text, "output").contains(&"goto from_1".to_owned()), "{text}");
    assert!(chain(&text, "input").contains(&"ip saddr { 10.0.0.1 } accept # shop/p".to_owned()));
    assert!(!text.contains("from_0"));
    assert_eq!(small().host("shop/none"), Err(UnknownWorkload("shop/none".to_owned())));
}

#[test]
fn a_policy_that_allows_nobody_makes_no_line_that_allows_all() {
    let mut firewall = small();
    firewall.workloads[0].egress =
        Some(vec![Allowed { why: "shop/p".to_owned(), ranges: Some(Vec::new()), ports: None }]);
    let text = firewall.router(false);
    assert_eq!(chain(&text, "from_0").len(), 2, "{text}");
    firewall.workloads[0].egress =
        Some(vec![Allowed { why: "shop/p".to_owned(), ranges: None, ports: Some(Vec::new()) }]);
    assert_eq!(chain(&firewall.router(false), "from_0").len(), 2);
}
