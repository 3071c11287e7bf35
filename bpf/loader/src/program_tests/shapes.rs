// SPDX-License-Identifier: Apache-2.0
//! What the kernel made of an object's maps, beside what `bpf-abi` says of them: the programs
//! declare the shapes a second time.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{MapInfo, MapType};
use bpf_abi::{MapKind, MapLayout, map_names};

use super::isolate;
use crate::{
    Gateway, GatewayConfig, HookChoice,
    load::{self, Object},
};

/// Runs a test body in a thread with namespaces of its own.
fn isolated(body: impl FnOnce(&Path) + Send + 'static) {
    std::thread::spawn(move || body(&isolate()))
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn kind_of(layout: &MapLayout) -> (MapType, bool) {
    match layout.kind {
        MapKind::Hash => (MapType::Hash, false),
        MapKind::Array => (MapType::Array, false),
        MapKind::PerCpuArray => (MapType::PerCpuArray, false),
        MapKind::PerCpuHash => (MapType::PerCpuHash, true),
        MapKind::LruHash => (MapType::LruHash, false),
        MapKind::LpmTrie => (MapType::LpmTrie, true),
        MapKind::RingBuf => (MapType::RingBuf, false),
        MapKind::GrowingHash => (MapType::Hash, true),
    }
}

fn compare(object: &'static Object) {
    isolated(move |root| {
        const BPF_F_NO_PREALLOC: u32 = 1;
        load::prepare_file_system(root).expect("a file system");
        let (folder, adopted) = load::prepare_folder(root, object).expect("a folder");
        assert!(!adopted);
        let _ebpf = load::load(&folder, object, &[], &[]).expect("the object");
        for layout in object.maps {
            let name = layout.name;
            let made = MapInfo::from_pin(folder.join(name)).expect(name);
            let (kind, grows) = kind_of(layout);
            assert_eq!(made.map_type().expect(name), kind, "{name}");
            assert_eq!(made.key_size(), layout.key_bytes, "{name}: bytes of a key");
            assert_eq!(made.value_size(), layout.value_bytes, "{name}: of a value");
            assert_eq!(made.max_entries(), layout.max_entries, "{name}: entries");
            assert_eq!(
                made.map_flags() & BPF_F_NO_PREALLOC != 0,
                grows,
                "{name}: whether it grows"
            );
        }
        let pins = std::fs::read_dir(&folder).expect("pins").count();
        assert_eq!(
            pins,
            object.maps.len(),
            "every pin is of a map that is described"
        );
    });
}

#[test]
fn the_kernels_maps_are_those_described() {
    compare(&load::NODE);
}

#[test]
fn the_kernels_maps_of_a_gateway_are_those_described() {
    compare(&load::GATEWAY);
}

#[test]
fn a_gateways_pinned_maps_are_adopted_with_the_size_they_have() {
    isolated(|root| {
        let open = |max_mappings| {
            Gateway::open(&GatewayConfig {
                pin_root: root.to_owned(),
                hook: HookChoice::Auto,
                max_mappings,
                tunnel_port: 4_789,
            })
            .expect("open")
        };
        let ids = || -> BTreeMap<&str, u32> {
            let folders = crate::pins::layout_folders(&root.join("gateway")).expect("folders");
            let [folder] = folders.as_slice() else {
                panic!("one folder: {folders:?}")
            };
            let id = |layout: &MapLayout| {
                let info = MapInfo::from_pin(folder.join(layout.name)).expect(layout.name);
                if [map_names::NAT_V4, map_names::NAT_V6].contains(&layout.name) {
                    assert_eq!(info.max_entries(), 2 * 1_024 + 1, "two entries a mapping");
                }
                (layout.name, info.id())
            };
            load::GATEWAY.maps.iter().map(id).collect()
        };
        let first = open(1_000);
        assert!(!first.is_adopted());
        let made = ids();
        drop(first);
        // Another size, later: the table with the connections is worth more.
        let second = open(5_000);
        assert!(second.is_adopted());
        assert_eq!(ids(), made);
        second.uninstall().expect("uninstall");
        assert!(!Gateway::is_installed(root));
        assert!(!open(1_000).is_adopted());
        assert_ne!(ids(), made);
    });
}
