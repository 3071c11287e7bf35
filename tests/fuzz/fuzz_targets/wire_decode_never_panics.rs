// SPDX-License-Identifier: Apache-2.0
#![no_main]

#[allow(dead_code, reason = "each target uses one of the properties")]
#[path = "../bodies/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire::wire_decode_never_panics(data));
