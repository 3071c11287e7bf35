// SPDX-License-Identifier: Apache-2.0
//! A command in a machine with another kernel.

use std::{fs, path::Path};

use lab_runner::preflight::is_root;
use lab_vm::{Kernel, Vm};

#[test]
fn a_command_sees_this_machines_files_and_leaves_none() {
    if !is_root() {
        eprintln!("skipped: not root, so that the guest could not read all of the host's files");
        return;
    }
    let own = std::env::current_exe().unwrap();
    let left = Path::new("/usr/local/left-by-the-vm");
    // More than the port's buffers hold comes whole. The shell is the host's: busybox's would take
    // its own programs for those of the host, and has another modprobe.
    let command = format!(
        "seq 20000; uname -r; cmp {0} {0} && modprobe --dry-run geneve && modprobe geneve && test -d /sys/module/geneve && \
         test -s /sys/kernel/btf/vmlinux && touch {1} && echo kept; echo said >&2; exit 7",
        own.display(),
        left.display()
    );
    let output = Vm::default().run(Kernel::Debian13, &command).unwrap();
    assert_eq!(output.code, 7, "{output}");
    let lines: Vec<&str> = output.text.lines().collect();
    let (counted, lines) = lines.split_at_checked(20_000).expect("all of the count");
    assert_eq!(counted[19_999], "20000");
    assert_eq!(lines.len(), 3, "{output}");
    assert!(lines[0].starts_with("6.12."), "{output}");
    assert_ne!(
        lines[0],
        fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap()
            .trim()
    );
    assert_eq!(lines[1..], ["kept", "said"], "{output}");
    assert!(!left.exists());
}

#[test]
fn a_machine_that_dies_is_no_answer_of_the_command() {
    if !is_root() {
        return;
    }
    // Setting the port waits until what was said is out.
    let command = "echo before; /run/guest/busybox stty -F /dev/ttyS1 raw -echo; \
                   echo c > /proc/sysrq-trigger";
    let error = Vm::default().run(Kernel::Debian13, command).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("no exit code"), "{error}");
    assert!(error.contains("before"), "{error}");
    assert!(error.contains("sysrq"), "{error}");
}
