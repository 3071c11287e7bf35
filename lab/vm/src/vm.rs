// SPDX-License-Identifier: Apache-2.0
//! A virtual machine for one command.

use std::{
    env, fmt, fs,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};

use crate::{
    initramfs,
    kernel::{Files, Kernel},
    tools::{Tools, quoted},
};

/// Set in the environment of the command.
pub const GUEST: &str = "CAUSEWAY_VM";

/// How often a machine is started that ends without an exit code: emulated processors have faults of
/// their own.
const ATTEMPTS: u32 = 2;

/// Lines of output and of the kernel's log in an error: a panic has some fifty.
const SHOWN: usize = 80;

/// Whether this process runs in a machine that [`Vm::run`] made.
pub fn is_guest() -> bool {
    env::var_os(GUEST).is_some()
}

/// What a machine has, and how long it may take.
#[derive(Debug, Clone)]
pub struct Vm {
    /// Memory in MiB; three quarters of it are for files at most.
    pub memory: u32,
    /// Processors.
    pub processors: u32,
    /// After this the machine is switched off. Generous: only one that hangs takes so long.
    pub limit: Duration,
    /// Whether the output is shown as it comes, on standard output.
    pub is_shown: bool,
}

impl Default for Vm {
    fn default() -> Self {
        Vm {
            memory: 2048,
            processors: 2,
            limit: Duration::from_secs(600),
            is_shown: false,
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code.
    pub code: i32,
    /// Its standard output and standard error, in the order they were written.
    pub text: String,
    /// What the kernel said.
    pub console: String,
    /// How long the machine ran.
    pub took: Duration,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Output { code, took, .. } = self;
        write!(
            f,
            "exit code {code} after {} s\n{}",
            took.as_secs(),
            self.text
        )?;
        write!(f, "\nkernel:\n{}", tail(&self.console))
    }
}

impl Vm {
    /// Runs a line of shell as root in a new machine with this kernel: in this process' folder, with
    /// its `HOME` and the variables that begin with `CAUSEWAY_` or `RUST_`.
    ///
    /// A command that fails is no error: see [`Output::code`]. A machine that ends without telling
    /// the code is started once more.
    ///
    /// # Errors
    /// When kernel or QEMU cannot be had, or the machine gave no exit code twice.
    pub fn run(&self, kernel: Kernel, command: &str) -> Result<Output> {
        let tools = Tools::ready()?;
        let files = kernel.ready(&tools)?;
        let archive = initramfs::build(&files, &tools).context("what the kernel starts with")?;
        let mut attempt = 1;
        loop {
            match self.attempt(&tools, &files, &archive, command)? {
                Ok(output) => return Ok(output),
                Err(lost) if attempt < ATTEMPTS => {
                    eprintln!("vm: {lost}\nvm: trying once more");
                    attempt += 1;
                }
                Err(lost) => bail!("{lost}"),
            }
        }
    }

    /// One start. The inner error says why there is no exit code.
    fn attempt(
        &self,
        tools: &Tools,
        kernel: &Files,
        archive: &[u8],
        command: &str,
    ) -> Result<Result<Output, String>> {
        let folder = tempfile::tempdir().context("no folder for the machine")?;
        let folder = folder.path();
        let initrd = folder.join("initrd");
        fs::write(&initrd, archive)?;
        let share = folder.join("share");
        fs::create_dir(&share)?;
        fs::write(share.join("command"), script(command)?)?;
        let console = folder.join("console");
        let mut qemu = tools.qemu();
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-no-reboot", "-machine", "q35", "-cpu", "max"])
            .args(["-accel", "tcg,thread=multi,tb-size=512"])
            .args(["-smp", &self.processors.to_string()])
            .args(["-m", &self.memory.to_string()])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initrd)
            // A panic ends the machine at once.
            .args([
                "-append",
                "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off",
            ])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"]);
        shared(&mut qemu, "root", Path::new("/"), true);
        shared(&mut qemu, "mods", &kernel.modules, true);
        shared(&mut qemu, "vm", &share, false);
        let started = Instant::now();
        let (text, ended) = self.watch(&mut qemu, started + self.limit)?;
        let took = started.elapsed();
        let console = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        let code = fs::read_to_string(share.join("code")).ok();
        let code = code.and_then(|code| code.trim().parse().ok());
        Ok(match code {
            Some(code) => Ok(Output {
                code,
                text,
                console,
                took,
            }),
            None => Err(format!(
                "the machine gave no exit code within {} s ({ended}); its output ends with:\n{}\n\
                 its kernel's log with:\n{}",
                took.as_secs(),
                tail(&text),
                tail(&console)
            )),
        })
    }

    /// Runs QEMU to its end, or to the time; what the guest printed, and how it ended.
    fn watch(&self, qemu: &mut Command, until: Instant) -> Result<(String, String)> {
        qemu.stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: the closure only makes a system call; the machine goes with the thread that waits.
        unsafe { qemu.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let mut child = qemu.spawn().context("cannot run QEMU")?;
        let output = child.stdout.take().context("QEMU has no output")?;
        let is_shown = self.is_shown;
        let reader = thread::spawn(move || read(output, is_shown));
        let ended = wait(&mut child, until)?;
        let text = reader.join().unwrap_or_default();
        Ok((String::from_utf8_lossy(&text).into_owned(), ended))
    }
}

fn wait(child: &mut Child, until: Instant) -> Result<String> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.to_string());
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            return Ok("switched off: it took too long".to_owned());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn read(mut output: ChildStdout, is_shown: bool) -> Vec<u8> {
    let (mut text, mut some) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = output.read(&mut some) {
        text.extend(&some[..count]);
        if is_shown {
            let mut own = std::io::stdout().lock();
            // Whoever reads it may have seen enough.
            let _ = own.write_all(&some[..count]).and_then(|()| own.flush());
        }
    }
    text
}

/// Makes a folder of the host one that the guest may mount.
fn shared(qemu: &mut Command, tag: &str, folder: &Path, is_read_only: bool) {
    let read_only = if is_read_only { ",readonly=on" } else { "" };
    // In QEMU's lists a comma is written as two.
    let path = folder.display().to_string().replace(',', ",,");
    qemu.arg("-fsdev")
        .arg(format!(
            "local,id={tag},path={path},security_model=none,multidevs=remap{read_only}"
        ))
        .arg("-device")
        .arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
}

/// What the guest runs.
fn script(command: &str) -> Result<String> {
    let mut script = format!("export {GUEST}=1\n");
    for (name, value) in env::vars() {
        if name == "HOME" || name.starts_with("CAUSEWAY_") || name.starts_with("RUST_") {
            script += &format!("export {name}={}\n", quoted(Path::new(&value)));
        }
    }
    let folder = env::current_dir().context("this process' folder is gone")?;
    script += &format!("cd {} || exit 125\n{command}\n", quoted(&folder));
    Ok(script)
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}
