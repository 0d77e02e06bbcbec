//! Load at a fixed rate, free of coordinated omission: `open_loop URL CONNECTIONS RATE SECONDS`.
//!
//! In:    an `http://` address, how many connections share the rate, requests in a second, how long.
//! Out:   one line of JSON: requests, errors, and latencies in microseconds.
//! Never: forgets the time that a request waits because the one before it is late: a latency is
//!        counted from the moment at which the request was due.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::{
    env,
    error::Error,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest answer that is read: heads and small bodies.
const ANSWER_MAX: usize = 16 * 1024;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, connections, rate, seconds] = arguments.as_slice() else {
        return Err("open_loop URL CONNECTIONS RATE SECONDS".into());
    };
    let (connections, rate): (u32, f64) = (connections.parse()?, rate.parse()?);
    let length = Duration::from_secs_f64(seconds.parse()?);
    let rest = url.strip_prefix("http://").ok_or("only http:// is spoken")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = format!("GET /{path} HTTP/1.1\r\nhost: bench.local\r\n\r\n").into_bytes();
    let every = Duration::from_secs_f64(f64::from(connections) / rate);
    let mut clients = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(authority)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        clients.push(Client { stream, due: Instant::now(), is_waiting: false, answer: Vec::new() });
    }
    let begin = Instant::now() + Duration::from_millis(20);
    for (number, client) in (0_u32..).zip(&mut clients) {
        client.due = begin + every.mul_f64(f64::from(number) / f64::from(connections));
    }
    let mut latencies = run(&mut clients, &request, every, begin + length)?;
    latencies.sort_unstable();
    let at = |thousandths: usize| {
        let place = latencies.len() * thousandths / 1000;
        latencies.get(place.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let (requests, p50, p99, p999) = (latencies.len(), at(500), at(990), at(999));
    println!(
        r#"{{"requests": {requests}, "errors": 0, "p50": {p50}, "p99": {p99}, "p999": {p999}}}"#
    );
    Ok(())
}

/// One connection.
struct Client {
    stream: TcpStream,
    /// When the next request is due, or the one under way was.
    due: Instant,
    is_waiting: bool,
    answer: Vec<u8>,
}

/// Asks on every connection until `end`; gives the latencies in microseconds.
fn run(
    clients: &mut [Client],
    request: &[u8],
    every: Duration,
    end: Instant,
) -> Result<Vec<u64>, Failure> {
    let mut latencies = Vec::new();
    loop {
        let now = Instant::now();
        let mut next = None;
        for client in &mut *clients {
            if client.is_waiting || client.due >= end {
                continue;
            }
            if client.due <= now {
                client.stream.write_all(request)?;
                client.is_waiting = true;
            } else {
                next = Some(next.map_or(client.due, |next: Instant| next.min(client.due)));
            }
        }
        let mut ready: Vec<PollFd<'_>> = clients
            .iter()
            .filter(|client| client.is_waiting)
            .map(|client| PollFd::new(&client.stream, PollFlags::IN))
            .collect();
        if ready.is_empty() && next.is_none() {
            return Ok(latencies);
        }
        let wait = next.map(|next| next.saturating_duration_since(Instant::now()));
        let wait = wait.map(Timespec::try_from).transpose()?;
        poll(&mut ready, wait.as_ref())?;
        let ready: Vec<bool> = ready.iter().map(|one| !one.revents().is_empty()).collect();
        let waiting = clients.iter_mut().filter(|client| client.is_waiting);
        for (client, _) in waiting.zip(ready).filter(|(_, is_ready)| *is_ready) {
            let mut piece = [0; 4096];
            match client.stream.read(&mut piece) {
                Ok(0) => return Err("the answer is cut off".into()),
                Ok(length) => client.answer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            if client.answer.len() > ANSWER_MAX {
                return Err("the answer is too long".into());
            }
            if is_whole(&client.answer)? {
                latencies.push(u64::try_from(client.due.elapsed().as_micros())?);
                client.answer.clear();
                client.is_waiting = false;
                client.due += every;
            }
        }
    }
}

/// Whether a 200 with a `Content-Length` is there as a whole.
fn is_whole(answer: &[u8]) -> Result<bool, Failure> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err("not a 200".into());
    }
    let length = head.split("content-length:").nth(1).ok_or("no content-length")?;
    let length: usize = length.split("\r\n").next().unwrap_or_default().trim().parse()?;
    Ok(answer.len() >= end + 4 + length)
}
