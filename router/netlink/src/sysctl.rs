// SPDX-License-Identifier: Apache-2.0
//! Kernel settings below `/proc/sys`, of one network namespace.

use std::fs;
use std::io;

use crate::error::{Error, Problem};
use crate::netns::Netns;

/// Reads and writes `/proc/sys/net`, which shows the namespace of the thread that opens a file.
#[derive(Debug)]
pub struct Sysctl<'a> {
    netns: Option<&'a Netns>,
}

impl<'a> Sysctl<'a> {
    /// The settings of the calling thread's namespace.
    pub fn current() -> Self {
        Sysctl { netns: None }
    }

    /// The settings of a namespace.
    pub fn of(netns: &'a Netns) -> Self {
        Sysctl { netns: Some(netns) }
    }

    /// Reads a setting by its parts, `["net", "ipv4", "conf", "eth0.100", "rp_filter"]`: as parts
    /// because device names may contain dots and slashes are the separator.
    pub fn read(&self, parts: &[&str]) -> Result<String, Error> {
        let path = path(parts)?;
        self.on(&format!("read sysctl {path}"), || {
            fs::read_to_string(&path).map(|text| text.trim_end().to_owned())
        })
    }

    /// Writes a setting unless it has that value already, so that a read-only `/proc` with the
    /// right value is no error. Returns whether it was changed.
    pub fn write(&self, parts: &[&str], value: &str) -> Result<bool, Error> {
        let path = path(parts)?;
        self.on(&format!("set sysctl {path} to {value}"), || {
            if fs::read_to_string(&path)?.trim_end() == value {
                return Ok(false);
            }
            fs::write(&path, value)?;
            Ok(true)
        })
    }

    fn on<T: Send>(
        &self,
        action: &str,
        f: impl FnOnce() -> io::Result<T> + Send,
    ) -> Result<T, Error> {
        let result = match self.netns {
            Some(netns) => netns.run(f)?,
            None => f(),
        };
        result.map_err(|e| Error::new(action, e.into()))
    }
}

fn path(parts: &[&str]) -> Result<String, Error> {
    let wrong = parts.is_empty()
        || parts
            .iter()
            .any(|p| p.is_empty() || p.contains('/') || *p == "." || *p == "..");
    if wrong {
        return Err(Error::new(
            format!("use sysctl {parts:?}"),
            Problem::Invalid("a part is empty, has a slash, or is . or .."),
        ));
    }
    Ok(format!("/proc/sys/{}", parts.join("/")))
}
