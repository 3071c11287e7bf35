// SPDX-License-Identifier: Apache-2.0

use std::io::{ErrorKind, Read};
use std::time::Duration;

use tokio_stream::StreamExt;

use super::*;
use crate::{ConnectError, connect};

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Callers that are somebody else must get as far as the socket.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
    folder
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_the_own_one_removed() {
    let folder = folder();
    let path = folder.path().join("run/causeway.sock");
    fs::create_dir(folder.path().join("run")).expect("own folder");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
    assert!(path.exists(), "a killed daemon leaves its socket");
    let listener = Listener::bind(&path, Access::default()).expect("replaces it");
    assert_eq!(mode(&path), 0o660);
    drop(listener);
    assert!(!path.exists());
    let left = fs::read_dir(folder.path().join("run"))
        .expect("own folder")
        .count();
    assert_eq!(left, 0, "no unfinished name either");
}

#[tokio::test]
async fn a_living_daemon_and_foreign_files_are_left_alone() {
    let folder = folder();
    let path = folder.path().join("causeway.sock");
    let first = Listener::bind(&path, Access::default()).expect("binds");
    let second = Listener::bind(&path, Access::default());
    assert!(matches!(second, Err(ListenError::InUse(_))), "{second:?}");
    drop(first);
    fs::write(&path, "precious").expect("own folder");
    let third = Listener::bind(&path, Access::default());
    assert!(
        matches!(third, Err(ListenError::NotASocket(_))),
        "{third:?}"
    );
    assert_eq!(fs::read_to_string(&path).expect("is there"), "precious");
}

#[tokio::test]
async fn callers_learn_why_they_cannot_connect() {
    let folder = folder();
    let path = folder.path().join("causeway.sock");
    let missing = connect(&path).await;
    assert!(
        matches!(missing, Err(ConnectError::NoSocket(_))),
        "{missing:?}"
    );
    drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
    let dead = connect(&path).await;
    assert!(
        matches!(dead, Err(ConnectError::NobodyListens(_))),
        "{dead:?}"
    );
}

/// Connects as another user, which the kernel sees by thread; tells what the daemon did: `true`
/// when it kept the connection.
fn is_let_in(path: PathBuf, uid: u32, gid: u32) -> bool {
    let caller = std::thread::spawn(move || {
        // SAFETY: plain system calls with numbers. Unlike libc's wrappers they change the calling
        // thread only, which ends with this closure.
        unsafe {
            assert_eq!(
                libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()),
                0
            );
            assert_eq!(libc::syscall(libc::SYS_setresgid, gid, gid, gid), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
        }
        let mut stream = StdUnixStream::connect(path).expect("the mode lets everybody connect");
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a socket");
        match stream.read(&mut [0]) {
            Ok(0) => false,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => true,
            other => panic!("neither closed nor silent: {other:?}"),
        }
    });
    caller.join().expect("the caller does not panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_decide_where_the_mode_lets_everybody_in() {
    if own_uid() != 0 {
        eprintln!("skipped: only root can call as somebody else");
        return;
    }
    const GROUP: u32 = 4711;
    let folder = folder();
    let path = folder.path().join("causeway.sock");
    let access = Access {
        mode: 0o666,
        group: Some(GROUP),
    };
    let mut listener = Listener::bind(&path, access).expect("binds");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(stream) = listener.next().await {
            kept.push(stream);
        }
    });
    for (uid, gid, expected) in [(0, 0, true), (65534, GROUP, true), (65534, 65534, false)] {
        let path = path.clone();
        let outcome = tokio::task::spawn_blocking(move || is_let_in(path, uid, gid)).await;
        assert_eq!(outcome.expect("no panic"), expected, "uid {uid} gid {gid}");
    }
}

#[tokio::test]
async fn nobody_else_may_open_it_at_any_moment() {
    let folder = folder();
    let (path, inside) = (
        folder.path().join("causeway.sock"),
        folder.path().to_owned(),
    );
    let is_done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let until = std::sync::Arc::clone(&is_done);
    // Sockets under any name are of their final mode; the folder they are made in is closed.
    let watcher = std::thread::spawn(move || {
        let mut seen = 0_u32;
        while !until.load(std::sync::atomic::Ordering::Relaxed) {
            let entries = fs::read_dir(&inside).expect("own folder").flatten();
            for found in entries.filter_map(|entry| entry.metadata().ok()) {
                let mode = found.permissions().mode() & 0o777;
                let expected = if found.is_dir() { 0o700 } else { 0o660 };
                assert_eq!(mode, expected, "{:?}", found.file_type());
                seen += 1;
            }
        }
        seen
    });
    for _ in 0..300 {
        drop(Listener::bind(&path, Access::default()).expect("binds"));
    }
    is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(
        watcher.join().expect("never open to others") > 0,
        "the watcher saw it"
    );
}
