//! Real jails, with real namespaces: where they cannot be made, these tests fail.
//!
//! They need a kernel that allows user namespaces, and `python3`. Run as root they also make jails
//! as an unprivileged user.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluis_capture::handoff::{Arrival, Receiver, Sockets};
use sluis_capture::jail::{Helper, Sidecar, Spec, UnixSockets};
use sluis_capture::{dns, original_dst};

/// How long anything here may take; jails take some 20 ms.
const DEADLINE: Duration = Duration::from_secs(60);

/// A PROXY header of version 2 with two IPv4 addresses.
const PROXY_HEADER_BYTES: usize = 28;

const PYTHON: &str = "/usr/bin/python3";

/// The hidden verb as a program: cargo builds the examples together with the tests.
fn helper() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let helper = tests.ancestors().nth(2).unwrap().join("examples/exec_jail");
    assert!(helper.exists(), "build it: cargo build -p sluis-capture --examples");
    helper
}

/// A directory that every user may enter.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    directory
}

fn spec(command: &[&str], sidecar: Sidecar) -> Spec {
    Spec {
        workload: "team-a/notebook".to_owned(),
        command: command[0].into(),
        args: command[1..].iter().map(OsString::from).collect(),
        cwd: Some("/".into()),
        env: Vec::new(),
        hide: Vec::new(),
        files: Vec::new(),
        read_only: Vec::new(),
        writable: Vec::new(),
        unix_sockets: UnixSockets::default(),
        search: Vec::new(),
        sidecar,
        listeners: 1,
        shared_proc: false,
    }
}

/// Starts a jail, its output piped.
fn start(spec: &Spec, edit: impl FnOnce(&mut Command)) -> Child {
    start_by(&helper(), spec, edit)
}

fn start_by(helper: &Path, spec: &Spec, edit: impl FnOnce(&mut Command)) -> Child {
    let helper = Helper { program: helper, verb: &[] };
    let (mut command, _file) = sluis_capture::jail::command(helper, spec).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    edit(&mut command);
    command.spawn().unwrap()
}

/// Runs `command` in a jail whose sidecar is `serve`, and returns what it wrote.
fn run_with(
    spec: impl FnOnce(Sidecar) -> Spec,
    serve: impl FnOnce(Sockets) + Send + 'static,
) -> Output {
    let directory = directory();
    let path = directory.path().join("handoff");
    let sidecar = sidecar(&path, serve);
    let output = start(&spec(Sidecar::Handoff(path)), |_| {}).wait_with_output().unwrap();
    sidecar.join().unwrap();
    output
}

/// A sidecar for one jail: gives its sockets to `serve`, and waits for its end.
fn sidecar(
    path: &Path,
    serve: impl FnOnce(Sockets) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let receiver = {
        let _entered = runtime.enter();
        Receiver::bind(path, "team-a/notebook").unwrap()
    };
    std::thread::spawn(move || {
        let one_jail = async {
            let Arrival { sockets, mut life } = receiver.accept().await.unwrap();
            life.accept().await.unwrap();
            for socket in &sockets.capture {
                socket.set_nonblocking(false).unwrap();
            }
            for socket in &sockets.dns_udp {
                socket.set_nonblocking(false).unwrap();
            }
            let _serving = std::thread::spawn(move || serve(sockets));
            life.ended().await;
        };
        runtime.block_on(async { tokio::time::timeout(DEADLINE, one_jail).await.unwrap() });
    })
}

/// Runs a command whose sidecar serves nothing.
fn run(command: &[&str]) -> Output {
    run_with(|sidecar| spec(command, sidecar), |_| {})
}

fn python(script: &str) -> Output {
    run(&[PYTHON, "-c", script])
}

#[track_caller]
fn wrote(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// Lets a jailed python connect to `to`, and returns the original destination that was seen.
fn captured(to: &str) -> SocketAddr {
    let (seen, see) = mpsc::channel();
    let (host, port) = to.rsplit_once(':').unwrap();
    let host = host.trim_matches(['[', ']']);
    let script = format!(
        "import socket; s = socket.create_connection(('{host}', {port}), 10); print(s.recv(9).decode())"
    );
    let is_v6 = to.starts_with('[');
    let output = run_with(
        |sidecar| spec(&[PYTHON, "-c", &script], sidecar),
        move |sockets| {
            let is_its = |socket: &&TcpListener| socket.local_addr().unwrap().is_ipv6() == is_v6;
            let listener = sockets.capture.iter().find(is_its).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            seen.send(original_dst(&stream).unwrap()).unwrap();
            stream.write_all(b"welcome").unwrap();
        },
    );
    assert_eq!(wrote(&output), "welcome");
    see.recv_timeout(DEADLINE).unwrap().expect("a redirected connection")
}

#[test]
fn a_connection_arrives_outside_with_its_original_destination() {
    assert_eq!(captured("203.0.113.7:443"), "203.0.113.7:443".parse().unwrap());
}

#[test]
fn an_ipv6_connection_arrives_too() {
    assert_eq!(captured("[2001:db8::7]:8443"), "[2001:db8::7]:8443".parse().unwrap());
}

#[test]
fn loopback_addresses_of_other_workloads_are_captured_too() {
    assert_eq!(captured("127.0.0.2:9000"), "127.0.0.2:9000".parse().unwrap());
}

#[test]
fn a_connection_to_the_capture_port_itself_has_no_original_destination() {
    let (seen, see) = mpsc::channel();
    let script = "import socket; socket.create_connection(('127.0.0.1', 15001), 10)";
    let output = run_with(
        |sidecar| spec(&[PYTHON, "-c", script], sidecar),
        move |sockets| {
            let (stream, _) = sockets.capture[0].accept().unwrap();
            seen.send(original_dst(&stream).unwrap()).unwrap();
        },
    );
    wrote(&output);
    assert_eq!(see.recv_timeout(DEADLINE).unwrap(), None);
}

#[test]
fn the_commands_own_servers_on_localhost_are_left_alone() {
    let output = python(
        "import socket\n\
         for family, host in [(socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')]:\n\
         \x20   server = socket.socket(family); server.bind((host, 8888)); server.listen()\n\
         \x20   client = socket.create_connection((host, 8888), 10)\n\
         \x20   server.accept()[0].send(b'mine')\n\
         \x20   print(client.recv(4).decode())",
    );
    assert_eq!(wrote(&output), "mine\nmine");
}

#[test]
fn what_listens_on_the_host_cannot_be_reached_from_inside() {
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let output = python(&format!(
        "import socket\n\
         try: socket.create_connection(('127.0.0.1', {port}), 10); print('reached')\n\
         except ConnectionRefusedError: print('refused')"
    ));
    assert_eq!(wrote(&output), "refused");
}

#[test]
fn udp_has_no_way_out() {
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let output = python(&format!(
        "import socket\n\
         for host in ['127.0.0.1', '203.0.113.7']:\n\
         \x20   s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(10)\n\
         \x20   s.connect((host, {port})); s.send(b'x')\n\
         \x20   try: s.recv(1)\n\
         \x20   except ConnectionRefusedError: print('refused')"
    ));
    assert_eq!(wrote(&output), "refused\nrefused");
    host.set_nonblocking(true).unwrap();
    assert!(host.recv(&mut [0]).is_err(), "a datagram came out");
}

#[test]
fn only_loopback_exists() {
    let output = python("import socket; print([name for _, name in socket.if_nameindex()])");
    assert_eq!(wrote(&output), "['lo']");
}

struct OneName;

impl dns::Lookup for OneName {
    fn lookup(&self, name: &str) -> dns::Found {
        match name {
            "api.data.local" => dns::Found::Addresses(vec!["240.240.0.1".parse().unwrap()]),
            _ => dns::Found::Unknown(dns::Unknown::NxDomain),
        }
    }
}

/// Answers a number of datagrams.
fn resolve(sockets: &Sockets, count: usize) {
    let mut query = [0; 512];
    for _ in 0..count {
        let (length, client) = sockets.dns_udp[0].recv_from(&mut query).unwrap();
        let reply = dns::answer(&OneName, &query[..length], dns::Transport::Udp).unwrap();
        sockets.dns_udp[0].send_to(&reply, client).unwrap();
    }
}

#[test]
fn names_are_answered_by_the_sidecar_and_by_nobody_else() {
    let script = "import socket\n\
         print(socket.gethostbyname('api.data.local'))\n\
         try: socket.gethostbyname('example.com')\n\
         except socket.gaierror as error: print(error.errno == socket.EAI_NONAME)";
    let output = run_with(
        |sidecar| spec(&[PYTHON, "-c", script], sidecar),
        |sockets| resolve(&sockets, usize::MAX),
    );
    assert_eq!(wrote(&output), "240.240.0.1\nTrue");
}

#[test]
fn a_query_to_any_server_is_answered_as_if_by_that_server() {
    let script = "import socket\n\
         q = b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3api\\4data\\5local\\0\\0\\1\\0\\1'\n\
         s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(10)\n\
         s.connect(('192.0.2.53', 53)); s.send(q)\n\
         print(list(s.recv(512)[-4:]))";
    let output =
        run_with(|sidecar| spec(&[PYTHON, "-c", script], sidecar), |sockets| resolve(&sockets, 1));
    assert_eq!(wrote(&output), "[240, 240, 0, 1]");
}

#[test]
fn hidden_paths_do_not_exist_for_the_command() {
    let directory = directory();
    let secrets = directory.path().join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("key"), "s3cret").unwrap();
    let single = directory.path().join("single");
    std::fs::write(&single, "s3cret").unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&secrets, &link).unwrap();
    let script = format!(
        "ls -A {0}/secrets {0}/link; cat {0}/single; umount {0}/secrets 2>/dev/null; ls {0}/secrets; \
         touch {0}/secrets/x 2>/dev/null || echo read-only",
        directory.path().display()
    );
    let hide = vec![secrets, single];
    let output =
        run_with(|sidecar| Spec { hide, ..spec(&["/bin/sh", "-c", &script], sidecar) }, |_| {});
    let expected = format!("{0}/link:\n\n{0}/secrets:\nread-only", directory.path().display());
    assert_eq!(wrote(&output), expected);
}

#[test]
fn a_working_directory_that_is_hidden_is_empty_too() {
    let directory = directory();
    std::fs::write(directory.path().join("key"), "s3cret").unwrap();
    let path = directory.path().to_owned();
    let output = run_with(
        |sidecar| Spec {
            hide: vec![path.clone()],
            cwd: Some(path),
            ..spec(&["/bin/ls", "-A", "."], sidecar)
        },
        |_| {},
    );
    assert_eq!(wrote(&output), "");
}

#[test]
fn a_path_that_cannot_be_hidden_stops_the_start() {
    let output = {
        let directory = directory();
        let spec = Spec {
            hide: vec!["/does/not/exist".into()],
            ..spec(&["/bin/true"], Sidecar::Handoff(directory.path().join("none")))
        };
        start(&spec, |_| {}).wait_with_output().unwrap()
    };
    assert_eq!(output.status.code(), Some(125));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot hide /does/not/exist: No such file"), "{error}");
}

#[test]
fn what_is_read_only_cannot_be_changed_but_for_what_is_writable() {
    let directory = directory();
    let work = directory.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let script = format!(
        "for at in {0} {0}/work /dev/shm; do echo x >$at/new-{1} 2>/dev/null && echo wrote $at; done; \
         mount -o remount,bind,rw / 2>/dev/null; touch {0}/again 2>/dev/null; echo x >/dev/null && \
         cat {0}/work/new-{1}",
        directory.path().display(),
        std::process::id(),
    );
    for read_only in ["/".into(), directory.path().to_owned()] {
        let is_all = read_only == Path::new("/");
        let policy = |sidecar| Spec {
            read_only: vec![read_only],
            writable: vec![work.clone()],
            ..spec(&["/bin/sh", "-c", &script], sidecar)
        };
        let output = run_with(policy, |_| {});
        let shm = if is_all { "" } else { "wrote /dev/shm\n" };
        assert_eq!(wrote(&output), format!("wrote {}\n{shm}x", work.display()));
    }
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    std::fs::remove_file(format!("/dev/shm/new-{}", std::process::id())).unwrap();
    assert_eq!(left, 1, "only the folder that may be written");
}

#[test]
fn a_path_that_cannot_be_protected_stops_the_start() {
    let directory = directory();
    let spec = Spec {
        read_only: vec!["/does/not/exist".into()],
        ..spec(&["/bin/true"], Sidecar::Handoff(directory.path().join("none")))
    };
    let output = start(&spec, |_| {}).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot make /does/not/exist read-only: No such file"), "{error}");
}

#[test]
fn a_hidden_folder_holds_the_files_that_are_for_the_jail() {
    let directory = directory();
    std::fs::write(directory.path().join("key"), "s3cret").unwrap();
    let folder = directory.path().to_owned();
    let script = format!(
        "ls -A {0}; cat {0}/ca.pem; touch {0}/x 2>/dev/null || echo read-only",
        folder.display()
    );
    let text = "certificate\n".repeat(20_000);
    let policy = |sidecar| Spec {
        hide: vec![folder.clone()],
        files: vec![(folder.join("ca.pem"), text.clone())],
        ..spec(&["/bin/sh", "-c", &script], sidecar)
    };
    let output = run_with(policy, |_| {});
    assert_eq!(wrote(&output), format!("ca.pem\n{text}read-only"));
}

#[test]
fn unix_sockets_are_called_as_the_policy_says() {
    let directory = directory();
    let path = directory.path().join("service.sock");
    let _service = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let script = format!(
        "import socket\n\
         a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n\
         try: socket.socket(socket.AF_UNIX).connect('{}'); print('connected')\n\
         except OSError as e: print(e.strerror)",
        path.display()
    );
    for (unix_sockets, expected) in [
        (UnixSockets::default(), "Connection refused"),
        (UnixSockets::Only(vec![path.clone()]), "connected"),
        (UnixSockets::Only(vec![directory.path().to_owned()]), "connected"),
        (UnixSockets::Only(vec!["/does/not/exist".into()]), "Connection refused"),
        (UnixSockets::Any, "connected"),
        (UnixSockets::None, "Address family not supported by protocol"),
    ] {
        let policy = |sidecar| Spec {
            unix_sockets: unix_sockets.clone(),
            ..spec(&[PYTHON, "-c", &script], sidecar)
        };
        let output = run_with(policy, |_| {});
        assert_eq!(wrote(&output), expected, "{unix_sockets:?}");
    }
}

#[test]
fn other_processes_do_not_exist_for_the_command() {
    let output = python(
        "import os\n\
         print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()), os.getppid())\n\
         try: os.readlink('/proc/1/exe')\n\
         except PermissionError: print('init is closed')",
    );
    assert_eq!(wrote(&output), "[1, 2] 1\ninit is closed");
}

#[test]
fn the_command_has_no_capability_and_can_get_none() {
    let output = python(
        "for line in open('/proc/self/status'):\n\
         \x20   if line.startswith(('Cap', 'NoNewPrivs', 'Seccomp:')): print(line.split()[1].lstrip('0'))",
    );
    assert_eq!(wrote(&output), "1\n2", "five empty sets, then the two switches");
}

#[test]
fn families_of_sockets_without_a_namespace_are_refused() {
    let output = python(
        "import errno, socket\n\
         for family in [socket.AF_VSOCK, socket.AF_PACKET, socket.AF_BLUETOOTH]:\n\
         \x20   try: socket.socket(family, socket.SOCK_STREAM)\n\
         \x20   except OSError as error: print(errno.errorcode[error.errno])",
    );
    assert_eq!(wrote(&output), ["EAFNOSUPPORT"; 3].join("\n"));
}

#[test]
fn keystrokes_cannot_be_pushed_into_the_terminal_and_io_uring_is_off() {
    let output = python(
        "import ctypes, errno, fcntl\n\
         for request in [0x5412, 0x541c, 0x5412 | 1 << 32]:\n\
         \x20   try: fcntl.ioctl(0, request & 0xffffffff, b'x')\n\
         \x20   except OSError as error: print(errno.errorcode[error.errno])\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         libc.syscall(425, 1, 0); print(errno.errorcode[ctypes.get_errno()])",
    );
    assert_eq!(wrote(&output), "EPERM\nEPERM\nEPERM\nENOSYS");
}

#[test]
fn the_exit_code_is_the_commands() {
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)]
    {
        let output = run(&["/bin/sh", "-c", script]);
        assert_eq!(output.status.code(), Some(code), "{script}");
    }
}

#[test]
fn a_command_that_does_not_exist_is_told_as_shells_do() {
    for (command, code) in [("/does/not/exist", 127), ("/etc/passwd", 126)] {
        let output = run(&[command]);
        assert_eq!(output.status.code(), Some(code), "{command}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(&format!("cannot run {command}: ")), "{error}");
    }
}

#[test]
fn signals_reach_the_command() {
    let directory = directory();
    let path = directory.path().join("handoff");
    let sidecar = sidecar(&path, |_| {});
    let script = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.01; done";
    let mut jail = start(&spec(&["/bin/sh", "-c", script], Sidecar::Handoff(path)), |_| {});
    let mut output = jail.stdout.take().unwrap();
    let mut ready = [0; 6];
    output.read_exact(&mut ready).unwrap();
    kill(Pid::from_raw(jail.id().try_into().unwrap()), Signal::SIGUSR1).unwrap();
    assert_eq!(jail.wait().unwrap().code(), Some(5));
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!((&ready[..], rest.as_str()), (&b"ready\n"[..], "got\n"));
    sidecar.join().unwrap();
}

#[test]
fn nothing_is_left_when_the_jail_is_killed() {
    let directory = directory();
    let path = directory.path().join("handoff");
    let sidecar = sidecar(&path, |_| {});
    let script = "sleep 1000 & echo ready; wait";
    let mut jail = start(&spec(&["/bin/sh", "-c", script], Sidecar::Handoff(path)), |_| {});
    let mut output = jail.stdout.take().unwrap();
    output.read_exact(&mut [0; 6]).unwrap();
    jail.kill().unwrap();
    jail.wait().unwrap();
    // The pipe closes when the last process of the jail has gone.
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
    sidecar.join().unwrap();
}

#[test]
fn a_jail_without_a_sidecar_does_not_start() {
    let directory = directory();
    let path = directory.path().join("nobody");
    let script = format!("touch {}/started", directory.path().display());
    let spec = spec(&["/bin/sh", "-c", &script], Sidecar::Handoff(path));
    let output = start(&spec, |_| {}).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("the sidecar of team-a/notebook does not take"), "{error}");
    assert!(!directory.path().join("started").exists());
}

#[test]
fn a_sidecar_that_comes_back_gets_the_same_sockets() {
    let directory = directory();
    let path = directory.path().join("handoff");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let script = "import socket, sys\n\
         print('ready', flush=True); sys.stdin.readline()\n\
         print(socket.create_connection(('203.0.113.7', 443), 30).recv(9).decode())";
    let entered = runtime.enter();
    let first = Receiver::bind(&path, "team-a/notebook").unwrap();
    let sidecar = Sidecar::Handoff(path.clone());
    let mut jail = start(&spec(&[PYTHON, "-c", script], sidecar), |command| {
        command.stdin(Stdio::piped());
    });
    let mut output = jail.stdout.take().unwrap();
    runtime.block_on(async {
        let mut arrival = first.accept().await.unwrap();
        arrival.life.accept().await.unwrap();
    });
    output.read_exact(&mut [0; 6]).unwrap();
    drop(first); // The sidecar dies; the client connects while there is none.
    jail.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let second = Receiver::bind(&path, "team-a/notebook").unwrap();
    runtime.block_on(async {
        let mut arrival = tokio::time::timeout(DEADLINE, second.accept()).await.unwrap().unwrap();
        arrival.life.accept().await.unwrap();
        let listener = arrival.sockets.capture.swap_remove(0);
        listener.set_nonblocking(false).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"back").unwrap();
    });
    drop(entered);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "back\n");
    assert_eq!(jail.wait().unwrap().code(), Some(0));
}

#[test]
fn several_workers_get_a_listener_each() {
    let (counted, count) = mpsc::channel();
    let output = run_with(
        |sidecar| Spec { listeners: 3, ..spec(&["/bin/true"], sidecar) },
        move |sockets| counted.send(sockets.capture.len()).unwrap(),
    );
    wrote(&output);
    assert_eq!(count.recv_timeout(DEADLINE).unwrap(), 6, "three per family");
}

#[test]
fn the_environment_is_edited_and_search_domains_are_set() {
    let output = run_with(
        |sidecar| Spec {
            env: vec![("ADDED".into(), Some("yes".into())), ("HOME".into(), None)],
            search: vec!["team-a.svc.cluster.local".to_owned()],
            ..spec(&["/bin/sh", "-c", "echo $ADDED ${HOME-none}; cat /etc/resolv.conf"], sidecar)
        },
        |_| {},
    );
    let wrote = wrote(&output);
    assert!(wrote.starts_with("yes none\nnameserver 127.0.0.53\n"), "{wrote}");
    assert!(wrote.ends_with("search team-a.svc.cluster.local"), "{wrote}");
}

#[test]
fn the_relay_tells_envoy_the_original_destination_and_answers_names() {
    let directory = directory();
    let pipe = directory.path().join("envoy.sock");
    let names = directory.path().join("names.json");
    std::fs::write(&names, r#"{"api.data.local": ["240.240.0.1"]}"#).unwrap();
    let envoy = std::os::unix::net::UnixListener::bind(&pipe).unwrap();
    let script = "import socket\n\
         s = socket.create_connection(('api.data.local', 443), 10)\n\
         s.send(b'hello'); s.shutdown(socket.SHUT_WR); print(s.recv(9).decode())";
    let spec = spec(&[PYTHON, "-c", script], Sidecar::Relay { pipe, names });
    let jail = start(&spec, |_| {});
    let (mut stream, _) = envoy.accept().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    stream.write_all(b"welcome").unwrap();
    drop(stream);
    assert_eq!(wrote(&jail.wait_with_output().unwrap()), "welcome");
    assert_eq!(got[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(got[16..24], [127, 0, 0, 1, 240, 240, 0, 1]);
    assert_eq!(got[26..], *b"\x01\xbbhello");
}

#[test]
fn an_unprivileged_user_needs_no_help() {
    if !nix::unistd::geteuid().is_root() {
        return; // Then every other test here has shown it.
    }
    let directory = directory();
    let pipe = directory.path().join("envoy.sock");
    let names = directory.path().join("names.json");
    std::fs::write(&names, "{}").unwrap();
    let envoy = std::os::unix::net::UnixListener::bind(&pipe).unwrap();
    std::fs::set_permissions(&pipe, PermissionsExt::from_mode(0o666)).unwrap();
    let script = "import os, socket\n\
         s = socket.create_connection(('203.0.113.7', 443), 10)\n\
         print(s.recv(9).decode(), os.getuid(), os.getgid())";
    let spec = spec(&[PYTHON, "-c", script], Sidecar::Relay { pipe, names });
    // The build's own directory may be closed to others. Another program makes the copy: a test
    // that forks meanwhile would keep it open for writing, and it could not be started.
    let program = directory.path().join("exec_jail");
    assert!(Command::new("cp").arg(helper()).arg(&program).status().unwrap().success());
    let jail = start_by(&program, &spec, |command| {
        command.uid(65534).gid(65534).current_dir("/");
    });
    let (mut stream, _) = envoy.accept().unwrap();
    // A socket that is closed with something unread takes what was written with it.
    stream.read_exact(&mut [0; PROXY_HEADER_BYTES]).unwrap();
    stream.write_all(b"welcome").unwrap();
    drop(stream);
    assert_eq!(wrote(&jail.wait_with_output().unwrap()), "welcome 65534 65534");
}

#[test]
fn the_library_itself_starts_a_jail() {
    let directory = directory();
    let path = directory.path().join("handoff");
    let sidecar = sidecar(&path, |_| {});
    let helper = helper();
    let helper = Helper { program: &helper, verb: &[] };
    let spec = spec(&["/bin/sh", "-c", "exit 3"], Sidecar::Handoff(path));
    let status = sluis_capture::jail::spawn(helper, &spec).unwrap().wait().unwrap();
    assert_eq!(status.code(), Some(3));
    sidecar.join().unwrap();
}

#[test]
fn a_connection_that_nobody_redirected_has_no_original_destination() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    assert_eq!(original_dst(&stream).unwrap(), None);
}
