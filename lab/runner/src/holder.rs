// SPDX-License-Identifier: Apache-2.0
//! The process that keeps a node's namespaces and is pid 1 in them.
//!
//! It is a shell running a script made for the node ([`script`]) below `unshare`. Everything the node has (mounts, interfaces,
//! processes) belongs to its namespaces, so killing this one process removes the node, and the
//! kernel does the tidying. The writable layer is a tmpfs that only the node sees.
//!
//! Protocol with the runner: the script writes `pid <number>` and waits for a line, so that the
//! number is recorded before anything exists that would need removing; then it sets up, writes
//! `ready`, and in an attached lab reads its input until the runner ends.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufRead, BufReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    image::{Image, quote},
    state::{Lifetime, ProcessId},
    topology::{Bind, NodeConfig, NodeKind},
};

/// A started holder.
pub(crate) struct Holder {
    /// The node's pid 1.
    pub(crate) init: ProcessId,
    /// `unshare`, its parent; reaped when the node goes.
    unshare: Child,
    /// Open as long as an attached node shall live.
    _alive: Option<ChildStdin>,
}

/// What a holder needs to know.
pub(crate) struct Plan<'a> {
    pub(crate) node: &'a str,
    pub(crate) config: &'a NodeConfig,
    pub(crate) rootfs: &'a Path,
    /// Mount point for the node's layers; `<scratch>.sh` is the script, `<scratch>.log` its errors.
    pub(crate) scratch: &'a Path,
    /// Folder with our own programs.
    pub(crate) programs: &'a Path,
    pub(crate) lifetime: Lifetime,
}

impl Holder {
    /// Starts a holder; `record` is called before it sets anything up.
    pub(crate) fn start(
        plan: &Plan<'_>,
        record: impl FnOnce(ProcessId) -> Result<()>,
    ) -> Result<Self> {
        fs::create_dir_all(plan.scratch)
            .with_context(|| format!("cannot create {}", plan.scratch.display()))?;
        let log_path = plan.scratch.with_added_extension("log");
        let log = File::create(&log_path)
            .with_context(|| format!("cannot create {}", log_path.display()))?;
        let script_path = plan.scratch.with_added_extension("sh");
        fs::write(&script_path, script(plan))
            .with_context(|| format!("cannot write {}", script_path.display()))?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--fork"])
            .args(["--propagation", "private", "--", "/bin/sh", "-eu"])
            .arg(&script_path)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
        }
        let mut unshare = command
            .spawn()
            .context("cannot run unshare (package util-linux)")?;
        let (Some(mut stdin), Some(stdout)) = (unshare.stdin.take(), unshare.stdout.take()) else {
            bail!("unshare was started without pipes");
        };
        let mut lines = BufReader::new(stdout).lines();
        let started = || -> Result<ProcessId> {
            let line = lines.next().context("it ended at once")??;
            let pid = line.strip_prefix("pid ").and_then(|pid| pid.parse().ok());
            let pid = pid.with_context(|| format!("it said `{line}`"))?;
            let init = ProcessId::of(pid).context("it ended before it was recorded")?;
            record(init)?;
            writeln!(stdin, "go")?;
            match lines.next().transpose()?.as_deref() {
                Some("ready") => Ok(init),
                other => bail!("it said {other:?} instead of being ready"),
            }
        };
        match started() {
            Ok(init) => {
                let alive = (plan.lifetime == Lifetime::Attached).then_some(stdin);
                Ok(Self {
                    init,
                    unshare,
                    _alive: alive,
                })
            }
            Err(error) => {
                drop(stdin);
                // Its own complaint comes last; the wait is for `unshare`, which ends with it.
                let _ended = unshare.wait();
                let mut text = String::new();
                if let Ok(mut file) = File::open(&log_path) {
                    let _read = file.read_to_string(&mut text);
                }
                Err(error).with_context(|| format!("the node did not start: {}", text.trim()))
            }
        }
    }

    /// Collects the exit status after the node was killed.
    pub(crate) fn reap(mut self) {
        // Only waits for a child that was killed; there is nothing to do about a failure.
        let _ended = self.unshare.wait();
    }
}

/// Sets up the layers under `$scratch/root` and leaves the shell with its file system there.
const SCRIPT_ROOT: &str = r#"
read -r pid _rest </proc/self/stat
echo "pid $pid"
read -r _go
mount -t tmpfs -o mode=755 "lab-$node" "$scratch"
root=$scratch/root
mkdir "$scratch/upper" "$scratch/work" "$root"
if grep -qw overlay /proc/filesystems || modprobe overlay; then
  mount -t overlay "lab-$node" "$root" \
    -o "lowerdir=$rootfs,upperdir=$scratch/upper,workdir=$scratch/work"
else
  cp -a "$rootfs/." "$root/"
  mount --bind "$root" "$root"
fi
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t bpf -o mode=700 bpf "$root/sys/fs/bpf"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/dev/net" "$root/run/lab" "$root/run/lock"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
for device in null zero full random urandom tty net/tun; do
  [ -e "/dev/$device" ] || continue
  : >"$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
appear() { # source, target, ro or rw
  if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "$root${2%/*}"; : >>"$root$2"; fi
  mount --bind "$1" "$root$2"
  if [ "$3" = ro ]; then mount -o remount,bind,ro "$root$2"; fi
}
sysctl_default() { printf %s "$2" >"$root/proc/sys/$1" || echo "$1 could not be set" >&2; }
printf '%s\n' "$hostname" >"$root/proc/sys/kernel/hostname"
printf '%s\n' "$hostname" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 %s\n' "$hostname" >"$root/etc/hosts"
sysctl_default net/ipv6/conf/all/disable_ipv6 0
sysctl_default net/ipv6/conf/default/disable_ipv6 0
# Addresses are usable at once: nobody else is on a lab's links.
sysctl_default net/ipv6/conf/all/accept_dad 0
sysctl_default net/ipv6/conf/default/accept_dad 0
"#;

const SCRIPT_ROUTER: &str = r#"
sysctl_default net/ipv4/ip_forward 1
sysctl_default net/ipv4/conf/all/rp_filter 0
sysctl_default net/ipv4/conf/default/rp_filter 0
sysctl_default net/ipv6/conf/all/forwarding 1
sysctl_default net/ipv6/conf/default/forwarding 1
"#;

const SCRIPT_ENTER: &str = r#"
cd "$root"
mkdir -p .before
pivot_root . .before
cd /
umount -l /.before
rmdir /.before
ip link set lo up
"#;

const SCRIPT_BRIDGE: &str = r#"
ip link add br0 type bridge
ip link set br0 up
"#;

/// In `wait`, the shell also collects the orphans that pid 1 inherits.
const SCRIPT_ATTACHED: &str = r#"
echo ready
exec 3<&0 </dev/null >/dev/null 2>&1
cat <&3 &
wait $!
"#;

const SCRIPT_DETACHED: &str = r#"
echo ready
exec </dev/null >/dev/null 2>&1
while :; do sleep 86400 & wait $!; done
"#;

fn script(plan: &Plan<'_>) -> String {
    let mut text = String::new();
    let path = |path: &Path| quote(&path.to_string_lossy());
    for (name, value) in [
        ("node", quote(plan.node)),
        ("hostname", quote(&plan.config.hostname)),
        ("scratch", path(plan.scratch)),
        ("rootfs", path(plan.rootfs)),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}={value}");
    }
    text.push_str(SCRIPT_ROOT);
    if let Some(image) = plan.config.image() {
        if image.is_router() {
            text.push_str(SCRIPT_ROUTER);
        }
        image_lines(&mut text, image, plan);
    }
    for Bind {
        source,
        target,
        read_only,
    } in &plan.config.binds
    {
        let mode = if *read_only { "ro" } else { "rw" };
        let _ = writeln!(text, "appear {} {} {mode}", path(source), path(target));
    }
    text.push_str(SCRIPT_ENTER);
    if plan.config.kind == NodeKind::Bridge {
        text.push_str(SCRIPT_BRIDGE);
    }
    text.push_str(match plan.lifetime {
        Lifetime::Attached => SCRIPT_ATTACHED,
        Lifetime::Detached => SCRIPT_DETACHED,
    });
    text
}

fn image_lines(text: &mut String, image: Image, plan: &Plan<'_>) {
    for (folder, owner) in image.folders() {
        let _ = writeln!(text, "mkdir -p \"$root{folder}\"");
        // Names are those of the node's user database, not of this machine's.
        let _ = writeln!(text, "chroot \"$root\" chown {owner} {folder}");
    }
    for (source, target) in image.replaced_programs() {
        let _ = writeln!(text, "mount --bind \"$root{source}\" \"$root{target}\"");
    }
    for (program, target) in image.own_programs() {
        let source = quote(&plan.programs.join(program).to_string_lossy());
        let _ = writeln!(text, "appear {source} {target} ro");
    }
}
