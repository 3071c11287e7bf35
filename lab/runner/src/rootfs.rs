// SPDX-License-Identifier: Apache-2.0
//! The root file system that all nodes share: a small Debian with the peers' daemons.
//!
//! It is made once by mmdebstrap and kept under `$CAUSEWAY_CACHE` (or `~/.cache/causeway`) in a
//! folder named by a hash of the recipe, so a changed recipe makes a new one and a branch with the
//! old recipe still finds its own. It is built beside its place and renamed into it, under a lock:
//! an interrupted build is never used and two runs do not build twice. Nodes get it read-only,
//! below an overlay; the packages of this machine stay as they are.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::state::lock_file;

/// Debian release of the nodes: the oldest with FRR 10, BIRD 3 and a GoBGP that speaks RFC 8950.
pub const SUITE: &str = "trixie";
/// Raised when the steps (not the package lists, which are hashed themselves) change.
const RECIPE_VERSION: u32 = 1;

const PACKAGES: &[&str] = &[
    "frr",
    "bird3",
    "gobgpd",
    "openbgpd",
    "etcd-server",
    "etcd-client",
    "iproute2",
    "iputils-ping",
    "iputils-tracepath",
    "tcpdump",
    "iperf3",
    "nftables",
    "wireguard-tools",
    "socat",
    "netcat-openbsd",
    "procps",
    "systemd",
    "ethtool",
    "curl",
    "jq",
];

/// Conflicts with a package above, so it is only unpacked, under `/opt/<name>`.
const UNPACKED: &[&str] = &["bird2"];

/// Where downloads and built things are kept.
///
/// # Errors
/// When neither `CAUSEWAY_CACHE` nor `HOME` is set.
pub fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("CAUSEWAY_CACHE") {
        return Ok(dir.into());
    }
    let home = env::var_os("HOME").context("neither CAUSEWAY_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/causeway"))
}

/// Where the root file system is or will be.
///
/// # Errors
/// As [`cache_dir`].
pub fn path() -> Result<PathBuf> {
    let recipe = format!("{RECIPE_VERSION} {SUITE} {PACKAGES:?} {UNPACKED:?}");
    Ok(cache_dir()?.join(format!("rootfs-{SUITE}-{:016x}", fnv1a(recipe.as_bytes()))))
}

/// Returns the root file system, building it first if need be (about a minute and 270 MB).
///
/// # Errors
/// When mmdebstrap is missing or fails; the message ends with its last lines.
pub fn ensure(mut say: impl FnMut(&str)) -> Result<PathBuf> {
    let path = path()?;
    if path.is_dir() {
        return Ok(path);
    }
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = lock_file(&path.with_added_extension("lock"))?;
    if path.is_dir() {
        return Ok(path);
    }
    let mirror = mirror()?;
    say(&format!(
        "building the lab's Debian {SUITE} from {mirror} (once, about a minute)"
    ));
    let building = path.with_added_extension("building");
    if building.exists() {
        fs::remove_dir_all(&building)
            .with_context(|| format!("cannot remove unfinished {}", building.display()))?;
    }
    let result = build(&building, &mirror).and_then(|()| {
        fs::rename(&building, &path)
            .with_context(|| format!("cannot rename {} into place", building.display()))
    });
    if result.is_err()
        && building.exists()
        && let Err(error) = fs::remove_dir_all(&building)
    {
        say(&format!("could not remove {}: {error}", building.display()));
    }
    result?;
    say(&format!("the lab's root file system is {}", path.display()));
    Ok(path)
}

fn build(target: &Path, mirror: &str) -> Result<()> {
    let unpack: String = UNPACKED
        .iter()
        .map(|name| {
            format!(
                "apt-get download -o APT::Sandbox::User=root {name}; \
                 mkdir -p /opt/{name}; dpkg-deb -x {name}_*.deb /opt/{name}; "
            )
        })
        .collect();
    let hook = format!(
        "chroot \"$1\" sh -ec 'mkdir /var/tmp/unpack; cd /var/tmp/unpack; {unpack} cd /; \
         rm -rf /var/tmp/unpack'"
    );
    let output = Command::new("mmdebstrap")
        .args(["--variant=minbase", "--mode=root"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        // A mirror may be a snapshot of the past; signatures are still checked.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg("--aptopt=Acquire::Retries \"3\"")
        .args(
            ["doc", "man", "locale", "info"]
                .map(|dir| format!("--dpkgopt=path-exclude=/usr/share/{dir}/*")),
        )
        .arg(format!("--customize-hook={hook}"))
        .arg(SUITE)
        .arg(target)
        .arg(mirror)
        .stdin(Stdio::null())
        .output()
        .context("cannot run mmdebstrap; `cargo xtask setup` installs it")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        bail!(
            "mmdebstrap failed ({}) with mirror {mirror}:\n{}",
            output.status,
            tail.join("\n")
        );
    }
    for program in [
        "usr/lib/frr/bgpd",
        "usr/sbin/bird",
        "opt/bird2/usr/sbin/bird",
        "usr/bin/gobgpd",
        "usr/sbin/bgpd",
        "usr/bin/etcd",
        "usr/bin/etcdctl",
    ] {
        ensure!(
            target.join(program).exists(),
            "mmdebstrap succeeded without /{program}"
        );
    }
    Ok(())
}

/// The Debian mirror of this machine's apt sources; `CAUSEWAY_DEBIAN_MIRROR` goes first.
///
/// # Errors
/// When neither names one.
pub fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var("CAUSEWAY_DEBIAN_MIRROR") {
        return Ok(mirror);
    }
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .context(
            "this machine's apt sources name no Debian mirror: set CAUSEWAY_DEBIAN_MIRROR to the \
             address of one, ending in /debian",
        )
}

/// Finds the first archive of Debian itself in a sources file of either format.
fn mirror_in(text: &str) -> Option<String> {
    let archive = |word: &&str| {
        (word.starts_with("http://") || word.starts_with("https://"))
            && word.trim_end_matches('/').ends_with("/debian")
    };
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"))
        .find_map(|line| line.split_whitespace().find(archive))
        .map(|word| word.trim_end_matches('/').to_owned())
}

/// FNV-1a, 64 bit: names a folder, guards nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_found_in_both_formats() {
        let old = "# deb http://no.example/debian x main\n\
                   deb [arch=amd64] https://packages.example/apt stable main\n\
                   deb [signed-by=/k] http://mirror.example/debian/ trixie main\n";
        assert_eq!(
            mirror_in(old).as_deref(),
            Some("http://mirror.example/debian")
        );
        let new = "Types: deb\nURIs: http://deb.example/debian-security\n\n\
                   Types: deb\nURIs: http://deb.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://deb.example/debian"));
        assert_eq!(
            mirror_in("deb https://packages.example/apt stable main"),
            None
        );
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
