// SPDX-License-Identifier: Apache-2.0
//! Label selectors of Kubernetes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Selects objects by their labels. All requirements must hold; the empty selector holds for
/// every object. What an absent selector means is said where the field is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: Labels,
    /// Further requirements.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// The label's key.
    #[schemars(length(min = 1))]
    pub key: String,
    /// How the label's value relates to `values`.
    pub operator: Operator,
    /// The values; at least one for `In` and `NotIn`, none for `Exists` and `DoesNotExist`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label's value relates to a list of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// The label is there and its value is in the list.
    In,
    /// The label is not there, or its value is not in the list.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether the selector selects an object of which not everything is known. `None`: it depends
    /// on what is not.
    pub fn decide<'a>(&self, label: impl Fn(&str) -> Known<'a>) -> Option<bool> {
        let equal = self.match_labels.iter().map(|(key, value)| {
            let found = label(key).value()?;
            Some(found == Some(value))
        });
        let further = self.match_expressions.iter().map(|requirement| {
            let found = label(&requirement.key).value()?;
            Some(requirement.holds(found))
        });
        equal.chain(further).fold(Some(true), both)
    }

    /// Whether the selector selects an object with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self
                .match_expressions
                .iter()
                .all(|requirement| requirement.matches(labels))
    }
}

/// What is known of one label of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<'a> {
    /// It has this value.
    Value(&'a str),
    /// The object does not have it.
    Absent,
    /// Nothing.
    Unknown,
}

impl<'a> Known<'a> {
    /// What is known of a label when all labels are.
    pub fn of(labels: &'a Labels, key: &str) -> Self {
        labels.get(key).map_or(Known::Absent, |v| Known::Value(v))
    }

    fn value(self) -> Option<Option<&'a str>> {
        match self {
            Known::Value(value) => Some(Some(value)),
            Known::Absent => Some(None),
            Known::Unknown => None,
        }
    }
}

/// Whether both hold, where `None` is not known.
pub fn both(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        self.holds(labels.get(&self.key).map(String::as_str))
    }

    fn holds(&self, value: Option<&str>) -> bool {
        let is_listed = |found: &str| self.values.iter().any(|value| value == found);
        match self.operator {
            Operator::In => value.is_some_and(is_listed),
            Operator::NotIn => value.is_none_or(|v| !is_listed(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// Says what is wrong with a label key: `[prefix/]name`, the prefix a DNS subdomain of at most 253
/// characters, the name at most 63.
pub(crate) fn check_key(key: &str) -> Result<(), &'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|p| !is_dns_subdomain(p)) {
        return Err("the part before '/' must be a DNS name of at most 253 characters");
    }
    if name.is_empty() || !is_label_text(name) {
        return Err(
            "the name must be 1 to 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit",
        );
    }
    Ok(())
}

/// Says what is wrong with a label value.
pub(crate) fn check_value(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || is_label_text(value) {
        return Ok(());
    }
    Err(
        "a label value is empty or at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or digit",
    )
}

/// Whether a text is an RFC 1123 subdomain, the form of object names.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    let ends = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|part| {
            let bytes = part.as_bytes();
            bytes.first().copied().is_some_and(ends)
                && bytes.last().copied().is_some_and(ends)
                && bytes.iter().all(|&b| ends(b) || b == b'-')
        })
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    fn requirement(operator: Operator, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_labels: Labels::new(),
            match_expressions: vec![Requirement {
                key: "rack".into(),
                operator,
                values: values.iter().map(|v| v.to_string()).collect(),
            }],
        }
    }

    #[test]
    fn the_empty_selector_selects_everything() {
        assert!(LabelSelector::default().matches(&Labels::new()));
        assert!(LabelSelector::default().matches(&labels(&[("a", "b")])));
    }

    #[test]
    fn match_labels_must_all_be_equal() {
        let selector = LabelSelector {
            match_labels: labels(&[("bgp", "yes"), ("rack", "r1")]),
            match_expressions: vec![],
        };
        assert!(selector.matches(&labels(&[("bgp", "yes"), ("rack", "r1"), ("more", "")])));
        assert!(!selector.matches(&labels(&[("bgp", "yes"), ("rack", "r2")])));
        assert!(!selector.matches(&labels(&[("bgp", "yes")])));
    }

    #[test]
    fn operators_treat_a_missing_label_as_kubernetes_does() {
        let (r1, none) = (labels(&[("rack", "r1")]), Labels::new());
        for (operator, values, with, without) in [
            (Operator::In, &["r1", "r2"][..], true, false),
            (Operator::In, &["r2"][..], false, false),
            (Operator::NotIn, &["r1"][..], false, true),
            (Operator::NotIn, &["r2"][..], true, true),
            (Operator::Exists, &[][..], true, false),
            (Operator::DoesNotExist, &[][..], false, true),
        ] {
            let selector = requirement(operator, values);
            assert_eq!(selector.matches(&r1), with, "{operator:?} {values:?}");
            assert_eq!(
                selector.matches(&none),
                without,
                "{operator:?} {values:?} without label"
            );
        }
    }

    #[test]
    fn what_is_not_known_counts_only_where_it_matters() {
        let mut selector = requirement(Operator::In, &["r1"]);
        let unknown = |key: &str| match key {
            "app" => Known::Value("web"),
            "gone" => Known::Absent,
            _ => Known::Unknown,
        };
        assert_eq!(LabelSelector::default().decide(unknown), Some(true));
        assert_eq!(selector.decide(unknown), None);
        selector.match_labels = labels(&[("app", "web")]);
        assert_eq!(selector.decide(unknown), None);
        selector.match_labels = labels(&[("app", "db")]);
        assert_eq!(selector.decide(unknown), Some(false));
        selector.match_labels = labels(&[("gone", "x")]);
        assert_eq!(selector.decide(unknown), Some(false));
        let known = labels(&[("app", "web"), ("rack", "r1")]);
        selector.match_labels = labels(&[("app", "web")]);
        assert_eq!(selector.decide(|key| Known::of(&known, key)), Some(true));
    }

    /// Every selector of up to two requirements on one label of two, with each of the two known or
    /// not: what is decided holds whatever the rest turns out to be.
    #[test]
    fn what_is_decided_holds_for_all_labels_there_can_be() {
        let operators = [
            (Operator::In, &["x"][..]),
            (Operator::NotIn, &["x"]),
            (Operator::Exists, &[]),
            (Operator::DoesNotExist, &[]),
        ];
        let requirements: Vec<Requirement> = ["a", "b"]
            .into_iter()
            .flat_map(|key| {
                operators.map(|(operator, values)| Requirement {
                    key: key.into(),
                    operator,
                    values: values.iter().map(|v| v.to_string()).collect(),
                })
            })
            .collect();
        let values = [None, Some("x"), Some("y")];
        let complete = |a: Option<&str>, b: Option<&str>| -> Labels {
            let pairs = [("a", a), ("b", b)].into_iter();
            let there = pairs.filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())));
            there.collect()
        };
        let mut decided = 0;
        for first in &requirements {
            for second in &requirements {
                let selector = LabelSelector {
                    match_labels: Labels::new(),
                    match_expressions: vec![first.clone(), second.clone()],
                };
                for a in values {
                    // `b` is not known.
                    let label = |key: &str| match (key, a) {
                        ("a", Some(value)) => Known::Value(value),
                        ("a", None) => Known::Absent,
                        _ => Known::Unknown,
                    };
                    let Some(answer) = selector.decide(label) else {
                        continue;
                    };
                    decided += 1;
                    for b in values {
                        assert_eq!(selector.matches(&complete(a, b)), answer, "{selector:?}");
                    }
                }
            }
        }
        assert!(decided > 40, "{decided}");
    }

    #[test]
    fn keys_and_values_follow_the_label_grammar() {
        for key in ["a", "app.kubernetes.io/name", "x_y.z-1"] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in [
            "",
            "/a",
            "a/",
            "A.com/x",
            "-a",
            "a-",
            "a/b/c",
            &"x".repeat(64),
        ] {
            assert!(check_key(key).is_err(), "{key}");
        }
        for value in ["", "r1", "A_b.c"] {
            assert_eq!(check_value(value), Ok(()), "{value}");
        }
        for value in ["-", "a b", &"x".repeat(64)] {
            assert!(check_value(value).is_err(), "{value}");
        }
    }
}
