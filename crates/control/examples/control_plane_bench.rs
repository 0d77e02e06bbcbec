//! Measures the control plane: simulated sidecars over real gRPC on loopback, in another process.
//!
//! In:    how many services and sidecars, and whether a `Sidecar` narrows each namespace's view.
//! Out:   a line for each event: the time to the last push and to the last answer, CPU seconds, bytes
//!        sent, memory.
//! Never: leaves loopback. The clients take part in the time to the last answer: they share the cores;
//!        CPU and memory are the control plane's alone.
//!
//! `cargo run --release -p sluis-control --example control_plane_bench -- [--sidecars N]... [--services N]
//! [--scoped]`

#![expect(clippy::print_stdout, reason = "a measurement prints what it found")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on stops")]

use std::{
    convert::Infallible,
    future::pending,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    },
    google::protobuf::{Struct, Value, value::Kind as ValueKind},
};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request,
    body::{Bytes, Frame},
    client::conn::http2,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::{
    Message,
    encoding::{DecodeContext, decode_key},
};
use sluis_control::Control;
use sluis_envoy::Kind;
use sluis_model::Batch;
use sluis_nouns::TrustDomain;
use sluis_xds::{Connection, Directory, Peer, ProxyKey, Refusal, Report, Server};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;

/// As in `sluis`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Namespaces of the mesh.
const NAMESPACES: usize = 50;
/// The method that all call.
const DELTA_PATH: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Clients that connect at once: as many as one load balancer would let through together.
const CONNECTING_MAX: usize = 32;
/// Quiet after which everything that follows from a change has been answered.
const QUIET: Duration = Duration::from_millis(700);

/// Time after which memory that is free is the system's again.
const GIVING_BACK: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Size {
    services: usize,
    sidecars: usize,
    scoped: bool,
}

impl Size {
    fn words(self) -> [String; 3] {
        [self.services.to_string(), self.sidecars.to_string(), self.scoped.to_string()]
    }

    fn read(words: &[String]) -> Self {
        let (services, sidecars) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        Self { services, sidecars, scoped: words[2].parse().unwrap() }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("clients") => return run(clients(words[1].parse().unwrap(), Size::read(&words[2..]))),
        Some("translate") => return translate_only(Size::read(&words[1..])),
        _ => {}
    }
    let mut size = Size { services: 1000, sidecars: 2000, scoped: false };
    let mut all = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--services" => size.services = rest.next().unwrap().parse().unwrap(),
            "--sidecars" => all.push(rest.next().unwrap().parse().unwrap()),
            "--scoped" => size.scoped = true,
            other => panic!("{other} is not known"),
        }
    }
    if all.is_empty() {
        all.push(size.sidecars);
    }
    for sidecars in all {
        run(measure(Size { sidecars, ..size }));
    }
}

fn run(task: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(task);
}

// The mesh.

fn namespace(service: usize) -> String {
    format!("ns-{}", service % NAMESPACES)
}

fn service(index: usize) -> String {
    let (namespace, high, low) = (namespace(index), index / 250, index % 250 + 1);
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: svc-{index}, namespace: {namespace}}}\n\
         spec: {{clusterIP: 10.96.{high}.{low}, selector: {{app: svc-{index}}}, \
         ports: [{{port: 80, name: http, targetPort: 8080}}]}}\n---\n"
    )
}

fn address(sidecar: usize, generation: usize) -> String {
    let at = sidecar + 1;
    format!("10.{}.{}.{}", 1 + generation + at / 62_500, at / 250 % 250, at % 250 + 1)
}

fn workload(sidecar: usize, services: usize, generation: usize) -> String {
    let service = sidecar % services;
    let (namespace, address) = (namespace(service), address(sidecar, generation));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
         metadata: {{name: w-{sidecar}, namespace: {namespace}, labels: {{app: svc-{service}, version: v1}}}}\n\
         spec: {{address: {address}, serviceAccount: svc-{service}}}\n---\n"
    )
}

fn virtual_service(index: usize, timeout: usize) -> String {
    let host = format!("svc-{index}.{}.svc.cluster.local", namespace(index));
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: vs-{index}, namespace: {}}}\n\
         spec: {{hosts: [{host}], http: [{{timeout: {timeout}s, route: [{{destination: {{host: {host}}}}}]}}]}}\n---\n",
        namespace(index)
    )
}

fn mesh(size: Size) -> String {
    let mut text = String::new();
    (0..size.services).for_each(|index| text += &service(index));
    (0..size.services).step_by(10).for_each(|index| text += &virtual_service(index, 5));
    (0..size.sidecars).for_each(|index| text += &workload(index, size.services, 0));
    for index in 0..NAMESPACES {
        text += &format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns-{index}}}\n---\n");
        if size.scoped {
            text += &format!(
                "apiVersion: networking.istio.io/v1\nkind: Sidecar\n\
                 metadata: {{name: default, namespace: ns-{index}}}\n\
                 spec: {{egress: [{{hosts: ['./*', 'ns-0/*']}}]}}\n---\n"
            );
        }
    }
    text
}

fn batch(text: &str) -> Batch {
    let mut batch = Batch::default();
    for document in text.split("---\n").filter(|document| !document.trim().is_empty()) {
        let parsed = sluis_resources::parse("mesh.yaml", document);
        assert!(parsed.faults.iter().all(|fault| !fault.is_error()), "{:?}", parsed.faults);
        batch.upserts.extend(parsed.resources);
    }
    batch
}

fn node(sidecar: usize, size: Size) -> Node {
    let namespace = namespace(sidecar % size.services);
    let text = |text: &str| Value { kind: Some(ValueKind::StringValue(text.to_owned())) };
    let fields = [
        ("NAMESPACE", namespace.as_str()),
        ("ISTIO_VERSION", "1.27.1"),
        ("CLUSTER_ID", "Kubernetes"),
    ];
    Node {
        id: format!(
            "sidecar~{}~w-{sidecar}.{namespace}~{namespace}.svc.cluster.local",
            address(sidecar, 0)
        ),
        metadata: Some(Struct {
            fields: fields.iter().map(|(key, value)| ((*key).to_owned(), text(value))).collect(),
        }),
        ..Node::default()
    }
}

// The control plane's side.

/// The control plane, and when something was last sent and answered.
struct Watched {
    control: Control,
    sent: AtomicUsize,
    answered: AtomicUsize,
    last_sent: Mutex<Instant>,
    last_answer: Mutex<Instant>,
}

impl Directory for Watched {
    fn connect(&self, peer: &Peer, node: &Node) -> Result<Connection, Refusal> {
        self.control.connect(peer, node)
    }

    fn report(&self, key: ProxyKey, reports: Vec<(Kind, Report)>) {
        for (kind, report) in &reports {
            match report {
                Report::Sent { .. } => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    *self.last_sent.lock().unwrap() = Instant::now();
                }
                Report::Ack { .. } => {
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    *self.last_answer.lock().unwrap() = Instant::now();
                }
                Report::Nack { detail, .. } => panic!("{kind}: {detail}"),
            }
        }
        self.control.report(key, reports);
    }

    fn disconnect(&self, key: ProxyKey) {
        self.control.disconnect(key);
    }
}

impl Watched {
    /// Waits until nothing has been sent or answered for a while.
    async fn settled(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let last = (*self.last_sent.lock().unwrap()).max(*self.last_answer.lock().unwrap());
            let is_even =
                self.sent.load(Ordering::Relaxed) == self.answered.load(Ordering::Relaxed);
            if is_even && last.elapsed() > QUIET {
                return;
            }
        }
    }
}

async fn measure(size: Size) {
    // In a process of its own: its memory is not that of a control plane.
    let own = std::env::current_exe().unwrap();
    assert!(Command::new(own).arg("translate").args(size.words()).status().unwrap().success());

    let control = Control::new(TrustDomain::default());
    control.apply(batch(&mesh(size)));
    let empty = memory_mb("VmRSS:");
    let now = || Mutex::new(Instant::now());
    let watched = Arc::new(Watched {
        control: control.clone(),
        sent: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        last_sent: now(),
        last_answer: now(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let directory = Arc::clone(&watched) as Arc<dyn Directory>;
    tokio::spawn(Server::plaintext(directory).serve(listener, pending()));
    let mut clients = Clients::start(address, size);

    let (began, cpu) = (Instant::now(), cpu_seconds());
    clients.wait_for_all();
    watched.settled().await;
    show("all connect", began, &watched, cpu, clients.bytes());

    let scenes: [(&str, String); 3] = [
        ("one endpoint", workload(7, size.services, 100)),
        ("one VirtualService", virtual_service(10, 9)),
        (
            "one namespace",
            (0..size.services)
                .step_by(NAMESPACES)
                .map(|index| service(index).replace("8080", "9090"))
                .collect(),
        ),
    ];
    for (name, text) in scenes {
        let change = batch(&text);
        clients.bytes();
        watched.sent.store(0, Ordering::Relaxed);
        watched.answered.store(0, Ordering::Relaxed);
        let (began, cpu) = (Instant::now(), cpu_seconds());
        tokio::task::block_in_place(|| control.apply(change));
        let applied = began.elapsed();
        watched.settled().await;
        print!("{:>7.1} ms handed over, ", applied.as_secs_f64() * 1e3);
        show(name, began, &watched, cpu, clients.bytes());
    }
    // The allocator gives back what has been free for a second.
    tokio::time::sleep(GIVING_BACK).await;
    println!(
        "{:>20}: {empty:.0} MB before the first connection, {:.0} MB now, {:.0} MB at most",
        "memory",
        memory_mb("VmRSS:"),
        memory_mb("VmHWM:"),
    );
}

fn show(name: &str, began: Instant, watched: &Watched, cpu: f64, bytes: u64) {
    let since = |at: &Mutex<Instant>| {
        at.lock().unwrap().saturating_duration_since(began).as_secs_f64() * 1e3
    };
    println!(
        "{name:>20}: {:>8.1} ms to the last push, {:>8.1} ms to the last answer, {:>6} pushes, {:.2} s CPU, {:.2} MB sent",
        since(&watched.last_sent),
        since(&watched.last_answer),
        watched.sent.load(Ordering::Relaxed),
        cpu_seconds() - cpu,
        bytes as f64 / 1e6,
    );
}

/// Everything that all sidecars are told, without sending it.
fn translate_only(size: Size) {
    let whole = batch(&mesh(size));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let control = Control::new(TrustDomain::default());
    control.apply(whole);
    let applied = began.elapsed();
    let connections: Vec<Connection> = (0..size.sidecars)
        .map(|sidecar| control.connect(&Peer::Local, &node(sidecar, size)).unwrap())
        .collect();
    println!(
        "\n{} services, {} sidecars{}",
        size.services,
        size.sidecars,
        if size.scoped { ", each namespace sees itself and one more" } else { ", all see all" }
    );
    println!(
        "{:>20}: {:.1} ms, of it {:.1} ms index; {:.2} s CPU, {:.0} MB",
        "translation of all",
        began.elapsed().as_secs_f64() * 1e3,
        applied.as_secs_f64() * 1e3,
        cpu_seconds() - cpu,
        memory_mb("VmRSS:"),
    );
    for (name, text) in [
        ("index: endpoint", workload(7, size.services, 100)),
        ("index: route", virtual_service(10, 9)),
    ] {
        let change = batch(&text);
        let began = Instant::now();
        control.apply(change);
        println!("{name:>20}: {:.1} ms to hand over", began.elapsed().as_secs_f64() * 1e3);
    }
    drop(connections);
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    // USER_HZ, which is 100 on every Linux that this runs on.
    ticks / 100.0
}

fn memory_mb(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The process with the clients.
struct Clients {
    process: Child,
    answers: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Clients {
    fn start(address: SocketAddr, size: Size) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["clients", &address.to_string()])
            .args(size.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, answers }
    }

    fn wait_for_all(&mut self) {
        assert_eq!(self.answers.next().unwrap().unwrap(), "connected");
    }

    /// Bytes of resources since the last call.
    fn bytes(&mut self) -> u64 {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.answers.next().unwrap().unwrap().parse().unwrap()
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

// The clients' side.

async fn clients(address: SocketAddr, size: Size) {
    let bytes = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    let mut connecting = JoinSet::new();
    for sidecar in 0..size.sidecars {
        if connecting.len() >= CONNECTING_MAX {
            connecting.join_next().await;
        }
        let (told, mut ready) = mpsc::channel(1);
        running.spawn(client(address, sidecar, size, Arc::clone(&bytes), told));
        connecting.spawn(async move { ready.recv().await });
    }
    while connecting.join_next().await.is_some() {}
    println!("connected");
    let mut lines = std::io::stdin().lock();
    let mut line = String::new();
    while tokio::task::block_in_place(|| lines.read_line(&mut line)).unwrap() > 0 {
        println!("{}", bytes.swap(0, Ordering::Relaxed));
    }
}

/// A sidecar as Envoy asks: clusters and listeners, then the endpoints of the clusters and the routes.
/// It keeps nothing of what it is told, so that thousands fit beside the control plane.
async fn client(
    address: SocketAddr,
    sidecar: usize,
    size: Size,
    bytes: Arc<AtomicU64>,
    ready: mpsc::Sender<()>,
) {
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let (mut grpc, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let (ask, asks) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(16);
    let ask = async |request: DeltaDiscoveryRequest| {
        let fields = request.encode_to_vec();
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(fields.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&fields);
        ask.send(Ok(Frame::data(message.into()))).await.unwrap();
    };
    let subscribe = |kind: Kind, names: Vec<String>| DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: names,
        ..DeltaDiscoveryRequest::default()
    };
    let node = Some(node(sidecar, size));
    ask(DeltaDiscoveryRequest { node, ..subscribe(Kind::Cluster, vec![]) }).await;
    ask(subscribe(Kind::Listener, vec![])).await;
    ask(subscribe(Kind::Route, vec!["80".to_owned()])).await;
    let request = Request::post(format!("http://{address}{DELTA_PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(ReceiverStream::new(asks)))
        .unwrap();
    let mut body = grpc.send_request(request).await.unwrap().into_body();
    let mut has_endpoints = false;
    let mut reading = Reading::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { return };
        bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        for response in reading.take(&data) {
            let accept = DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce,
                ..DeltaDiscoveryRequest::default()
            };
            ask(accept).await;
            let kind = Kind::from_type_url(&response.type_url).unwrap();
            if kind == Kind::Cluster && !has_endpoints {
                has_endpoints = true;
                let seen = (0..size.services)
                    .filter(|index| !size.scoped || is_seen(sidecar, *index, size));
                let names = seen.map(|index| {
                    format!("outbound|80||svc-{index}.{}.svc.cluster.local", namespace(index))
                });
                ask(subscribe(Kind::Endpoints, names.collect())).await;
            } else if kind == Kind::Endpoints {
                // Somebody may wait for it the first time.
                let _ = ready.try_send(());
            }
        }
    }
}

/// Whether a sidecar of a narrowed mesh sees a service: its own namespace's, and the first one's.
fn is_seen(sidecar: usize, service: usize, size: Size) -> bool {
    let seen = namespace(service);
    seen == namespace(sidecar % size.services) || seen == namespace(0)
}

/// A response on its way in: what stands before its resources, and how much is still to come.
#[derive(Default)]
struct Reading {
    head: Vec<u8>,
    rest: usize,
}

/// Bytes of a response that hold its nonce and type, which the control plane writes first.
const HEAD_BYTES_MAX: usize = 512;

impl Reading {
    /// Takes bytes of the stream; gives the responses that end in them, without their resources.
    fn take(&mut self, mut data: &[u8]) -> Vec<DeltaDiscoveryResponse> {
        let mut ended = Vec::new();
        while !data.is_empty() {
            if self.rest == 0 && self.head.len() < 5 {
                self.head.push(data[0]);
                data = &data[1..];
                if self.head.len() == 5 {
                    self.rest = u32::from_be_bytes(self.head[1..].try_into().unwrap()) as usize;
                }
                continue;
            }
            let taken = data.len().min(self.rest);
            let kept = taken.min((5 + HEAD_BYTES_MAX).saturating_sub(self.head.len()));
            self.head.extend_from_slice(&data[..kept]);
            data = &data[taken..];
            self.rest -= taken;
            if self.rest == 0 {
                ended.push(head_of(&std::mem::take(&mut self.head)[5..]));
            }
        }
        ended
    }
}

/// The fields of a response up to its first resource.
fn head_of(mut bytes: &[u8]) -> DeltaDiscoveryResponse {
    const RESOURCES: u32 = 2;
    let mut response = DeltaDiscoveryResponse::default();
    while let Ok((field, wire)) = decode_key(&mut bytes)
        && field != RESOURCES
    {
        response.merge_field(field, wire, &mut bytes, DecodeContext::default()).unwrap();
    }
    response
}
