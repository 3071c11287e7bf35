// SPDX-License-Identifier: Apache-2.0
//! The CRD files in `deploy/crds` are what the types say. `UPDATE_GOLDEN=1` rewrites them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use router_resources::generate_crds;

#[test]
fn the_checked_in_crds_are_generated() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let generated: BTreeMap<String, String> = generate_crds().into_iter().collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, text) in &generated {
            fs::write(directory.join(name), text).unwrap();
        }
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        found.insert(name, fs::read_to_string(path).unwrap());
    }
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&found),
        names(&generated),
        "a file too many or too few"
    );
    for (name, text) in &generated {
        assert!(
            found[name] == *text,
            "{name} differs: run with UPDATE_GOLDEN=1 and look at the diff"
        );
    }
}
