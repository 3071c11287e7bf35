// SPDX-License-Identifier: Apache-2.0
//! The rules of `BGPPolicy`: the manifest beside this file is valid as it stands, and each change
//! to it gives exactly the finding that is written here, with its place.

use std::path::Path;

use router_resources::parse::parse_file;

const POLICY: &str = include_str!("manifests/policy.yaml");

fn findings(text: &str) -> Vec<String> {
    let parsed = parse_file(Path::new("f.yaml"), text.as_bytes());
    parsed.diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn the_manifest_is_valid_as_it_stands() {
    assert_eq!(findings(POLICY), [""; 0]);
}

#[test]
fn each_mistake_is_found_where_it_is() {
    let mut wrong = Vec::new();
    for (from, to, expected) in [
        (
            "\"^65001( 65001)*$\"",
            "\"^65001( 65001\"",
            "f.yaml:20:13: error[CW0112]: document 1, BGPPolicy/everything, spec.statements[0].match.asPaths[0]: '^65001( 65001' is not a pattern over AS paths: character 7: a `(` without its `)`: write `\\(` for the bracket itself",
        ),
        (
            "_64999_",
            "AS64999",
            "character 1: no AS path has this character",
        ),
        (
            "prefix: 10.0.0.0/8",
            "prefix: 10.0.0.1/8",
            "did you mean '10.0.0.0/8'?",
        ),
        (
            "maxLength: 24",
            "maxLength: 33",
            "minLength 16 and maxLength 33 must be in order",
        ),
        (
            "maxLength: 24",
            "maxLength: 12",
            "minLength 16 and maxLength 12 must be in order",
        ),
        (
            "64512-65534",
            "65534-64512",
            "65534-64512 holds no AS number; did you mean '64512-65534'?",
        ),
        ("- 65002", "- 4294967296", "4294967296 is above 4294967295"),
        (
            "- 65002",
            "- AS65002",
            "an AS number such as 65001, or a range of them",
        ),
        (
            "- 65002",
            "- [1]",
            "must be a number or a text, found a list",
        ),
        (
            "          min: 1\n          max: 3",
            "          min: 4\n          max: 3",
            "min 4 is above max 3",
        ),
        (
            "          min: 1\n          max: 3",
            "          {}",
            "min or max is required",
        ),
        (
            "\"65000:*\", no-export",
            "\"65000:*\", no-exports",
            "or a well-known name such as no-export",
        ),
        (
            "65000:1:5-9",
            "65000:1:9-5",
            "'65000:1:9-5' has a range that holds no number; did you mean '5-9'?",
        ),
        (
            "65000:100-199",
            "65000:199-100",
            "communities.standard.remove[0]",
        ),
        (
            "\"rt:65000:*\"",
            "",
            "one of standard, large, extended with an entry is required",
        ),
        ("65000:7", "65000:*", "set.communities.standard.add[0]"),
        (
            "198.51.100.0/24",
            "198.51.100.7/24",
            "did you mean '198.51.100.0/24'?",
        ),
        (
            "sources: [EBGP, IBGP]",
            "sources: [EBPG]",
            "did you mean 'EBGP'?",
        ),
        (
            "add: 10",
            "add: 10\n          value: 3",
            "exactly one of value, add, subtract, remove is required",
        ),
        ("add: 10", "remove: false", "only true is allowed here"),
        (
            "asns: [65010, 65011]",
            "asns: [65010, 65011]\n          count: 2",
            "exactly one of count and asns is required",
        ),
        ("asns: [65010, 65011]", "asns: [0]", "0 is below 1"),
        ("count: 2", "count: 65", "65 is above 64"),
        (
            "mode: Self",
            "mode: Self\n          address: 192.0.2.1",
            "exactly one of address and mode is required",
        ),
        (
            "address: 192.0.2.9",
            "address: 192.0.2.9/24",
            "an address such as 192.0.2.1",
        ),
        (
            "name: rest",
            "name: prepend",
            "name 'prepend' is already used by entry 1",
        ),
        (
            "      action: Reject",
            "      set: {localPreference: 1}\n      action: Reject",
            "set is not allowed with action Reject",
        ),
        (
            "      action: Accept",
            "      action: Acept",
            "did you mean 'Accept'?",
        ),
        (
            "    - name: rest\n      action: Accept",
            "    - name: rest",
            "the field 'action' is required",
        ),
        (
            "localPreference: 200",
            "localPreferense: 200",
            "unknown field 'localPreferense'; did you mean 'localPreference'?",
        ),
    ] {
        assert_eq!(
            POLICY.matches(from).count(),
            1,
            "'{from}' is not there exactly once"
        );
        let found = findings(&POLICY.replace(from, to));
        let is_right =
            found.len() == 1 && found[0].contains(expected) && found[0].contains("error");
        if !is_right {
            wrong.push(format!("{from} -> {to}: {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn statements_behind_one_that_takes_everything_are_remarked_upon() {
    let text = POLICY.replace(
        "    - name: prepend\n",
        "    - name: all\n      action: Accept\n    - name: prepend\n",
    );
    let found = findings(&text);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("warning"), "{}", found[0]);
    assert!(
        found[0].contains("is never tried: statement 'all' before it takes every route"),
        "{}",
        found[0]
    );
}
