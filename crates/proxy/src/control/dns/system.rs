//! What the operating system says of names: `/etc/hosts` and `/etc/resolv.conf`.

use std::net::{IpAddr, SocketAddr};

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// `resolv.conf` (5).
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// Dots from which a name is taken as it is first.
    ndots: usize,
}

async fn read(path: &str) -> String {
    match tokio::fs::metadata(path).await {
        Ok(file) if file.len() <= FILE_BYTES_MAX => {
            tokio::fs::read_to_string(path).await.unwrap_or_default()
        }
        _ => String::new(),
    }
}

pub(super) async fn resolv_conf() -> Config {
    Config::parse(&read("/etc/resolv.conf").await)
}

/// The servers that `/etc/resolv.conf` names now.
pub(super) fn servers() -> Vec<SocketAddr> {
    Config::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()).servers
}

/// The addresses of a name in `/etc/hosts`.
pub(super) async fn hosts(host: &str) -> Vec<IpAddr> {
    in_hosts(&read("/etc/hosts").await, host)
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    text.lines().filter_map(line).collect()
}

impl Config {
    fn parse(text: &str) -> Self {
        let mut config = Self { ndots: 1, ..Self::default() };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    config.servers.extend(server.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => config.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let ndots = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    config.ndots = ndots.unwrap_or(config.ndots);
                }
                _ => {}
            }
        }
        config
    }

    /// The names to ask for, in order.
    pub(super) fn names(&self, host: &str, as_it_is: bool) -> Vec<String> {
        let searched = self.search.iter().map(|domain| format!("{host}.{domain}"));
        let own = std::iter::once(host.to_owned());
        if as_it_is {
            own.collect()
        } else if host.matches('.').count() >= self.ndots {
            own.chain(searched).collect()
        } else {
            searched.chain(own).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_the_library_reads_them() {
        let text = "# x\nnameserver 10.0.0.1\nsearch a.local b.local\noptions ndots:2\n";
        let config = Config::parse(text);
        assert_eq!(config.servers, ["10.0.0.1:53".parse().unwrap()]);
        assert_eq!(config.names("x", false), ["x.a.local", "x.b.local", "x"]);
        assert_eq!(config.names("x.y.z", false)[0], "x.y.z");
        assert_eq!(config.names("x", true), ["x"]);
        let hosts = "127.0.0.1 localhost\n::1 localhost ip6\n10.0.0.2 one # two\n";
        assert_eq!(in_hosts(hosts, "LOCALHOST").len(), 2);
        assert!(in_hosts(hosts, "two").is_empty());
    }
}
