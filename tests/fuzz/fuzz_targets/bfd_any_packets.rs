// SPDX-License-Identifier: Apache-2.0
#![no_main]

#[path = "../bodies/bfd.rs"]
mod bfd;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bfd::any_packets(data));
