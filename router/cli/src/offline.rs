// SPDX-License-Identifier: Apache-2.0
//! Commands that need no daemon.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bgp_wire::describe::{self, Content};
use clap::CommandFactory;
use router_api::explain::{self, EXPLANATIONS};
use router_resources::check::check as check_files;
use router_resources::settings::{DEFAULT_FILE, DEFAULT_PATH, Settings};
use router_resources::{Diagnostic, Severity};
use serde_json::{Value, json};

use crate::args::Cli;
use crate::exit::{EXIT_CODES, Exit};
use crate::failure::Failure;
use crate::output::{Cell, Column, Item, Listing, Look, Page, Tone, View};
use crate::run::Outcome;
use crate::suggest::nearest;

/// Most bytes `bgp decode` reads: some thousand messages of the largest kind.
const MAX_DECODE_OCTETS: u64 = 64 << 20;

/// The completion script of a shell.
pub(crate) fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "causeway", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Writes `causeway.1`, `causeway-bgp.1`, `causeway-bgp-peers.1`, ...
pub(crate) fn man(directory: &Path) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::file("cannot write man pages", directory, &e);
    fs::create_dir_all(directory).map_err(failed)?;
    // A `help` page for each level would be noise.
    let command = for_manual(Cli::command().disable_help_subcommand(true));
    clap_mangen::generate_to(command, directory).map_err(failed)
}

/// Man pages show what comes after the help, not what comes before it: the examples move there,
/// and the exit codes follow on every page.
fn for_manual(command: clap::Command) -> clap::Command {
    let examples = command
        .get_before_help()
        .map(|text| format!("{text}\n\n"))
        .unwrap_or_default();
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    let command = command.after_help(format!("{examples}{EXIT_CODES}"));
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, for_manual)
    })
}

/// The commented default file of node settings.
pub(crate) fn default_settings() -> String {
    DEFAULT_FILE.to_owned()
}

/// What a code means, or all of them.
pub(crate) fn explain(code: Option<&str>) -> Result<View, Failure> {
    let Some(code) = code else {
        return Ok(all_codes());
    };
    let Some(found) = explain::find(code) else {
        let near = nearest(code, EXPLANATIONS.iter().map(|e| e.code));
        let fix = match near {
            Some(near) => format!("did you mean {near}? `causeway explain` lists all codes"),
            None => "`causeway explain` lists all codes".to_owned(),
        };
        return Err(Failure::new("CW0002", Exit::NotFound, format!("no code {code}")).fix(fix));
    };
    let mut page = Page::new("Explanation", found.code);
    page.set_json(json!({
        "code": found.code, "title": found.title,
        "meaning": found.meaning, "remedy": found.remedy,
    }));
    page.lines.push(vec![
        Cell::strong(found.code),
        Cell::plain(format!(": {}", found.title)),
    ]);
    page.line("");
    page.line(found.meaning);
    page.line("");
    page.lines.push(vec![
        Cell::strong("What to do: "),
        Cell::plain(found.remedy),
    ]);
    Ok(page.into())
}

fn all_codes() -> View {
    let item = |e: &explain::Explanation| Item {
        name: e.code.to_owned(),
        json: json!({"code": e.code, "title": e.title, "meaning": e.meaning, "remedy": e.remedy}),
        rows: vec![vec![e.code.into(), e.title.into()]],
    };
    Listing {
        kind: "ExplanationList",
        fields: Default::default(),
        columns: vec![Column::new("Code"), Column::new("Meaning").prose()],
        items: EXPLANATIONS.iter().map(item).collect(),
        empty: String::new(),
        notes: Vec::new(),
    }
    .into()
}

/// `bgp decode`: exit 1 when a message breaks the protocol.
pub(crate) fn decode(input: &[String]) -> Result<Outcome, Failure> {
    let bytes = decode_input(input)?;
    let nothing = || {
        Failure {
            code: "CW0011",
            ..Failure::usage("the input holds no BGP message")
        }
        .fix("give hexadecimal digits, a file of raw bytes or digits, or - for standard input")
    };
    if bytes.is_empty() {
        return Err(nothing());
    }
    let report = describe::describe(&bytes, None);
    let faulty = report.messages.iter().any(|m| match &m.content {
        Content::Update(update) => !update.faults.is_empty(),
        Content::Malformed { .. } => true,
        _ => false,
    });
    let exit = if faulty || !report.problems.is_empty() {
        Exit::Found
    } else {
        Exit::Ok
    };
    let mut page = Page::new("BGPMessages", format!("{} messages", report.messages.len()));
    page.set_json(serde_json::to_value(&report).map_err(|e| nothing().why(e.to_string()))?);
    for line in report.to_string().lines() {
        page.line(line);
    }
    Ok((page.into(), exit))
}

/// Digits on the command line, a file, or standard input; a file may hold bytes or digits.
fn decode_input(input: &[String]) -> Result<Vec<u8>, Failure> {
    let raw = match input {
        [only] if only == "-" => {
            let mut bytes = Vec::new();
            let read = io::stdin()
                .lock()
                .take(MAX_DECODE_OCTETS)
                .read_to_end(&mut bytes);
            read.map_err(|e| Failure::file("cannot read standard input", Path::new("-"), &e))?;
            bytes
        }
        [only] if Path::new(only).exists() => {
            let path = Path::new(only);
            let failed = |e: io::Error| Failure::file("cannot read the messages", path, &e);
            let mut bytes = Vec::new();
            let file = fs::File::open(path).map_err(failed)?;
            file.take(MAX_DECODE_OCTETS)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            bytes
        }
        words => {
            let text = words.concat();
            return describe::parse_hex(&text).map_err(|e| {
                Failure {
                    code: "CW0011",
                    ..Failure::usage("cannot read the messages")
                }
                .why(format!("neither a file nor hexadecimal digits: {e}"))
                .fix("give hexadecimal digits, the name of a file, or - for standard input")
            });
        }
    };
    let text = std::str::from_utf8(&raw).ok();
    Ok(text
        .and_then(|text| describe::parse_hex(text).ok())
        .unwrap_or(raw))
}

/// `config check`: exit 1 when a file would be refused. A file called `causeway.yaml` is read as
/// node settings, every other one as resources.
pub(crate) fn check(paths: &[PathBuf], look: &Look) -> Result<Outcome, Failure> {
    let is_settings = |path: &&PathBuf| path.file_name() == Path::new(DEFAULT_PATH).file_name();
    let (settings, resources): (Vec<_>, Vec<_>) = paths.iter().partition(is_settings);
    let mut report = check_files(&resources.into_iter().cloned().collect::<Vec<_>>());
    for path in settings {
        let findings = match Settings::load(Some(path), Vec::new()) {
            Ok(effective) => effective.warnings,
            Err(findings) => findings,
        };
        report.files.push(path.clone());
        report.diagnostics.extend(findings);
    }
    let errors = report.diagnostics.iter().filter(|d| d.is_error()).count();
    let warnings = report.diagnostics.len() - errors;
    let exit = if report.has_errors() {
        Exit::Found
    } else {
        Exit::Ok
    };
    let mut page = Page::new("ConfigCheck", if errors == 0 { "ok" } else { "errors" });
    page.set_json(json!({
        "files": report.files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>(),
        "errors": errors,
        "warnings": warnings,
        "diagnostics": report.diagnostics.iter().map(diagnostic_json).collect::<Vec<_>>(),
    }));
    for diagnostic in &report.diagnostics {
        diagnostic_lines(&mut page, diagnostic, look);
    }
    let tone = match (errors, warnings) {
        (0, 0) => Tone::Good,
        (0, _) => Tone::Notice,
        _ => Tone::Bad,
    };
    let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    page.lines.push(vec![
        Cell::toned(tone, look.symbol(tone)),
        Cell::plain(format!(
            " {} read: {}, {}",
            count(report.files.len(), "file"),
            count(errors, "error"),
            count(warnings, "warning")
        )),
    ]);
    Ok((page.into(), exit))
}

fn diagnostic_json(d: &Diagnostic) -> Value {
    json!({
        "file": d.file.display().to_string(),
        "document": d.document,
        "line": d.place.as_ref().map(|p| p.line),
        "column": d.place.as_ref().map(|p| p.column),
        "object": d.object,
        "field": d.field,
        "severity": if d.is_error() { "error" } else { "warning" },
        "code": d.code.as_str(),
        "message": d.message,
        "help": d.help,
    })
}

/// A finding with the line of the file it is about and a mark under the place.
fn diagnostic_lines(page: &mut Page, d: &Diagnostic, look: &Look) {
    let (tone, word) = match d.severity {
        Severity::Error => (Tone::Bad, "error"),
        Severity::Warning => (Tone::Notice, "warning"),
    };
    page.lines.push(vec![
        Cell::toned(
            tone,
            format!("{} {word}[{}]", look.symbol(tone), d.code.as_str()),
        ),
        Cell::plain(format!(": {}", d.message)),
    ]);
    let at = match (&d.place, d.document) {
        (Some(p), _) => format!("{}:{}:{}", d.file.display(), p.line, p.column),
        (None, _) => d.file.display().to_string(),
    };
    page.line(format!("  at {at}"));
    if let Some(object) = &d.object {
        page.line(format!(
            "  in {object}{}",
            match d.document {
                Some(n) => format!(", document {n}"),
                None => String::new(),
            }
        ));
    }
    if !d.field.is_empty() {
        page.line(format!("  field {}", d.field));
    }
    if let Some(place) = &d.place
        && let Ok(text) = fs::read_to_string(&d.file)
        && let Some(line) = text.lines().nth(place.line.saturating_sub(1))
    {
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs would move the mark; YAML has none in its indentation.
        let line = line.replace('\t', " ");
        let rest = line.chars().count().saturating_sub(place.column - 1).max(1);
        let marks = (place.bytes.len().max(1)).min(rest);
        page.line(format!("  {margin} |"));
        page.line(format!("  {number} | {line}"));
        page.lines.push(vec![
            Cell::plain(format!("  {margin} | {}", " ".repeat(place.column - 1))),
            Cell::toned(tone, "^".repeat(marks)),
        ]);
    }
    if let Some(help) = &d.help {
        page.lines
            .push(vec![Cell::strong("  fix: "), Cell::plain(help.clone())]);
    }
    page.line("");
}
