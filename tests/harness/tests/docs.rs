// SPDX-License-Identifier: Apache-2.0
//! What is written for users is true: links lead somewhere, commands parse, manifests are accepted.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use harness::root;
use lab_runner::preflight::programs_dir;
use router_resources::check;

/// A block between fences, with the line it begins on.
struct Block {
    language: String,
    line: usize,
    text: String,
}

#[test]
fn every_relative_link_leads_somewhere() -> Result<()> {
    let mut broken = Vec::new();
    let mut links = 0;
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        let folder = page.parent().context("a page lies in a folder")?;
        for target in links_of(&text) {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() {
                page.clone()
            } else {
                folder.join(file)
            };
            if !path.exists() {
                broken.push(format!("{}: {target}", page.display()));
            } else if !anchor.is_empty() {
                let headings = fs::read_to_string(&path)?;
                if !headings.lines().any(|line| anchor_of(line) == anchor) {
                    broken.push(format!("{}: {target}: no such heading", page.display()));
                }
            }
        }
    }
    ensure!(links > 20, "only {links} links found");
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

#[test]
fn the_summary_lists_every_page_of_the_guide() -> Result<()> {
    let guide = root()?.join("docs/guide/src");
    let summary = fs::read_to_string(guide.join("SUMMARY.md"))?;
    let listed = links_of(&summary);
    for page in markdown_in(&guide)? {
        let name = page.file_name().context("a file")?.to_string_lossy();
        ensure!(
            name == "SUMMARY.md" || listed.contains(&name.as_ref()),
            "SUMMARY.md lacks {name}"
        );
    }
    Ok(())
}

/// `file::step` of the interop tests: a test, or a step that the file's tests take. What only the
/// kernel has to show is at `bpf::folder::file::step`, a test of the programs in it.
#[test]
fn every_feature_of_the_readme_is_seen_by_a_test() -> Result<()> {
    let readme = fs::read_to_string(root()?.join("README.md"))?;
    let (interop, bpf) = ("tests/interop/tests", "tests/bpf/tests");
    let (interop, bpf) = (root()?.join(interop), root()?.join(bpf));
    let (mut wrong, mut rows) = (Vec::new(), 0);
    let rows_of_features = readme.lines().filter(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        cells.len() == 5 && cells[2].contains("docs/guide/src/")
    });
    for row in rows_of_features {
        rows += 1;
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        if !names.iter().any(|name| name.contains("::")) {
            wrong.push(format!("no test: {row}"));
        }
        for (file, step) in names.iter().filter_map(|name| name.rsplit_once("::")) {
            let mut path = match file.strip_prefix("bpf::") {
                Some(file) => bpf.join(file.replace("::", "/")).with_extension("rs"),
                None => interop.join(file).with_extension("rs"),
            };
            if !path.exists() {
                path = interop.join(file).join("main.rs");
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let is_test = text.contains(&format!("#[test]\nfn {step}("));
            let is_step = text.contains(&format!("\nfn {step}("))
                && text.matches(&format!("{step}(")).count() > 1;
            if !is_test && !is_step {
                wrong.push(format!("{}: no test takes {step}", path.display()));
            }
        }
    }
    ensure!(rows > 30, "only {rows} rows found");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_command_shown_parses() -> Result<()> {
    let causeway = program()?;
    let mut refused = Vec::new();
    let mut commands = 0;
    for page in pages()? {
        for words in commands_of(&fs::read_to_string(&page)?) {
            commands += 1;
            // The parser refuses a word or a flag it does not know before it comes to the help, and
            // with the help nothing is done.
            let mut command = Command::new(&causeway);
            command.args(&words).arg("--help");
            let output = command
                .output()
                .with_context(|| format!("cannot run {}", causeway.display()))?;
            let shown = String::from_utf8_lossy(&output.stdout);
            let nouns: Vec<&str> = words
                .iter()
                .map(String::as_str)
                .take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()))
                .collect();
            let noun = nouns.first().copied().unwrap_or_default();
            let is_of_noun = shown
                .lines()
                .any(|line| line.contains(&format!("Usage: causeway {noun}")));
            if !output.status.success() || !is_of_noun {
                refused.push(format!(
                    "{}: causeway {}: {}",
                    page.display(),
                    words.join(" "),
                    String::from_utf8_lossy(&output.stderr)
                ));
            }
        }
    }
    ensure!(commands > 30, "only {commands} commands found");
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

#[test]
fn every_manifest_shown_is_accepted() -> Result<()> {
    let folder = env::temp_dir().join(format!("causeway-docs-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let outcome = manifests(&folder);
    fs::remove_dir_all(&folder)?;
    outcome
}

fn manifests(folder: &Path) -> Result<()> {
    let mut refused = Vec::new();
    let mut found = 0;
    for page in pages()? {
        for block in blocks_of(&fs::read_to_string(&page)?) {
            if block.language != "yaml" || !block.text.contains("apiVersion:") {
                continue;
            }
            found += 1;
            let file = folder.join(format!("{found}.yaml"));
            fs::write(&file, &block.text)?;
            for finding in check::check(&[file]).diagnostics {
                refused.push(format!("{}:{}: {finding}", page.display(), block.line));
            }
        }
    }
    ensure!(found >= 3, "only {found} manifests found");
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

/// The command line of this checkout, as `cargo xtask test` builds it before the tests.
fn program() -> Result<PathBuf> {
    let path = programs_dir()?.join("causeway");
    ensure!(
        path.is_file(),
        "{} is not there: cargo build -p causeway",
        path.display()
    );
    Ok(path)
}

/// The pages for users and contributors.
fn pages() -> Result<Vec<PathBuf>> {
    let root = root()?;
    let mut pages = vec![];
    for folder in [
        root.clone(),
        root.join("docs/guide/src"),
        root.join("docs/decisions"),
        root.join("docs/bench"),
    ] {
        pages.extend(markdown_in(&folder)?);
    }
    ensure!(pages.len() > 10, "only {} pages found", pages.len());
    Ok(pages)
}

fn markdown_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Targets of `[text](target)` outside of blocks.
fn links_of(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            for part in line.split("](").skip(1) {
                found.extend(part.split_once(')').map(|(target, _)| target));
            }
        }
    }
    found
}

/// What a heading is called in links: lower case, hyphens for blanks, no punctuation.
fn anchor_of(line: &str) -> String {
    let Some(title) = line.strip_prefix('#') else {
        return String::new();
    };
    title
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn blocks_of(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(language), None) => {
                open = Some(Block {
                    language: language.to_owned(),
                    line: index + 1,
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// Arguments of every `causeway` shown: after a prompt in a console block, or whole in back quotes.
/// A command that ends in a placeholder or an ellipsis is taken up to there.
fn commands_of(text: &str) -> Vec<Vec<String>> {
    let mut lines: Vec<String> = Vec::new();
    for block in blocks_of(text).iter().filter(|b| b.language == "console") {
        let shown = block.text.lines().filter_map(|l| l.strip_prefix("$ "));
        lines.extend(shown.map(str::to_owned));
    }
    let mut is_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            prose.push_str(line);
            prose.push(' ');
        }
    }
    lines.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    let ends = ["#", "|", ">", "&&", ";"];
    lines
        .iter()
        .filter_map(|line| line.strip_prefix("causeway "))
        .map(|rest| {
            words_of(rest)
                .into_iter()
                .take_while(|word| !ends.contains(&word.as_str()))
                .filter(|word| !word.starts_with(['<', '…']))
                .collect()
        })
        .collect()
}

/// The words of a command line: what stands in quotes is one, without them.
fn words_of(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split(['\'', '"']).enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
