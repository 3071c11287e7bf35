// SPDX-License-Identifier: Apache-2.0
//! Compiles the proto files without `protoc`.

use std::path::Path;

const FOLDER: &str = "proto/causeway/v1alpha1";
const FILES: [&str; 9] = [
    "status.proto",
    "bfd.proto",
    "bgp.proto",
    "resources.proto",
    "cni.proto",
    "fib.proto",
    "datapath.proto",
    "egress.proto",
    "config.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = FILES.map(|name| Path::new(FOLDER).join(name));
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
