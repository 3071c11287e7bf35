// SPDX-License-Identifier: Apache-2.0
//! Checking a tree against a schema.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde_json::Value as Json;

use crate::condition::parse_rfc3339;
use crate::diagnostic::{Code, Place};
use crate::parse::MAX_FINDINGS;
use crate::path::Path;
use crate::pattern;
use crate::suggest;
use crate::yaml::{Node, Value};

/// A finding of the check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) path: Path,
    pub(crate) place: Option<Place>,
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// Whether values may be shown in findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// They may.
    Shown,
    /// They are secret.
    Hidden,
}

/// Checks a tree against a schema.
pub(crate) fn check(schema: &Json, root: &Node, path: Path, values: Values) -> Vec<Finding> {
    let mut checker = Checker {
        findings: Vec::new(),
        values,
    };
    checker.node(schema, root, &path);
    checker.findings
}

struct Checker {
    findings: Vec<Finding>,
    values: Values,
}

impl Checker {
    fn report(
        &mut self,
        path: &Path,
        place: &Place,
        code: Code,
        message: String,
        help: Option<String>,
    ) {
        let (path, place) = (path.clone(), Some(place.clone()));
        self.findings.push(Finding {
            path,
            place,
            code,
            message,
            help,
        });
    }

    fn node(&mut self, schema: &Json, node: &Node, path: &Path) {
        if self.findings.len() >= MAX_FINDINGS {
            return;
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return match &node.value {
                Value::Integer(number) => self.integer(schema, *number, node, path),
                Value::String(text) => self.string(schema, text, node, path),
                found => {
                    let message = format!("must be a number or a text, found {}", self.show(found));
                    self.report(path, &node.place, Code::WrongType, message, allowed(schema));
                }
            };
        }
        match (schema["type"].as_str(), &node.value) {
            (None, _) => {}
            (Some("object"), Value::Mapping(_)) => self.mapping(schema, node, path),
            (Some("array"), Value::Sequence(items)) => self.list(schema, items, node, path),
            (Some("string"), Value::String(text)) => self.string(schema, text, node, path),
            (Some("integer"), Value::Integer(number)) => self.integer(schema, *number, node, path),
            (Some("boolean"), Value::Bool(_)) => {}
            (Some("number"), Value::Integer(_) | Value::Float(_)) => {}
            (Some(wanted), found) => {
                let help = match (wanted, found) {
                    ("string", Value::Integer(_) | Value::Float(_) | Value::Bool(_)) => {
                        Some("put it into quotes".to_owned())
                    }
                    _ => allowed(schema),
                };
                let message = format!("must be {}, found {}", article(wanted), self.show(found));
                self.report(path, &node.place, Code::WrongType, message, help);
            }
        }
    }

    fn mapping(&mut self, schema: &Json, node: &Node, path: &Path) {
        let Value::Mapping(pairs) = &node.value else {
            return;
        };
        let properties = schema["properties"].as_object();
        let keeps_unknown = schema["x-kubernetes-preserve-unknown-fields"] == true;
        for pair in pairs {
            if self.findings.len() >= MAX_FINDINGS {
                return;
            }
            let below = path.join(pair.key.as_str());
            let property = properties.and_then(|p| p.get(&pair.key));
            let property = property.or_else(|| schema.get("additionalProperties"));
            let is_empty = pair.value.value == Value::Null;
            match property {
                Some(property) if !is_empty => self.node(property, &pair.value, &below),
                Some(_) => {}
                None if keeps_unknown => {}
                None => {
                    let names = || properties.iter().flat_map(|p| p.keys().map(String::as_str));
                    let help = match suggest::nearest(&pair.key, names()) {
                        Some(name) => format!("did you mean '{name}'?"),
                        None => format!("known here: {}", names().collect::<Vec<_>>().join(", ")),
                    };
                    let message = format!("unknown field '{}'", pair.key);
                    self.report(
                        &below,
                        &pair.key_place,
                        Code::UnknownField,
                        message,
                        Some(help),
                    );
                }
            }
        }
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
        {
            let found = pairs.iter().find(|pair| pair.key == name);
            if found.is_some_and(|pair| pair.value.value != Value::Null) {
                continue;
            }
            let place = found.map_or(&node.place, |pair| &pair.key_place);
            let message = match found {
                Some(_) => format!("the field '{name}' is required and is empty"),
                None => format!("the field '{name}' is required"),
            };
            let help = properties.and_then(|p| p.get(name)).and_then(allowed);
            self.report(&path.join(name), place, Code::MissingField, message, help);
        }
    }

    fn list(&mut self, schema: &Json, items: &[Node], node: &Node, path: &Path) {
        let length = items.len() as u64;
        if schema["minItems"].as_u64().is_some_and(|min| length < min)
            || schema["maxItems"].as_u64().is_some_and(|max| length > max)
        {
            let message = format!("has {length} entries");
            self.report(
                path,
                &node.place,
                Code::InvalidValue,
                message,
                allowed(schema),
            );
        }
        for (index, item) in items.iter().enumerate() {
            self.node(&schema["items"], item, &path.join(index));
        }
        let keys = schema["x-kubernetes-list-map-keys"].as_array();
        let Some(key) = keys.and_then(|keys| keys.first()).and_then(Json::as_str) else {
            return;
        };
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let Some(found) = item.get(key) else { continue };
            let Some(text) = found.as_str() else { continue };
            if let Some(first) = seen.get(text) {
                let message = format!("{key} '{text}' is already used by entry {first}");
                let help = Some(format!("every {key} in this list must be different"));
                let below = path.join(index).join(key);
                self.report(&below, &found.place, Code::InvalidValue, message, help);
            } else {
                seen.insert(text, index);
            }
        }
    }

    fn string(&mut self, schema: &Json, text: &str, node: &Node, path: &Path) {
        let length = text.chars().count() as u64;
        let is_listed = |names: &Vec<Json>| names.iter().any(|name| name == text);
        let found = self.show(&node.value);
        let (message, help) = if schema["enum"]
            .as_array()
            .is_some_and(|names| !is_listed(names))
        {
            let names = schema["enum"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Json::as_str);
            let near = suggest::nearest(text, names).map(|name| format!("did you mean '{name}'? "));
            let all = allowed(schema).unwrap_or_default();
            (
                format!("{found} is not allowed"),
                Some(near.unwrap_or_default() + &all),
            )
        } else if schema["minLength"].as_u64().is_some_and(|min| length < min)
            || schema["maxLength"].as_u64().is_some_and(|max| length > max)
        {
            (format!("has {length} characters"), allowed(schema))
        } else if schema["pattern"]
            .as_str()
            .is_some_and(|p| !matches_pattern(p, text))
        {
            (format!("{found} is not allowed"), allowed(schema))
        } else if schema["format"] == "date-time" && parse_rfc3339(text).is_none() {
            let help = "allowed: a time in UTC such as 2026-01-31T12:00:00Z";
            (format!("{found} is not allowed"), Some(help.to_owned()))
        } else {
            return;
        };
        self.report(path, &node.place, Code::InvalidValue, message, help);
    }

    fn integer(&mut self, schema: &Json, number: i64, node: &Node, path: &Path) {
        let message = if let Some(min) = schema["minimum"].as_i64().filter(|min| number < *min) {
            format!("{number} is below {min}")
        } else if let Some(max) = schema["maximum"].as_i64().filter(|max| number > *max) {
            format!("{number} is above {max}")
        } else {
            return;
        };
        self.report(
            path,
            &node.place,
            Code::InvalidValue,
            message,
            allowed(schema),
        );
    }

    fn show(&self, value: &Value) -> String {
        match (self.values, value) {
            (Values::Shown, value) => value.to_string(),
            (Values::Hidden, Value::String(_)) => "a text".into(),
            (Values::Hidden, Value::Integer(_) | Value::Float(_)) => "a number".into(),
            (Values::Hidden, Value::Bool(_)) => "true or false".into(),
            (Values::Hidden, other) => other.to_string(),
        }
    }
}

/// What a schema allows, in words.
fn allowed(schema: &Json) -> Option<String> {
    let range = |min: Option<i64>, max: Option<i64>, unit: &str| match (min, max) {
        (Some(min), Some(max)) => Some(format!("allowed: {min} to {max}{unit}")),
        (Some(min), None) => Some(format!("allowed: {min}{unit} or more")),
        (None, Some(max)) => Some(format!("allowed: at most {max}{unit}")),
        (None, None) => None,
    };
    if let Some(names) = schema["enum"].as_array() {
        let names: Vec<_> = names.iter().filter_map(Json::as_str).collect();
        return Some(format!("allowed: {}", names.join(", ")));
    }
    if let Some(text) = schema["pattern"].as_str().and_then(pattern::in_words) {
        return Some(format!("allowed: {text}"));
    }
    let bound = |key: &str| schema[key].as_i64();
    range(bound("minimum"), bound("maximum"), "")
        .or_else(|| range(bound("minLength"), bound("maxLength"), " characters"))
        .or_else(|| range(bound("minItems"), bound("maxItems"), " entries"))
}

fn article(json_type: &str) -> &str {
    match json_type {
        "object" => "a mapping",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        other => other,
    }
}

/// Whether a text matches a pattern of a schema. Compiled once for each pattern; there are a
/// handful.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    static COMPILED: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| {
        Regex::new(pattern).expect("patterns of our schemas compile: a test reads them all")
    });
    regex.is_match(text)
}
