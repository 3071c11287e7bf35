// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, in words: which object, what was tried, what the kernel said, what to do.

use std::fmt;
use std::io;

use nix::errno::Errno;

use crate::link::TunnelKind;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {problem}")]
pub struct Error {
    action: String,
    problem: Problem,
}

impl Error {
    /// What was tried, with the object's name: `set up link eth1`.
    pub fn action(&self) -> &str {
        &self.action
    }

    /// Why it failed.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The kernel's error number, when it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match &self.problem {
            Problem::Refused { errno, .. } => Some(*errno),
            Problem::System(error) => error.raw_os_error().map(Errno::from_raw),
            Problem::NoDriver(_) => Some(Errno::EOPNOTSUPP),
            Problem::Silent
            | Problem::Lost
            | Problem::Garbled
            | Problem::NotFound
            | Problem::Foreign { .. }
            | Problem::PortTaken { .. }
            | Problem::Invalid(_) => None,
        }
    }

    /// Whether the object asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.problem, Problem::NotFound)
            || matches!(
                self.errno(),
                Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
            )
    }

    /// Whether the object is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether a device of the name is somebody else's.
    pub fn is_foreign(&self) -> bool {
        matches!(self.problem, Problem::Foreign { .. })
    }

    pub(crate) fn new(action: impl Into<String>, problem: Problem) -> Self {
        Error {
            action: action.into(),
            problem,
        }
    }
}

/// Why a request failed.
#[derive(Debug)]
pub enum Problem {
    /// The kernel refused: its error number, and the text of its extended acknowledgement where it
    /// gave one.
    Refused {
        /// Error number.
        errno: Errno,
        /// The kernel's own sentence.
        kernel_text: Option<String>,
    },
    /// A system call failed.
    System(io::Error),
    /// The kernel did not answer within ten seconds.
    Silent,
    /// Answers were dropped because the socket's buffer was full: what was done is unknown.
    Lost,
    /// An answer could not be decoded.
    Garbled,
    /// No such object.
    NotFound,
    /// A device of the name is somebody else's; it was left alone.
    Foreign {
        /// Its driver.
        kind: Option<String>,
        /// Its alias.
        alias: Option<String>,
    },
    /// Another device or process has the UDP port, or a device that receives otherwise.
    PortTaken {
        /// The device that has it, if it is one of this namespace.
        device: Option<String>,
    },
    /// This kernel has no driver for such a tunnel, nor a module of it.
    NoDriver(TunnelKind),
    /// The request makes no sense; nothing was sent.
    Invalid(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Refused { errno, kernel_text } => {
                f.write_str(meaning(*errno))?;
                write!(f, " ({errno:?}")?;
                if let Some(text) = kernel_text {
                    write!(f, ", kernel: \"{text}\"")?;
                }
                f.write_str(")")
            }
            Problem::System(error) => write!(f, "{error}"),
            Problem::Silent => f.write_str(
                "no answer from the kernel within 10 s; another process may hold its network lock, \
                 look for hung tasks in `dmesg`",
            ),
            Problem::Lost => f.write_str(
                "the kernel dropped its answers because the socket's buffer was full; what was done \
                 is unknown and is read again",
            ),
            Problem::Garbled => f.write_str("the kernel's answer could not be decoded"),
            Problem::NotFound => f.write_str("there is none"),
            Problem::Foreign { kind, alias } => {
                write!(
                    f,
                    "there is one of that name already that is not ours (type {}, ",
                    kind.as_deref().unwrap_or("unknown")
                )?;
                match alias {
                    Some(alias) => write!(f, "alias \"{alias}\"")?,
                    None => f.write_str("no alias")?,
                }
                f.write_str("); remove it with `ip link delete` or rename it")
            }
            Problem::PortTaken { device } => {
                match device {
                    Some(device) => write!(f, "device {device} has it")?,
                    None => f.write_str("another process of this host has it")?,
                }
                f.write_str("; remove that, or configure another port on every node")
            }
            Problem::NoDriver(kind) => {
                let driver = kind.to_string().to_lowercase();
                write!(
                    f,
                    "this kernel has no driver for {kind} (EOPNOTSUPP); try `modprobe {driver}`, use \
                     a kernel that has it, or configure another tunnel protocol on every node"
                )
            }
            Problem::Invalid(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Problem::System(error)
    }
}

/// What an error number means when it answers a request about links, addresses or routes, and what
/// to do about it.
fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "not permitted; the process needs CAP_NET_ADMIN in this network namespace"
        }
        Errno::EEXIST => "it exists already and was made by somebody else",
        Errno::ENODEV => "no such network device; it was removed or renamed",
        Errno::ENETUNREACH => {
            "the next hop is not reachable over a connected network; check the device's addresses"
        }
        Errno::EHOSTUNREACH => {
            "the next hop is not on the given device's networks; check its addresses"
        }
        Errno::ENETDOWN => "the device is down; bring it up first",
        Errno::ESRCH => "no such route",
        Errno::ENOENT => "no such object",
        Errno::EADDRNOTAVAIL => "the address is not configured on the device",
        Errno::EBUSY => "in use; bring the device down first",
        Errno::EINVAL => "the kernel finds the request invalid",
        Errno::ERANGE => "a value is out of range for the device",
        Errno::EOPNOTSUPP => "this kernel or device does not support it",
        Errno::ENOMEM | Errno::ENOBUFS => {
            "the kernel is out of memory for it; see net.ipv6.route.max_size and the cgroup's limit"
        }
        Errno::EAFNOSUPPORT => "the address family is switched off in this kernel",
        _ => "the kernel refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_object_cause_and_remedy() {
        let error = Error::new(
            "add route 10.0.0.0/8 via 192.0.2.1",
            Problem::Refused {
                errno: Errno::ENETUNREACH,
                kernel_text: Some("Nexthop has invalid gateway".to_owned()),
            },
        );
        assert_eq!(
            error.to_string(),
            "cannot add route 10.0.0.0/8 via 192.0.2.1: the next hop is not reachable over a \
             connected network; check the device's addresses (ENETUNREACH, kernel: \"Nexthop has \
             invalid gateway\")"
        );
        assert!(!error.is_not_found());
    }
}
