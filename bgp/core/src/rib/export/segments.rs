// SPDX-License-Identifier: Apache-2.0
//! Changes as messages: runs of destinations with equal attributes, cut into segments.

use bgp_wire::{FamilyContext, Label, PathNextHop};
use smallvec::SmallVec;

use super::Transmit;
use crate::rib::PeerId;
use crate::rib::keys::{DestId, Keys};

/// Bytes of a segment, after which the next one begins. Arbitrary: some dozen messages.
const SEGMENT: usize = 64 << 10;

/// Room that may stay unused in a segment: to give it back costs more for a single change.
const SPARE: usize = 128;

/// Messages for all members but one.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) transmit: Transmit,
    /// Who said what is in it, and is not told.
    pub(super) except: Option<PeerId>,
}

/// Mostly one.
pub(super) type Segments = SmallVec<[Segment; 1]>;

/// Writes messages.
pub(super) struct Writer<'a> {
    keys: &'a Keys,
    context: FamilyContext,
    max_len: usize,
    bytes: Vec<u8>,
    updates: u32,
    except: Option<PeerId>,
    done: Segments,
}

impl<'a> Writer<'a> {
    pub(super) fn new(keys: &'a Keys, context: FamilyContext, max_len: usize) -> Writer<'a> {
        Writer {
            keys,
            context,
            max_len,
            bytes: Vec::new(),
            updates: 0,
            except: None,
            done: Segments::new(),
        }
    }

    /// Appends withdrawals.
    pub(super) fn withdraw(&mut self, ids: &[(DestId, u32)]) {
        if ids.is_empty() {
            return;
        }
        self.begin(None);
        let mut left = ids;
        let (keys, add_path) = (self.keys, self.context.add_path_send);
        let updates =
            bgp_wire::withdraw_with(&mut self.bytes, &self.context, self.max_len, |out, end| {
                left = &left[keys.put(left, add_path, end, out)..];
                !left.is_empty()
            });
        self.updates += updates as u32;
    }

    /// Appends announcements of destinations with equal attributes, those of VPNs with a label
    /// each.
    pub(super) fn announce(
        &mut self,
        attributes: &[u8],
        next_hop: PathNextHop,
        except: Option<PeerId>,
        ids: &[(DestId, u32)],
        labels: &[Label],
    ) {
        if ids.is_empty() {
            return;
        }
        self.begin(except);
        if self.bytes.is_empty() {
            // Header, next hop and prefixes of the usual length.
            let expected = attributes.len() + 64 + ids.len() * 5;
            self.bytes.reserve_exact(expected.min(SEGMENT));
        }
        let mut left = ids;
        let mut labels = labels;
        let (keys, add_path) = (self.keys, self.context.add_path_send);
        let written = bgp_wire::announce_with(
            &mut self.bytes,
            &self.context,
            self.max_len,
            attributes,
            next_hop,
            |out, end| {
                if labels.is_empty() {
                    left = &left[keys.put(left, add_path, end, out)..];
                } else {
                    let done = keys.put_labelled(left, labels, add_path, end, out);
                    (left, labels) = (&left[done..], &labels[done..]);
                }
                !left.is_empty()
            },
        );
        match written {
            Ok(updates) => self.updates += updates as u32,
            // RFC 4271 §9.2: what does not fit a message is not announced. What was announced in its
            // place before must not stay (RFC 8654 §4).
            Err(error) => {
                tracing::warn!(%error, prefixes = ids.len(), "routes not announced");
                self.withdraw(ids);
            }
        }
    }

    pub(super) fn finish(mut self) -> Segments {
        self.cut();
        self.done
    }

    fn begin(&mut self, except: Option<PeerId>) {
        if self.bytes.len() >= SEGMENT || (self.except != except && !self.bytes.is_empty()) {
            self.cut();
        }
        if self.bytes.is_empty() {
            self.except = except;
        }
    }

    fn cut(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() - bytes.len() > SPARE {
            bytes.shrink_to_fit();
        }
        self.done.push(Segment {
            transmit: Transmit {
                bytes: bytes.into(),
                updates: std::mem::take(&mut self.updates),
                refreshes: 0,
            },
            except: self.except,
        });
    }
}
