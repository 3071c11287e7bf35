// SPDX-License-Identifier: Apache-2.0
//! Paths of fields: `spec.bgpInstances[0].peers[1].name`.

use std::fmt;

use crate::diagnostic::Place;
use crate::yaml::{Node, Value};

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Into the value of a key.
    Key(String),
    /// Into an item of a list.
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Segment::Key(key.to_owned())
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Segment::Index(index)
    }
}

/// The way from the root of a document to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Segment>);

impl Path {
    /// The path of a key at the root.
    pub(crate) fn root(key: &str) -> Self {
        Path(vec![key.into()])
    }

    /// The path one step further down.
    pub(crate) fn join(&self, segment: impl Into<Segment>) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment.into());
        Path(segments)
    }

    /// The place of the field in a document; where the field is absent, of the nearest one above.
    pub(crate) fn place_in(&self, root: &Node) -> Place {
        let mut node = root;
        let mut place = &root.place;
        for segment in &self.0 {
            let next = match (segment, &node.value) {
                (Segment::Key(key), _) => match node.pair(key) {
                    Some(pair) => {
                        place = &pair.key_place;
                        Some(&pair.value)
                    }
                    None => None,
                },
                (Segment::Index(index), Value::Sequence(items)) => {
                    items.get(*index).inspect(|item| place = &item.place)
                }
                (Segment::Index(_), _) => None,
            };
            match next {
                Some(next) => node = next,
                None => return place.clone(),
            }
        }
        // A scalar is pointed at itself, a collection by its key.
        match node.value {
            Value::Sequence(_) | Value::Mapping(_) => place.clone(),
            _ => node.place.clone(),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if key.contains(['.', '/', '[', ' ']) => {
                    write!(f, "[\"{key}\"]")?
                }
                Segment::Key(key) if position == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}
