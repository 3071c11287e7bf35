// SPDX-License-Identifier: Apache-2.0
#![no_main]

#[path = "../bodies/speaker.rs"]
mod speaker;

libfuzzer_sys::fuzz_target!(|data: &[u8]| speaker::speaker_any_messages(data));
