// SPDX-License-Identifier: Apache-2.0
//! What made other speakers crash is decoded to what the RFCs say. `bgp/io` sends the same.

#[path = "../../../tests/advisories/inputs.rs"]
mod inputs;

use std::collections::BTreeSet;

use bgp_wire::{
    Fault, Notification, Open, PathAttributes, PeerKind, RouteRefresh, SessionContext, Treatment,
    Update, UpdateView, frame,
};
use inputs::{Answer, Input};
use router_types::Family;

#[test]
fn each_input_has_the_answer_of_the_rfcs() {
    let mut ids = BTreeSet::new();
    for advisory in inputs::all() {
        assert!(ids.insert(advisory.id), "{} is there twice", advisory.id);
        let answer = match &advisory.input {
            Input::Open(body) => match Open::decode(body) {
                Ok(open) => {
                    assert_eq!(open.asn.0, inputs::ASN.into(), "{}", advisory.id);
                    Answer::Taken
                }
                Err(notification) => reset(&notification),
            },
            Input::Update(body) => update(body, true),
            Input::OldUpdate(body) => update(body, false),
            Input::Message(kind, body) => message(*kind, body),
        };
        // That a path does not begin with the neighbour's AS is for the tables to see.
        let seen_later = advisory.id == "GHSA-frrj-87jh-2772" && answer == Answer::Taken;
        assert!(
            answer == advisory.answer || seen_later,
            "{}: {answer:?}, not {:?} ({})",
            advisory.id,
            advisory.answer,
            advisory.harm
        );
    }
    assert!(ids.len() > 50, "{}", ids.len());
}

fn reset(notification: &Notification) -> Answer {
    Answer::Reset(notification.kind.code, notification.kind.subcode)
}

fn update(body: &[u8], four_octet_as: bool) -> Answer {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let mut context = SessionContext::plain(PeerKind::External, &families);
    context.four_octet_as = four_octet_as;
    let view = match UpdateView::split(body) {
        Ok(view) => view,
        Err(notification) => return reset(&notification),
    };
    let mut canonical = Vec::new();
    let update = Update::parse(&view, &context, &mut canonical);
    let decoded = PathAttributes::decode(&canonical, &context);
    let announced = update.announced.count();
    let mp = update.mp_announced.map_or(0, |mp| mp.nlri.count());
    match Fault::strongest(&update.faults(&decoded)) {
        Some(
            Treatment::SessionReset(notification) | Treatment::DisableFamily { notification, .. },
        ) => reset(notification),
        Some(Treatment::TreatAsWithdraw) => Answer::Withdrawn,
        None | Some(Treatment::AttributeDiscard) if announced + mp > 0 => Answer::Taken,
        None | Some(Treatment::AttributeDiscard) => Answer::Nothing,
    }
}

fn message(kind: u8, body: &[u8]) -> Answer {
    let mut bytes = vec![0xff; 16];
    bytes.extend((19 + body.len() as u16).to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(body);
    match frame::next(&bytes, frame::MAX_LEN) {
        Err(notification) => reset(&notification),
        Ok(None) => panic!("the message is whole"),
        Ok(Some(frame)) if kind == 3 => {
            let notification = Notification::decode(frame.body).expect("two octets");
            assert!(!notification.to_string().is_empty());
            Answer::Ends
        }
        Ok(Some(frame)) => match RouteRefresh::decode(frame.body) {
            Ok(refresh) => {
                assert_eq!(refresh, None, "it asks for nothing that was offered");
                Answer::Nothing
            }
            Err(notification) => reset(&notification),
        },
    }
}
