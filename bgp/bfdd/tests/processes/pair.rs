// SPDX-License-Identifier: Apache-2.0
//! Two namespaces with a veth pair between them, and a `causeway-bfdd` in each.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bgp_bfd::profile::{Hops, Interval, Profile};
use bgp_bfd::session::SessionStatus;
use bgp_bfd::wire::State;
use bgp_bfdd::client::{Client, Options, Registration, View};
use bgp_bfdd::protocol::{Report, SessionKey};

/// How long anything may take that is not measured.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Two nodes, `left` and `right`, gone with this.
pub(crate) struct Pair {
    pub(crate) left: Side,
    pub(crate) right: Side,
    _folder: tempfile::TempDir,
}

/// A node.
pub(crate) struct Side {
    name: String,
    pub(crate) socket: PathBuf,
    process: Option<Child>,
}

impl Pair {
    /// Makes both, with `addresses` IPv4 addresses each from 10.9.0.1 (left) and 10.9.1.1 (right).
    pub(crate) fn new(addresses: u32) -> Pair {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let side = |end: &str| {
            let name = format!("bfd{}-{number}{end}", std::process::id());
            run(&["ip", "netns", "add", &name]);
            let socket = folder.path().join(format!("{end}.sock"));
            Side {
                name,
                socket,
                process: None,
            }
        };
        let (left, right) = (side("l"), side("r"));
        run(&[
            "ip",
            "link",
            "add",
            "bfd0",
            "netns",
            &left.name,
            "type",
            "veth",
            "peer",
            "name",
            "bfd0",
            "netns",
            &right.name,
        ]);
        for (side, net) in [(&left, 0), (&right, 1)] {
            let mut batch = String::from("link set lo up\nlink set bfd0 up\n");
            for host in 1..=addresses {
                batch += &format!("address add 10.9.{net}.{host}/16 dev bfd0\n");
            }
            // Known to both: no duplicate detection to wait for.
            batch += &format!("address add fe80::{}/64 dev bfd0 nodad\n", net + 1);
            let file = folder.path().join("batch");
            std::fs::write(&file, batch).unwrap();
            side.run(&["ip", "-batch", file.to_str().unwrap()]);
        }
        let mut pair = Pair {
            left,
            right,
            _folder: folder,
        };
        pair.left.start();
        pair.right.start();
        pair
    }

    /// Cuts the link, or mends it.
    pub(crate) fn link(&self, up: bool) {
        let state = if up { "up" } else { "down" };
        self.right.run(&["ip", "link", "set", "bfd0", state]);
        if up {
            let again = ["address", "add", "fe80::2/64", "dev", "bfd0", "nodad"];
            self.right.run(&[&["ip"], &again[..]].concat());
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in [&mut self.left, &mut self.right] {
            side.kill();
            let _ = Command::new("ip")
                .args(["netns", "del", &side.name])
                .status();
        }
    }
}

impl Side {
    /// Runs a command there.
    pub(crate) fn run(&self, command: &[&str]) {
        run(&[&["ip", "netns", "exec", &self.name], command].concat());
    }

    /// The name of its network namespace.
    pub(crate) fn namespace(&self) -> String {
        self.name.clone()
    }

    /// The command of a program there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Starts the process.
    pub(crate) fn start(&mut self) {
        let mut command = self.command(env!("CARGO_BIN_EXE_causeway-bfdd"));
        command.arg("--socket").arg(&self.socket);
        command.args(["--log", "warn"]);
        self.process = Some(command.spawn().unwrap());
        let deadline = Instant::now() + LIMIT;
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            assert!(Instant::now() < deadline, "the process does not serve");
            std::thread::yield_now();
        }
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Ends the process with SIGTERM.
    pub(crate) fn end(&mut self) {
        let mut process = self.process.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(process.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(process.wait().unwrap().success());
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        Client::start(Options {
            socket: self.socket.clone(),
            owner: "test".into(),
            program: None,
        })
    }
}

fn run(command: &[&str]) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A session over one hop.
pub(crate) fn key(peer: &str, local: &str, hops: Hops) -> SessionKey {
    let peer: IpAddr = peer.parse().unwrap();
    SessionKey {
        peer,
        local: Some(local.parse().unwrap()),
        interface: (hops == Hops::Single).then(|| "bfd0".into()),
        hops,
    }
}

/// Intervals in milliseconds, multiplier 3.
pub(crate) fn profile(interval: u64) -> Profile {
    Profile {
        transmit: Interval::from_ms(interval).unwrap(),
        receive: Interval::from_ms(interval).unwrap(),
        ..Profile::default()
    }
}

/// Waits until what is known of a session fits.
pub(crate) async fn until(
    session: &mut Registration,
    what: &str,
    fits: impl Fn(&SessionStatus) -> bool,
) -> SessionStatus {
    let waiting = async {
        loop {
            if let View::Known(status) = session.view()
                && fits(&status)
            {
                return *status;
            }
            session.changed().await;
        }
    };
    match tokio::time::timeout(LIMIT, waiting).await {
        Ok(status) => status,
        Err(_) => panic!("{what}: {:?}", session.view()),
    }
}

/// Waits until what a process reports has what is looked for.
pub(crate) async fn until_reported<T>(
    client: &Client,
    what: &str,
    look: impl Fn(&Report) -> Option<T>,
) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        let report = client.report().await.unwrap();
        if let Some(found) = look(&report) {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: {report:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a session is up.
pub(crate) async fn up(session: &mut Registration) -> SessionStatus {
    until(session, "up", |status| status.state == State::Up).await
}
