// SPDX-License-Identifier: Apache-2.0
//! A million mappings go from one node to another, and at no time more than the window of them is
//! under way, at either end or between.

use std::collections::{BTreeSet, VecDeque};

use egress_sync::mapping::{Endpoint, Key, Mapping};
use egress_sync::name::{NodeName, Rule};
use egress_sync::replication::{
    Apply, Dropped, Limits, Receiver, ReceiverOutput, Rest, Sender, SenderOutput,
};
use egress_sync::wire::{MAX_RECORDS, Message};

const MAPPINGS: u32 = 1_000_000;

fn mapping(rule: Rule, number: u32) -> Mapping {
    let pod = Endpoint::new((0x0a00_0000 + number / 100).to_be_bytes().into(), 1000);
    let remote = Endpoint::new([192, 0, 2, (number % 100) as u8].into(), 443);
    let key = Key::new(6, pod, remote).unwrap();
    let egress = Endpoint::new([198, 51, 100, 1].into(), number as u16);
    Mapping::new(rule, key, egress, [10, 0, 0, 1].into()).unwrap()
}

/// Takes one snapshot of every mapping whose number this divides. What was set and removed.
fn snapshot(sender: &mut Sender, receiver: &mut Receiver, every: u32) -> (u32, u32) {
    let rule = Rule::new(1).unwrap();
    let window = Limits::default().window();
    let mut under_way: VecDeque<Message> = VecDeque::new();
    let (mut next, mut set, mut removed) = (0, 0, 0);
    let (mut records, mut most) = (0, 0);
    receiver.handle_link_up();
    while !receiver.is_synchronised(rule) {
        while let Some(output) = sender.poll_output() {
            if let SenderOutput::Send(message) = output {
                if let Message::Batch(batch) = &message {
                    records += batch.records.len();
                }
                under_way.push_back(message);
            }
        }
        while let Some(page) = sender.poll_page() {
            let all = (next..MAPPINGS).step_by(every as usize);
            let mappings: Vec<Mapping> = all
                .take(page.max_records)
                .map(|number| mapping(rule, number))
                .collect();
            let rest = if mappings.len() < page.max_records {
                Rest::End
            } else {
                Rest::More
            };
            next += mappings.len() as u32 * every;
            sender.next_batch(&page, &mappings, rest).unwrap();
            while let Some(output) = sender.poll_output() {
                if let SenderOutput::Send(message) = output {
                    if let Message::Batch(batch) = &message {
                        records += batch.records.len();
                    }
                    under_way.push_back(message);
                }
            }
        }
        most = most.max(records);
        assert!(under_way.len() <= window && sender.in_flight() <= window);
        if let Some(Message::Batch(batch)) = under_way.pop_front() {
            receiver.handle_batch(batch);
        }
        while let Some(output) = receiver.poll_output() {
            match output {
                ReceiverOutput::Send(Message::Subscribe {
                    epoch,
                    is_restart,
                    rules,
                }) => sender.handle_subscribe(epoch, is_restart, &rules),
                ReceiverOutput::Send(Message::Ack { epoch, sequence }) => {
                    sender.handle_ack(epoch, sequence);
                }
                ReceiverOutput::Apply(Apply::Set(_)) => {
                    set += 1;
                    records -= 1;
                }
                ReceiverOutput::Apply(Apply::Remove { .. }) => removed += 1,
                ReceiverOutput::Synchronised(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // Besides mappings, the two marks.
    assert!(most <= window * MAX_RECORDS + 2, "{most} records under way");
    assert!(most >= window / 2 * MAX_RECORDS, "the window is used");
    (set, removed)
}

#[test]
fn a_million_mappings_are_never_under_way_at_once() {
    let rule = Rule::new(1).unwrap();
    let mut sender = Sender::new(NodeName::new("b").unwrap(), Limits::default());
    sender.handle_held(&BTreeSet::from([rule]));
    let mut receiver = Receiver::new();
    receiver
        .handle_rules(&BTreeSet::from([rule]), Dropped::Keep)
        .unwrap();
    assert_eq!(snapshot(&mut sender, &mut receiver, 1), (MAPPINGS, 0));
    assert_eq!(receiver.copies(rule), MAPPINGS as usize);
    // The link is lost, and half of them are gone when it is back.
    sender.handle_link_down();
    receiver.handle_link_down();
    let half = MAPPINGS / 2;
    assert_eq!(snapshot(&mut sender, &mut receiver, 2), (half, half));
    assert_eq!(receiver.copies(rule), half as usize);
}
