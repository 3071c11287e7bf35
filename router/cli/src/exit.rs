// SPDX-License-Identifier: Apache-2.0
//! Exit codes: a contract with scripts, printed in `--help` and the man page.

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything is as asked.
    Ok = 0,
    /// Looked, and found something wrong: an unhealthy node, a broken file or message.
    Found = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The daemon cannot be reached.
    Unreachable = 3,
    /// No such object.
    NotFound = 4,
    /// Refused: permission, or a request the daemon cannot carry out.
    Refused = 5,
    /// Not in time, as timeout(1) says it.
    Timeout = 124,
}

/// The table for help texts.
pub(crate) const EXIT_CODES: &str = "Exit codes:
    0  ok
    1  found something wrong: unhealthy node, broken file, malformed message
    2  wrong usage
    3  cannot reach the daemon
    4  no such object
    5  refused: no permission, or the daemon cannot do it
  124  no answer in time";
