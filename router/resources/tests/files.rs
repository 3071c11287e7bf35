// SPDX-License-Identifier: Apache-2.0
//! What is said about whole files: warnings, unknown kinds, broken bytes, secrets.

use std::path::Path;

use router_resources::Severity;
use router_resources::parse::{ParsedFile, parse_file};

const CLUSTER: &str = include_str!("manifests/cluster-config.yaml");
const PEER: &str = include_str!("manifests/peer-config.yaml");
const OURS: &str = include_str!("manifests/causeway-peer-config.yaml");
const ADVERT: &str = include_str!("manifests/advertisement.yaml");
const OVERRIDE: &str = include_str!("manifests/override.yaml");
const ALPHA: &str = include_str!("manifests/alpha.yaml");
const KUBERNETES: &str = include_str!("manifests/kubernetes.yaml");

fn parse(text: &str) -> ParsedFile {
    parse_file(Path::new("f.yaml"), text.as_bytes())
}

fn errors(text: &str) -> Vec<String> {
    let errors = parse(text)
        .diagnostics
        .into_iter()
        .filter(|d| d.severity == Severity::Error);
    errors.map(|d| d.to_string()).collect()
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let warnings = |text: &str| -> Vec<String> {
        let parsed = parse(text);
        assert!(!parsed.objects.is_empty());
        parsed.diagnostics.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        warnings(ALPHA),
        [
            "f.yaml:22:16: warning[CW0115]: document 2, CiliumBGPPeerConfig/tor-alpha, spec.transport.localPort: has no effect: source ports are ephemeral"
        ]
    );
    assert_eq!(
        warnings(OVERRIDE),
        [
            "f.yaml:14:22: warning[CW0115]: document 1, CiliumBGPNodeConfigOverride/node-1, spec.bgpInstances[0].peers[0].localPort: has no effect: source ports are ephemeral"
        ]
    );
}

#[test]
fn unknown_kinds_are_warnings_with_a_suggestion() {
    for (api_version, kind, expected) in [
        (
            "cilium.io/v2",
            "CiliumBGPPerConfig",
            "did you mean 'CiliumBGPPeerConfig'?",
        ),
        (
            "cilium.io/v3",
            "CiliumBGPPeerConfig",
            "did you mean 'cilium.io/v2'?",
        ),
        (
            "apps/v1",
            "Deployment",
            "the object is ignored; kinds read: ",
        ),
    ] {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: x}}\n");
        let parsed = parse(&text);
        assert_eq!(parsed.diagnostics.len(), 1);
        assert_eq!(parsed.diagnostics[0].severity, Severity::Warning);
        assert!(
            parsed.diagnostics[0].to_string().contains(expected),
            "{}",
            parsed.diagnostics[0]
        );
    }
}

#[test]
fn what_is_no_object_is_an_error() {
    for (text, expected) in [
        ("- a\n", "a document must be an object, found a list"),
        ("7\n", "a document must be an object, found 7"),
        (
            "kind: Node\n",
            "the field 'apiVersion' is required and must be a text",
        ),
        (
            "apiVersion: v1\n",
            "the field 'kind' is required and must be a text",
        ),
        (
            "apiVersion: v1\nkind: Node\n",
            "the field 'metadata' is required",
        ),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {}\n",
            "the field 'name' is required",
        ),
        (
            "apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig\nmetadata: {name: a}\n",
            "the field 'spec' is required",
        ),
    ] {
        let errors = errors(text);
        assert!(
            errors.iter().any(|e| e.contains(expected)),
            "{text}: {errors:?}"
        );
    }
}

#[test]
fn all_findings_of_a_file_are_reported_with_their_documents() {
    let text = format!(
        "{}---\n{}",
        PEER.replace("Seconds: 9", "Seconds: 2"),
        ADVERT.replace("65000:99", "x")
    );
    let errors = errors(&text);
    // A hold time of 2 is one finding; the rule about keepalives is for values that are in range.
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].contains("document 1,") && errors[1].contains("document 2,"));
}

#[test]
fn secrets_do_not_appear_in_findings_or_debug_output() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n\
                data: {a: 'hunter2!', b: 123456789}\nstringData: {password: hunter2}\n";
    for message in errors(text) {
        assert!(
            !message.contains("hunter2") && !message.contains("123456789"),
            "{message}"
        );
    }
    let text = text.replace("{a: 'hunter2!', b: 123456789}", "{}");
    let parsed = parse(&text);
    assert_eq!(parsed.objects.len(), 1);
    assert!(!format!("{parsed:?}").contains("hunter2"));
}

#[test]
fn objects_are_shown_with_their_defaults_and_without_their_secrets() {
    let shown = |text: &str| parse(text).objects[0].object.to_redacted_json();
    let peer = shown(PEER);
    assert_eq!(peer["apiVersion"], "cilium.io/v2");
    assert_eq!(peer["metadata"]["name"], "tor");
    assert_eq!(peer["spec"]["timers"]["holdTimeSeconds"], 9);
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: {x: hunter2}}\n\
                data: {key: aHVudGVyMg==}\nstringData: {password: hunter2}\n";
    let secret = shown(text).to_string();
    assert!(
        secret.contains("password") && secret.contains("key"),
        "{secret}"
    );
    assert!(
        !secret.contains("hunter2") && !secret.contains("aHVudGVyMg"),
        "{secret}"
    );
}

#[test]
fn bytes_that_are_not_text_are_refused() {
    let parsed = parse_file(Path::new("f.yaml"), b"a: 1\nb: \xff\n");
    assert_eq!(
        parsed.diagnostics[0].to_string(),
        "f.yaml: error[CW0103]: not UTF-8: byte 0xff at offset 8 (line 2); save the file as UTF-8"
    );
    let huge = vec![b'#'; 9 << 20];
    assert!(
        parse_file(Path::new("f.yaml"), &huge).diagnostics[0]
            .to_string()
            .contains("CW0102")
    );
}

#[test]
fn a_file_of_nothing_but_errors_is_cut_short() {
    let bad = "---\nkind: x\n".repeat(5000);
    let parsed = parse(&bad);
    assert_eq!(parsed.diagnostics.len(), 101);
    assert!(parsed.diagnostics[100].message.starts_with("and 4900 more"));
}

#[test]
fn no_cut_or_flipped_byte_of_a_manifest_panics() {
    for text in [CLUSTER, PEER, OURS, ADVERT, OVERRIDE, ALPHA, KUBERNETES] {
        for end in 0..text.len() {
            parse(&text[..end]);
        }
        let mut bytes = text.as_bytes().to_vec();
        for at in 0..bytes.len() {
            for byte in [b'\n', b'{', b'[', b'&', b'"', 0, 0xff] {
                let kept = std::mem::replace(&mut bytes[at], byte);
                parse_file(Path::new("f.yaml"), &bytes);
                bytes[at] = kept;
            }
        }
    }
}

#[test]
fn what_a_file_of_nonsense_costs_is_bounded() {
    let documents = "---\napiVersion: a\nkind: b\nmetadata: {}\n".repeat(30_000);
    let parsed = parse(&documents);
    assert!(parsed.diagnostics.iter().any(|d| d.is_error()));
    assert!(parsed.diagnostics.len() <= 101);
    let fields: String = (0..100_000).map(|i| format!("  field{i}: x\n")).collect();
    let parsed = parse(&format!(
        "{}{fields}",
        PEER.replace("spec:\n", "spec:\n  a: b\n")
    ));
    assert!(parsed.diagnostics.len() <= 101);
}

/// The reader is ours; what it understands must be what others understand.
#[test]
fn the_manifests_read_as_another_yaml_reader_reads_them() {
    let tricky = "a: &x {b: 1, c: [~, null, '']}\nd: *x\ne:\n  <<: *x\n  b: 2\nf: |\n  two\n  lines\n\
                  g: >-\n  folded\n  text\nh: \"\\u00e9\\n\"\ni: 0x1f\nj: -0.5\nk: True\nl: 1.5e3\n";
    for text in [
        CLUSTER, PEER, OURS, ADVERT, OVERRIDE, ALPHA, KUBERNETES, tricky,
    ] {
        let theirs: Vec<serde_json::Value> = serde_saphyr::from_multiple(text).unwrap();
        let (documents, errors) = router_resources::yaml::read(text);
        assert_eq!(errors, []);
        let ours: Vec<serde_json::Value> = documents.iter().map(|d| d.root.to_json()).collect();
        let theirs: Vec<serde_json::Value> = theirs.into_iter().map(without_nulls).collect();
        assert_eq!(ours, theirs);
    }
}

/// Empty fields are absent fields to us.
fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        serde_json::Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
