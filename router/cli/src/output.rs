// SPDX-License-Identifier: Apache-2.0
//! From a view to text: formats, colours, tables, JSONPath and times.
//!
//! A command makes a [`View`], which holds the same facts twice: as JSON for programs and as cells
//! or lines for people. [`render`] writes one of them. Data goes to standard output and remarks
//! ([`View::notes`]) to standard error, so that a pipe gets data only.

mod format;
mod jsonpath;
mod look;
mod table;
mod time;
mod view;

pub use format::{Format, Options, render};
pub use look::{ColorChoice, Look, Tone};
pub use table::{Cell, Column, Table};
pub use time::{age, go_duration, now_unix_ns, rfc3339};
pub use view::{Item, Listing, Page, View};
