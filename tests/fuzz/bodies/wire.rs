// SPDX-License-Identifier: Apache-2.0
//! Properties of the BGP codec, for any bytes. The fuzz targets and the replay of their corpora
//! in `bgp/wire/tests/corpus.rs` share this file.

use bgp_wire::describe::describe;
use bgp_wire::{
    AsSetPolicy, Capability, FamilyContext, Message, Nlri, NlriEntry, Notification, Open,
    PathAttributes, PathNextHop, PeerKind, RawAttributes, RouteRefresh, SessionContext, Update,
    UpdateView, announce, frame, withdraw,
};
use router_types::Family;

/// No bytes make the decoders panic, however the session was negotiated.
pub(crate) fn wire_decode_never_panics(data: &[u8]) {
    let Some((&selector, data)) = data.split_first() else {
        return;
    };
    let context = with_vpns(context(selector));
    for max_len in [frame::MAX_LEN, frame::MAX_EXTENDED_LEN] {
        let mut rest = data;
        while let Ok(Some(frame)) = frame::next(rest, max_len) {
            if let Ok(Message::Update(view)) = Message::decode(&frame) {
                read_update(&view, &context);
            }
            rest = &rest[frame.len..];
        }
    }
    // Without a header, so that bytes need not first look like a message.
    if let Ok(view) = UpdateView::split(data) {
        read_update(&view, &context);
    }
    let whole = UpdateView {
        withdrawn: &[],
        attributes: data,
        announced: &[],
    };
    read_update(&whole, &context);
    let _ = Open::decode(data);
    let _ = RouteRefresh::decode(data);
    let _ = Notification::decode(data).map(|n| n.to_string());
    let report = describe(data, None);
    assert!(report.to_string().len() >= report.messages.len());
    let _ = describe(data, Some(&context));
}

/// What was read once, written and read again is the same.
pub(crate) fn wire_reencode_is_stable(data: &[u8]) {
    let Some((&selector, data)) = data.split_first() else {
        return;
    };
    let context = context(selector);
    open_is_stable(data);
    attributes_are_stable(data, &context);
    if let Ok(view) = UpdateView::split(data) {
        attributes_are_stable(view.attributes, &context);
        update_is_stable(&view, &context);
    }
    if let Some(notification) = Notification::decode(&data[..data.len().min(4000)]) {
        let mut bytes = Vec::new();
        notification.encode(&mut bytes);
        assert_eq!(
            Notification::decode(&bytes[frame::HEADER_LEN..]),
            Some(notification)
        );
    }
    if let Ok(Some(refresh)) = RouteRefresh::decode(data) {
        let mut bytes = Vec::new();
        refresh.encode(&mut bytes);
        assert_eq!(
            RouteRefresh::decode(&bytes[frame::HEADER_LEN..]),
            Ok(Some(refresh))
        );
    }
}

/// A session chosen by the bits of one byte.
fn context(selector: u8) -> SessionContext {
    let bit = |n: u8| selector & 1 << n != 0;
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST].map(|family| FamilyContext {
        family,
        add_path_receive: bit(0),
        add_path_send: bit(0),
        extended_next_hop: bit(1),
    });
    SessionContext {
        peer: match selector >> 6 {
            0 => PeerKind::External,
            1 => PeerKind::Confederation,
            _ => PeerKind::Internal,
        },
        four_octet_as: bit(2),
        extended_messages: bit(3),
        as_sets: if bit(4) {
            AsSetPolicy::Accept
        } else {
            AsSetPolicy::Withdraw
        },
        families: families.into_iter().skip(usize::from(bit(5))).collect(),
    }
}

/// The session with the families beside unicast, too.
fn with_vpns(mut context: SessionContext) -> SessionContext {
    let more = [Family::VPNV4, Family::VPNV6, Family::ROUTE_TARGET];
    let like = context.families[0];
    let more = more.map(|family| FamilyContext { family, ..like });
    context.families.extend(more);
    context
}

fn read_update(view: &UpdateView<'_>, context: &SessionContext) {
    let mut canonical = Vec::new();
    let update = Update::parse(view, context, &mut canonical);
    let decoded = PathAttributes::decode(&canonical, context);
    let faults = update.faults(&decoded);
    for fault in &faults {
        assert!(!fault.to_string().is_empty());
    }
    if PathAttributes::are_canonical(&canonical, context) {
        assert_eq!(decoded.faults, []);
        assert_eq!(update.is_sound(), faults.is_empty());
        let mut again = Vec::new();
        decoded.attributes.encode(true, &mut again);
        assert_eq!(again, canonical);
    }
    let lists = [
        Some(update.withdrawn),
        Some(update.announced),
        update.mp_withdrawn,
        update.mp_announced.map(|mp| mp.nlri),
    ];
    for nlri in lists.into_iter().flatten() {
        assert_eq!(nlri.destinations().count(), nlri.count());
        vpns_are_stable(nlri);
    }
    // Canonical bytes are whole attributes, ascending and without duplicates.
    let codes: Vec<u8> = RawAttributes::new(&canonical)
        .map(|a| a.expect("canonical is whole").code.0)
        .collect();
    assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
}

/// Destinations that are more than prefixes, written anew, are the same.
fn vpns_are_stable(nlri: Nlri<'_>) {
    let (mut bytes, add_path) = (Vec::new(), nlri.has_path_ids());
    nlri.vpn()
        .for_each(|entry| entry.encode(add_path, &mut bytes));
    for entry in nlri.route_targets() {
        if let Some(id) = entry.path_id {
            bytes.extend_from_slice(&id.to_be_bytes());
        }
        entry.target.encode(&mut bytes);
    }
    let again = Nlri::parse(nlri.family(), add_path, &bytes).expect("own prefixes");
    assert!(again.vpn().eq(nlri.vpn()));
    assert!(again.route_targets().eq(nlri.route_targets()));
}

fn open_is_stable(data: &[u8]) {
    let body = &data[..data.len().min(frame::MAX_LEN - frame::HEADER_LEN)];
    let Ok(first) = Open::decode(body) else {
        return;
    };
    let second = reopen(&first);
    // Text that was no UTF-8, or more of it than fits, changes once and then stays.
    let has_text = first
        .capabilities
        .iter()
        .any(|c| matches!(c, Capability::Fqdn { .. } | Capability::SoftwareVersion(_)));
    if !has_text {
        assert_eq!(second, first);
    }
    assert_eq!(reopen(&second), second);
}

fn reopen(open: &Open) -> Open {
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    let frame = frame::next(&bytes, frame::MAX_LEN)
        .expect("own OPEN")
        .expect("whole OPEN");
    assert_eq!(frame.len, bytes.len());
    Open::decode(frame.body).expect("own OPEN")
}

fn attributes_are_stable(bytes: &[u8], context: &SessionContext) {
    let first = PathAttributes::decode(bytes, context).attributes;
    let mut encoded = Vec::new();
    first.encode(context.four_octet_as, &mut encoded);
    let second = PathAttributes::decode(&encoded, context);
    assert_eq!(second.attributes, first);
    assert_eq!(second.faults, []);
}

/// Announced and withdrawn prefixes packed anew are the same prefixes with the same next hop.
fn update_is_stable(view: &UpdateView<'_>, context: &SessionContext) {
    let mut canonical = Vec::new();
    let update = Update::parse(view, context, &mut canonical);
    let next_hop = update.next_hop.map(PathNextHop::V4);
    let lists = [
        next_hop.map(|hop| (hop, update.announced)),
        update.mp_announced.map(|mp| (mp.next_hop, mp.nlri)),
    ];
    let decoded = PathAttributes::decode(&canonical, context);
    let mut attributes = Vec::new();
    decoded
        .attributes
        .encode(context.four_octet_as, &mut attributes);
    for (hop, nlri) in lists.into_iter().flatten() {
        let family = context.family(nlri.family()).expect("negotiated");
        let mut bytes = Vec::new();
        let packed = announce(
            &mut bytes,
            family,
            context.max_len(),
            &attributes,
            hop,
            nlri.iter(),
        );
        if packed.is_err() {
            assert!(
                attributes.len() > 3900
                    || hop.address().is_ipv4() != nlri_is_v4(&nlri.iter().next())
            );
            continue;
        }
        let entries = reread(&bytes, context, |update| {
            let announced = update
                .announced
                .iter()
                .map(|e| (update.next_hop.map(PathNextHop::V4), e));
            let mp = update.mp_announced;
            let mp = mp
                .into_iter()
                .flat_map(|mp| mp.nlri.iter().map(move |e| (Some(mp.next_hop), e)));
            announced.chain(mp).collect()
        });
        let expected: Vec<_> = nlri.iter().map(|e| (Some(hop), e)).collect();
        assert_eq!(entries, expected);
    }
    for nlri in [Some(update.withdrawn), update.mp_withdrawn]
        .into_iter()
        .flatten()
    {
        if nlri.is_empty() {
            continue;
        }
        let family = context.family(nlri.family()).expect("negotiated");
        let mut bytes = Vec::new();
        withdraw(&mut bytes, family, context.max_len(), nlri.iter());
        let entries = reread(&bytes, context, |update| {
            update
                .withdrawn
                .iter()
                .chain(update.mp_withdrawn.into_iter().flatten())
                .collect()
        });
        assert_eq!(entries, nlri.iter().collect::<Vec<NlriEntry>>());
    }
}

fn nlri_is_v4(entry: &Option<NlriEntry>) -> bool {
    entry.is_none_or(|e| e.prefix.addr().is_ipv4())
}

fn reread<T>(
    mut bytes: &[u8],
    context: &SessionContext,
    read: impl Fn(&Update<'_>) -> Vec<T>,
) -> Vec<T> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let mut canonical = Vec::new();
        let frame = frame::next(bytes, context.max_len())
            .expect("own UPDATE")
            .expect("whole");
        let view = UpdateView::split(frame.body).expect("own UPDATE");
        let update = Update::parse(&view, context, &mut canonical);
        entries.extend(read(&update));
        bytes = &bytes[frame.len..];
    }
    entries
}
