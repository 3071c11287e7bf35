// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! What the objects share: headers, the routing table, the checks of a forwarding router and its
//! errors.

#![no_std]

pub mod fib;
pub mod forward;
pub mod icmp;
pub mod mss;
pub mod packet;
pub mod tunnel;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: no operation in here can panic, and the verifier would refuse the loop.
    loop {}
}
