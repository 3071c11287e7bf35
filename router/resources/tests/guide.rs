// SPDX-License-Identifier: Apache-2.0
//! The manifests in the operator's guide are valid.

use std::fs;
use std::path::Path;

use router_resources::parse::parse_file;

#[test]
fn every_manifest_of_the_guide_is_read_without_a_finding() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/src");
    let mut manifests = 0;
    for entry in fs::read_dir(&guide).unwrap() {
        let page = entry.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            if !block.contains("apiVersion:") {
                continue;
            }
            let parsed = parse_file(&page, block.as_bytes());
            let findings: Vec<String> =
                parsed.diagnostics.iter().map(ToString::to_string).collect();
            assert_eq!(findings, [""; 0]);
            manifests += parsed.objects.len();
        }
    }
    assert!(
        manifests >= 3,
        "only {manifests} manifests in {}",
        guide.display()
    );
}
