// SPDX-License-Identifier: Apache-2.0
//! `causeway status`.

use router_api::Connection;
use router_api::v1alpha1::{Component, GetStatusRequest, GetStatusResponse, Health, Issue};
use serde_json::{Map, Value, json};

use crate::args::StatusArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Cell, Look, Page, Tone, View, age, rfc3339};
use crate::run::Outcome;

pub(crate) async fn fetch(
    connection: &Connection,
    args: &StatusArgs,
    now_unix_ns: i64,
) -> Result<Outcome, Failure> {
    let answer = connection.status().get_status(GetStatusRequest {}).await;
    let status = answer
        .map_err(|s| Failure::from_status("cannot get the status", &s))?
        .into_inner();
    let exit = exit(&status, args.ignore_warnings);
    let unicode = Look::detect(Default::default(), false).unicode;
    Ok((
        view(
            &status,
            now_unix_ns,
            &Look {
                unicode,
                ..Look::PLAIN
            },
        ),
        exit,
    ))
}

/// Healthy is what has no error, and no warning unless warnings are ignored, and is not on its
/// way any more.
pub fn exit(status: &GetStatusResponse, ignore_warnings: bool) -> Exit {
    match (status.health(), ignore_warnings) {
        (Health::Ok | Health::Disabled, _) | (Health::Warning, true) => Exit::Ok,
        _ => Exit::Found,
    }
}

/// The page of a status. `look` decides on symbols only; colours come when it is rendered.
pub fn view(status: &GetStatusResponse, now_unix_ns: i64, look: &Look) -> View {
    let mut page = Page::new("NodeStatus", format!("node/{}", status.node));
    page.set_json(json!({
        "node": status.node,
        "version": status.version,
        "pid": status.pid,
        "started": rfc3339(status.started_unix_ns),
        "health": word(status.health()),
        "components": status.components.iter().map(component_json).collect::<Vec<_>>(),
        "issues": status.issues.iter().map(issue_json).collect::<Vec<_>>(),
    }));
    let tone = tone(status.health());
    page.lines.push(vec![
        Cell::strong(format!("Node {}: ", status.node)),
        Cell::toned(
            tone,
            format!("{} {}", look.symbol(tone), word(status.health())),
        ),
        Cell::plain(format!(
            "   causewayd {}, up {}",
            status.version,
            age(status.started_unix_ns, now_unix_ns)
        )),
    ]);
    page.line("");
    let longest = |of: fn(&Component) -> usize| status.components.iter().map(of).max().unwrap_or(0);
    let (name_width, message_width) = (longest(|c| c.name.len()), longest(|c| c.message.len()));
    for component in &status.components {
        let tone = self::tone(component.health());
        let mut line = vec![
            Cell::plain(format!("  {:<name_width$}  ", component.name)),
            Cell::toned(
                tone,
                format!("{} {:<11}", look.symbol(tone), word(component.health())),
            ),
            Cell::plain(format!("  {:<message_width$}", component.message)),
        ];
        if !matches!(component.health(), Health::Ok | Health::Disabled)
            && !component.next_command.is_empty()
        {
            line.push(Cell::toned(
                Tone::Dim,
                format!("  {}", component.next_command),
            ));
        }
        page.lines.push(line);
        if !component.counts.is_empty() {
            let counts = component
                .counts
                .iter()
                .map(|c| format!("{} {}", c.name, c.value));
            let counts = counts.collect::<Vec<_>>().join(", ");
            if page.wide_lines.is_empty() {
                page.wide_lines.push(Vec::new());
                page.wide_lines.push(vec![Cell::strong("Counts")]);
            }
            page.wide_lines.push(vec![
                Cell::plain(format!("  {:<name_width$}  ", component.name)),
                Cell::toned(Tone::Dim, counts),
            ]);
        }
    }
    for (severity, heading) in [(Health::Error, "Errors"), (Health::Warning, "Warnings")] {
        let issues: Vec<&Issue> = status
            .issues
            .iter()
            .filter(|i| i.severity() == severity)
            .collect();
        if issues.is_empty() {
            continue;
        }
        page.heading(heading);
        for issue in issues {
            issue_lines(&mut page, issue, now_unix_ns, look);
        }
    }
    page.into()
}

fn issue_lines(page: &mut Page, issue: &Issue, now_unix_ns: i64, look: &Look) {
    let tone = tone(issue.severity());
    let code = if issue.code.is_empty() {
        String::new()
    } else {
        format!(" [{}]", issue.code)
    };
    let object = match issue.object.as_str() {
        "" => &issue.component,
        _ => &issue.object,
    };
    let since = match issue.since_unix_ns {
        0 => String::new(),
        since => format!(" (for {})", age(since, now_unix_ns)),
    };
    page.lines.push(vec![
        Cell::toned(tone, format!("  {} {object}", look.symbol(tone))),
        Cell::plain(format!("{code}: {}{since}", issue.message)),
    ]);
    if !issue.next_command.is_empty() {
        page.lines.push(vec![Cell::toned(
            Tone::Dim,
            format!("    see: {}", issue.next_command),
        )]);
    }
}

fn component_json(component: &Component) -> Value {
    let counts: Map<String, Value> = component
        .counts
        .iter()
        .map(|c| (c.name.clone(), c.value.into()))
        .collect();
    json!({
        "name": component.name,
        "health": word(component.health()),
        "message": component.message,
        "nextCommand": component.next_command,
        "counts": counts,
    })
}

fn issue_json(issue: &Issue) -> Value {
    json!({
        "severity": word(issue.severity()),
        "component": issue.component,
        "object": issue.object,
        "message": issue.message,
        "nextCommand": issue.next_command,
        "code": issue.code,
        "since": rfc3339(issue.since_unix_ns),
    })
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Unspecified => "unknown",
        Health::Ok => "ok",
        Health::Disabled => "disabled",
        Health::Progressing => "progressing",
        Health::Warning => "warning",
        Health::Error => "error",
    }
}

fn tone(health: Health) -> Tone {
    match health {
        Health::Ok => Tone::Good,
        Health::Unspecified | Health::Progressing | Health::Warning => Tone::Notice,
        Health::Error => Tone::Bad,
        Health::Disabled => Tone::Dim,
    }
}
