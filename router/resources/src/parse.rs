// SPDX-License-Identifier: Apache-2.0
//! Bytes of a file to objects and findings.

use std::path::Path as FilePath;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::object::{Body, Kind, Metadata, Object};
use crate::path::Path;
use crate::rules;
use crate::schema::{self, Finding, Values};
use crate::snapshot::Source;
use crate::suggest;
use crate::yaml::{self, Node, Value};

/// The largest file that is read: 8 MiB, arbitrary; a thousand times a usual file.
pub const MAX_FILE_BYTES: u64 = 8 << 20;

/// The most findings reported for one file or object; the rest is counted, as far as it was looked
/// for. Arbitrary: nobody reads more.
pub const MAX_FINDINGS: usize = 100;

/// The most findings kept while a file is read. A file with more is refused: what it would cost to
/// go on is not bounded by anything else.
const MAX_KEPT: usize = 10_000;

/// An object and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedObject {
    /// The object.
    pub object: Object,
    /// Where it was read.
    pub source: Source,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedFile {
    /// The valid objects. To be used only when no finding is an error.
    pub objects: Vec<ParsedObject>,
    /// What is wrong or remarkable, in order of places.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads a file's bytes. `file` is only for the findings.
pub fn parse_file(file: &FilePath, bytes: &[u8]) -> ParsedFile {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return too_large(file, bytes.len() as u64);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let line = 1 + good.iter().filter(|b| **b == b'\n').count();
            let message = format!(
                "not UTF-8: byte {:#04x} at offset {} (line {line})",
                bytes[error.valid_up_to()],
                error.valid_up_to()
            );
            let mut finding = Diagnostic::about_file(file, Code::NotUtf8, message);
            finding.help = Some("save the file as UTF-8".into());
            return ParsedFile {
                objects: Vec::new(),
                diagnostics: vec![finding],
            };
        }
    };
    let (documents, errors) = yaml::read(text);
    let mut reader = FileReader {
        file,
        parsed: ParsedFile::default(),
    };
    for error in errors {
        reader.parsed.diagnostics.push(Diagnostic {
            document: Some(error.document),
            place: Some(error.place),
            help: error.help,
            ..Diagnostic::about_file(file, error.code, error.message)
        });
    }
    for document in &documents {
        reader.document(document.number, &document.root);
    }
    if reader.is_full() {
        let message = format!("more than {MAX_KEPT} findings, the rest of the file was not read");
        let finding = Diagnostic::about_file(file, Code::TooComplex, message);
        reader.parsed.diagnostics.push(finding);
    }
    let mut parsed = reader.parsed;
    parsed
        .diagnostics
        .sort_by_key(|d| d.place.as_ref().map(|p| (p.line, p.column)));
    if parsed.diagnostics.len() > MAX_FINDINGS {
        // Errors must survive the cut: they decide whether the file is used.
        parsed
            .diagnostics
            .sort_by_key(|d| std::cmp::Reverse(d.severity));
        let rest = parsed.diagnostics.len() - MAX_FINDINGS;
        parsed.diagnostics.truncate(MAX_FINDINGS);
        let severity = parsed.diagnostics[0].severity;
        let more = Diagnostic::about_file(file, Code::Syntax, format!("and {rest} more findings"));
        parsed.diagnostics.push(Diagnostic { severity, ..more });
    }
    parsed
}

/// The outcome for a file that is there and cannot be read.
pub fn unreadable(file: &FilePath, why: &str) -> ParsedFile {
    let message = format!("cannot be read: {why}");
    let finding = Diagnostic::about_file(file, Code::Unreadable, message);
    ParsedFile {
        objects: Vec::new(),
        diagnostics: vec![finding],
    }
}

/// The outcome for a file above [`MAX_FILE_BYTES`].
pub fn too_large(file: &FilePath, size: u64) -> ParsedFile {
    let message = format!("has {size} bytes, more than the {MAX_FILE_BYTES} that are read");
    let mut finding = Diagnostic::about_file(file, Code::TooLarge, message);
    finding.help = Some("split it into several files".into());
    ParsedFile {
        objects: Vec::new(),
        diagnostics: vec![finding],
    }
}

struct FileReader<'a> {
    file: &'a FilePath,
    parsed: ParsedFile,
}

/// What the findings of one object have in common.
#[derive(Clone)]
struct Context<'a> {
    document: usize,
    root: &'a Node,
    object: Option<String>,
}

impl FileReader<'_> {
    fn document(&mut self, number: usize, root: &Node) {
        let context = Context {
            document: number,
            root,
            object: None,
        };
        let Value::Mapping(_) = root.value else {
            let message = format!("a document must be an object, found {}", root.value);
            let help = "it has the fields apiVersion, kind, metadata and spec";
            return self.envelope_error(&context, Path::default(), message, Some(help.into()));
        };
        // `kubectl get -o yaml` wraps several objects into one.
        if root.get("kind").and_then(Node::as_str) == Some("List")
            && let Some(Value::Sequence(items)) = root.get("items").map(|items| &items.value)
        {
            return items.iter().for_each(|item| self.object(number, item));
        }
        self.object(number, root);
    }

    fn is_full(&self) -> bool {
        self.parsed.diagnostics.len() >= MAX_KEPT
    }

    fn object(&mut self, number: usize, root: &Node) {
        if self.is_full() {
            return;
        }
        let mut context = Context {
            document: number,
            root,
            object: None,
        };
        let text = |key: &str| root.get(key).and_then(Node::as_str);
        let (Some(api_version), Some(kind_name)) = (text("apiVersion"), text("kind")) else {
            for key in ["apiVersion", "kind"] {
                if text(key).is_none() {
                    let message = format!("the field '{key}' is required and must be a text");
                    self.envelope_error(&context, Path::root(key), message, None);
                }
            }
            return;
        };
        let name = root
            .get("metadata")
            .and_then(|m| m.get("name"))
            .and_then(Node::as_str);
        context.object = name.map(|name| format!("{kind_name}/{name}"));
        let Some(kind) = Kind::from_api(api_version, kind_name) else {
            return self.unknown_kind(&context, api_version, kind_name);
        };
        let Some(api_version) = kind.api_versions().iter().find(|v| **v == api_version) else {
            return;
        };
        let values = if kind == Kind::Secret {
            Values::Hidden
        } else {
            Values::Shown
        };
        let findings = schema::check(
            schema::of_kind(kind, api_version),
            root,
            Path::default(),
            values,
        );
        let is_valid = findings.is_empty();
        self.report(&context, findings);
        if !is_valid {
            return;
        }
        match to_object(kind, api_version, root) {
            Ok(object) => {
                let findings = rules::check(&object);
                let is_valid = findings.is_empty();
                self.report(&context, findings);
                self.warn_about_ignored(&context, &object);
                if is_valid {
                    let (file, line) = (self.file.to_path_buf(), root.place.line);
                    let source = Source {
                        file,
                        document: number,
                        line,
                    };
                    self.parsed.objects.push(ParsedObject { object, source });
                }
            }
            Err(error) => {
                // The schema says less than the type; the place within the object is not known.
                self.envelope_error(&context, Path::default(), error.to_string(), None);
            }
        }
    }

    fn unknown_kind(&mut self, context: &Context<'_>, api_version: &str, kind_name: &str) {
        let same_kind = Kind::ALL.into_iter().find(|kind| kind.name() == kind_name);
        let (path, message, help) = match same_kind {
            Some(kind) => (
                Path::root("apiVersion"),
                format!("{kind_name} of '{api_version}' is not read"),
                format!("did you mean '{}'?", kind.api_versions()[0]),
            ),
            None => {
                let near = suggest::nearest(kind_name, Kind::ALL.iter().map(|kind| kind.name()));
                let help = match near {
                    Some(name) => format!("did you mean '{name}'?"),
                    None => {
                        let names = Kind::ALL.map(Kind::name).join(", ");
                        format!("the object is ignored; kinds read: {names}")
                    }
                };
                let message = format!("the kind {kind_name} of '{api_version}' is not read");
                (Path::root("kind"), message, help)
            }
        };
        self.push(
            context,
            path,
            Severity::Warning,
            Code::UnknownKind,
            message,
            Some(help),
        );
    }

    fn warn_about_ignored(&mut self, context: &Context<'_>, object: &Object) {
        let mut ignored: Vec<(Path, &str)> = Vec::new();
        let spec = Path::root("spec");
        match &object.body {
            Body::PeerConfig(body) | Body::CausewayPeerConfig(body) => {
                if body
                    .transport
                    .as_ref()
                    .is_some_and(|t| t.local_port.is_some())
                {
                    let path = spec.join("transport").join("localPort");
                    ignored.push((path, "has no effect: source ports are ephemeral"));
                }
            }
            Body::NodeConfigOverride(body) => {
                for (i, instance) in body.bgp_instances.iter().enumerate() {
                    for (j, peer) in instance.peers.iter().enumerate() {
                        if peer.local_port.is_some() {
                            let path = spec.join("bgpInstances").join(i).join("peers").join(j);
                            let why = "has no effect: source ports are ephemeral";
                            ignored.push((path.join("localPort"), why));
                        }
                    }
                }
            }
            Body::NodeConfig(_) => {
                ignored.push((
                    Path::root("kind"),
                    "is written by Causeway and not read from files",
                ));
            }
            Body::Policy(body) => {
                for (path, why) in rules::unreachable(body) {
                    self.push(context, path, Severity::Warning, Code::Ignored, why, None);
                }
            }
            Body::ClusterConfig(_)
            | Body::CausewayClusterConfig(_)
            | Body::Advertisement(_)
            | Body::BfdProfile(_)
            | Body::CiliumEgressPolicy(_)
            | Body::EgressPolicy(_)
            | Body::Node(_)
            | Body::Namespace(_)
            | Body::Pod(_)
            | Body::Secret(_) => {}
        }
        for (path, why) in ignored {
            self.push(
                context,
                path,
                Severity::Warning,
                Code::Ignored,
                why.into(),
                None,
            );
        }
    }

    fn report(&mut self, context: &Context<'_>, findings: Vec<Finding>) {
        for finding in findings {
            let place = finding.place.clone();
            let Finding {
                path,
                code,
                message,
                help,
                ..
            } = finding;
            self.push(context, path, Severity::Error, code, message, help);
            if let (Some(place), Some(last)) = (place, self.parsed.diagnostics.last_mut()) {
                last.place = Some(place);
            }
        }
    }

    fn envelope_error(
        &mut self,
        context: &Context<'_>,
        path: Path,
        message: String,
        help: Option<String>,
    ) {
        self.push(
            context,
            path,
            Severity::Error,
            Code::NotAnObject,
            message,
            help,
        );
    }

    fn push(
        &mut self,
        context: &Context<'_>,
        path: Path,
        severity: Severity,
        code: Code,
        message: String,
        help: Option<String>,
    ) {
        self.parsed.diagnostics.push(Diagnostic {
            file: self.file.to_path_buf(),
            document: Some(context.document),
            place: Some(path.place_in(context.root)),
            object: context.object.clone(),
            field: path.to_string(),
            severity,
            code,
            message,
            help,
        });
    }
}

fn to_object(
    kind: Kind,
    api_version: &'static str,
    root: &Node,
) -> Result<Object, serde_json::Error> {
    fn spec<T: DeserializeOwned>(json: &mut Json) -> Result<T, serde_json::Error> {
        serde_json::from_value(json["spec"].take())
    }
    let mut json = root.to_json();
    let metadata: Metadata = serde_json::from_value(json["metadata"].take())?;
    let body = match kind {
        Kind::ClusterConfig => Body::ClusterConfig(spec(&mut json)?),
        Kind::PeerConfig => Body::PeerConfig(spec(&mut json)?),
        Kind::Advertisement => Body::Advertisement(spec(&mut json)?),
        Kind::NodeConfigOverride => Body::NodeConfigOverride(spec(&mut json)?),
        Kind::NodeConfig => Body::NodeConfig(spec(&mut json)?),
        Kind::CausewayClusterConfig => Body::CausewayClusterConfig(spec(&mut json)?),
        Kind::CausewayPeerConfig => Body::CausewayPeerConfig(spec(&mut json)?),
        Kind::Policy => Body::Policy(spec(&mut json)?),
        Kind::BfdProfile => Body::BfdProfile(spec(&mut json)?),
        Kind::CiliumEgressPolicy => Body::CiliumEgressPolicy(spec(&mut json)?),
        Kind::EgressPolicy => Body::EgressPolicy(spec(&mut json)?),
        Kind::Node => Body::Node(serde_json::from_value(json)?),
        Kind::Namespace => Body::Namespace(serde_json::from_value(json)?),
        Kind::Pod => Body::Pod(serde_json::from_value(json)?),
        Kind::Secret => Body::Secret(serde_json::from_value(json)?),
    };
    Ok(Object {
        api_version,
        metadata,
        body,
    })
}
