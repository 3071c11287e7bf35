// SPDX-License-Identifier: Apache-2.0
//! `causeway resources`.

use router_api::Connection;
use router_api::v1alpha1::{
    Condition, Diagnostic, ListResourcesRequest, ListResourcesResponse, Resource,
};
use serde_json::{Map, Value, json};

use crate::args::{ResourcesArgs, ResourcesVerb};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Page, Tone, View, age, rfc3339};
use crate::suggest::nearest;

pub(crate) async fn fetch(
    connection: &Connection,
    args: &ResourcesArgs,
    now_unix_ns: i64,
) -> Result<View, Failure> {
    let request = ListResourcesRequest {
        kind: args.kind.clone().unwrap_or_default(),
        namespace: args.namespace.clone().unwrap_or_default(),
        name: String::new(),
    };
    let answer = connection.resources().list_resources(request).await;
    let answer = answer.map_err(|s| Failure::from_status("cannot list the resources", &s))?;
    let answer = answer.into_inner();
    match &args.verb {
        None | Some(ResourcesVerb::List) => Ok(list(&answer)),
        Some(ResourcesVerb::Get { name }) => Ok(get(find(&answer.resources, name)?, now_unix_ns)),
    }
}

/// The listing of an answer.
pub fn list(answer: &ListResourcesResponse) -> View {
    let mut fields = Map::new();
    fields.insert("node".to_owned(), answer.node.clone().into());
    let diagnostics = answer.diagnostics.iter().map(diagnostic_json).collect();
    fields.insert("diagnostics".to_owned(), diagnostics);
    let notes = answer.diagnostics.iter().map(|d| {
        let hint = if d.hint.is_empty() {
            String::new()
        } else {
            format!("; {}", d.hint)
        };
        let field = if d.field.is_empty() {
            String::new()
        } else {
            format!("{}: ", d.field)
        };
        format!(
            "{}: {}: {field}{}{hint}",
            place(&d.path, d.line, d.column),
            d.severity,
            d.message
        )
    });
    Listing {
        kind: "ResourceList",
        fields,
        columns: vec![
            Column::new("Kind"),
            Column::new("Namespace").wide(),
            Column::new("Name"),
            Column::new("Status"),
            Column::new("Source"),
            Column::new("Message").prose(),
            Column::new("API Version").wide(),
            Column::new("Generation").wide(),
        ],
        items: answer.resources.iter().map(item).collect(),
        empty: "no resources (see `causeway config show` for the directory they are read from)"
            .to_owned(),
        notes: notes.collect(),
    }
    .into()
}

fn item(resource: &Resource) -> Item {
    let source = resource.source.clone().unwrap_or_default();
    let (status, message) = summary(resource);
    Item {
        name: qualified_name(resource),
        json: resource_json(resource),
        rows: vec![vec![
            resource.kind.as_str().into(),
            resource.namespace.as_str().into(),
            resource.name.as_str().into(),
            status,
            place(&source.path, source.line, 0).into(),
            message.into(),
            resource.api_version.as_str().into(),
            resource.generation.to_string().into(),
        ]],
    }
}

/// One word and the sentence behind it: of the worst condition.
fn summary(resource: &Resource) -> (Cell, String) {
    let problems = resource.conditions.iter().filter(|c| is_problem(c));
    // That an object has no effect here is said where there is nothing worse to say.
    let problem = problems.min_by_key(|c| c.r#type == "causeway.io/InUse");
    match problem {
        Some(condition) => (
            Cell::toned(Tone::Notice, condition.reason.as_str()),
            condition.message.clone(),
        ),
        None if resource.last_good => {
            let message = "the file is broken; this is its last good version";
            (Cell::toned(Tone::Notice, "LastGood"), message.to_owned())
        }
        None => (Cell::toned(Tone::Good, "Accepted"), String::new()),
    }
}

/// Conditions that name what shall be are bad when false; Cilium's, and those of ours that name a
/// fault, are bad when true. A type nobody knows here is taken for the first sort.
fn is_problem(condition: &Condition) -> bool {
    let names_a_fault = match condition.r#type.split_once('/') {
        Some(("cilium.io", _)) => true,
        Some(("causeway.io", name)) => match name {
            "Degraded" | "NotProvided" | "NotAdvertised" => true,
            "NoMatchingNode" | "Undecided" | "InterfaceMissing" | "AddressMissing"
            | "SharedAddress" | "PoolExhausted" | "MissingBFDProfile" | "Unguarded" => true,
            // Of two policies the one that has the say lacks nothing.
            "Overlaps" => return condition.status == "True" && condition.reason == "Shadowed",
            // Most policies are about pods of other nodes.
            "NoMatchingPod" => return false,
            _ => false,
        },
        _ => false,
    };
    condition.status == if names_a_fault { "True" } else { "False" }
}

fn find<'a>(resources: &'a [Resource], name: &str) -> Result<&'a Resource, Failure> {
    let parts: Vec<&str> = name.split('/').collect();
    let is_kind = |r: &Resource, kind: &str| r.kind.eq_ignore_ascii_case(kind);
    let meant: Vec<&Resource> = resources
        .iter()
        .filter(|r| match parts[..] {
            [name] => r.name == name,
            [kind, name] => is_kind(r, kind) && r.name == name,
            [kind, namespace, name] => {
                is_kind(r, kind) && r.namespace == namespace && r.name == name
            }
            _ => false,
        })
        .collect();
    match meant[..] {
        [only] => Ok(only),
        [] => {
            let known = resources.iter().map(|r| r.name.as_str());
            let fix = match nearest(parts.last().copied().unwrap_or_default(), known) {
                Some(near) => format!("did you mean {near}? `causeway resources` lists all"),
                None => "`causeway resources` lists all".to_owned(),
            };
            Err(Failure::new("CW0002", Exit::NotFound, format!("no resource {name}")).fix(fix))
        }
        _ => {
            let names = meant
                .iter()
                .map(|r| qualified_name(r))
                .collect::<Vec<_>>()
                .join(", ");
            Err(
                Failure::usage(format!("several resources are called {name}"))
                    .fix(format!("write one of {names}")),
            )
        }
    }
}

/// The page of one resource.
pub fn get(resource: &Resource, now_unix_ns: i64) -> View {
    let mut page = Page::new("Resource", qualified_name(resource));
    page.set_json(resource_json(resource));
    let source = resource.source.clone().unwrap_or_default();
    page.lines.push(vec![
        Cell::strong(qualified_name(resource)),
        Cell::plain(format!(" ({})", resource.api_version)),
    ]);
    page.field("source", place(&source.path, source.line, 0));
    if source.document > 1 {
        page.field("document", source.document);
    }
    page.field("generation", resource.generation.to_string());
    if resource.last_good {
        page.field(
            "note",
            Cell::toned(
                Tone::Notice,
                "the file is broken; this is its last good version",
            ),
        );
    }
    page.heading("Conditions");
    for c in &resource.conditions {
        let tone = if is_problem(c) {
            Tone::Notice
        } else {
            Tone::Plain
        };
        page.lines.push(vec![
            Cell::toned(tone, format!("  {}: {} ({})", c.r#type, c.status, c.reason)),
            Cell::plain(match c.last_transition_unix_ns {
                0 => String::new(),
                at => format!(", for {}", age(at, now_unix_ns)),
            }),
        ]);
        if !c.message.is_empty() {
            page.line(format!("    {}", c.message));
        }
    }
    if resource.conditions.is_empty() {
        page.line("  none");
    }
    if let Ok(object) = serde_json::from_str::<Value>(&resource.object_json)
        && let Ok(yaml) = serde_saphyr::to_string(&object)
    {
        page.heading("Object");
        for line in yaml.lines() {
            page.line(format!("  {line}"));
        }
    }
    page.into()
}

fn qualified_name(resource: &Resource) -> String {
    match resource.namespace.as_str() {
        "" => format!("{}/{}", resource.kind, resource.name),
        namespace => format!("{}/{namespace}/{}", resource.kind, resource.name),
    }
}

fn place(path: &str, line: u32, column: u32) -> String {
    match (line, column) {
        (0, _) => path.to_owned(),
        (line, 0) => format!("{path}:{line}"),
        (line, column) => format!("{path}:{line}:{column}"),
    }
}

fn resource_json(resource: &Resource) -> Value {
    let source = resource.source.clone().unwrap_or_default();
    let conditions = resource.conditions.iter().map(|c| {
        json!({
            "type": c.r#type, "status": c.status, "reason": c.reason, "message": c.message,
            "observedGeneration": c.observed_generation,
            "lastTransitionTime": rfc3339(c.last_transition_unix_ns),
        })
    });
    json!({
        "objectApiVersion": resource.api_version,
        "objectKind": resource.kind,
        "namespace": resource.namespace,
        "name": resource.name,
        "generation": resource.generation,
        "lastGood": resource.last_good,
        "source": {
            "kind": source.kind, "path": source.path,
            "document": source.document, "line": source.line,
        },
        "conditions": conditions.collect::<Vec<_>>(),
        "object": serde_json::from_str(&resource.object_json).unwrap_or(Value::Null),
    })
}

fn diagnostic_json(d: &Diagnostic) -> Value {
    json!({
        "severity": d.severity, "file": d.path, "document": d.document, "line": d.line,
        "column": d.column, "field": d.field, "message": d.message, "help": d.hint,
    })
}
