// SPDX-License-Identifier: Apache-2.0
//! What the data plane must know before it starts.

use std::path::PathBuf;

/// Where the pins are when nobody says otherwise.
pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf/causeway";

/// How programs attach to devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookChoice {
    /// TCX where the kernel has it, `clsact` where not.
    #[default]
    Auto,
    /// `clsact` filters even where TCX exists: for comparing, and for tools that know only those.
    Clsact,
}

/// Settings of [`Datapath::open`](crate::Datapath::open).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of all pins, on a BPF file system (mounted at its parent when missing and allowed).
    /// One folder belongs to one network namespace. Dots are not allowed in names on a BPF file
    /// system. Default: [`DEFAULT_PIN_ROOT`].
    pub pin_root: PathBuf,
    /// How programs attach. Default: [`HookChoice::Auto`].
    pub hook: HookChoice,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pin_root: PathBuf::from(DEFAULT_PIN_ROOT),
            hook: HookChoice::Auto,
        }
    }
}
