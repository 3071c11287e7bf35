// SPDX-License-Identifier: Apache-2.0
//! Pinned maps, as the kernel has them.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context as _, Result};

/// The bytes of a key at most.
const KEY_BYTES: usize = 64;

/// `union bpf_attr` as far as these calls need it.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    words: [u64; 16],
}

/// How many entries a pinned hash has; nobody else may change it meanwhile.
///
/// # Errors
/// When it cannot be read.
pub fn entries(pin: &Path) -> Result<usize> {
    const BPF_MAP_GET_NEXT_KEY: i32 = 4;
    let map = open(pin).with_context(|| format!("open {}", pin.display()))?;
    let mut key = [0_u8; KEY_BYTES];
    let mut next = [0_u8; KEY_BYTES];
    let mut count = 0;
    loop {
        let mut attributes = Attributes::default();
        let [a, b, c, d] = map.as_raw_fd().to_ne_bytes();
        attributes.words[0] = u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]);
        // Without a key the first one comes.
        attributes.words[1] = match count {
            0 => 0,
            _ => key.as_mut_ptr() as u64,
        };
        attributes.words[2] = next.as_mut_ptr() as u64;
        match call(BPF_MAP_GET_NEXT_KEY, &mut attributes) {
            Ok(_) => key = next,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(count),
            Err(error) => return Err(error).with_context(|| format!("read {}", pin.display())),
        }
        count += 1;
    }
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    const BPF_OBJ_GET: i32 = 7;
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attributes = Attributes::default();
    attributes.words[0] = path.as_ptr() as u64;
    let fd = call(BPF_OBJ_GET, &mut attributes)?;
    // SAFETY: a descriptor this call made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn call(command: i32, attributes: &mut Attributes) -> io::Result<i32> {
    // SAFETY: the attributes are live and of this size, and what they point to is live in the caller.
    let code = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<Attributes>(),
        )
    };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(code as i32)
}
