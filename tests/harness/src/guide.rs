// SPDX-License-Identifier: Apache-2.0
//! The examples of the operator's guide, for tests that put them to use.

use std::fs;

use anyhow::{Context, Result};

use crate::root;

/// The manifest on a page of the guide that has an object of this name.
///
/// # Errors
/// When the page or the manifest is not there.
pub fn manifest(page: &str, name: &str) -> Result<String> {
    let path = root()?.join("docs/guide/src").join(page);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let named = format!("  name: {name}\n");
    let blocks = text.split("```yaml\n").skip(1);
    let found = blocks
        .filter_map(|block| block.split("```").next())
        .find(|block| block.contains("apiVersion:") && block.contains(&named));
    let found = found.with_context(|| format!("{page} has no manifest with {name}"))?;
    Ok(found.to_owned())
}

/// A command that the guide shows, and what it is to say.
#[derive(Debug)]
pub struct Shown {
    /// Its words.
    pub command: Vec<String>,
    /// Lines of its output; none where the guide shows none.
    pub says: Vec<String>,
}

/// What a section of a page has a reader type, in order.
///
/// # Errors
/// When the page or the section is not there.
pub fn shown(page: &str, heading: &str) -> Result<Vec<Shown>> {
    let path = root()?.join("docs/guide/src").join(page);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let section = text.split_once(&format!("\n## {heading}\n"));
    let (_, section) = section.with_context(|| format!("{page} has no {heading:?}"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut all: Vec<Shown> = Vec::new();
    let blocks = section.split("```console\n").skip(1);
    for line in blocks.flat_map(|block| block.split("```").next().unwrap_or_default().lines()) {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push(Shown {
                command: command.split_whitespace().map(str::to_owned).collect(),
                says: Vec::new(),
            }),
            (None, Some(last)) => last.says.push(line.to_owned()),
            (None, None) => anyhow::bail!("{page}: output before a command: {line}"),
        }
    }
    Ok(all)
}

/// The manifest with words in the place of others, each of which it must have: addresses and AS
/// numbers of a lab.
///
/// # Errors
/// When it lacks one.
pub fn adapted(manifest: &str, words: &[(&str, &str)]) -> Result<String> {
    let mut text = manifest.to_owned();
    for (from, to) in words {
        anyhow::ensure!(text.contains(from), "no {from:?} in:\n{text}");
        text = text.replace(from, to);
    }
    Ok(text)
}
