// SPDX-License-Identifier: Apache-2.0
//! Default, file, environment and flags, put on top of each other.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::LazyLock;

use serde_json::Value as Json;

use super::Settings;
use super::raw::RawSettings;
use crate::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::path::Path;
use crate::schema::{self, Finding, Values};
use crate::suggest;
use crate::yaml::{self, Node, Pair, Value};

/// Everything settings are made of.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The file's path and bytes, if there is one.
    pub file: Option<(PathBuf, Vec<u8>)>,
    /// Environment variables; those that do not begin with `CAUSEWAY_` are not looked at.
    pub environment: BTreeMap<String, String>,
    /// Paths of settings (`log.level`) and values, as flags gave them.
    pub flags: Vec<(String, String)>,
    /// The name of the host, the default of `nodeName`.
    pub host_name: String,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the file.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag => f.write_str("flag"),
        }
    }
}

/// One setting with its value in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its path, `log.level`.
    pub path: String,
    /// Its value as JSON.
    pub value: Json,
    /// Where the value comes from.
    pub origin: Origin,
}

/// The settings in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// The settings.
    pub settings: Settings,
    /// Every setting with value and origin, in order of paths.
    pub list: Vec<Setting>,
    /// Findings that do not keep the settings from being used.
    pub warnings: Vec<Diagnostic>,
}

static SCHEMA: LazyLock<Json> = LazyLock::new(schema::structural::<RawSettings>);

impl Effective {
    /// All settings in force as one document of the settings file.
    pub fn to_yaml(&self) -> String {
        let mut root = Json::Object(serde_json::Map::new());
        for setting in &self.list {
            insert(&mut root, &setting.path, setting.value.clone());
        }
        // JSON is YAML: what cannot be written prettily is still right.
        serde_saphyr::to_string(&root).unwrap_or_else(|_| root.to_string())
    }

    /// Puts the layers on top of each other.
    ///
    /// # Errors
    /// The findings, at least one of them an error.
    pub fn resolve(inputs: Inputs) -> Result<Effective, Vec<Diagnostic>> {
        let mut layers = Layers {
            findings: Vec::new(),
            values: BTreeMap::new(),
        };
        let leaves = leaves(&SCHEMA);
        let defaults = serde_json::to_value(RawSettings::default()).unwrap_or_default();
        for path in leaves.keys() {
            let mut value = lookup(&defaults, path).cloned().unwrap_or_default();
            if path == "nodeName" {
                value = inputs.host_name.clone().into();
            }
            layers.values.insert(path.clone(), (value, Origin::Default));
        }
        let root = inputs
            .file
            .as_ref()
            .and_then(|(path, bytes)| layers.file(path, bytes, &leaves));
        layers.environment(&inputs.environment, &leaves);
        layers.flags(&inputs.flags, &leaves);
        let mut raw = serde_json::json!({});
        for (path, (value, _)) in &layers.values {
            insert(&mut raw, path, value.clone());
        }
        let has_errors = layers.findings.iter().any(Diagnostic::is_error);
        // A layer that does not fit the schema is reported already; the rest is still checked.
        let read = serde_json::from_value::<RawSettings>(raw);
        match read.map(|raw| raw.read(&inputs.host_name)) {
            Ok(Ok(settings)) if !has_errors => Ok(Effective {
                settings,
                list: layers
                    .values
                    .into_iter()
                    .map(|(path, (value, origin))| Setting {
                        path,
                        value,
                        origin,
                    })
                    .collect(),
                warnings: layers.findings,
            }),
            Ok(Err(refusals)) => {
                for (path, message, allowed) in refusals {
                    layers.refuse(&path, message, allowed, root.as_ref());
                }
                Err(layers.findings)
            }
            Ok(Ok(_)) | Err(_) => Err(layers.findings),
        }
    }
}

struct Layers {
    findings: Vec<Diagnostic>,
    values: BTreeMap<String, (Json, Origin)>,
}

impl Layers {
    /// Takes the file's values and returns its tree.
    fn file(
        &mut self,
        file: &FilePath,
        bytes: &[u8],
        leaves: &BTreeMap<String, &Json>,
    ) -> Option<Node> {
        let Ok(text) = std::str::from_utf8(bytes) else {
            let finding = Diagnostic::about_file(file, Code::NotUtf8, "the file is not UTF-8");
            self.findings.push(finding);
            return None;
        };
        let (mut documents, errors) = yaml::read(text.strip_prefix('\u{feff}').unwrap_or(text));
        for error in errors {
            self.findings.push(Diagnostic {
                place: Some(error.place),
                help: error.help,
                ..Diagnostic::about_file(file, error.code, error.message)
            });
        }
        if documents.len() > 1 {
            let message = "the settings file has more than one document";
            self.findings.push(Diagnostic {
                place: Some(documents[1].root.place.clone()),
                help: Some("resources belong into files of resourcesDirectory".into()),
                ..Diagnostic::about_file(file, Code::Syntax, message)
            });
        }
        if documents.is_empty() {
            return None;
        }
        let mut root = documents.swap_remove(0).root;
        prune(&mut root);
        for finding in schema::check(&SCHEMA, &root, Path::default(), Values::Shown) {
            let Finding {
                path,
                place,
                code,
                message,
                help,
            } = finding;
            self.findings.push(Diagnostic {
                place,
                field: path.to_string(),
                help,
                ..Diagnostic::about_file(file, code, message)
            });
        }
        for path in leaves.keys() {
            let mut node = Some(&root);
            let mut line = 0;
            for key in path.split('.') {
                let pair = node.and_then(|node| node.pair(key));
                line = pair.map_or(line, |pair| pair.key_place.line);
                node = pair.map(|pair| &pair.value);
            }
            if let Some(node) = node {
                let origin = Origin::File(file.to_path_buf(), line);
                self.values.insert(path.clone(), (node.to_json(), origin));
            }
        }
        Some(root)
    }

    fn environment(
        &mut self,
        environment: &BTreeMap<String, String>,
        leaves: &BTreeMap<String, &Json>,
    ) {
        let names: BTreeMap<String, &String> = leaves
            .keys()
            .map(|path| (variable_name(path), path))
            .collect();
        for (name, text) in environment
            .iter()
            .filter(|(name, _)| name.starts_with("CAUSEWAY_"))
        {
            let place = PathBuf::from(format!("environment variable {name}"));
            let Some(path) = names.get(name) else {
                // Only a near miss is worth a word: others may have variables of this prefix.
                if let Some(near) = suggest::nearest(name, names.keys().map(String::as_str)) {
                    let message = "no setting has this variable";
                    self.findings.push(Diagnostic {
                        severity: Severity::Warning,
                        help: Some(format!("did you mean {near}?")),
                        ..Diagnostic::about_file(&place, Code::UnknownField, message)
                    });
                }
                continue;
            };
            self.text(
                &place,
                path,
                leaves[*path],
                text,
                Origin::Environment(name.clone()),
            );
        }
    }

    fn flags(&mut self, flags: &[(String, String)], leaves: &BTreeMap<String, &Json>) {
        for (path, text) in flags {
            let place = PathBuf::from("command line");
            let Some(schema) = leaves.get(path) else {
                let near = suggest::nearest(path, leaves.keys().map(String::as_str));
                self.findings.push(Diagnostic {
                    field: path.clone(),
                    help: near.map(|near| format!("did you mean '{near}'?")),
                    ..Diagnostic::about_file(&place, Code::UnknownField, "there is no such setting")
                });
                continue;
            };
            self.text(&place, path, schema, text, Origin::Flag);
        }
    }

    /// Takes a value that is given as a text: lists are separated by commas.
    fn text(&mut self, place: &FilePath, path: &str, schema: &Json, text: &str, origin: Origin) {
        let leaf = |value| Node {
            value,
            place: Place::default(),
        };
        let value = match schema["type"].as_str() {
            Some("array") => Value::Sequence(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| leaf(Value::String(item.to_owned())))
                    .collect(),
            ),
            Some("integer") => match text.trim().parse() {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::String(text.to_owned()),
            },
            _ => Value::String(text.to_owned()),
        };
        let node = leaf(value);
        let findings = schema::check(schema, &node, Path::default(), Values::Shown);
        for finding in &findings {
            self.findings.push(Diagnostic {
                field: path.to_owned(),
                help: finding.help.clone(),
                ..Diagnostic::about_file(place, finding.code, finding.message.clone())
            });
        }
        if findings.is_empty() {
            self.values
                .insert(path.to_owned(), (node.to_json(), origin));
        }
    }

    fn refuse(&mut self, path: &str, message: String, allowed: &str, root: Option<&Node>) {
        let setting = path.split('[').next().unwrap_or(path);
        let origin = self
            .values
            .get(setting)
            .map_or(&Origin::Default, |(_, origin)| origin);
        let (file, place) = match (origin, root) {
            (Origin::File(file, _), Some(root)) => {
                (file.clone(), Some(segments(path).place_in(root)))
            }
            (Origin::Environment(name), _) => {
                (PathBuf::from(format!("environment variable {name}")), None)
            }
            (Origin::Flag, _) => (PathBuf::from("command line"), None),
            (Origin::Default | Origin::File(..), _) => (PathBuf::from("default"), None),
        };
        self.findings.push(Diagnostic {
            place,
            field: path.to_owned(),
            help: Some(allowed.to_owned()),
            ..Diagnostic::about_file(&file, Code::InvalidValue, message)
        });
    }
}

/// The settings themselves: properties that have no properties.
fn leaves(schema: &Json) -> BTreeMap<String, &Json> {
    let mut found = BTreeMap::new();
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        if below["properties"].is_object() {
            for (path, leaf) in leaves(below) {
                found.insert(format!("{name}.{path}"), leaf);
            }
        } else {
            found.insert(name.clone(), below);
        }
    }
    found
}

/// Removes keys with empty values: `log:` with everything under it commented out.
fn prune(node: &mut Node) {
    if let Value::Mapping(pairs) = &mut node.value {
        pairs.retain(|Pair { value, .. }| value.value != Value::Null);
        pairs.iter_mut().for_each(|pair| prune(&mut pair.value));
    }
}

/// The environment variable of a setting: `log.level` is `CAUSEWAY_LOG_LEVEL`, `podCIDRs`
/// `CAUSEWAY_POD_CIDRS`.
pub(super) fn variable_name(path: &str) -> String {
    let mut name = String::from("CAUSEWAY_");
    let mut is_after_lower = false;
    for c in path.chars() {
        if c == '.' {
            name.push('_');
        } else {
            if is_after_lower && c.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        is_after_lower = c.is_ascii_lowercase();
    }
    name
}

fn lookup<'a>(value: &'a Json, path: &str) -> Option<&'a Json> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

fn insert(root: &mut Json, path: &str, value: Json) {
    match path.split_once('.') {
        None => root[path] = value,
        Some((first, rest)) => {
            if !root[first].is_object() {
                root[first] = serde_json::json!({});
            }
            insert(&mut root[first], rest, value);
        }
    }
}

/// The path of a written one such as `podCIDRs[1]`.
fn segments(text: &str) -> Path {
    let mut path = Path::default();
    for part in text.split('.') {
        let mut pieces = part.split(['[', ']']).filter(|piece| !piece.is_empty());
        if let Some(key) = pieces.next() {
            path = path.join(key);
        }
        for index in pieces.filter_map(|piece| piece.parse::<usize>().ok()) {
            path = path.join(index);
        }
    }
    path
}
