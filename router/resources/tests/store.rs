// SPDX-License-Identifier: Apache-2.0
//! The store and the directory source, with real files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use router_resources::store::ACCEPTED;
use router_resources::{
    ConditionStatus, DirectorySource, FileContent, FileEvent, Kind, ObjectKey, Statement, Store,
    WatchOptions,
};

fn peer_config(name: &str, hold: u32) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig\nmetadata: {{ name: {name} }}\n\
         spec:\n  timers: {{ holdTimeSeconds: {hold}, keepAliveTimeSeconds: 1 }}\n"
    )
}

fn bytes(path: &str, text: &str) -> FileEvent {
    FileEvent {
        path: path.into(),
        content: FileContent::Bytes(text.as_bytes().to_vec()),
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::cluster_wide(Kind::PeerConfig, name)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The hold time in force.
fn hold(store: &Store, name: &str) -> Option<i32> {
    let snapshot = store.snapshot();
    Some(
        snapshot
            .peer_config(name)?
            .spec
            .timers
            .as_ref()?
            .hold_time_seconds,
    )
}

#[test]
fn only_what_changed_is_told() {
    let mut store = Store::new();
    let both = format!("{}---\n{}", peer_config("a", 9), peer_config("b", 9));
    let change = store.apply(vec![bytes("f.yaml", &both)], at(1));
    assert_eq!(
        change.added.iter().cloned().collect::<Vec<_>>(),
        [key("a"), key("b")]
    );

    let moved = format!(
        "# a comment\n{}---\n{}",
        peer_config("b", 10),
        peer_config("a", 9)
    );
    let change = store.apply(vec![bytes("f.yaml", &moved)], at(2));
    assert_eq!(
        change.updated.iter().cloned().collect::<Vec<_>>(),
        [key("b")]
    );
    assert!(change.added.is_empty() && change.removed.is_empty());
    let snapshot = store.snapshot();
    let generation = |name| snapshot.get(&key(name)).unwrap().generation;
    assert_eq!((generation("a"), generation("b")), (1, 2));
    assert_eq!(
        snapshot.get(&key("a")).unwrap().source.to_string(),
        "f.yaml:8"
    );

    let change = store.apply(
        vec![FileEvent {
            path: "f.yaml".into(),
            content: FileContent::Removed,
        }],
        at(3),
    );
    assert_eq!(change.removed.len(), 2);
    assert!(store.statuses().is_empty());
}

#[test]
fn a_label_change_is_an_update_of_the_same_generation() {
    let mut store = Store::new();
    store.apply(vec![bytes("f.yaml", &peer_config("a", 9))], at(1));
    let labelled = peer_config("a", 9).replace("{ name: a }", "{ name: a, labels: { x: y } }");
    let change = store.apply(vec![bytes("f.yaml", &labelled)], at(2));
    assert_eq!(change.updated.len(), 1);
    assert_eq!(store.snapshot().get(&key("a")).unwrap().generation, 1);
}

#[test]
fn a_broken_file_leaves_its_last_good_version_and_the_others_alone() {
    let mut store = Store::new();
    store.apply(
        vec![
            bytes("a.yaml", &peer_config("a", 9)),
            bytes("b.yaml", &peer_config("b", 9)),
        ],
        at(1),
    );
    for broken in [
        "spec: [",
        &peer_config("a", 2),
        "\u{0}",
        "kind: x\nkind: y\n",
    ] {
        let change = store.apply(vec![bytes("a.yaml", broken)], at(2));
        assert!(change.is_empty(), "{broken}");
        assert!(change.diagnostics.iter().any(|d| d.is_error()), "{broken}");
        assert_eq!((hold(&store, "a"), hold(&store, "b")), (Some(9), Some(9)));
    }
    let statuses = store.statuses();
    let accepted = &statuses[0].conditions[0];
    assert_eq!(accepted.condition_type, ACCEPTED);
    assert_eq!(accepted.status, ConditionStatus::False);
    assert_eq!(accepted.reason, "LastGoodVersion");
    assert!(
        accepted.message.contains("a.yaml:1:"),
        "{}",
        accepted.message
    );
    assert_eq!(accepted.last_transition_time.0, 2);
    assert_eq!(statuses[1].conditions[0].status, ConditionStatus::True);
    assert_eq!(statuses[1].conditions[0].last_transition_time.0, 1);
    assert_eq!(
        store
            .files()
            .iter()
            .map(|f| (f.is_stale, f.objects))
            .collect::<Vec<_>>(),
        [(true, 1), (false, 1)]
    );
    // Mended, the newest version holds.
    let change = store.apply(vec![bytes("a.yaml", &peer_config("a", 12))], at(3));
    assert_eq!(change.updated.len(), 1);
    assert_eq!(hold(&store, "a"), Some(12));
    assert_eq!(
        store.statuses()[0].conditions[0].status,
        ConditionStatus::True
    );
}

#[test]
fn a_file_broken_from_the_start_contributes_nothing_and_says_so() {
    let mut store = Store::new();
    let text = format!("{}---\nspec: [", peer_config("a", 9));
    let change = store.apply(vec![bytes("a.yaml", &text)], at(1));
    assert!(change.is_empty());
    assert_eq!(store.files()[0].objects, 0);
    assert!(store.files()[0].is_stale && !store.files()[0].diagnostics.is_empty());
}

#[test]
fn of_two_objects_of_one_name_the_first_in_path_order_is_used() {
    let mut store = Store::new();
    store.apply(vec![bytes("b.yaml", &peer_config("x", 20))], at(1));
    assert_eq!(hold(&store, "x"), Some(20));
    let change = store.apply(vec![bytes("a.yaml", &peer_config("x", 10))], at(2));
    assert_eq!(change.updated.len(), 1);
    assert_eq!(hold(&store, "x"), Some(10));
    let statuses = store.statuses();
    assert_eq!(
        statuses.iter().map(|s| s.in_force).collect::<Vec<_>>(),
        [true, false]
    );
    let shadowed = &statuses[1].conditions[0];
    assert_eq!(shadowed.reason, "DuplicateObject");
    assert!(
        shadowed
            .message
            .contains("CiliumBGPPeerConfig/x is already in a.yaml:1")
    );
    // The other takes over when the first goes.
    store.apply(
        vec![FileEvent {
            path: "a.yaml".into(),
            content: FileContent::Removed,
        }],
        at(3),
    );
    assert_eq!(hold(&store, "x"), Some(20));
    assert_eq!(store.statuses().len(), 1);
}

#[test]
fn duplicates_in_one_file_are_told_apart() {
    let mut store = Store::new();
    let text = format!("{}---\n{}", peer_config("x", 10), peer_config("x", 20));
    store.apply(vec![bytes("a.yaml", &text)], at(1));
    assert_eq!(hold(&store, "x"), Some(10));
    assert!(
        store.statuses()[1].conditions[0]
            .message
            .contains("a.yaml:1")
    );
}

#[test]
fn conditions_keep_their_transition_time_while_the_status_is_the_same() {
    let mut store = Store::new();
    store.apply(vec![bytes("a.yaml", &peer_config("x", 10))], at(1));
    let say = |store: &mut Store, statement: Statement, now| {
        store.set_conditions([(key("x"), statement)], now);
        store.statuses()[0].conditions[1].clone()
    };
    let first = say(&mut store, Statement::is_true("t", "A", "one"), at(5));
    assert_eq!(
        (first.last_transition_time.0, first.observed_generation),
        (5, Some(1))
    );
    let second = say(&mut store, Statement::is_true("t", "B", "two"), at(6));
    assert_eq!(
        (second.last_transition_time.0, second.message.as_str()),
        (5, "two")
    );
    let third = say(&mut store, Statement::is_false("t", "C", "three"), at(7));
    assert_eq!(third.last_transition_time.0, 7);
    store.set_conditions([(key("nobody"), Statement::is_true("t", "A", ""))], at(8));
    assert_eq!(store.statuses()[0].conditions.len(), 1);
}

/// A source on a fresh directory, with a rescan far longer than the test.
fn source(directory: &Path) -> DirectorySource {
    let options = WatchOptions {
        debounce: Duration::from_millis(5),
        rescan: Duration::from_secs(3600),
    };
    DirectorySource::new(directory, options)
}

#[test]
fn a_scan_tells_each_change_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut source = source(temp.path());
    assert!(source.scan().is_empty());
    fs::write(temp.path().join("a.yaml"), "1").unwrap();
    fs::write(temp.path().join("ignored.txt"), "1").unwrap();
    fs::write(temp.path().join(".hidden.yaml"), "1").unwrap();
    let events = source.scan();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].content, FileContent::Bytes(b"1".to_vec()));
    assert!(source.scan().is_empty());
    fs::write(temp.path().join("a.yaml"), "2").unwrap();
    assert_eq!(source.scan().len(), 1);
    fs::remove_file(temp.path().join("a.yaml")).unwrap();
    assert_eq!(source.scan()[0].content, FileContent::Removed);
    assert!(source.scan().is_empty());
}

#[test]
fn a_file_just_emptied_is_given_time_to_be_written() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("a.yaml");
    fs::write(&path, "1").unwrap();
    let mut source = source(temp.path());
    assert_eq!(source.scan().len(), 1);
    let file = fs::File::create(&path).unwrap();
    assert!(source.scan().is_empty());
    #[expect(clippy::disallowed_methods, reason = "files and logs are dated by it")]
    let now = SystemTime::now();
    file.set_modified(now - Duration::from_secs(60)).unwrap();
    assert_eq!(source.scan()[0].content, FileContent::Bytes(vec![]));
    assert!(source.scan().is_empty());
}

#[test]
fn events_do_not_show_what_is_in_a_file() {
    let event = bytes("a.yaml", "stringData: { password: hunter2 }");
    assert!(!format!("{event:?}").contains(&format!("{:?}", b"hunter2")[1..8]));
    assert!(format!("{event:?}").contains("33 bytes"), "{event:?}");
}

#[test]
fn what_cannot_be_read_is_told_as_such() {
    let temp = tempfile::tempdir().unwrap();
    let mut source = source(temp.path());
    symlink("nowhere", temp.path().join("dangling.yaml")).unwrap();
    let pipe = temp.path().join("pipe.yaml");
    let status = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(status.success());
    let events = source.scan();
    assert_eq!(events.len(), 2);
    assert!(
        events
            .iter()
            .all(|e| matches!(e.content, FileContent::Unreadable(_))),
        "{events:?}"
    );
}

#[test]
fn an_unreadable_directory_changes_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("d");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("a.yaml"), "1").unwrap();
    let mut source = source(&directory);
    assert_eq!(source.scan().len(), 1);
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads it all the same; then there is nothing to see either.
    assert!(source.scan().is_empty());
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(source.scan().is_empty());
}

/// Runs a source in a thread and gives what it tells. The receiver waits generously.
struct Watched {
    events: mpsc::Receiver<Vec<FileEvent>>,
    stop: router_resources::StopHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watched {
    fn new(directory: &Path) -> Self {
        let mut source = source(directory);
        let stop = source.stop_handle();
        let (sender, events) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            while let Some(told) = source.wait() {
                if sender.send(told).is_err() {
                    return;
                }
            }
        });
        Watched {
            events,
            stop,
            thread: Some(thread),
        }
    }

    /// Waits until a file has this content; `None` for gone.
    fn until(&self, name: &str, content: Option<&str>) {
        let wanted = match content {
            Some(text) => FileContent::Bytes(text.as_bytes().to_vec()),
            None => FileContent::Removed,
        };
        loop {
            let events = self
                .events
                .recv_timeout(Duration::from_secs(60))
                .unwrap_or_else(|_| panic!("{name} was not told to be {content:?}"));
            if events
                .iter()
                .any(|e| e.path.ends_with(name) && e.content == wanted)
            {
                return;
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

#[test]
fn writes_renames_and_removals_are_noticed() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a.yaml"), "1").unwrap();
    let watched = Watched::new(temp.path());
    watched.until("a.yaml", Some("1"));
    fs::write(temp.path().join("a.yaml"), "2").unwrap();
    watched.until("a.yaml", Some("2"));
    fs::write(temp.path().join("new"), "3").unwrap();
    fs::rename(temp.path().join("new"), temp.path().join("a.yaml")).unwrap();
    watched.until("a.yaml", Some("3"));
    fs::remove_file(temp.path().join("a.yaml")).unwrap();
    watched.until("a.yaml", None);
}

#[test]
fn a_mounted_config_map_is_noticed_when_its_link_is_swapped() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name);
    for version in ["1", "2"] {
        fs::create_dir(path(&format!("..v{version}"))).unwrap();
        fs::write(path(&format!("..v{version}/a.yaml")), version).unwrap();
    }
    symlink("..v1", path("..data")).unwrap();
    symlink("..data/a.yaml", path("a.yaml")).unwrap();
    let watched = Watched::new(temp.path());
    watched.until("a.yaml", Some("1"));
    symlink("..v2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    watched.until("a.yaml", Some("2"));
}

#[test]
fn a_directory_that_appears_goes_and_comes_back_is_followed() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("resources.d");
    let watched = Watched::new(&directory);
    for round in ["1", "2"] {
        let fresh = temp.path().join("fresh");
        fs::create_dir(&fresh).unwrap();
        fs::write(fresh.join("a.yaml"), round).unwrap();
        fs::rename(&fresh, &directory).unwrap();
        watched.until("a.yaml", Some(round));
        fs::write(directory.join("a.yaml"), "changed").unwrap();
        watched.until("a.yaml", Some("changed"));
        fs::remove_dir_all(&directory).unwrap();
        watched.until("a.yaml", None);
    }
}

#[test]
fn the_offline_check_reports_what_the_daemon_would() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a.yaml"), peer_config("x", 10)).unwrap();
    fs::write(temp.path().join("b.yaml"), peer_config("x", 20)).unwrap();
    fs::write(temp.path().join("c.yaml"), peer_config("y", 2)).unwrap();
    let report = router_resources::check(&[temp.path().into(), temp.path().join("none.yaml")]);
    assert_eq!(report.files.len(), 4);
    let codes: Vec<&str> = report.diagnostics.iter().map(|d| d.code.as_str()).collect();
    assert_eq!(codes, ["CW0112", "CW0101", "CW0114"]);
    assert!(report.has_errors());
    let report = router_resources::check(&[temp.path().join("a.yaml")]);
    assert!(!report.has_errors() && report.diagnostics.is_empty());
    assert!(report.snapshot.peer_config("x").is_some());
}
