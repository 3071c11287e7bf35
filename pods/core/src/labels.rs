// SPDX-License-Identifier: Apache-2.0
//! Labels of pods, as runtimes write them: CNI conventions, `args.cni.labels`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::failure::{Code, Failure};

/// Most labels a pod may have. Arbitrary: far above what anybody uses, and a journal line with
/// that many of the longest still is below 100 KB.
const MAX_LABELS: usize = 256;

/// Longest name and longest value of a Kubernetes label, in octets.
const MAX_NAME_LENGTH: usize = 63;

/// Longest prefix of a key, in octets: a DNS name.
const MAX_PREFIX_LENGTH: usize = 253;

/// One label.
#[derive(Deserialize)]
pub(crate) struct Label {
    key: String,
    value: String,
}

/// Makes a map of a list, if every label is one that Kubernetes would take: others no selector can
/// name. The same label twice is one.
///
/// # Errors
///
/// [`Code::InvalidConfig`] with the label and what is wrong with it.
pub(crate) fn read(list: Vec<Label>) -> Result<BTreeMap<String, String>, Failure> {
    let refused = |message: String, details: &str| {
        Failure::new(Code::InvalidConfig, format!("args.cni.labels: {message}"))
            .with_details(details)
    };
    let mut labels = BTreeMap::new();
    for Label { key, value } in list {
        if !is_key(&key) {
            return Err(refused(
                format!("{key:?} is no key of a label"),
                "expected a name of at most 63 letters, digits, '-', '_' and '.' that begins and \
                 ends with a letter or digit, and before it, if anything, a DNS name and '/'",
            ));
        }
        if !value.is_empty() && !is_name(&value) {
            return Err(refused(
                format!("{value:?} is no value of a label ({key})"),
                "expected nothing, or at most 63 letters, digits, '-', '_' and '.' that begin and \
                 end with a letter or digit",
            ));
        }
        match labels.get(&key) {
            Some(other) if *other != value => {
                return Err(refused(
                    format!("{key} is there twice, as {other:?} and as {value:?}"),
                    "give each key one value",
                ));
            }
            Some(_) => {}
            None if labels.len() == MAX_LABELS => {
                return Err(refused(
                    format!("there are more than {MAX_LABELS} labels"),
                    "give the pod fewer labels",
                ));
            }
            None => {
                labels.insert(key, value);
            }
        }
    }
    Ok(labels)
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_prefix(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_prefix(prefix: &str) -> bool {
    let is_part = |part: &str| {
        has_ends(part)
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    prefix.len() <= MAX_PREFIX_LENGTH && prefix.split('.').all(is_part)
}

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_LENGTH
        && has_ends(name)
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether the first and the last character are letters or digits; false for nothing.
fn has_ends(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter()
        .all(|end| end.is_some_and(|b| b.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<BTreeMap<String, String>, Failure> {
        let label = |(key, value): &(&str, &str)| Label {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        };
        read(pairs.iter().map(label).collect())
    }

    #[test]
    fn what_kubernetes_takes_is_taken() {
        let (name, prefix) = ("a".repeat(63), format!("{}.io", "b".repeat(250)));
        let longest = format!("{prefix}/{name}");
        let pairs = [
            ("app", "web"),
            ("app", "web"),
            ("app.kubernetes.io/part-of", "Shop_1.0"),
            ("empty", ""),
            (longest.as_str(), name.as_str()),
        ];
        let labels = read_pairs(&pairs).unwrap();
        assert_eq!(labels.len(), 4);
        assert_eq!(labels["empty"], "");
        assert_eq!(labels[&longest], name);
    }

    #[test]
    fn what_it_does_not_take_is_named() {
        let long = "a".repeat(64);
        for key in [
            "", "-a", "a-", "a b", "a/b/c", "/a", "a/", "A.io/a", "a..b/c", "\u{e4}", &long,
        ] {
            let failure = read_pairs(&[(key, "v")]).unwrap_err();
            assert_eq!(failure.code, Code::InvalidConfig);
            assert!(failure.message.contains(&format!("{key:?}")), "{failure}");
        }
        for value in ["-", "a b", "a/b", ".a", "\n", &long] {
            let failure = read_pairs(&[("app", value)]).unwrap_err();
            assert!(failure.message.contains("(app)"), "{failure}");
        }
        let failure = read_pairs(&[("app", "a"), ("app", "b")]).unwrap_err();
        assert!(failure.message.contains("twice"), "{failure}");
    }

    #[test]
    fn there_are_not_endless_labels() {
        let keys: Vec<String> = (0..=MAX_LABELS).map(|n| format!("k{n}")).collect();
        let mut pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "v")).collect();
        assert!(read_pairs(&pairs).unwrap_err().message.contains("256"));
        pairs.pop();
        assert_eq!(read_pairs(&pairs).unwrap().len(), MAX_LABELS);
    }
}
