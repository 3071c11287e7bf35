// SPDX-License-Identifier: Apache-2.0
//! What users write: resources and node settings, read strictly.
//!
//! Resources are the YAML objects of `docs/guide`: the BGP and egress kinds of Cilium as they are,
//! ours of `causeway.io`, and the few fields of Kubernetes' Node, Namespace, Pod and Secret that
//! matter. This crate takes them from files to typed, valid structs ([`kinds`]) in a [`Store`];
//! what they mean is decided by the subsystems (`bgp-config` for BGP, `egress-config` for egress).
//!
//! A file goes through four steps. [`yaml`] turns text into trees in which every value knows its
//! place. `schema` checks a tree against the schema of its kind, the same one the CRD files
//! show. Then serde makes the struct, and `rules` checks what a schema cannot say. Every finding
//! is a [`Diagnostic`] with file, document, line, column and field path; all findings of a file are
//! reported, not only the first.
//!
//! [`DirectorySource`] watches a directory and yields [`FileEvent`]s for [`Store::apply`];
//! [`check()`] reads files once, for `causeway config check`; [`generate_crds`] makes the files of
//! `deploy/crds`. [`Settings`] are the node's own settings in `causeway.yaml`.
//!
//! Nothing here panics on what is in a file, and what a file can cost is bounded: bytes
//! ([`parse::MAX_FILE_BYTES`]), nodes after alias expansion and depth ([`yaml`]).

mod base64;
pub mod check;
pub mod condition;
pub mod crd;
pub mod diagnostic;
pub mod kinds;
pub mod object;
pub mod parse;
mod path;
mod pattern;
mod rules;
mod schema;
pub mod selector;
pub mod settings;
pub mod snapshot;
pub mod source;
pub mod store;
mod suggest;
pub mod yaml;

pub use check::{Report, check};
pub use condition::{Condition, ConditionStatus, Statement, Timestamp};
pub use crd::generate_crds;
pub use diagnostic::{Code, Diagnostic, Place, Severity};
pub use object::{Body, Kind, Metadata, Object, ObjectKey};
pub use rules::parse_address;
pub use selector::{LabelSelector, Labels};
pub use settings::{Effective, Settings};
pub use snapshot::{Entry, Snapshot, Source, Stored};
pub use source::{DirectorySource, StopHandle, WatchOptions};
pub use store::{Change, FileContent, FileEvent, FileStatus, ObjectStatus, Store};
