// SPDX-License-Identifier: Apache-2.0
//! What a command shows, before a format is chosen.

use serde_json::{Map, Value};

use super::table::{Cell, Column};

/// What a command shows.
#[derive(Clone, Debug)]
pub enum View {
    /// Objects of one kind.
    Listing(Listing),
    /// One object, or a text.
    Page(Page),
}

/// Objects of one kind: a row or more of a table each.
#[derive(Clone, Debug)]
pub struct Listing {
    /// `kind` of the JSON document: `BGPPeerList`.
    pub kind: &'static str,
    /// Fields of the JSON document besides `items`.
    pub fields: Map<String, Value>,
    /// The columns, all of them; some only in `-o wide`.
    pub columns: Vec<Column>,
    /// The objects.
    pub items: Vec<Item>,
    /// What to say on standard error when there is nothing: `no peers are configured`.
    pub empty: String,
    /// Remarks for standard error.
    pub notes: Vec<String>,
}

/// One object of a listing.
#[derive(Clone, Debug)]
pub struct Item {
    /// What `-o name` prints.
    pub name: String,
    /// The object for programs.
    pub json: Value,
    /// Its rows; every row has a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// One object, shown as lines.
#[derive(Clone, Debug)]
pub struct Page {
    /// `kind` of the JSON document.
    pub kind: &'static str,
    /// What `-o name` prints.
    pub name: String,
    /// The object for programs, without `apiVersion` and `kind`.
    pub json: Map<String, Value>,
    /// The lines for people, each a sequence of cells that are written one after the other.
    pub lines: Vec<Vec<Cell>>,
    /// Remarks for standard error.
    pub notes: Vec<String>,
    /// What `-o wide` shows in addition.
    pub wide_lines: Vec<Vec<Cell>>,
}

impl Page {
    /// A page without content.
    pub fn new(kind: &'static str, name: impl Into<String>) -> Page {
        Page {
            kind,
            name: name.into(),
            json: Map::new(),
            lines: Vec::new(),
            notes: Vec::new(),
            wide_lines: Vec::new(),
        }
    }

    /// Adds a line of one piece.
    pub fn line(&mut self, text: impl Into<String>) {
        self.lines.push(vec![Cell::plain(text)]);
    }

    /// Adds `label: value`, the values aligned among each other; nothing for an empty value. An
    /// empty label goes on with the field above.
    pub fn field(&mut self, label: &str, value: impl Into<Cell>) {
        let value = value.into();
        if !value.text.is_empty() {
            let label = if label.is_empty() {
                String::new()
            } else {
                format!("{label}:")
            };
            self.lines
                .push(vec![Cell::plain(format!("  {label:<24}")), value]);
        }
    }

    /// Adds a heading after an empty line.
    pub fn heading(&mut self, text: &str) {
        if !self.lines.is_empty() {
            self.line("");
        }
        self.lines.push(vec![Cell::strong(text)]);
    }

    /// Sets the JSON object; anything but an object is a mistake of the caller.
    pub fn set_json(&mut self, value: Value) {
        match value {
            Value::Object(map) => self.json = map,
            other => debug_assert!(false, "not an object: {other}"),
        }
    }
}

impl View {
    /// Remarks for standard error.
    pub fn notes(&self) -> &[String] {
        match self {
            View::Listing(l) => &l.notes,
            View::Page(p) => &p.notes,
        }
    }
}

impl From<Listing> for View {
    fn from(listing: Listing) -> View {
        View::Listing(listing)
    }
}

impl From<Page> for View {
    fn from(page: Page) -> View {
        View::Page(page)
    }
}
