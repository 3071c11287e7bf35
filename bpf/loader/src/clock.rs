// SPDX-License-Identifier: Apache-2.0
//! The kernel's own clocks, which are the same to every process.
//!
//! Programs note moments by the kernel's monotonic clock. A process in a time namespace
//! (time_namespaces(7)) reads one that is moved: a container with offsets, or one that was restored
//! from a checkpoint. So whatever is compared with what programs have noted, or kept for a process
//! that may be elsewhere, is read here. The wall clock, which anybody may set, is used for neither.

use std::{fs, sync::OnceLock, time::Duration};

/// How far this process's clocks are ahead of the kernel's, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offsets {
    monotonic: i128,
    boot: i128,
}

/// The time since the boot without the time the machine slept, as programs see it; exact to a few
/// milliseconds.
pub fn monotonic() -> Duration {
    moved_back(read(libc::CLOCK_MONOTONIC_COARSE), offsets().monotonic)
}

/// The time since the boot with the time the machine slept.
pub fn since_boot() -> Duration {
    moved_back(read(libc::CLOCK_BOOTTIME), offsets().boot)
}

fn read(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live value of the right shape; the clock is always there.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    nanoseconds(time.tv_sec, time.tv_nsec)
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

fn moved_back(at: i128, offset: i128) -> Duration {
    let since = u64::try_from(at - offset);
    Duration::from_nanos(since.unwrap_or_default())
}

/// Those of this process, which cannot change while it runs.
fn offsets() -> Offsets {
    static OFFSETS: OnceLock<Offsets> = OnceLock::new();
    *OFFSETS.get_or_init(|| {
        let namespace = |name| fs::read_link(format!("/proc/self/ns/{name}")).ok();
        // The file is about the namespace of children, which is another one only for who has made
        // one and has not gone there.
        if namespace("time") != namespace("time_for_children") {
            return Offsets::default();
        }
        // A kernel without time namespaces has no such file.
        let text = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        parse(&text)
    })
}

/// The kernel's lines: a clock, seconds, nanoseconds.
fn parse(text: &str) -> Offsets {
    let offset_of = |clock: &str| -> i128 {
        let mut lines = text.lines().map(str::split_whitespace);
        let found = lines.find_map(|mut words| {
            (words.next() == Some(clock)).then_some(())?;
            let mut number = || words.next()?.parse().ok();
            Some(nanoseconds(number()?, number()?))
        });
        found.unwrap_or_default()
    };
    Offsets {
        monotonic: offset_of("monotonic"),
        boot: offset_of("boottime"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_the_kernel_writes_them() {
        let read =
            parse("monotonic           36000         5\nboottime              -10 500000000\n");
        let expected = Offsets {
            monotonic: 36_000_000_000_005,
            boot: -9_500_000_000,
        };
        assert_eq!(read, expected);
        assert_eq!(parse(""), Offsets::default());
        assert_eq!(parse("monotonic x\nboottime\n"), Offsets::default());
    }

    #[test]
    fn a_clock_is_moved_back_by_its_offset_and_never_below_the_boot() {
        let second = 1_000_000_000;
        assert_eq!(moved_back(10 * second, 4 * second), Duration::from_secs(6));
        assert_eq!(
            moved_back(10 * second, -4 * second),
            Duration::from_secs(14)
        );
        assert_eq!(moved_back(second, 2 * second), Duration::ZERO);
    }
}
