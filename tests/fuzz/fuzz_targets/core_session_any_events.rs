// SPDX-License-Identifier: Apache-2.0
#![no_main]

#[path = "../bodies/core.rs"]
mod core_session;

libfuzzer_sys::fuzz_target!(|data: &[u8]| core_session::core_session_any_events(data));
