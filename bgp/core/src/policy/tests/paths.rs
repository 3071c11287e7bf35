// SPDX-License-Identifier: Apache-2.0
//! Patterns over AS paths: against another implementation of regular expressions, and in bounds.

use bgp_wire::{AsPath, Segment, SegmentKind};
use proptest::collection::vec;
use proptest::prelude::*;
use router_types::{AsPathPattern, Asn};

use crate::policy::as_path::{Matcher, PathText};

fn matches(pattern: &str, path: &AsPath) -> bool {
    let pattern: AsPathPattern = pattern.parse().unwrap();
    let text = PathText::new(path);
    let by_states = Matcher::unprepared(&pattern).is_match(&text);
    let matcher = Matcher::new(&pattern);
    assert_eq!(matcher.is_match(&text), by_states, "{pattern} on {path}");
    by_states
}

fn sequence(asns: &[u32]) -> AsPath {
    AsPath::from_sequence(asns.iter().copied().map(Asn))
}

#[test]
fn patterns_mean_what_router_manuals_say() {
    let set = AsPath {
        segments: vec![
            Segment {
                kind: SegmentKind::Sequence,
                asns: vec![Asn(65001)],
            },
            Segment {
                kind: SegmentKind::Set,
                asns: vec![Asn(65003), Asn(65004)],
            },
        ],
    };
    for (pattern, path, expected) in [
        ("^$", sequence(&[]), true),
        ("^$", sequence(&[65001]), false),
        (".*", sequence(&[]), true),
        ("_65001_", sequence(&[65001]), true),
        ("_65001_", sequence(&[1, 65001, 2]), true),
        ("_65001_", sequence(&[165001]), false),
        ("_65001_", sequence(&[650010, 65001]), true),
        ("^65001_", sequence(&[65001, 3]), true),
        ("^65001_", sequence(&[3, 65001]), false),
        ("_65001$", sequence(&[3, 65001]), true),
        ("^65001( 65001)*$", sequence(&[65001, 65001, 65001]), true),
        ("^65001( 65001)*$", sequence(&[65001, 65001, 3]), false),
        ("^[0-9]+$", sequence(&[4_294_967_295]), true),
        ("^[0-9]+$", sequence(&[1, 2]), false),
        ("_(6451[2-9]|645[2-9][0-9])_", sequence(&[3, 64599]), true),
        ("_(6451[2-9]|645[2-9][0-9])_", sequence(&[3, 64511]), false),
        ("_65003_", set.clone(), true),
        ("65001 \\{65003,65004\\}", set.clone(), true),
        ("65001_\\{", set, true),
        ("^(^|_)*$", sequence(&[]), true),
        ("$", sequence(&[1]), true),
        ("1$2", sequence(&[12]), false),
    ] {
        assert_eq!(matches(pattern, &path), expected, "{pattern} on {path}");
    }
}

#[test]
fn a_pattern_with_many_states_is_run_as_it_is() {
    // The table would need a state for each of the 2^16 sets of last digits.
    let pattern: AsPathPattern = format!("1{}$", "[0-9 ]".repeat(16)).parse().unwrap();
    assert!(matches!(Matcher::new(&pattern), Matcher::States(_)));
    assert!(matches(
        pattern.as_str(),
        &sequence(&[4_000_100_000, 4_200_000_000])
    ));
    assert!(!matches(pattern.as_str(), &sequence(&[4_200_000_000])));
}

fn pattern() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        6 => "[1-3]",
        2 => Just(" ".to_owned()),
        2 => Just("_".to_owned()),
        1 => Just(".".to_owned()),
        1 => Just("[12]".to_owned()),
        1 => Just("[^1-2 ]".to_owned()),
        1 => Just("\\{".to_owned()),
        1 => Just(",".to_owned()),
        1 => Just("(^)".to_owned()),
        1 => Just("($)".to_owned()),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            3 => vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            2 => vec(inner.clone(), 1..3).prop_map(|parts| format!("({})", parts.join("|"))),
            2 => (inner, "[*+?]").prop_map(|(what, times)| format!("({what}){times}")),
        ]
    })
}

fn path() -> impl Strategy<Value = AsPath> {
    let kind = prop_oneof![
        5 => Just(SegmentKind::Sequence),
        1 => Just(SegmentKind::Set),
        1 => Just(SegmentKind::ConfedSequence),
        1 => Just(SegmentKind::ConfedSet),
    ];
    let asn = prop_oneof![0u32..4, 10u32..34, any::<u32>()];
    let segment =
        (kind, vec(asn.prop_map(Asn), 1..5)).prop_map(|(kind, asns)| Segment { kind, asns });
    vec(segment, 0..3).prop_map(|segments| AsPath { segments })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn patterns_match_as_regular_expressions_do(
        text in pattern(),
        paths in vec(path(), 1..8),
    ) {
        prop_assume!(text.parse::<AsPathPattern>().is_ok());
        let other = text.replace('_', "(?:[ ,{}()\\[\\]]|^|$)");
        let other = regex::Regex::new(&other).unwrap();
        for path in paths {
            prop_assert_eq!(
                matches(&text, &path),
                other.is_match(&path.to_string()),
                "{} on {}", text, path
            );
        }
    }

    #[test]
    fn any_text_is_a_pattern_or_an_error(text in "[0-9 ,.^$_*+?|()\\[\\]{}\\\\-]{0,40}") {
        if let Ok(pattern) = text.parse::<AsPathPattern>() {
            matches(pattern.as_str(), &sequence(&[1, 22, 333]));
        }
    }
}
