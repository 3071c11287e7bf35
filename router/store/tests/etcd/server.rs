// SPDX-License-Identifier: Apache-2.0
//! A real etcd on the loopback: the one of the lab's root file system, run by that one's own loader,
//! so that nothing is installed on this machine and nothing runs on it afterwards.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use router_store::{Config, Store, TlsFiles};

pub(crate) struct Server {
    folder: tempfile::TempDir,
    rootfs: PathBuf,
    pub(crate) port: u16,
    peer_port: u16,
    /// The peer ports of all members of its cluster.
    members: Vec<u16>,
    tls: Option<TlsFiles>,
    child: Option<Child>,
}

/// A port nobody has, and nobody is given by the kernel while a server is down: one below those of
/// connections, each asked for once.
pub(crate) fn free_port() -> Result<u16> {
    const PORTS: std::ops::Range<u32> = 20_000..32_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Other processes with the same test begin elsewhere.
    let start = std::process::id().wrapping_mul(97);
    for _ in PORTS {
        let turn = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(PORTS.start + turn % (PORTS.end - PORTS.start))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

impl Server {
    pub(crate) fn start() -> Result<Server> {
        Server::start_with(|_| Ok(None))
    }

    /// With files of TLS that are made in its folder: `server.pem`, `server.key` and those of clients.
    pub(crate) fn start_with(
        tls: impl FnOnce(&Path) -> Result<Option<TlsFiles>>,
    ) -> Result<Server> {
        let folder = tempfile::tempdir()?;
        let tls = tls(folder.path())?;
        let peer_port = free_port()?;
        let mut server = Server::new(folder, tls, peer_port, vec![peer_port])?;
        server.run(server.port)?;
        Ok(server)
    }

    /// Three members of one cluster.
    pub(crate) fn start_three() -> Result<Vec<Server>> {
        let ports = [free_port()?, free_port()?, free_port()?];
        let one = |peer_port| {
            let folder = tempfile::tempdir()?;
            let mut server = Server::new(folder, None, peer_port, ports.to_vec())?;
            server.run(server.port)?;
            Ok(server)
        };
        ports.into_iter().map(one).collect()
    }

    fn new(
        folder: tempfile::TempDir,
        tls: Option<TlsFiles>,
        peer_port: u16,
        members: Vec<u16>,
    ) -> Result<Server> {
        Ok(Server {
            tls,
            folder,
            rootfs: lab_runner::rootfs::ensure(|step| eprintln!("{step}"))?,
            port: free_port()?,
            peer_port,
            members,
            child: None,
        })
    }

    /// A program of the root file system.
    fn program(&self, name: &str) -> Command {
        let at = |path: &str| self.rootfs.join(path);
        let loaders = ["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"];
        let loader = loaders.map(at).into_iter().find(|path| path.exists());
        let libraries = ["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"].map(at);
        let libraries = libraries.map(|path| path.display().to_string()).join(":");
        let mut command = Command::new(loader.unwrap_or_default());
        command.arg("--library-path").arg(libraries);
        command.arg(at("usr/bin").join(name));
        command
    }

    /// Runs it, with the data of before if there is any.
    pub(crate) fn run(&mut self, port: u16) -> Result<()> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://127.0.0.1:{port}");
        let peer_of = |port: u16| format!("http://127.0.0.1:{port}");
        let name_of = |port: u16| format!("member-{port}");
        let peer = peer_of(self.peer_port);
        let members = self.members.iter();
        let members = members.map(|port| format!("{}={}", name_of(*port), peer_of(*port)));
        let folder = self.folder.path();
        let mut command = self.program("etcd");
        command
            .args(["--name", &name_of(self.peer_port)])
            .args(["--log-level", "warn", "--data-dir"])
            .arg(folder.join("data"))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .arg("--initial-cluster")
            .arg(members.collect::<Vec<_>>().join(","))
            // Short, so that a lease that was cut off at a restart does not take long.
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"]);
        if let Some(files) = &self.tls {
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(&files.ca)
                .arg("--cert-file")
                .arg(folder.join("server.pem"))
                .arg("--key-file")
                .arg(folder.join("server.key"));
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?);
        self.child = Some(command.stderr(log).spawn().context("etcd")?);
        Ok(())
    }

    fn pid(&self) -> Result<u32> {
        let child = self.child.as_ref().context("etcd does not run");
        Ok(child?.id())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid()?)?), signal)?;
        Ok(())
    }

    /// Stops it where it is, all of it: a thread that has not noticed the signal yet still answers.
    pub(crate) async fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()?));
        let is_stopped = |status: PathBuf| {
            let status = fs::read_to_string(status).unwrap_or_default();
            // One that ended has none any more.
            status.is_empty() || status.contains("\nState:\tT")
        };
        wait_until("etcd to stand still", async || {
            let mut tasks = fs::read_dir(&tasks).into_iter().flatten().flatten();
            tasks.all(|task| is_stopped(task.path().join("status")))
        })
        .await
    }

    pub(crate) fn go_on(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// As a power failure: nothing is said to anybody.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("etcd does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            endpoints: vec![self.url()],
            tls: self.tls.clone(),
            prefix: "/causeway".to_owned(),
        }
    }

    pub(crate) fn store(&self) -> Store {
        Store::start(self.config())
    }

    /// What `etcdctl` says, at another port than the usual one if it runs there.
    pub(crate) fn etcdctl(&self, port: u16, arguments: &[&str]) -> Result<String> {
        let output = self
            .program("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &format!("http://127.0.0.1:{port}")])
            .args(arguments)
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "etcdctl {arguments:?}: {text}");
        Ok(String::from_utf8(output.stdout)?)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            // A stopped one dies of this as well.
            self.kill().ok();
        }
    }
}

/// How long anything may take; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub(crate) async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Result<()> {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.with_context(|| format!("waited in vain for {what}"))
}

pub(crate) async fn connected(store: &Store) -> Result<()> {
    let connected = wait_until("a connection", async || store.is_connected()).await;
    connected.with_context(|| format!("{:?}", store.status()))
}
