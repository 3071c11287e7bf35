// SPDX-License-Identifier: Apache-2.0
//! YAML text to trees in which every key and value knows its place.
//!
//! The scalars of YAML 1.2's core schema are read (`yes` is a string), anchors, aliases and merge
//! keys (`<<`) are followed. Keys are scalars and unique. All documents of a text are read up to
//! the first syntax error; findings that leave the structure readable, such as a duplicate key, do
//! not stop the reading.
//!
//! Cost is bounded before memory is used: [`MAX_DEPTH`] levels, and [`MAX_WEIGHT`] for everything
//! aliases expand to.

use std::collections::BTreeMap;
use std::fmt;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, Tag};

use crate::diagnostic::{Code, Place};

/// The deepest nesting that is read. No kind needs more than a dozen levels; arbitrary beyond that.
pub const MAX_DEPTH: usize = 64;

/// The most a file may expand to: bytes of text plus 64 for every value, aliases
/// counted each time they are used. 64 MiB, about a million values: arbitrary, far above any
/// useful file and far below what hurts.
pub const MAX_WEIGHT: usize = 64 << 20;

/// The most duplicate keys reported; arbitrary, more than anybody reads.
const MAX_ERRORS: usize = 100;

/// What a value weighs besides its text.
const NODE_WEIGHT: usize = 64;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Where it is.
    pub place: Place,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the types of YAML")]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Pair>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub key_place: Place,
    /// The value.
    pub value: Node,
}

/// One document of a text that is not empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its number, from 1; empty documents count.
    pub number: usize,
    /// Its value.
    pub root: Node,
}

/// What is wrong with a text as YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// The sort: syntax, complexity or duplicate key.
    pub code: Code,
    /// The document, from 1.
    pub document: usize,
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.pair(key).map(|pair| &pair.value)
    }

    /// The key and value of a key, if this is a mapping that has it.
    pub fn pair(&self, key: &str) -> Option<&Pair> {
        match &self.value {
            Value::Mapping(pairs) => pairs.iter().find(|pair| pair.key == key),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value as JSON, null entries of mappings left out: an empty field is an absent field.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Integer(n) => (*n).into(),
            Value::Float(x) => (*x).into(),
            Value::String(s) => s.clone().into(),
            Value::Sequence(items) => items.iter().map(Node::to_json).collect(),
            Value::Mapping(pairs) => pairs
                .iter()
                .filter(|pair| pair.value.value != Value::Null)
                .map(|pair| (pair.key.clone(), pair.value.to_json()))
                .collect(),
        }
    }

    fn weight(&self) -> usize {
        NODE_WEIGHT
            + match &self.value {
                Value::String(text) => text.len(),
                Value::Sequence(items) => items.iter().map(Node::weight).sum(),
                Value::Mapping(pairs) => pairs
                    .iter()
                    .map(|p| NODE_WEIGHT + p.key.len() + p.value.weight())
                    .sum(),
                Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => 0,
            }
    }
}

impl fmt::Display for Value {
    /// Writes the value as a message names it: `'text'`, `42`, `a list`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("nothing"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Integer(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::String(text) if text.chars().count() > 60 => {
                write!(f, "'{}…'", text.chars().take(60).collect::<String>())
            }
            Value::String(text) => write!(f, "'{text}'"),
            Value::Sequence(_) => f.write_str("a list"),
            Value::Mapping(_) => f.write_str("a mapping"),
        }
    }
}

/// Reads all documents of a text, as far as its syntax holds.
pub fn read(text: &str) -> (Vec<Document>, Vec<YamlError>) {
    let mut reader = Reader::default();
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.block_nesting_limit = MAX_DEPTH;
    options.flow_nesting_limit = MAX_DEPTH;
    let mut parser = Parser::new_from_str_with_options(text, options);
    while let Some(event) = parser.next_event() {
        let outcome = match event {
            Ok((event, span)) => reader.take(event, span),
            Err(error) => Err(reader.syntax_error(&error)),
        };
        if let Err(error) = outcome {
            reader.errors.push(error);
            break;
        }
    }
    (reader.documents, reader.errors)
}

/// A collection being read.
struct Frame {
    node: Node,
    anchor: usize,
    /// The key whose value comes next, and whether it is the merge key.
    key: Option<(String, Place, bool)>,
    /// Entries of merge keys, added at the end: written keys win, wherever they stand.
    merged: Vec<Pair>,
    /// The lines of the keys so far.
    lines: BTreeMap<String, usize>,
}

#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    errors: Vec<YamlError>,
    number: usize,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, Node>,
    weight: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let place = place(&span);
        match event {
            Event::DocumentStart(..) => {
                self.number += 1;
                self.anchors.clear();
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                self.charge(NODE_WEIGHT + text.len(), &place)?;
                let value = self.scalar(&text, is_plain, tag.as_deref(), &place)?;
                self.complete(Node { value, place }, anchor, is_plain.then_some(&*text))
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(self.error(
                        Code::TooComplex,
                        place,
                        "the alias refers to a value it is itself part of".into(),
                        None,
                    ));
                };
                let weight = node.weight();
                self.charge(weight, &place)?;
                let node = self.anchors[&anchor].clone();
                self.complete(node, 0, None)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(Value::Sequence(Vec::new()), anchor, place)
            }
            Event::MappingStart(_, anchor, _) => {
                self.open(Value::Mapping(Vec::new()), anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut frame) = self.stack.pop() else {
                    return Ok(());
                };
                if let Value::Mapping(pairs) = &mut frame.node.value {
                    for pair in frame.merged {
                        if !frame.lines.contains_key(&pair.key) {
                            frame.lines.insert(pair.key.clone(), pair.key_place.line);
                            pairs.push(pair);
                        }
                    }
                }
                self.complete(frame.node, frame.anchor, None)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, value: Value, anchor: usize, place: Place) -> Result<(), YamlError> {
        self.charge(NODE_WEIGHT, &place)?;
        if self.stack.len() >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} levels deep");
            return Err(self.error(Code::TooComplex, place, message, None));
        }
        self.stack.push(Frame {
            node: Node { value, place },
            anchor,
            key: None,
            merged: Vec::new(),
            lines: BTreeMap::new(),
        });
        Ok(())
    }

    /// Puts a finished value where it belongs: into the collection around it, as a key or a value,
    /// or to the documents. `plain` is the text of an unquoted scalar.
    fn complete(
        &mut self,
        node: Node,
        anchor: usize,
        plain: Option<&str>,
    ) -> Result<(), YamlError> {
        if anchor != 0 {
            self.charge(node.weight(), &node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            if node.value != Value::Null {
                self.documents.push(Document {
                    number: self.number,
                    root: node,
                });
            }
            return Ok(());
        };
        match &mut frame.node.value {
            Value::Sequence(items) => items.push(node),
            Value::Mapping(pairs) => match frame.key.take() {
                None => {
                    let is_merge = plain == Some("<<");
                    let key = match (plain, node.value) {
                        (Some(text), _) => text.to_owned(),
                        (None, Value::String(text)) => text,
                        (None, other) => {
                            let message = format!("a key must be a word, found {other}");
                            return Err(self.error(Code::Syntax, node.place, message, None));
                        }
                    };
                    frame.key = Some((key, node.place, is_merge));
                }
                Some((_, place, true)) => return self.merge(node, place),
                Some((key, key_place, false)) => {
                    if let Some(line) = frame.lines.get(&key) {
                        let message = format!("the key '{key}' is already on line {line}");
                        let help = Some("keep one of the two".to_owned());
                        let error = self.error(Code::DuplicateKey, key_place, message, help);
                        if self.errors.len() < MAX_ERRORS {
                            self.errors.push(error);
                        }
                        return Ok(());
                    }
                    frame.lines.insert(key.clone(), key_place.line);
                    pairs.push(Pair {
                        key,
                        key_place,
                        value: node,
                    });
                }
            },
            _ => {}
        }
        Ok(())
    }

    /// Notes the entries of a `<<` value for the end of the mapping.
    fn merge(&mut self, node: Node, key_place: Place) -> Result<(), YamlError> {
        let sources = match node.value {
            Value::Sequence(items) => items,
            _ => vec![node],
        };
        for source in sources {
            let Value::Mapping(pairs) = source.value else {
                let message = format!(
                    "a merge key takes a mapping or a list of them, found {}",
                    source.value
                );
                return Err(self.error(Code::Syntax, key_place, message, None));
            };
            if let Some(frame) = self.stack.last_mut() {
                frame.merged.extend(pairs);
            }
        }
        Ok(())
    }

    fn scalar(
        &self,
        text: &str,
        is_plain: bool,
        tag: Option<&Tag>,
        place: &Place,
    ) -> Result<Value, YamlError> {
        match tag.map(|tag| (tag.core_suffix(), tag)) {
            None if is_plain => Ok(resolve(text)),
            None | Some((Some("str"), _)) => Ok(Value::String(text.to_owned())),
            Some((Some(_), _)) => Ok(resolve(text)),
            Some((None, tag)) if tag.suffix() == "!" || tag.suffix().is_empty() => {
                Ok(Value::String(text.to_owned()))
            }
            Some((None, tag)) => Err(self.error(
                Code::Syntax,
                place.clone(),
                format!("the tag {} is not understood", tag.original()),
                Some("remove it".into()),
            )),
        }
    }

    fn charge(&mut self, weight: usize, place: &Place) -> Result<(), YamlError> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight <= MAX_WEIGHT {
            return Ok(());
        }
        Err(self.error(
            Code::TooComplex,
            place.clone(),
            format!("the file expands to more than {} MiB", MAX_WEIGHT >> 20),
            Some("use fewer aliases, or several files".into()),
        ))
    }

    fn error(&self, code: Code, place: Place, message: String, help: Option<String>) -> YamlError {
        YamlError {
            code,
            document: self.number.max(1),
            place,
            message,
            help,
        }
    }

    fn syntax_error(&self, error: &ScanError) -> YamlError {
        let marker = error.marker();
        let byte = marker.byte_offset().unwrap_or(0);
        let place = Place {
            line: marker.line(),
            column: marker.col() + 1,
            bytes: byte..byte,
        };
        self.error(
            Code::Syntax,
            place,
            format!("not valid YAML: {}", error.info()),
            None,
        )
    }
}

fn place(span: &Span) -> Place {
    Place {
        line: span.start.line(),
        column: span.start.col() + 1,
        bytes: span.byte_range().unwrap_or(0..0),
    }
}

/// The value of an unquoted scalar (YAML 1.2 §10.3.2).
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let based = |prefix: &str, radix| {
        text.strip_prefix(prefix)
            .and_then(|digits| i64::from_str_radix(digits, radix).ok())
    };
    if let Some(n) = based("0x", 16)
        .or_else(|| based("0o", 8))
        .or_else(|| text.parse().ok())
    {
        return Value::Integer(n);
    }
    let looks_like_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && text.contains(|c: char| c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    match text.parse::<f64>() {
        Ok(x) if looks_like_number => Value::Float(x),
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Node {
        let (mut documents, errors) = read(text);
        assert_eq!(errors, []);
        assert_eq!(documents.len(), 1);
        documents.remove(0).root
    }

    fn first_error(text: &str) -> YamlError {
        read(text).1.into_iter().next().expect("an error")
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, value) in [
            ("~", Value::Null),
            ("true", Value::Bool(true)),
            ("yes", Value::String("yes".into())),
            ("-7", Value::Integer(-7)),
            ("0x10", Value::Integer(16)),
            ("0o17", Value::Integer(15)),
            ("1.5", Value::Float(1.5)),
            ("99999999999999999999", Value::Float(1e20)),
            ("10.0.0.1", Value::String("10.0.0.1".into())),
            ("65000:100", Value::String("65000:100".into())),
            ("'7'", Value::String("7".into())),
            ("!!str 7", Value::String("7".into())),
            ("inf", Value::String("inf".into())),
        ] {
            assert_eq!(
                one(&format!("a: {text}")).get("a").unwrap().value,
                value,
                "{text}"
            );
        }
    }

    #[test]
    fn places_are_counted_from_one_in_lines_and_characters() {
        let root = one("a:\n  ü: { b: 7 }\n");
        let b = root.get("a").unwrap().get("ü").unwrap();
        let seven = b.get("b").unwrap();
        assert_eq!((seven.place.line, seven.place.column), (2, 11));
        assert_eq!(seven.place.bytes, 14..15);
        let key = &b.pair("b").unwrap().key_place;
        assert_eq!((key.line, key.column), (2, 8));
    }

    #[test]
    fn empty_documents_count_and_give_nothing() {
        let (documents, errors) = read("---\n# nothing\n---\na: 1\n---\nb: 2\n");
        assert_eq!(errors, []);
        assert_eq!(
            documents.iter().map(|d| d.number).collect::<Vec<_>>(),
            [2, 3]
        );
    }

    #[test]
    fn a_duplicate_key_names_the_line_of_the_first() {
        let error = first_error("a: 1\nb: 2\na: 3\n");
        assert_eq!((error.code, error.place.line), (Code::DuplicateKey, 3));
        assert_eq!(error.message, "the key 'a' is already on line 1");
    }

    #[test]
    fn aliases_and_merge_keys_are_followed() {
        let root = one("base: &b { x: 1, y: 2 }\nuse:\n  y: 3\n  <<: *b\nsame: *b\n");
        let used = root.get("use").unwrap();
        assert_eq!(used.get("x").unwrap().value, Value::Integer(1));
        assert_eq!(used.get("y").unwrap().value, Value::Integer(3));
        assert_eq!(root.get("same"), root.get("base"));
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_costs_memory() {
        let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
        for level in 1..12 {
            let inner = vec![format!("*a{}", level - 1); 9].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert_eq!(first_error(&text).code, Code::TooComplex);
    }

    #[test]
    fn a_long_text_repeated_by_aliases_is_refused_too() {
        let text = format!(
            "a: &a {}\nb: [{}]\n",
            "x".repeat(1 << 20),
            vec!["*a"; 100].join(", ")
        );
        assert_eq!(first_error(&text).code, Code::TooComplex);
    }

    #[test]
    fn a_mapping_of_many_keys_takes_time_in_proportion() {
        let many = |n: usize| (0..n).map(|i| format!("k{i}: {i}\n")).collect::<String>();
        let root = one(&many(200_000));
        assert_eq!(root.get("k199999").unwrap().value, Value::Integer(199_999));
        // All of them twice: found, and not all of them told.
        let (_, errors) = read(&many(20_000).repeat(2));
        assert_eq!(errors.len(), MAX_ERRORS);
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(!read(&"[".repeat(100_000)).1.is_empty());
        assert!(!read(&"- ".repeat(100_000)).1.is_empty());
    }

    #[test]
    fn an_alias_inside_its_own_anchor_is_refused() {
        assert!(!read("a: &a [*a]\n").1.is_empty());
    }

    #[test]
    fn broken_syntax_says_where() {
        let error = first_error("a: 1\nb: [1, 2\nc: 3\n");
        assert_eq!(error.code, Code::Syntax);
        assert!(error.place.line >= 2, "{error:?}");
    }
}
