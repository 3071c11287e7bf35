// SPDX-License-Identifier: Apache-2.0
//! The file of endpoints: its format, and what can be read back from a damaged one.
//!
//! One line per record: eight hexadecimal digits of CRC-32 (IEEE 802.3), a blank, one JSON object,
//! a newline. Lines are only ever appended; the file is rewritten whole, beside the old one and
//! renamed over it, when too much of it is past. The first line is the [`Header`].
//!
//! A last line without its newline was being written when the machine or the daemon stopped.
//! Nobody was told of it, so it is dropped. Any other unreadable line is damage: what
//! it said is lost, and [`Replay::damage`] says where. The lines around it still hold.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::endpoint::{Endpoint, EndpointId};

/// The version of the format that this code writes. It reads this one only; a field added to a
/// record later does not change it.
pub const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// [`VERSION`].
    pub causeway_pods: u32,
    /// `/proc/sys/kernel/random/boot_id` of the boot the records belong to.
    pub boot_id: String,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Record {
    /// An endpoint is as follows, from here on.
    Put(Box<Endpoint>),
    /// An endpoint is gone and its addresses are free.
    Drop(EndpointId),
}

/// What a journal says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Replay {
    /// The boot the records belong to; `None` for an empty journal or a lost first line.
    pub boot_id: Option<String>,
    /// The endpoints left at the end.
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// Endpoints that were dropped, in that order, each once per drop.
    pub dropped: Vec<Endpoint>,
    /// The highest number ever given to an endpoint.
    pub highest_id: u32,
    /// How many records were read.
    pub records: usize,
    /// Octets up to the end of the last whole line. What follows was never finished.
    pub whole_length: usize,
    /// Octets after that.
    pub torn_length: usize,
    /// Whole lines that could not be read.
    pub damage: Vec<Damage>,
}

/// An unreadable line.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("line {line}: {reason}")]
pub struct Damage {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// A journal that must not be touched.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ReplayError {
    /// Written by another version of the daemon.
    #[error("the journal of pods has format version {0}, this daemon reads version {VERSION} only")]
    Version(u32),
}

/// The line of a header.
pub fn encode_header(header: &Header) -> Vec<u8> {
    line(&serde_json::to_vec(header).expect("a header is plain data with string keys"))
}

/// The line of a record.
pub fn encode(record: &Record) -> Vec<u8> {
    line(&serde_json::to_vec(record).expect("a record is plain data with string keys"))
}

/// Reads a journal as far as it can be read.
///
/// # Errors
///
/// [`ReplayError::Version`] when the header is intact and of another version.
pub fn replay(bytes: &[u8]) -> Result<Replay, ReplayError> {
    let mut replay = Replay::default();
    let whole = bytes
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |end| end + 1);
    replay.whole_length = whole;
    replay.torn_length = bytes.len() - whole;
    for (index, line) in bytes[..whole].split_inclusive(|b| *b == b'\n').enumerate() {
        let number = index + 1;
        let parsed = check(&line[..line.len() - 1]).and_then(|json| {
            if index == 0 {
                let header: Header = parse(json)?;
                return Ok(Line::Header(header));
            }
            Ok(Line::Record(parse(json)?))
        });
        match parsed {
            Ok(Line::Header(header)) if header.causeway_pods != VERSION => {
                return Err(ReplayError::Version(header.causeway_pods));
            }
            Ok(Line::Header(header)) => replay.boot_id = Some(header.boot_id),
            Ok(Line::Record(record)) => replay.apply(record),
            Err(reason) => replay.damage.push(Damage {
                line: number,
                reason,
            }),
        }
    }
    Ok(replay)
}

enum Line {
    Header(Header),
    Record(Record),
}

impl Replay {
    fn apply(&mut self, record: Record) {
        self.records += 1;
        match record {
            Record::Put(endpoint) => {
                self.highest_id = self.highest_id.max(endpoint.id.0);
                self.endpoints.insert(endpoint.id, *endpoint);
            }
            Record::Drop(id) => self.dropped.extend(self.endpoints.remove(&id)),
        }
    }
}

fn line(json: &[u8]) -> Vec<u8> {
    let mut line = format!("{:08x} ", crc32(json)).into_bytes();
    line.extend_from_slice(json);
    line.push(b'\n');
    line
}

fn check(line: &[u8]) -> Result<&[u8], String> {
    let (sum, json) = line
        .split_at_checked(9)
        .filter(|(sum, _)| sum[8] == b' ')
        .ok_or("it does not begin with a checksum")?;
    let sum = str::from_utf8(&sum[..8])
        .ok()
        .and_then(|s| u32::from_str_radix(s, 16).ok())
        .ok_or("it does not begin with a checksum")?;
    if sum == crc32(json) {
        Ok(json)
    } else {
        Err("its checksum does not fit".to_owned())
    }
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json)
        .map_err(|e| format!("its checksum fits, its content does not: {e}"))
}

/// CRC-32 of IEEE 802.3 §3.2.9, reflected, bit by bit: a few hundred octets per ADD are too few
/// for a table to matter.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            let carry = crc & 1;
            (crc >> 1) ^ (0xedb8_8320 * carry)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::{Attachment, NetnsRef, Phase, PodRef};

    fn endpoint(id: u32, phase: Phase) -> Endpoint {
        let attachment = Attachment::new(&format!("container{id}"), "eth0").unwrap();
        Endpoint {
            id: EndpointId(id),
            network: "causeway".to_owned(),
            netns: NetnsRef {
                path: format!("/var/run/netns/{id}"),
                device: 4,
                inode: 70,
            },
            pod: None,
            host_ifname: attachment.host_ifname(0),
            host_mac: attachment.host_mac(0),
            pod_mac: attachment.pod_mac(0),
            addresses: vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            mtu: 1500,
            phase,
            attachment,
        }
    }

    fn sample() -> Vec<Vec<u8>> {
        vec![
            encode_header(&Header {
                causeway_pods: VERSION,
                boot_id: "b-1".to_owned(),
            }),
            encode(&Record::Put(Box::new(endpoint(1, Phase::Creating)))),
            encode(&Record::Put(Box::new(endpoint(1, Phase::Ready)))),
            encode(&Record::Put(Box::new(endpoint(2, Phase::Creating)))),
            encode(&Record::Drop(EndpointId(1))),
        ]
    }

    #[test]
    fn crc_is_the_one_everybody_knows() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_journal_reads_back() {
        let replay = replay(&sample().concat()).unwrap();
        assert_eq!(replay.boot_id.as_deref(), Some("b-1"));
        assert_eq!(
            replay.endpoints.keys().collect::<Vec<_>>(),
            [&EndpointId(2)]
        );
        assert_eq!(replay.dropped, [endpoint(1, Phase::Ready)]);
        assert_eq!(replay.highest_id, 2);
        assert_eq!((replay.records, replay.torn_length), (4, 0));
        assert_eq!(replay.damage, []);
    }

    #[test]
    fn cut_anywhere_it_holds_exactly_the_whole_lines() {
        let lines = sample();
        let bytes = lines.concat();
        for cut in 0..=bytes.len() {
            let mut whole = Vec::new();
            for line in &lines {
                if whole.len() + line.len() > cut {
                    break;
                }
                whole.extend_from_slice(line);
            }
            let got = replay(&bytes[..cut]).unwrap();
            assert_eq!(got.damage, [], "cut at {cut}");
            assert_eq!(got.whole_length, whole.len(), "cut at {cut}");
            assert_eq!(got.torn_length, cut - whole.len());
            let expected = replay(&whole).unwrap();
            assert_eq!(
                (got.endpoints, got.dropped),
                (expected.endpoints, expected.dropped)
            );
        }
    }

    #[test]
    fn any_single_wrong_bit_is_noticed_and_the_other_lines_hold() {
        let bytes = sample().concat();
        for position in 0..bytes.len() {
            for bit in 0..8 {
                let mut wrong = bytes.clone();
                wrong[position] ^= 1 << bit;
                let Ok(got) = replay(&wrong) else {
                    panic!("a wrong version with a right checksum at {position}.{bit}")
                };
                // The checksum's letters may change case and mean the same.
                if got != replay(&bytes).unwrap() {
                    let noticed = !got.damage.is_empty() || got.torn_length > 0;
                    assert!(noticed, "flip at {position}.{bit}");
                }
            }
        }
    }

    #[test]
    fn labels_read_back_and_journals_without_them_are_read() {
        // As written before there were labels.
        let old = concat!(
            r#"{"put":{"id":1,"containerId":"container1","ifname":"eth0","network":"causeway","#,
            r#""netns":{"path":"/var/run/netns/1","device":4,"inode":70},"#,
            r#""pod":{"namespace":"shop","name":"web-0","uid":"u"},"hostIfname":"cw0123456789","#,
            r#""hostMac":"0e:00:00:00:00:01","podMac":"0a:00:00:00:00:01","#,
            r#""addresses":["10.1.0.2"],"mtu":1500,"phase":"ready"}}"#
        );
        let header = &sample()[0];
        let got = replay(&[header.clone(), line(old.as_bytes())].concat()).unwrap();
        assert_eq!(got.damage, []);
        let pod = got.endpoints[&EndpointId(1)].pod.clone().unwrap();
        assert_eq!((pod.uid.as_str(), &pod.labels), ("u", &None));

        for labels in [
            None,
            Some(BTreeMap::new()),
            Some([("app".to_owned(), "web".to_owned())].into()),
        ] {
            let mut written = endpoint(2, Phase::Ready);
            written.pod = Some(PodRef {
                labels: labels.clone(),
                ..pod.clone()
            });
            let record = encode(&Record::Put(Box::new(written.clone())));
            // Who does not know the field yet reads the same line.
            let has_field = String::from_utf8_lossy(&record).contains("labels");
            assert_eq!(has_field, labels.is_some());
            let got = replay(&[header.clone(), record].concat()).unwrap();
            assert_eq!(got.endpoints[&EndpointId(2)], written);
        }
    }

    #[test]
    fn another_version_is_left_alone() {
        let header = encode_header(&Header {
            causeway_pods: 2,
            boot_id: String::new(),
        });
        assert_eq!(replay(&header), Err(ReplayError::Version(2)));
    }

    #[test]
    fn noise_is_damage_not_a_panic() {
        for noise in [
            &b"\n"[..],
            b"\n\n\n",
            b"00000000 \n",
            b"zzzzzzzz {}\n",
            b"\xff\xfe\n",
            b"short\n",
        ] {
            assert!(!replay(noise).unwrap().damage.is_empty(), "{noise:?}");
        }
        assert_eq!(replay(b"").unwrap(), Replay::default());
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            replay(&bytes).unwrap();
            // Lines with right checksums and wrong contents get further.
            let mut lines = encode_header(&Header {
                causeway_pods: VERSION,
                boot_id: String::new(),
            });
            for json in bytes.split(|b| *b == b'\n') {
                lines.extend(line(json));
            }
            let got = replay(&lines).unwrap();
            prop_assert_eq!(got.torn_length, 0);
            prop_assert_eq!(got.records + got.damage.len(), bytes.split(|b| *b == b'\n').count());
        }
    }
}
