// SPDX-License-Identifier: Apache-2.0
#![no_main]

#[path = "../bodies/policy.rs"]
mod policy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::policy_decides_as_it_reads(data));
