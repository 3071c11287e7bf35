// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use pods_core::{AddRequest, Addition, Attachment, EndpointId, NetnsRef};
use tempfile::TempDir;

use super::*;

const BOOT: &str = "boot-1";

fn open(directory: &Path) -> (Store, Registry) {
    let (mut store, replay) =
        Store::open(StateFolder::take(directory, Duration::ZERO).unwrap(), BOOT).unwrap();
    let cidrs = ["10.1.0.0/24".parse().unwrap()];
    let (registry, opened) =
        Registry::open(replay, BOOT, &cidrs, Duration::ZERO, Instant::now()).unwrap();
    assert_eq!(opened.contradicted, []);
    // As the worker does: a disk that is full is met again at the next ADD.
    if let Err(error) = store.repair(&registry) {
        assert!(matches!(error, StoreError::File { .. }));
    }
    (store, registry)
}

fn add(store: &mut Store, registry: &mut Registry, name: &str) -> Result<EndpointId, StoreError> {
    let request = AddRequest {
        attachment: Attachment::new(name, "eth0").unwrap(),
        network: "causeway".to_owned(),
        netns: NetnsRef {
            path: "/ns".to_owned(),
            device: 1,
            inode: 2,
        },
        pod: None,
        requested: Vec::new(),
        mtu: 1500,
    };
    let Ok(Addition::New(endpoint, record)) = registry.add(&request, Instant::now()) else {
        panic!("{name} is not new");
    };
    store.put(&record, registry).inspect_err(|_| {
        registry.remove(endpoint.id, Instant::now());
    })?;
    Ok(endpoint.id)
}

fn remove(store: &mut Store, registry: &mut Registry, id: EndpointId) {
    let (_, record) = registry.remove(id, Instant::now()).unwrap();
    store.note(record, registry);
}

fn names(registry: &Registry) -> Vec<String> {
    registry
        .endpoints()
        .map(|e| e.attachment.container_id.clone())
        .collect()
}

#[test]
fn what_was_written_is_there_after_the_daemon_was_killed() {
    let folder = TempDir::new().unwrap();
    let (mut store, mut registry) = open(folder.path());
    let a = add(&mut store, &mut registry, "a").unwrap();
    add(&mut store, &mut registry, "b").unwrap();
    remove(&mut store, &mut registry, a);
    drop(store);
    let (_store, reopened) = open(folder.path());
    assert_eq!(names(&reopened), ["b"]);
    assert_eq!(
        reopened.endpoints().collect::<Vec<_>>(),
        registry.endpoints().collect::<Vec<_>>()
    );
}

#[test]
fn two_daemons_never_share_a_journal() {
    let folder = TempDir::new().unwrap();
    let _first = open(folder.path());
    assert!(matches!(
        StateFolder::take(folder.path(), Duration::ZERO),
        Err(StoreError::InUse(_))
    ));
}

#[test]
fn cut_at_any_octet_it_opens_and_goes_on() {
    let folder = TempDir::new().unwrap();
    let (mut store, mut registry) = open(folder.path());
    let a = add(&mut store, &mut registry, "a").unwrap();
    add(&mut store, &mut registry, "b").unwrap();
    remove(&mut store, &mut registry, a);
    drop(store);
    let bytes = fs::read(folder.path().join(JOURNAL)).unwrap();
    // Not on the disk: it would be synced some thousand times.
    let disk = SmallDisk::new();
    for cut in 0..bytes.len() {
        let folder = TempDir::new_in(disk.path()).unwrap();
        fs::write(folder.path().join(JOURNAL), &bytes[..cut]).unwrap();
        let (mut store, mut registry) = open(folder.path());
        add(&mut store, &mut registry, "c").unwrap();
        let before = names(&registry);
        drop(store);
        let (_store, reopened) = open(folder.path());
        assert_eq!(names(&reopened), before, "cut at {cut}");
        let addresses: Vec<IpAddr> = reopened
            .endpoints()
            .flat_map(|e| e.addresses.clone())
            .collect();
        let mut distinct = addresses.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), addresses.len(), "cut at {cut}");
    }
}

#[test]
fn a_damaged_journal_is_kept_aside_and_written_anew() {
    let folder = TempDir::new().unwrap();
    let (mut store, mut registry) = open(folder.path());
    add(&mut store, &mut registry, "a").unwrap();
    add(&mut store, &mut registry, "b").unwrap();
    drop(store);
    let path = folder.path().join(JOURNAL);
    let mut bytes = fs::read(&path).unwrap();
    let second_line = bytes.iter().position(|b| *b == b'\n').unwrap() + 20;
    bytes[second_line] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (store, registry) = open(folder.path());
    assert_eq!(names(&registry), ["b"]);
    drop(store);
    let copies = fs::read_dir(folder.path())
        .unwrap()
        .filter(|f| {
            f.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .contains("damaged")
        })
        .count();
    assert_eq!(copies, 1);
    assert_eq!(
        Store::open(
            StateFolder::take(folder.path(), Duration::ZERO).unwrap(),
            BOOT
        )
        .unwrap()
        .1
        .damage,
        []
    );
}

#[test]
fn a_long_journal_is_written_anew() {
    let folder = TempDir::new().unwrap();
    let (mut store, mut registry) = open(folder.path());
    add(&mut store, &mut registry, "stays").unwrap();
    let mut longest = 0;
    for round in 0..RECORDS_BESIDES * 2 {
        let id = add(&mut store, &mut registry, &format!("c{round}")).unwrap();
        remove(&mut store, &mut registry, id);
        longest = longest.max(store.records);
    }
    assert!(
        longest <= 2 * RECORDS_PER_ENDPOINT + RECORDS_BESIDES + 1,
        "{longest}"
    );
    drop(store);
    assert_eq!(names(&open(folder.path()).1), ["stays"]);
}

/// A small file system of its own; needs root.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> SmallDisk {
        let folder = TempDir::with_prefix("cw-pods-store").unwrap();
        let size = Some("size=64k");
        mount(
            Some("tmpfs"),
            folder.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            size,
        )
        .expect("this test mounts a tmpfs and needs root");
        SmallDisk(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.path().join("ballast")).unwrap();
        while ballast.write_all(&[0; 512]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn on_a_full_disk_nothing_is_handed_out_and_nothing_leaks() {
    let disk = SmallDisk::new();
    let (mut store, mut registry) = open(disk.path());
    let a = add(&mut store, &mut registry, "a").unwrap();
    disk.fill();
    // The last page of the journal may have room for a few more.
    let mut error = None;
    for round in 0..20 {
        if let Err(failed) = add(&mut store, &mut registry, &format!("c{round}")) {
            error = Some(failed);
            break;
        }
    }
    let error = error.expect("a journal of 20 records fits one page");
    assert!(
        error.to_string().contains("No space left on device"),
        "{error}"
    );
    assert!(store.failure().is_some());
    let before = names(&registry);

    // A release goes through, and is written as soon as there is room.
    remove(&mut store, &mut registry, a);
    assert!(add(&mut store, &mut registry, "d").is_err());
    disk.free();
    add(&mut store, &mut registry, "e").unwrap();
    assert_eq!(store.failure(), None);
    drop(store);
    let mut expected: Vec<String> = before.into_iter().filter(|n| n != "a").collect();
    expected.push("e".to_owned());
    let (_store, reopened) = open(disk.path());
    assert_eq!(names(&reopened), expected);
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_keeps_its_pods() {
    let disk = SmallDisk::new();
    let (mut store, mut registry) = open(disk.path());
    add(&mut store, &mut registry, "a").unwrap();
    drop(store);
    // A torn record makes the start want to write.
    let path = disk.path().join(JOURNAL);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"0123").unwrap();
    disk.fill();
    let (mut store, mut registry) = open(disk.path());
    assert_eq!(names(&registry), ["a"]);
    assert!(add(&mut store, &mut registry, "b").is_err());
    drop(store);
    assert_eq!(names(&open(disk.path()).1), ["a"]);
    disk.free();
    let (mut store, mut registry) = open(disk.path());
    add(&mut store, &mut registry, "b").unwrap();
}
