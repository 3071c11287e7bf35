// SPDX-License-Identifier: Apache-2.0
//! Where a bench runs: the generator in one network namespace, the speaker in another, a veth pair
//! between them, and for the speaker's files the lab's Debian below an overlay.
//!
//! A pair of devices and not one namespace, because speakers look at interfaces: BIRD takes no
//! neighbour whose address is its own, and FRR and OpenBGPD no next hop on the loopback. Everything
//! goes with the process that made it.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// The speaker's addresses.
pub const SPEAKER_V4: Ipv4Addr = Ipv4Addr::new(10, 99, 255, 1);
/// See [`SPEAKER_V4`].
pub const SPEAKER_V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0xffff, 1);

/// How many peers have an IPv6 address; IPv4 has addresses for 32 000.
const PEERS_V6: u16 = 128;

/// The address of a peer, by its number.
pub fn peer_v4(number: u16) -> Ipv4Addr {
    let [high, low] = (number + 1).to_be_bytes();
    Ipv4Addr::new(10, 99, high, low)
}

/// The address of a peer, by its number.
pub fn peer_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number + 1)
}

/// Both namespaces and the folder.
pub struct World {
    dir: PathBuf,
    speaker: File,
}

impl World {
    /// Leaves the caller's namespaces for new ones, and makes the speaker's.
    ///
    /// # Errors
    /// Without root, when this process has threads already, and when the kernel refuses.
    pub fn enter(rootfs: &Path) -> Result<World> {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
            .context("cannot make namespaces (are you root?)")?;
        let none: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).context("cannot make mounts private")?;
        let dir = std::env::temp_dir().join(format!("causeway-bgp-bench-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), none)?;
        for part in ["root", "upper", "work"] {
            fs::create_dir(dir.join(part))?;
        }
        let speaker = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            settings()?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        })
        .join()
        .map_err(|_| anyhow!("the thread of the other namespace panicked"))?
        .context("cannot make the speaker's namespace")?;
        let world = World { dir, speaker };
        world.mounts(rootfs)?;
        settings()?;
        world.links()?;
        Ok(world)
    }

    fn mounts(&self, rootfs: &Path) -> Result<()> {
        let root = self.root();
        let none: Option<&str> = None;
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            rootfs.display(),
            self.dir.join("upper").display(),
            self.dir.join("work").display()
        );
        let layers = Some(layers.as_str());
        mount(
            Some("overlay"),
            &root,
            Some("overlay"),
            MsFlags::empty(),
            layers,
        )
        .context("cannot put the lab's Debian below an overlay")?;
        mount(
            Some("proc"),
            &root.join("proc"),
            Some("proc"),
            MsFlags::empty(),
            none,
        )?;
        mount(
            Some("/dev"),
            &root.join("dev"),
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )?;
        for part in ["run", "tmp"] {
            mount(
                Some("tmpfs"),
                &root.join(part),
                Some("tmpfs"),
                MsFlags::empty(),
                none,
            )?;
        }
        Ok(())
    }

    fn links(&self) -> Result<()> {
        let own = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.speaker.as_raw_fd()
        );
        let mut here = vec![
            "link set lo up".to_owned(),
            format!("link add generator type veth peer name speaker netns {own}"),
            "link set generator up".to_owned(),
            "address add 10.99.0.0/16 dev generator".to_owned(),
            // Any of these is an address of this namespace, and ARP is answered for it.
            "route add local 10.99.0.0/17 dev lo".to_owned(),
        ];
        let there = [
            "link set lo up".to_owned(),
            "link set speaker up".to_owned(),
            format!("address add {SPEAKER_V4}/16 dev speaker"),
            format!("address add {SPEAKER_V6}/64 dev speaker nodad"),
        ];
        for number in 0..PEERS_V6 {
            let address = peer_v6(number);
            here.push(format!("address add {address}/64 dev generator nodad"));
        }
        ip(&here)?;
        self.in_speaker(|| ip(&there))
    }

    /// Runs a closure on a thread in the speaker's network namespace.
    fn in_speaker<T: Send>(&self, run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.speaker, CloneFlags::CLONE_NEWNET)?;
                run()
            });
            let joined = thread.join();
            joined.map_err(|_| anyhow!("a thread in the speaker's namespace panicked"))?
        })
    }

    /// The speaker's network namespace.
    pub fn speaker(&self) -> &File {
        &self.speaker
    }

    /// The root of the rivals.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A folder for files of speakers that run outside of [`World::root`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The speaker's address and that of a peer.
    pub fn addresses(is_v6: bool, number: u16) -> (IpAddr, IpAddr) {
        if is_v6 {
            (SPEAKER_V6.into(), peer_v6(number).into())
        } else {
            (SPEAKER_V4.into(), peer_v4(number).into())
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The mount goes with the namespace; this removes the empty folder below it.
        if let Err(error) = nix::mount::umount2(&self.dir, nix::mount::MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", self.dir.display());
        } else if let Err(error) = fs::remove_dir(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// Of the network namespace this thread is in. See docs/decisions/0008 for Reno.
fn settings() -> Result<()> {
    for (name, value) in [
        ("ipv4/tcp_congestion_control", "reno"),
        ("ipv4/tcp_no_metrics_save", "1"),
        ("ipv6/conf/all/disable_ipv6", "0"),
    ] {
        let path = Path::new("/proc/sys/net").join(name);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Runs commands of `ip`.
fn ip(commands: &[String]) -> Result<()> {
    use std::io::Write as _;
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .context("cannot run ip (package iproute2)")?;
    let mut input = child.stdin.take().context("ip was started with a pipe")?;
    input.write_all((commands.join("\n") + "\n").as_bytes())?;
    drop(input);
    ensure!(
        child.wait()?.success(),
        "ip failed on: {}",
        commands.join("; ")
    );
    Ok(())
}
