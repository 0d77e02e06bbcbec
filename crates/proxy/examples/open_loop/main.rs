//! Load at a fixed rate, free of coordinated omission.
//!
//! In:    an `http://` address, how many connections share the rate, requests in a second, how long;
//!        HTTP/1.1, or HTTP/2 with several streams on a connection.
//! Out:   one line of JSON: requests, what failed, latencies in microseconds of the whole and of a
//!        usual quarter of a second, and how late the generator itself was.
//! Never: forgets the time that a request waits because the one before it is late: a latency is
//!        counted from the moment at which the request was due.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

mod http1;
mod http2;

use std::{
    collections::VecDeque,
    env,
    error::Error,
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    num::NonZeroU64,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{
        PollFd, PollFlags, Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
        poll,
    },
    fd::OwnedFd,
    thread::set_current_timer_slack,
};

use self::{http1::Http1, http2::Http2};

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "open_loop [--http2] [--header 'NAME: VALUE']… [--body BYTES] \
    URL CONNECTIONS RATE SECONDS";

/// How long answers are waited for after the last request was due.
const GRACE: Duration = Duration::from_secs(2);

/// How long a piece of the run is whose own p99 is taken: the median of these says what is usual,
/// whatever stops a core now and then.
const WINDOW: Duration = Duration::from_millis(250);

/// What is asked for.
struct Wanted {
    address: SocketAddr,
    path: String,
    headers: Vec<(String, String)>,
    body: usize,
    is_http2: bool,
}

/// One answer, or one that will not come.
pub(crate) struct Done {
    due: Instant,
    is_good: bool,
}

/// What both versions do.
pub(crate) trait Wire {
    /// The bytes of the next request, if the connection can take one now.
    fn ask(&mut self, due: Instant, out: &mut Vec<u8>) -> bool;

    /// Takes bytes that came; puts what is finished into `done` and answers of its own into `out`.
    ///
    /// # Errors
    ///
    /// What came is no answer: the connection is of no more use.
    fn take(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        done: &mut Vec<Done>,
    ) -> Result<(), Failure>;

    /// Whether the other end has said that it takes no more requests.
    fn is_closing(&self) -> bool;

    /// When each request that is still without an answer was due.
    fn unanswered(&mut self) -> Vec<Instant>;
}

fn main() -> Result<(), Failure> {
    let mut wanted = Wanted {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        path: String::new(),
        headers: Vec::new(),
        body: 0,
        is_http2: false,
    };
    let mut rest = Vec::new();
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--http2" => wanted.is_http2 = true,
            "--body" => wanted.body = arguments.next().ok_or(USAGE)?.parse()?,
            "--header" => {
                let line = arguments.next().ok_or(USAGE)?;
                let (name, value) = line.split_once(':').ok_or(USAGE)?;
                wanted.headers.push((name.trim().to_lowercase(), value.trim().to_owned()));
            }
            _ => rest.push(argument),
        }
    }
    let [url, connections, rate, seconds] = rest.as_slice() else { return Err(USAGE.into()) };
    let after = url.strip_prefix("http://").ok_or("only http:// is spoken")?;
    let (authority, path) = after.split_once('/').unwrap_or((after, ""));
    wanted.address = authority.parse()?;
    wanted.path = format!("/{path}");
    // Without it the kernel may be 50 µs late with each timer.
    set_current_timer_slack(NonZeroU64::new(1))?;
    let length = Duration::from_secs_f64(seconds.parse()?);
    let mut load = Load::new(&wanted, connections.parse()?, rate.parse()?, length)?;
    load.run()?;
    load.print()
}

/// One connection.
struct Client<'w> {
    wanted: &'w Wanted,
    /// Its place among all, by which its events are told.
    number: u64,
    stream: Option<TcpStream>,
    wire: Box<dyn Wire>,
    out: Vec<u8>,
    /// Due, and not yet sent.
    queue: VecDeque<Instant>,
    /// When the last answer came: until then a request waited for the proxy, not for us.
    free: Instant,
}

/// The schedule: request after request at equal distances, the connections in turn.
struct Load<'w> {
    clients: Vec<Client<'w>>,
    events: OwnedFd,
    begin: Instant,
    rate: f64,
    end: Instant,
    found: Found,
}

#[derive(Default)]
struct Found {
    /// In the order in which they came, with when the request was due.
    latencies: Vec<(Instant, u64)>,
    /// How long after it was due a request was sent on a connection that was free.
    late: Vec<u64>,
    failed: u64,
    reconnects: u64,
}

impl<'w> Load<'w> {
    fn new(wanted: &'w Wanted, count: u64, rate: f64, length: Duration) -> Result<Self, Failure> {
        let events = epoll::create(CreateFlags::CLOEXEC)?;
        let begin = Instant::now() + Duration::from_millis(50);
        let mut clients = Vec::new();
        for number in 0..count {
            let (out, queue) = (Vec::new(), VecDeque::new());
            let wire = wire(wanted, &mut Vec::new());
            let mut client = Client { wanted, number, stream: None, wire, out, queue, free: begin };
            client.connect(&events)?;
            clients.push(client);
        }
        Ok(Self { clients, events, begin, rate, end: begin + length, found: Found::default() })
    }

    /// Asks on every connection until the end, and waits for what is then under way.
    fn run(&mut self) -> Result<(), Failure> {
        let (mut ready, mut done) = (Vec::with_capacity(self.clients.len()), Vec::new());
        let mut turns = (0..u32::MAX).zip((0..self.clients.len()).cycle());
        let mut turn = turns.next();
        loop {
            let now = Instant::now();
            let mut next = None;
            while let Some((number, client)) = turn {
                let due = self.begin + Duration::from_secs_f64(f64::from(number) / self.rate);
                if due >= self.end {
                    break;
                }
                if due > now {
                    next = Some(due);
                    break;
                }
                self.clients[client].queue.push_back(due);
                self.clients[client].send(now, &self.events, &mut self.found);
                turn = turns.next();
            }
            let is_over = next.is_none();
            if is_over && self.clients.iter_mut().all(Client::is_idle) {
                return Ok(());
            }
            if now > self.end + GRACE {
                for client in &mut self.clients {
                    let lost = client.wire.unanswered().len() + client.queue.len();
                    self.found.failed += u64::try_from(lost)?;
                }
                return Ok(());
            }
            self.wait(next.unwrap_or(self.end + GRACE), &mut ready)?;
            for event in ready.drain(..) {
                let client = &mut self.clients[usize::try_from(event.data.u64())?];
                client.receive(event.flags, &mut done, &mut self.found);
                for done in done.drain(..) {
                    if done.is_good {
                        let latency = u64::try_from(done.due.elapsed().as_micros())?;
                        self.found.latencies.push((done.due, latency));
                    } else {
                        self.found.failed += 1;
                    }
                }
                client.send(Instant::now(), &self.events, &mut self.found);
            }
        }
    }

    /// What happened on connections; nothing, when the time is over.
    fn wait(&self, until: Instant, ready: &mut Vec<Event>) -> Result<(), Failure> {
        let none = Timespec::try_from(Duration::ZERO)?;
        if epoll::wait(&self.events, spare_capacity(ready), Some(&none))? > 0 {
            return Ok(());
        }
        // epoll_wait(2) knows milliseconds only.
        let rest = Timespec::try_from(until.saturating_duration_since(Instant::now()))?;
        if poll(&mut [PollFd::new(&self.events, PollFlags::IN)], Some(&rest))? > 0 {
            epoll::wait(&self.events, spare_capacity(ready), Some(&none))?;
        }
        Ok(())
    }

    fn print(&self) -> Result<(), Failure> {
        let Found { latencies, late, failed, reconnects } = &self.found;
        let whole = sorted(latencies.iter().map(|(_, latency)| *latency));
        let late = sorted(late.iter().copied());
        let mut windows: Vec<Vec<u64>> = Vec::new();
        for (due, latency) in latencies {
            let number =
                usize::try_from(due.duration_since(self.begin).as_millis() / WINDOW.as_millis())?;
            if windows.len() <= number {
                windows.resize(number + 1, Vec::new());
            }
            windows[number].push(*latency);
        }
        let usual = sorted(windows.into_iter().map(|window| at(&sorted(window), 990)));
        // Nanoseconds on a core, the first field (proc(5)).
        let schedule = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
        let busy = schedule.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0_u64);
        println!(
            r#"{{"requests": {}, "errors": {failed}, "reconnects": {reconnects}, "p50": {}, "p99": {}, "usual_p99": {}, "p999": {}, "max": {}, "late_p99": {}, "cpu_us": {}}}"#,
            whole.len(),
            at(&whole, 500),
            at(&whole, 990),
            at(&usual, 500),
            at(&whole, 999),
            at(&whole, 1000),
            at(&late, 990),
            busy / 1000,
        );
        Ok(())
    }
}

fn sorted(figures: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut figures: Vec<u64> = figures.into_iter().collect();
    figures.sort_unstable();
    figures
}

/// The figure below which so many thousandths of all lie.
fn at(sorted: &[u64], thousandths: usize) -> u64 {
    let place = sorted.len() * thousandths / 1000;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

impl Client<'_> {
    fn connect(&mut self, events: &OwnedFd) -> Result<(), Failure> {
        self.out.clear();
        self.wire = wire(self.wanted, &mut self.out);
        let stream = TcpStream::connect(self.wanted.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(events, &stream, EventData::new_u64(self.number), flags)?;
        self.stream = Some(stream);
        Ok(())
    }

    fn is_idle(&mut self) -> bool {
        self.queue.is_empty() && self.wire.unanswered().is_empty()
    }

    /// Sends what is due, on a new connection where the one before is closed.
    fn send(&mut self, now: Instant, events: &OwnedFd, found: &mut Found) {
        if self.stream.is_none() && !self.queue.is_empty() {
            if self.connect(events).is_err() {
                found.failed += 1;
                self.queue.pop_front();
                return;
            }
            found.reconnects += 1;
        }
        if self.stream.is_none() {
            return;
        }
        let mut was_free = true;
        while let Some(due) = self.queue.front().copied() {
            if self.wire.is_closing() || !self.wire.ask(due, &mut self.out) {
                break;
            }
            if was_free {
                let late = now.saturating_duration_since(due.max(self.free));
                found.late.push(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
            }
            was_free = false;
            self.queue.pop_front();
        }
        self.flush(found);
    }

    fn flush(&mut self, found: &mut Found) {
        let Some(stream) = &mut self.stream else { return };
        while !self.out.is_empty() {
            match stream.write(&self.out) {
                Ok(length) => drop(self.out.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.lose(found),
            }
        }
    }

    /// Reads what is there, and writes what had no room.
    fn receive(&mut self, flags: EventFlags, done: &mut Vec<Done>, found: &mut Found) {
        let mut piece = [0; 16 * 1024];
        loop {
            let Some(stream) = &mut self.stream else { return };
            let length = match stream.read(&mut piece) {
                Ok(0) => return self.lose(found),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.lose(found),
            };
            if self.wire.take(&piece[..length], &mut self.out, done).is_err() {
                return self.lose(found);
            }
            if length < piece.len() && !flags.contains(EventFlags::RDHUP) {
                break;
            }
        }
        self.free = Instant::now();
        self.flush(found);
        if self.wire.is_closing() && self.wire.unanswered().is_empty() {
            self.stream = None;
        }
    }

    /// The connection has ended: what is under way has failed.
    fn lose(&mut self, found: &mut Found) {
        found.failed += u64::try_from(self.wire.unanswered().len()).unwrap_or(u64::MAX);
        self.out.clear();
        self.stream = None;
    }
}

fn wire(wanted: &Wanted, out: &mut Vec<u8>) -> Box<dyn Wire> {
    if wanted.is_http2 {
        Box::new(Http2::new(&wanted.path, &wanted.headers, wanted.body, out))
    } else {
        Box::new(Http1::new(&wanted.path, &wanted.headers, wanted.body))
    }
}
