// SPDX-License-Identifier: Apache-2.0
//! A running node: commands in it, its main process, its interfaces.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
};

use crate::{
    image::{Style, quote},
    state::{NodeRecord, ProcessId, all_pids, stat},
    wait::wait_for,
};

/// Seconds after which [`Node::exec`] gives up. Long enough for a busy two-core machine, short
/// enough that a hung daemon fails a test instead of stopping it.
const EXEC_LIMIT_SECONDS: &str = "120";
/// How long a daemon may take to write its pid file, or to vanish after SIGKILL.
const PROCESS_LIMIT: Duration = Duration::from_secs(20);

/// A running node of a lab.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    record: NodeRecord,
    /// The lab's folder: logs of spawned commands go there.
    dir: PathBuf,
}

/// What a command in a node left.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output, with invalid UTF-8 replaced.
    pub stdout: String,
    /// What it wrote to standard error, with invalid UTF-8 replaced.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with status 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

impl Node {
    pub(crate) fn new(name: &str, record: NodeRecord, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            record,
            dir: dir.to_owned(),
        }
    }

    /// The node's name in the topology.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pid of the node's init, which stands for its namespaces, as seen from here.
    pub fn pid(&self) -> i32 {
        self.record.init.pid
    }

    /// Whether the node exists.
    pub fn is_alive(&self) -> bool {
        self.record.init.is_alive()
    }

    /// A path of the node as this process can open it (files, and sockets too).
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        let relative = inside.strip_prefix("/").unwrap_or(inside);
        PathBuf::from(format!("/proc/{}/root", self.pid())).join(relative)
    }

    /// A command that will run inside the node with the node's environment, without limit or
    /// redirection; for callers that want their own.
    ///
    /// # Errors
    /// When the node is gone.
    pub fn command(&self, argv: &[&str]) -> Result<Command> {
        ensure!(self.is_alive(), "node {} is gone", self.name);
        ensure!(!argv.is_empty(), "no command given for node {}", self.name);
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.pid().to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--"])
            .args(argv)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .envs(&self.record.env);
        if let Some(term) = std::env::var_os("TERM") {
            command.env("TERM", term);
        }
        Ok(command)
    }

    /// Runs a command in the node and waits for it, two minutes at most.
    ///
    /// # Errors
    /// When it cannot be run; a command that fails is no error here (see [`Output::status`]).
    pub fn exec(&self, argv: &[&str]) -> Result<Output> {
        self.exec_with_input(argv, &[])
    }

    /// As [`Node::exec`], with something on standard input.
    ///
    /// # Errors
    /// As [`Node::exec`].
    pub fn exec_with_input(&self, argv: &[&str], input: &[u8]) -> Result<Output> {
        let limited: Vec<&str> = ["timeout", "--kill-after=5", EXEC_LIMIT_SECONDS]
            .iter()
            .chain(argv)
            .copied()
            .collect();
        // Files, not pipes: a daemon that the command leaves behind may keep its outputs open, and
        // a pipe would only end with it.
        let (stdout, stderr) = (self.scratch_file()?, self.scratch_file()?);
        let mut child = self
            .command(&limited)?
            .stdin(Stdio::piped())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()
            .context("cannot run nsenter (package util-linux)")?;
        let mut stdin = child
            .stdin
            .take()
            .context("nsenter was started without a pipe")?;
        if let Err(error) = stdin.write_all(input)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(error).context("cannot write to the command");
        }
        drop(stdin);
        let status = child.wait()?;
        Ok(Output {
            status,
            stdout: contents(&stdout)?,
            stderr: contents(&stderr)?,
        })
    }

    /// A file without a name in the lab's folder.
    fn scratch_file(&self) -> Result<File> {
        let path = self
            .dir
            .join(format!(".{}-{}.exec", std::process::id(), next_number()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        fs::remove_file(&path)?;
        Ok(file)
    }

    /// Runs a command that must succeed and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be run or fails; the message has the command and what it wrote.
    pub fn exec_ok(&self, argv: &[&str]) -> Result<String> {
        let output = self.exec(argv)?;
        ensure!(
            output.success(),
            "on {}: `{}` failed ({}): {}{}",
            self.name,
            argv.join(" "),
            output.status,
            output.stderr,
            output.stdout
        );
        Ok(output.stdout)
    }

    /// Runs a command that must succeed and print JSON.
    ///
    /// # Errors
    /// As [`Node::exec_ok`], and when the output is not JSON.
    pub fn exec_json(&self, argv: &[&str]) -> Result<serde_json::Value> {
        let text = self.exec_ok(argv)?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "on {}: `{}` printed no JSON but: {text}",
                self.name,
                argv.join(" ")
            )
        })
    }

    /// Starts a command in the background; dropping the handle ends it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn spawn(&self, argv: &[&str]) -> Result<Spawned> {
        let number = next_number();
        let log = self
            .dir
            .join(format!("{}.{}-{number}.out", self.name, std::process::id()));
        let file =
            File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let child = self
            .command(argv)?
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot run nsenter (package util-linux)")?;
        Ok(Spawned {
            child,
            log,
            what: format!("{}: {}", self.name, argv.join(" ")),
        })
    }

    /// Runs a closure on a thread of its own in the node's network namespace: sockets it opens are
    /// the node's.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or as the closure.
    pub fn in_node<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        ensure!(self.is_alive(), "node {} is gone", self.name);
        let namespace = File::open(format!("/proc/{}/ns/net", self.pid()))
            .with_context(|| format!("node {} has no network namespace", self.name))?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)
                    .context("cannot enter the network namespace (are you root?)")?;
                run()
            });
            thread
                .join()
                .map_err(|_| anyhow!("the closure run in node {} panicked", self.name))?
        })
    }

    /// Takes one interface down; its peer loses the carrier.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn link_down(&self, interface: &str) -> Result<()> {
        self.exec_ok(&["ip", "link", "set", interface, "down"])
            .map(drop)
    }

    /// Sets one interface up.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn link_up(&self, interface: &str) -> Result<()> {
        self.exec_ok(&["ip", "link", "set", interface, "up"])
            .map(drop)
    }

    /// Ends everything of the node, as a loss of power does: its links first, so that nobody hears
    /// how the rest goes, then all processes, and with the last of them its namespaces. There is no
    /// way back.
    ///
    /// # Errors
    /// When its links cannot be taken down, or its first process cannot be killed.
    pub fn power_off(&self) -> Result<()> {
        let cut = "for link in /sys/class/net/eth*; do ip link set \"${link##*/}\" down; done";
        self.exec_ok(&["sh", "-euc", cut])?;
        self.record.init.signal(Signal::SIGKILL)
    }

    /// The main process as seen from here; none while it does not run.
    pub fn main_process(&self) -> Option<ProcessId> {
        let main = self.record.main.as_ref()?;
        let inside: i32 = fs::read_to_string(self.path(&main.pid_file))
            .ok()?
            .trim()
            .parse()
            .ok()?;
        let namespace = pid_namespace(self.pid())?;
        all_pids()
            .into_iter()
            .filter(|pid| pid_namespace(*pid).as_ref() == Some(&namespace))
            .find(|pid| innermost_pid(*pid) == Some(inside))
            .and_then(ProcessId::of)
    }

    /// Sends a signal to the main process. After SIGKILL it waits until the process is gone.
    ///
    /// # Errors
    /// When the main process does not run.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let process = self
            .main_process()
            .with_context(|| format!("the main process of {} does not run", self.name))?;
        process.signal(signal)?;
        if signal == Signal::SIGKILL {
            wait_for("a killed process to go", PROCESS_LIMIT, || {
                ensure!(!process.is_alive(), "pid {} still runs", process.pid);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Starts the main process (again). Returns when it runs, which is before it is ready.
    ///
    /// # Errors
    /// When there is none, it runs already, or it ends at once; the message has its log's end.
    pub fn start(&self) -> Result<()> {
        self.start_under(&[])
    }

    /// The same under a command that runs what it is given: `nice`, or `unshare` for a namespace of
    /// its own.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_under(&self, command: &[&str]) -> Result<()> {
        let main = self
            .record
            .main
            .as_ref()
            .with_context(|| format!("node {} has no main process", self.name))?;
        if let Some(running) = self.main_process() {
            bail!(
                "the main process of {} runs already (pid {})",
                self.name,
                running.pid
            );
        }
        let script = match command {
            [] => main.script.clone(),
            words => {
                let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
                format!("exec {} sh -c {}", words.join(" "), quote(&main.script))
            }
        };
        match main.style {
            Style::Starts => {
                let output = self.exec(&["sh", "-c", &script])?;
                ensure!(
                    output.success(),
                    "the daemons of {} did not start ({}): {}{}",
                    self.name,
                    output.status,
                    output.stderr,
                    output.stdout
                );
            }
            Style::Becomes => {
                let script = format!("exec </dev/null >>{} 2>&1; {script}", main.log);
                let remove_stale = format!("rm -f {}", main.pid_file);
                self.exec_ok(&["sh", "-c", &remove_stale])?;
                self.exec_ok(&["setsid", "--fork", "sh", "-c", &script])?;
            }
        }
        let what = format!("the main process of {}", self.name);
        let runs = wait_for(&what, PROCESS_LIMIT, || {
            // The shell makes the file before it writes into it.
            let recorded = fs::read_to_string(self.path(&main.pid_file));
            let is_recorded = recorded.is_ok_and(|text| text.ends_with('\n'));
            ensure!(
                is_recorded,
                "no {}; log: {}",
                main.pid_file,
                self.log_tail()
            );
            Ok(self.main_process().is_some())
        })?;
        ensure!(runs, "{what} ended at once; log: {}", self.log_tail());
        Ok(())
    }

    /// The main process's log.
    pub fn log(&self) -> String {
        let Some(main) = &self.record.main else {
            return "no main process".to_owned();
        };
        match fs::read(self.path(&main.log)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("{} cannot be read: {error}", main.log),
        }
    }

    /// The last lines of it.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Whether the topology gives this node a main process.
    pub fn has_main_process(&self) -> bool {
        self.record.main.is_some()
    }
}

/// A command in the background of a node.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    log: PathBuf,
    what: String,
}

impl Spawned {
    /// What it has written so far, both outputs together.
    pub fn text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Sends a signal to the command itself.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let own = i32::try_from(self.child.id()).context("pids fit")?;
        // nsenter stays outside as the parent of the command.
        for pid in all_pids() {
            if let Some((_, parent, _)) = stat(pid)
                && parent == own
                && let Some(process) = ProcessId::of(pid)
            {
                process.signal(signal)?;
            }
        }
        Ok(())
    }

    /// Waits for the command to end by itself.
    ///
    /// # Errors
    /// When it does not within `limit`, or ends with a failure; the message has what it wrote.
    pub fn wait(mut self, limit: Duration) -> Result<String> {
        let what = self.what.clone();
        let status = wait_for(&format!("`{what}` to end"), limit, || {
            self.child
                .try_wait()?
                .with_context(|| format!("still running: {}", self.text()))
        })?;
        ensure!(
            status.success(),
            "`{what}` failed ({status}, signal {:?}): {}",
            status.signal(),
            self.text()
        );
        Ok(self.text())
    }

    /// Ends the command (SIGTERM, SIGKILL after five seconds) and returns what it wrote.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn stop(mut self) -> Result<String> {
        self.end()?;
        Ok(self.text())
    }

    fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::SIGTERM)?;
        let ended = wait_for("it to end", Duration::from_secs(5), || {
            self.child.try_wait()?.context("still running")
        });
        if ended.is_err() {
            self.signal(Signal::SIGKILL)?;
            self.child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("lab: cannot end `{}`: {error:#}", self.what);
        }
    }
}

/// Tells apart the files of commands that run at the same time.
fn next_number() -> u32 {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    COUNTER.fetch_add(1, Ordering::Relaxed)
}

/// Everything in a file that a child has written through a copy of the descriptor.
fn contents(file: &File) -> Result<String> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn pid_namespace(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// The number a process has in its own pid namespace.
fn innermost_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}
