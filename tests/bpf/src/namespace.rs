// SPDX-License-Identifier: Apache-2.0
//! Network namespaces without names: they live as long as a descriptor to them.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// Makes a new one, with its loopback device up.
    ///
    /// # Errors
    /// Without the privilege to make namespaces.
    pub fn new() -> Result<Self> {
        let made = thread::spawn(|| -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace: run as root")?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        let namespace = Self { fd };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The same namespace as another value.
    ///
    /// # Errors
    /// Without a descriptor left.
    pub fn again(&self) -> Result<Self> {
        let fd = self.fd.try_clone().context("duplicate a descriptor")?;
        Ok(Self { fd })
    }

    /// Its path while this value lives, as `ip link set … netns` takes it.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Runs a closure in a thread inside.
    ///
    /// # Panics
    /// When the closure does, or the namespace cannot be entered.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.fd, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
                body()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        let fd = self.fd.as_raw_fd();
        // SAFETY: between fork and exec only one system call is made, with a descriptor that is
        // open in the parent as long as `self` lives.
        unsafe {
            command.pre_exec(move || {
                if libc::setns(fd, libc::CLONE_NEWNET) == 0 {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        command
    }

    /// Runs a command inside and returns what it printed, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, line: &str) -> Result<Output> {
        self.command(line)
            .output()
            .with_context(|| format!("run {line}"))
    }

    /// Runs `ip` inside.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let output = self.output(&format!("ip {arguments}"))?;
        if !output.status.success() {
            bail!(
                "ip {arguments}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    /// Writes a sysctl inside.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/{name}"), value))
            .with_context(|| format!("write {value} to {name}"))
    }
}

/// Gives the calling thread, and threads and processes it starts, a mount namespace where
/// `/sys/fs/bpf` is an empty folder, so that pins are seen by nobody else and vanish with it. Returns a pin root.
///
/// # Errors
/// Without the privilege to make namespaces.
pub fn private_pins() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace: run as root")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .context("make mounts private")?;
    let cover = "/sys/fs/bpf";
    mount(
        Some("cover"),
        cover,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("cover {cover}"))?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let root = PathBuf::from(format!("/sys/fs/bpf/cwbpf_{}_{count}", std::process::id()));
    ensure!(!root.exists(), "{} exists", root.display());
    Ok(root)
}

/// Renames the folder of a data plane's pins, as if a daemon with other tables had left them: where
/// they are now.
///
/// # Errors
/// When the folder is not there.
pub fn of_another_layout(pins: &Path) -> Result<PathBuf> {
    let other = pins.with_file_name("0123456789abcdef");
    fs::rename(pins, &other).with_context(|| format!("rename {}", pins.display()))?;
    Ok(other)
}
