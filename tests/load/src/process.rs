// SPDX-License-Identifier: Apache-2.0
//! A speaker's processes, started and measured from outside.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::world::World;

/// How long an end may take before it is forced.
const END: Duration = Duration::from_secs(5);

/// A running speaker: one process, or a process with children.
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// What is read of `/proc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// The most there ever was, in KiB: `VmHWM` of one process; of several the sum of their
    /// proportional shares now.
    pub peak_kib: u64,
    /// Resident now: `VmRSS` of one process; of several the sum of their proportional shares.
    pub now_kib: u64,
}

impl Process {
    /// Starts a program in the speaker's namespace, in a process group of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(world: &World, argv: &[String], in_root: bool) -> Result<Process> {
        let log = world.dir().join("log");
        let output = File::create(&log)?;
        let (program, arguments) = argv.split_first().context("a program")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        let namespace = world.speaker().as_raw_fd();
        let root = in_root.then(|| world.root());
        let root =
            root.map(|root| std::ffi::CString::new(root.into_os_string().into_encoded_bytes()));
        let root = root.transpose()?;
        // SAFETY: between fork and exec only system calls are made, on values made before.
        unsafe {
            command.pre_exec(move || {
                let checked = |code| match code {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                };
                checked(libc::setns(namespace, libc::CLONE_NEWNET))?;
                checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
                if let Some(root) = &root {
                    checked(libc::chroot(root.as_ptr()))?;
                    checked(libc::chdir(c"/".as_ptr()))?;
                }
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Process { child, log })
    }

    /// Whether it ended by itself, with the end of its log.
    ///
    /// # Errors
    /// When it did.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the speaker ended ({status}): {}", self.log_tail()),
        }
    }

    /// The last lines it wrote.
    pub fn log_tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join(" / ")
    }

    /// The process and all its descendants.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut looked_at = 0;
        while let Some(pid) = pids.get(looked_at).copied() {
            looked_at += 1;
            let tasks = fs::read_dir(format!("/proc/{pid}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                pids.extend(children.split_whitespace().flat_map(str::parse::<u32>));
            }
        }
        pids
    }

    /// CPU time of all threads and children, user and system.
    ///
    /// # Errors
    /// When the speaker is gone.
    pub fn cpu(&self) -> Result<Duration> {
        // SAFETY: sysconf has no preconditions.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
        let mut ticks = 0;
        for pid in self.pids() {
            let stat = read(Path::new(&format!("/proc/{pid}/stat")))?;
            // proc(5): fields from the third on follow the name, which ends with the last `)`.
            let (_, fields) = stat.rsplit_once(')').context("a name in stat")?;
            let times = fields.split_whitespace().skip(11).take(4);
            ticks += times.flat_map(str::parse::<u64>).sum::<u64>();
        }
        Ok(Duration::from_millis(ticks * 1000 / per_second))
    }

    /// Memory of all its processes.
    ///
    /// # Errors
    /// When the speaker is gone.
    pub fn memory(&self) -> Result<Memory> {
        match self.pids()[..] {
            [pid] => {
                let status = read(Path::new(&format!("/proc/{pid}/status")))?;
                Ok(Memory {
                    peak_kib: field(&status, "VmHWM:")?,
                    now_kib: field(&status, "VmRSS:")?,
                })
            }
            ref pids => {
                let mut sum = 0;
                for pid in pids {
                    let text = read(Path::new(&format!("/proc/{pid}/smaps_rollup")))?;
                    sum += field(&text, "Pss:")?;
                }
                Ok(Memory {
                    peak_kib: sum,
                    now_kib: sum,
                })
            }
        }
    }

    /// Ends it and its children; returns all that it wrote.
    ///
    /// # Errors
    /// When it cannot be ended.
    pub fn stop(mut self) -> Result<String> {
        self.end()?;
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    fn end(&mut self) -> Result<()> {
        let group = Pid::from_raw(i32::try_from(self.child.id()).context("pids fit")?);
        let since = Instant::now();
        let mut signal = Signal::SIGTERM;
        while self.child.try_wait()?.is_none() {
            let late = since.elapsed() > END;
            ensure!(since.elapsed() < END * 4, "the speaker cannot be killed");
            if late {
                signal = Signal::SIGKILL;
            }
            if late || signal == Signal::SIGTERM && since.elapsed() < Duration::from_millis(20) {
                // It may end in between: the wait above tells.
                let _gone = killpg(group, signal);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Children that outlived it.
        let _gone = killpg(group, Signal::SIGKILL);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    let number = number.with_context(|| format!("no {name}"))?;
    Ok(number.parse()?)
}
