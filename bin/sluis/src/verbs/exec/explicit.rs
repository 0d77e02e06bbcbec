//! `--explicit-proxy`: for machines that refuse user namespaces.
//!
//! In:    CONNECT requests of one command, on a loopback port, with the password that only the
//!        command was given.
//! Out:   the same connections in the workload's sidecar, behind a PROXY header.
//! Never: a promise: a command that ignores `HTTPS_PROXY` bypasses the mesh, and we say so.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use base64::{Engine, prelude::BASE64_STANDARD};
use sluis_capture::relay::proxy_v2_header;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixStream},
    process::Command,
    sync::Semaphore,
    time::timeout,
};

use crate::api::JailPlan;

/// Longest head of a CONNECT request; it holds a host, a port and a password.
const HEAD_BYTES_MAX: usize = 4096;
/// How long a client may take to send it.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Connections at once: far more than one command opens, far less than the descriptors there are.
const CONNECTIONS_MAX: usize = 256;

struct Way {
    authorization: String,
    pipe: PathBuf,
    names: PathBuf,
}

/// Runs the command beside a proxy that ends with it.
///
/// # Errors
///
/// When the proxy cannot listen or the command not be started.
pub(crate) fn run(plan: &JailPlan, command: &[String]) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(plan, command))
}

#[expect(clippy::print_stderr, reason = "a warning is what standard error is for")]
async fn serve(plan: &JailPlan, command: &[String]) -> Result<ExitCode> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut random = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random))?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let url = format!("http://sluis:{password}@{}", listener.local_addr()?);
    let way = Arc::new(Way {
        authorization: format!("Basic {}", BASE64_STANDARD.encode(format!("sluis:{password}"))),
        pipe: plan.capture.clone(),
        names: plan.names.clone(),
    });
    eprintln!("sluis: no jail: only programs that honour HTTPS_PROXY go through the mesh");
    let (program, arguments) = command.split_first().context("no command")?;
    let mut child = Command::new(program);
    child.args(arguments);
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        child.env(name, &url);
    }
    for name in &plan.secret_variables {
        child.env_remove(name);
    }
    let mut child = child.spawn().with_context(|| format!("cannot run {program}"))?;
    let status = tokio::select! {
        status = child.wait() => status?,
        error = accept(listener, way) => return Err(error),
    };
    let code = std::os::unix::process::ExitStatusExt::signal(&status)
        .map_or(status.code(), |n| Some(128 + n));
    Ok(ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1)))
}

async fn accept(listener: TcpListener, way: Arc<Way>) -> anyhow::Error {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return anyhow!("the proxy was closed");
        };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => return error.into(),
        };
        let way = Arc::clone(&way);
        tokio::spawn(async move {
            if let Err(error) = carry(client, &way).await {
                tracing::debug!(%error, "connection of the explicit proxy ended");
            }
            drop(slot);
        });
    }
}

async fn carry(mut client: TcpStream, way: &Way) -> Result<()> {
    let head = timeout(HEAD_WAIT_MAX, read_head(&mut client)).await??;
    let target = match judge(&head, way) {
        Ok(target) => target,
        Err((status, reason)) => {
            let extra =
                if status.starts_with("407") { "Proxy-Authenticate: Basic\r\n" } else { "" };
            let answer = format!(
                "HTTP/1.1 {status}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{reason}\n",
                reason.len() + 1
            );
            client.write_all(answer.as_bytes()).await?;
            return Ok(());
        }
    };
    let mut sidecar = UnixStream::connect(&way.pipe).await?;
    sidecar.write_all(&proxy_v2_header(client.peer_addr()?, target)?).await?;
    client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut sidecar).await?;
    Ok(())
}

/// The head, byte by byte: what follows it belongs to the tunnel.
async fn read_head(client: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err(anyhow!("the request's head is too long"));
        }
        head.push(client.read_u8().await?);
    }
    Ok(String::from_utf8(head)?)
}

/// Where a request may go; else the status and the reason of the refusal.
fn judge(head: &str, way: &Way) -> Result<SocketAddr, (&'static str, String)> {
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let ["CONNECT", target, "HTTP/1.1" | "HTTP/1.0"] = words[..] else {
        return Err(("501 Not Implemented", "only CONNECT (https) is proxied here".to_owned()));
    };
    let is_known = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("proxy-authorization") && value.trim() == way.authorization
    });
    if !is_known {
        return Err(("407 Proxy Authentication Required", "wrong or no password".to_owned()));
    }
    let (host, port) = target
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
        .ok_or_else(|| ("400 Bad Request", format!("{target:?} is not HOST:PORT")))?;
    let address = match host.parse::<IpAddr>() {
        Ok(address) => Some(address),
        Err(_) => lookup(&way.names, host),
    };
    let address = address.ok_or_else(|| {
        ("403 Forbidden", format!("{host} is not in the mesh: no Service or ServiceEntry names it"))
    })?;
    Ok(SocketAddr::new(address, port))
}

fn lookup(names: &PathBuf, host: &str) -> Option<IpAddr> {
    let text = fs::read_to_string(names).ok()?;
    let table: BTreeMap<String, Vec<IpAddr>> = serde_json::from_str(&text).ok()?;
    table.get(&host.to_ascii_lowercase())?.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, expected: Result<&str, &str>) {
        let dir = tempfile::tempdir().unwrap();
        let names = dir.path().join("names.json");
        fs::write(&names, r#"{"api.data.local": ["240.240.0.1"]}"#).unwrap();
        let way = Way { authorization: "Basic eA==".to_owned(), pipe: PathBuf::new(), names };
        let found = judge(head, &way).map(|to| to.to_string()).map_err(|(status, _)| status);
        assert_eq!(found.as_deref(), expected.as_deref(), "{head:?}");
    }

    #[test]
    fn only_connect_with_the_password_to_a_known_host_is_let_through() {
        let tail = "proxy-authorization: Basic eA==\r\n\r\n";
        check(&format!("CONNECT api.data.local:443 HTTP/1.1\r\n{tail}"), Ok("240.240.0.1:443"));
        check(&format!("CONNECT [::1]:80 HTTP/1.1\r\n{tail}"), Ok("[::1]:80"));
        check(&format!("CONNECT evil.example:443 HTTP/1.1\r\n{tail}"), Err("403 Forbidden"));
        check(&format!("CONNECT api.data.local HTTP/1.1\r\n{tail}"), Err("400 Bad Request"));
        check(&format!("GET http://a/ HTTP/1.1\r\n{tail}"), Err("501 Not Implemented"));
        check(
            "CONNECT api.data.local:443 HTTP/1.1\r\n\r\n",
            Err("407 Proxy Authentication Required"),
        );
    }
}
