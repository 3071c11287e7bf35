// SPDX-License-Identifier: Apache-2.0
//! What a container runtime is told when an operation fails.

use std::fmt;

/// Error codes of CNI 1.1.0 §"Error": 1 to 99 are the specification's, 100 and up ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Code {
    /// The `cniVersion` asked for is not spoken.
    IncompatibleVersion = 1,
    /// A field of the configuration is not supported; the message names it and its value.
    UnsupportedField = 2,
    /// The container is unknown or gone: the runtime need not clean up anything of it.
    UnknownContainer = 3,
    /// An environment variable is missing or wrong; the message names it.
    InvalidEnvironment = 4,
    /// Reading or writing failed.
    Io = 5,
    /// The configuration is no JSON, or misses what it must have.
    Decode = 6,
    /// The configuration is readable and wrong.
    InvalidConfig = 7,
    /// A passing condition: the runtime should call again.
    TryAgain = 11,
    /// STATUS: no ADD would succeed.
    NotAvailable = 50,
    /// STATUS: ADD would succeed, connectivity of the pods is limited.
    Limited = 51,
    /// No address is left.
    Exhausted = 100,
    /// The address asked for cannot be had.
    AddressRefused = 101,
    /// The kernel refused a device, address, route or program.
    Kernel = 102,
    /// CHECK: the pod's network is not as it was left.
    Mismatch = 103,
}

/// A failed operation: `code`, `msg` and `details` of a CNI error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What kind.
    pub code: Code,
    /// One sentence: what failed, where, why.
    pub message: String,
    /// What to do about it, or the full list of what is wrong; may be empty.
    pub details: String,
}

impl Failure {
    /// A failure without details.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    /// The same with details.
    pub fn with_details(self, details: impl Into<String>) -> Failure {
        Failure {
            details: details.into(),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
