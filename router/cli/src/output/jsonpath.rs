// SPDX-License-Identifier: Apache-2.0
//! `-o jsonpath=`: RFC 9535 paths, alone or in the braces of a template.

use serde_json::Value;
use serde_json_path::JsonPath;

use crate::failure::Failure;

/// Applies `template` to a document.
///
/// `$.items[*].name` prints each node found on its own line. With braces, as kubectl takes it,
/// text around them is kept and the nodes of one pair are joined by blanks:
/// `{.items[0].name} is {.items[0].state}`. `\n` and `\t` in the text are line ends and tabs.
///
/// # Errors
///
/// A usage failure that shows the place the path breaks at.
pub(super) fn apply(template: &str, document: &Value) -> Result<String, Failure> {
    if !template.contains('{') {
        let mut text = nodes(template, document)?.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        return Ok(text);
    }
    let mut text = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        text.push_str(&unescape(&rest[..open]));
        let close = closing_brace(&rest[open..])
            .ok_or_else(|| wrong(template, "a { is never closed".to_owned()))?;
        let inner = rest[open + 1..open + close].trim();
        match inner.strip_prefix('"').and_then(|s| s.strip_suffix('"')) {
            Some(literal) => text.push_str(&unescape(literal)),
            None => text.push_str(&nodes(inner, document)?.join(" ")),
        }
        rest = &rest[open + close + 1..];
    }
    text.push_str(&unescape(rest));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The `}` that ends the text's first `{`, not one in a quoted string or an inner pair.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') => {
                depth -= 1;
                if depth == 0 {
                    return Some(index);
                }
            }
            (None, _) => {}
        }
    }
    None
}

fn nodes(path: &str, document: &Value) -> Result<Vec<String>, Failure> {
    let path = match path.chars().next() {
        Some('$') => path.to_owned(),
        Some('.' | '[') => format!("${path}"),
        _ => format!("$.{path}"),
    };
    let parsed = JsonPath::parse(&quote_hyphens(&path)).map_err(|e| wrong(&path, e.to_string()))?;
    let found = parsed.query(document).all().into_iter();
    Ok(found
        .map(|node| {
            node.as_str()
                .map_or_else(|| node.to_string(), str::to_owned)
        })
        .collect())
}

/// Writes `.peer-asn` as `['peer-asn']`: RFC 9535 §2.5.1.1 has no hyphens in the short form, and our
/// documents have them in names. Nothing else in a path has one after a letter.
fn quote_hyphens(path: &str) -> String {
    let mut text = String::new();
    let mut quote = None;
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if c == '.' => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                let name = &rest[..end];
                if name.contains('-') {
                    // `..name-x` keeps both dots: the descendants' form takes brackets too.
                    if text.ends_with('.') {
                        text.push('.');
                    }
                    text.push_str(&format!("['{name}']"));
                    rest = &rest[end..];
                    continue;
                }
            }
            None => {}
        }
        text.push(c);
    }
    text
}

fn wrong(path: &str, why: String) -> Failure {
    Failure {
        code: "CW0006",
        ..Failure::usage("cannot read the JSONPath")
            .at(path)
            .why(why)
            .fix("write a path such as $.items[*].name or {.items[*].name}")
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> Value {
        json!({"items": [{"name": "a", "n": 1, "x-y": true}, {"name": "b", "n": 2}]})
    }

    #[test]
    fn a_bare_path_prints_a_line_for_each_node() {
        assert_eq!(apply("$.items[*].name", &document()).unwrap(), "a\nb\n");
        assert_eq!(apply(".items[1].n", &document()).unwrap(), "2\n");
        assert_eq!(apply("$.nothing", &document()).unwrap(), "");
    }

    #[test]
    fn braces_make_a_template() {
        let text = apply(
            "{.items[*].name}: {.items[0]['x-y']}\\n{\"end\"}",
            &document(),
        );
        assert_eq!(text.unwrap(), "a b: true\nend\n");
    }

    #[test]
    fn names_with_hyphens_need_no_brackets() {
        assert_eq!(apply("{.items[0].x-y}", &document()).unwrap(), "true\n");
        assert_eq!(apply("$..x-y", &document()).unwrap(), "true\n");
        assert_eq!(
            apply("$.items[?@.x-y == true].name", &document()).unwrap(),
            "a\n"
        );
        assert_eq!(
            apply("$.items[?@.name == 'a.b-c'].n", &document()).unwrap(),
            ""
        );
    }

    #[test]
    fn filters_of_rfc_9535_work() {
        assert_eq!(apply("$.items[?@.n > 1].name", &document()).unwrap(), "b\n");
    }

    #[test]
    fn a_broken_path_is_a_usage_error() {
        for path in ["$.items[", "{.items", "$.a b"] {
            let failure = apply(path, &document()).unwrap_err();
            assert_eq!(
                (failure.code, failure.exit),
                ("CW0006", crate::exit::Exit::Usage),
                "{path}"
            );
        }
    }
}
