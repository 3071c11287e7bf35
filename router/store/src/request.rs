// SPDX-License-Identifier: Apache-2.0
//! Single questions: reading, and writing if nobody else has.

use std::future::Future;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::connection::{Link, MAX_ANSWER, PAGE, Store};
use crate::error::{Error, status_words};
use crate::wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::etcdserverpb::kv_client::KvClient;
use crate::wire::etcdserverpb::request_op::Request as Op;
use crate::wire::etcdserverpb::response_op::Response as Answer;
use crate::wire::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest,
};
use crate::wire::mvccpb::KeyValue;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key below the prefix.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
    /// The revision of its last change: what [`Store::put_if`] compares.
    pub revision: i64,
}

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is written.
    Done {
        /// The key's revision.
        revision: i64,
    },
    /// The key is another by now, or not there.
    Conflict(Option<Entry>),
}

impl Store {
    /// Reads a key as the majority knows it.
    ///
    /// # Errors
    /// etcd does not answer, or refuses.
    pub async fn get(&self, key: &str, limit: Duration) -> Result<Option<Entry>, Error> {
        let link = self.link()?;
        let request = RangeRequest {
            key: self.whole_key(key),
            limit: 1,
            ..RangeRequest::default()
        };
        let found = self.range(&link, request, limit).await?;
        Ok(found.kvs.into_iter().find_map(|kv| self.entry(kv)))
    }

    /// Writes a key if its revision is the one given; 0 if it is not to be there. The key hangs on
    /// no lease.
    ///
    /// # Errors
    /// etcd does not answer, or refuses. It may have written all the same.
    pub async fn put_if(
        &self,
        key: &str,
        value: &[u8],
        revision: i64,
        limit: Duration,
    ) -> Result<Put, Error> {
        let link = self.link()?;
        let key = self.whole_key(key);
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::ModRevision(revision)),
        };
        let put = Op::RequestPut(PutRequest {
            key: key.clone(),
            value: value.to_vec(),
            lease: 0,
        });
        let look = Op::RequestRange(RangeRequest {
            key,
            limit: 1,
            ..RangeRequest::default()
        });
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![RequestOp { request: Some(put) }],
            failure: vec![RequestOp {
                request: Some(look),
            }],
        };
        let mut client = client(&link.channel);
        let answered = self.within(&link, limit, client.txn(request)).await?;
        let nonsense = |what| Error::Nonsense {
            endpoint: link.endpoint.to_string(),
            what,
        };
        if answered.succeeded {
            let header = answered.header.ok_or_else(|| nonsense("no revision"))?;
            return Ok(Put::Done {
                revision: header.revision,
            });
        }
        let mut responses = answered.responses.into_iter();
        match responses.next().and_then(|answer| answer.response) {
            Some(Answer::ResponseRange(found)) => {
                let entry = found.kvs.into_iter().find_map(|kv| self.entry(kv));
                Ok(Put::Conflict(entry))
            }
            _ => Err(nonsense("a refused write without the key's value")),
        }
    }

    /// Everything below a prefix, and the revision it is of.
    pub(crate) async fn list(
        &self,
        link: &Link,
        prefix: &str,
        limit: Duration,
    ) -> Result<(Vec<Entry>, i64), Error> {
        let mut key = self.whole_key(prefix);
        let range_end = end_of(&key);
        let mut entries = Vec::new();
        let mut revision = 0;
        loop {
            let request = RangeRequest {
                key,
                range_end: range_end.clone(),
                limit: PAGE,
                // All pages of one moment.
                revision,
                ..RangeRequest::default()
            };
            let page = self.range(link, request, limit).await?;
            if revision == 0 {
                revision = page.header.map_or(0, |header| header.revision);
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            entries.extend(page.kvs.into_iter().filter_map(|kv| self.entry(kv)));
            match last {
                Some(last) if page.more => {
                    key = last;
                    key.push(0);
                }
                _ => return Ok((entries, revision)),
            }
        }
    }

    async fn range(
        &self,
        link: &Link,
        request: RangeRequest,
        limit: Duration,
    ) -> Result<RangeResponse, Error> {
        let mut client = client(&link.channel);
        self.within(link, limit, client.range(request)).await
    }

    pub(crate) fn entry(&self, kv: KeyValue) -> Option<Entry> {
        Some(Entry {
            key: self.own_key(&kv.key)?,
            value: kv.value,
            revision: kv.mod_revision,
        })
    }

    /// Waits for an answer; a connection that gives none is looked at.
    pub(crate) async fn within<T>(
        &self,
        link: &Link,
        limit: Duration,
        asked: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        let answered = within(&link.endpoint, limit, asked).await;
        if !matches!(answered, Ok(_) | Err(Error::Refused { .. })) {
            self.suspect();
        }
        answered
    }
}

pub(crate) async fn within<T>(
    endpoint: &str,
    limit: Duration,
    asked: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    let endpoint = || endpoint.to_owned();
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(failure(endpoint(), &status)),
        Err(_) => Err(Error::TimedOut {
            endpoint: endpoint(),
            limit,
        }),
    }
}

/// Whether etcd refused, or was not there to.
pub(crate) fn failure(endpoint: String, status: &Status) -> Error {
    let reason = status_words(status);
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown => {
            Error::Connect { endpoint, reason }
        }
        _ => Error::Refused { endpoint, reason },
    }
}

fn client(channel: &Channel) -> KvClient<Channel> {
    KvClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER)
}

/// The number of the cluster that answers.
pub(crate) async fn cluster_of(
    channel: &Channel,
    endpoint: &str,
    key: Vec<u8>,
    limit: Duration,
) -> Result<u64, Error> {
    let request = Request::new(RangeRequest {
        key,
        limit: 1,
        keys_only: true,
        ..RangeRequest::default()
    });
    let mut client = client(channel);
    let answer = within(endpoint, limit, client.range(request)).await?;
    let id = |header: ResponseHeader| header.cluster_id;
    answer.header.map(id).ok_or_else(|| Error::Nonsense {
        endpoint: endpoint.to_owned(),
        what: "no number of the cluster",
    })
}

/// The first key behind all that begin so.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // All there are, in etcd's words.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_behind_all_it_begins() {
        assert_eq!(end_of(b"/a/"), b"/a0");
        assert_eq!(end_of(b"a\xff\xff"), b"b");
        assert_eq!(end_of(b"\xff"), [0]);
        assert!(b"/a/\xff\xff".as_slice() < end_of(b"/a/").as_slice());
    }
}
