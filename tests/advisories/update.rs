// SPDX-License-Identifier: Apache-2.0
//! UPDATEs put together octet by octet, for tests of several crates.

/// An UPDATE without its header: withdrawn routes, path attributes, announced routes (RFC 4271 §4.3).
pub(crate) fn body(withdrawn: &[u8], attributes: &[&[u8]], announced: &[u8]) -> Vec<u8> {
    let attributes = attributes.concat();
    let mut body = (withdrawn.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    body.extend_from_slice(&attributes);
    body.extend_from_slice(announced);
    body
}
