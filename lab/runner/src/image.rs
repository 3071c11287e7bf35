// SPDX-License-Identifier: Apache-2.0
//! Which software plays which container image.
//!
//! | Image reference | Played by | Main process | Log |
//! |---|---|---|---|
//! | `…/frr:…` (for example `quay.io/frrouting/frr`) | Debian's FRR | every daemon that `/etc/frr/daemons` enables; `bgpd` is the main one | `/var/log/frr/frr.log` |
//! | `…/bird2:…`, `…/bird:2…` | BIRD 2 | `bird -c /etc/bird/bird.conf` | `/var/log/bird.log` |
//! | `…/bird3:…`, `…/bird:3…` | BIRD 3 | as above | as above |
//! | `…/gobgp:…` | GoBGP | `gobgpd -f /etc/gobgp/gobgpd.toml` | `/var/log/gobgpd.log` |
//! | `…/etcd:…` | etcd | `etcd --data-dir /var/lib/etcd`, clients on port 2379 of every address | `/var/log/etcd.log` |
//! | `causeway/node:…` | the binaries of this checkout | `causewayd --config /etc/causeway/causeway.yaml` | `/var/log/causewayd.log` |
//! | `debian`, `alpine`, `ubuntu`, `busybox`, `netshoot` | a plain Debian machine | none | |
//!
//! Tags choose nothing but BIRD's major version: the versions are those of the root file system
//! (see [`crate::rootfs`]). A node's `cmd` replaces the main process.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The parts an image can play here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// FRRouting.
    Frr,
    /// BIRD, major version 2.
    Bird2,
    /// BIRD, major version 3.
    Bird3,
    /// GoBGP.
    GoBgp,
    /// etcd.
    Etcd,
    /// Our own node.
    Causeway,
    /// A machine without a daemon.
    Linux,
}

/// How a node's main process is started and found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MainProcess {
    /// Shell text run in the node.
    pub script: String,
    /// Whether the script becomes the daemon or starts daemons and ends.
    pub style: Style,
    /// Where the daemon's pid (as seen in the node) is found.
    pub pid_file: String,
    /// Where its output goes.
    pub log: String,
}

/// What becomes of a start script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Style {
    /// It becomes the daemon, and runs in the background.
    Becomes,
    /// It starts daemons that detach themselves; its own end says whether that worked.
    Starts,
}

/// Pid file of the processes that the runner starts itself.
const PID_FILE: &str = "/run/lab/main.pid";

impl Image {
    /// Finds who plays an image.
    ///
    /// # Errors
    /// When nobody does; the message lists who could.
    pub fn from_reference(reference: &str) -> Result<Self> {
        let last = reference.rsplit('/').next().unwrap_or(reference);
        let (name, tag) = last.split_once(':').unwrap_or((last, "latest"));
        Ok(match name {
            "frr" => Self::Frr,
            "bird2" => Self::Bird2,
            "bird3" => Self::Bird3,
            "bird" if tag.trim_start_matches('v').starts_with('2') => Self::Bird2,
            "bird" => Self::Bird3,
            "gobgp" | "gobgpd" => Self::GoBgp,
            "etcd" => Self::Etcd,
            "node" if reference.starts_with("causeway/") => Self::Causeway,
            "debian" | "alpine" | "ubuntu" | "busybox" | "netshoot" => Self::Linux,
            _ => bail!(
                "nobody here plays image `{reference}`; known are frr, bird2, bird3, gobgp, etcd, \
                 causeway/node, debian, alpine, ubuntu, busybox and netshoot"
            ),
        })
    }

    /// Whether the image forwards packets, and so gets the forwarding settings.
    pub fn is_router(self) -> bool {
        match self {
            Self::Frr | Self::Bird2 | Self::Bird3 | Self::GoBgp | Self::Causeway => true,
            Self::Etcd | Self::Linux => false,
        }
    }

    /// Folders that exist in the node before anything starts, with their owners.
    pub(crate) fn folders(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Frr => &[("/run/frr", "frr:frr"), ("/var/log/frr", "frr:frr")],
            Self::Bird2 | Self::Bird3 => &[("/run/bird", "root:root")],
            Self::GoBgp => &[("/etc/gobgp", "root:root")],
            Self::Etcd => &[("/var/lib/etcd", "root:root")],
            Self::Causeway => &[
                ("/run/causeway", "root:root"),
                ("/var/lib/causeway", "root:root"),
                ("/etc/causeway/resources.d", "root:root"),
                ("/etc/cni/net.d", "root:root"),
                ("/opt/cni/bin", "root:root"),
            ],
            Self::Linux => &[],
        }
    }

    /// Programs of the rootfs that take the place of others in this image.
    pub(crate) fn replaced_programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Bird2 => &[
                ("/opt/bird2/usr/sbin/bird", "/usr/sbin/bird"),
                ("/opt/bird2/usr/sbin/birdc", "/usr/sbin/birdc"),
                ("/opt/bird2/usr/sbin/birdcl", "/usr/sbin/birdcl"),
            ],
            Self::Frr | Self::Bird3 | Self::GoBgp | Self::Etcd | Self::Causeway | Self::Linux => {
                &[]
            }
        }
    }

    /// Our own programs that appear in the image, by name and place.
    pub fn own_programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Causeway => &[
                ("causewayd", "/usr/local/bin/causewayd"),
                ("causeway", "/usr/local/bin/causeway"),
                ("causeway-bfdd", "/usr/local/bin/causeway-bfdd"),
                ("causeway-cni", "/opt/cni/bin/causeway-cni"),
            ],
            Self::Frr | Self::Bird2 | Self::Bird3 | Self::GoBgp | Self::Etcd | Self::Linux => &[],
        }
    }

    /// The main process, or nothing for a plain machine.
    pub fn main_process(self) -> Option<MainProcess> {
        let exec = |command: &str, log: &str| {
            Some(MainProcess {
                script: format!("echo $$ >{PID_FILE}; exec {command}"),
                style: Style::Becomes,
                pid_file: PID_FILE.to_owned(),
                log: log.to_owned(),
            })
        };
        match self {
            Self::Frr => Some(MainProcess {
                script: FRR_START.to_owned(),
                style: Style::Starts,
                pid_file: "/run/frr/bgpd.pid".to_owned(),
                log: "/var/log/frr/frr.log".to_owned(),
            }),
            Self::Bird2 | Self::Bird3 => exec(
                "/usr/sbin/bird -f -c /etc/bird/bird.conf -s /run/bird/bird.ctl",
                "/var/log/bird.log",
            ),
            Self::GoBgp => exec(
                "/usr/bin/gobgpd -t toml -f /etc/gobgp/gobgpd.toml --api-hosts 127.0.0.1:50051 \
                 --pprof-disable",
                "/var/log/gobgpd.log",
            ),
            Self::Etcd => exec(
                "/usr/bin/etcd --name lab --data-dir /var/lib/etcd \
                 --listen-client-urls http://[::]:2379 \
                 --advertise-client-urls http://127.0.0.1:2379",
                "/var/log/etcd.log",
            ),
            Self::Causeway => exec(
                "/usr/local/bin/causewayd --config /etc/causeway/causeway.yaml",
                "/var/log/causewayd.log",
            ),
            Self::Linux => None,
        }
    }

    /// The main process of a node whose file gives a `cmd`.
    pub(crate) fn custom_process(command: &[String]) -> MainProcess {
        let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
        MainProcess {
            script: format!("echo $$ >{PID_FILE}; exec {}", words.join(" ")),
            style: Style::Becomes,
            pid_file: PID_FILE.to_owned(),
            log: "/var/log/main.log".to_owned(),
        }
    }
}

/// Quotes a word for a POSIX shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Starts what `/etc/frr/daemons` enables, in FRR's own order, then loads `/etc/frr/frr.conf`.
/// FRR's init script is not used: it changes the owner of bound configuration files, and its
/// watchdog restarts what a test has just killed. Daemons that already run are left alone, so the
/// same script brings back the ones that were killed.
const FRR_START: &str = r#"
vtysh_enable=yes
[ -e /etc/frr/vtysh.conf ] || { : >/etc/frr/vtysh.conf; chown frr:frr /etc/frr/vtysh.conf; }
: >>/var/log/frr/frr.log; chown frr:frr /var/log/frr/frr.log
. /etc/frr/daemons
started=
for daemon in mgmtd zebra bgpd ospfd ospf6d ripd ripngd isisd pimd pim6d ldpd nhrpd eigrpd babeld \
    sharpd pbrd staticd bfdd fabricd vrrpd pathd; do
  case $daemon in mgmtd|zebra|staticd) default=yes ;; *) default=no ;; esac
  eval "wanted=\${$daemon:-$default} options=\${${daemon}_options:--A 127.0.0.1}"
  [ "$wanted" = yes ] && [ -x /usr/lib/frr/$daemon ] || continue
  if [ -e /run/frr/$daemon.pid ] && kill -0 "$(cat /run/frr/$daemon.pid)" 2>/dev/null; then continue; fi
  eval "/usr/lib/frr/$daemon -d $options --log file:/var/log/frr/frr.log" || exit 1
  started="$started $daemon"
done
if [ -n "$started" ]; then exec vtysh -b; fi
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_with_and_without_registry_and_tag_are_known() {
        let image = |text| Image::from_reference(text).expect(text);
        assert_eq!(image("quay.io/frrouting/frr:10.3.1"), Image::Frr);
        assert_eq!(image("registry:5000/bird:v2.17"), Image::Bird2);
        assert_eq!(image("bird:3.1"), Image::Bird3);
        assert_eq!(image("causeway/bird2"), Image::Bird2);
        assert_eq!(image("nicolaka/netshoot"), Image::Linux);
        assert_eq!(image("causeway/node:dev"), Image::Causeway);
        assert!(Image::from_reference("acme/node").is_err());
    }

    #[test]
    fn quoted_words_survive_a_shell() {
        assert_eq!(quote("a'b c"), r"'a'\''b c'");
    }
}
