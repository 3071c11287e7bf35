// SPDX-License-Identifier: Apache-2.0
//! The formats of `-o`.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::jsonpath;
use super::look::Look;
use super::table::{Cell, Column, Table};
use super::view::{Item, Listing, Page, View};
use crate::failure::Failure;

/// How to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide terminals: every column.
    Wide,
    /// One JSON document.
    Json,
    /// The same document in YAML.
    Yaml,
    /// What a path finds in the document.
    JsonPath(String),
    /// Only the names, one on each line.
    Name,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        Ok(match text {
            "table" | "summary" => Format::Table,
            "wide" => Format::Wide,
            "json" => Format::Json,
            "yaml" => Format::Yaml,
            "name" => Format::Name,
            _ => match text.strip_prefix("jsonpath=") {
                Some(path) if !path.is_empty() => Format::JsonPath(path.to_owned()),
                _ => {
                    let known = ["table", "wide", "json", "yaml", "jsonpath=<path>", "name"];
                    let near = crate::suggest::nearest(text, known);
                    let hint = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
                    return Err(format!("expected one of {}{hint}", known.join(", ")));
                }
            },
        })
    }
}

/// What the user asked of the output.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The format.
    pub format: Format,
    /// Leave out the headings of tables.
    pub no_headers: bool,
    /// The title of the column to sort by.
    pub sort_by: Option<String>,
}

/// Writes a view.
///
/// # Errors
///
/// A column or path that makes no sense.
pub fn render(view: &View, options: &Options, look: &Look) -> Result<String, Failure> {
    match view {
        View::Listing(listing) => render_listing(listing, options, look),
        View::Page(page) => render_page(page, options, look),
    }
}

fn render_listing(listing: &Listing, options: &Options, look: &Look) -> Result<String, Failure> {
    let items = sorted(listing, options.sort_by.as_deref())?;
    let wide = options.format == Format::Wide;
    match &options.format {
        Format::Table | Format::Wide => {
            if items.is_empty() {
                return Ok(String::new());
            }
            let shown: Vec<usize> = (0..listing.columns.len())
                .filter(|&index| wide || !listing.columns[index].wide)
                .collect();
            let rows = items.iter().flat_map(|item| &item.rows);
            let table = Table {
                columns: shown.iter().map(|&index| &listing.columns[index]).collect(),
                rows: rows
                    .map(|row| shown.iter().map(|&i| &row[i]).collect())
                    .collect(),
            };
            Ok(table.render(look, !options.no_headers))
        }
        Format::Name => Ok(items
            .iter()
            .map(|item| format!("{}\n", item.name))
            .collect()),
        Format::Json | Format::Yaml | Format::JsonPath(_) => {
            let mut fields = listing.fields.clone();
            let objects = items.iter().map(|item| item.json.clone()).collect();
            fields.insert("items".to_owned(), Value::Array(objects));
            render_document(&document(listing.kind, fields), &options.format)
        }
    }
}

fn render_page(page: &Page, options: &Options, look: &Look) -> Result<String, Failure> {
    if options.sort_by.is_some() {
        return Err(Failure::usage("--sort-by is for lists").fix("leave it out"));
    }
    match &options.format {
        Format::Table => Ok(render_lines(&page.lines, look)),
        Format::Wide => Ok(render_lines(&page.lines, look) + &render_lines(&page.wide_lines, look)),
        Format::Name => Ok(format!("{}\n", page.name)),
        Format::Json | Format::Yaml | Format::JsonPath(_) => {
            render_document(&document(page.kind, page.json.clone()), &options.format)
        }
    }
}

fn render_lines(lines: &[Vec<Cell>], look: &Look) -> String {
    let mut text = String::new();
    for line in lines {
        let painted: String = line.iter().map(|c| look.paint(c.tone, &c.text)).collect();
        text.push_str(painted.trim_end());
        text.push('\n');
    }
    text
}

fn document(kind: &str, mut fields: Map<String, Value>) -> Value {
    fields.insert("apiVersion".to_owned(), router_api::API_VERSION.into());
    fields.insert("kind".to_owned(), kind.into());
    Value::Object(fields)
}

fn render_document(document: &Value, format: &Format) -> Result<String, Failure> {
    match format {
        Format::JsonPath(path) => jsonpath::apply(path, document),
        Format::Yaml => serde_saphyr::to_string(document)
            .map_err(|e| Failure::usage("cannot write YAML").why(e.to_string())),
        _ => Ok(format!("{document:#}\n")),
    }
}

fn sorted<'a>(listing: &'a Listing, by: Option<&str>) -> Result<Vec<&'a Item>, Failure> {
    let mut items: Vec<&Item> = listing.items.iter().collect();
    let Some(by) = by else { return Ok(items) };
    let Some(index) = listing
        .columns
        .iter()
        .position(|column| column.is_called(by))
    else {
        let titles: Vec<&str> = listing.columns.iter().map(|c: &Column| c.title).collect();
        let near = crate::suggest::nearest(by, titles.iter().copied());
        let fix = match near {
            Some(near) => format!("did you mean `{near}`? Columns: {}", titles.join(", ")),
            None => format!("columns: {}", titles.join(", ")),
        };
        return Err(Failure::usage(format!("no column `{by}` to sort by")).fix(fix));
    };
    let nothing = Cell::default();
    items.sort_by(|a, b| {
        let cell = |item: &'a Item| item.rows.first().map(|row| &row[index]);
        cell(a)
            .unwrap_or(&nothing)
            .compare(cell(b).unwrap_or(&nothing))
    });
    Ok(items)
}
