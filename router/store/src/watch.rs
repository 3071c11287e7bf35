// SPDX-License-Identifier: Apache-2.0
//! All keys below a prefix, and every change of them.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::connection::{AbortOnDrop, Link, MAX_ANSWER, Store, next_link};
use crate::error::Error;
use crate::request::{Entry, end_of, failure, within};
use crate::wire::etcdserverpb::watch_client::WatchClient;
use crate::wire::etcdserverpb::watch_request::RequestUnion;
use crate::wire::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::wire::mvccpb::event::EventType;

/// Events that wait for whoever watches. Then etcd is read no further.
const QUEUE: usize = 256;

/// How long a list or the beginning of a watch may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The pause after something failed on a connection that stands.
const AGAIN: Duration = Duration::from_millis(200);

/// What is below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// This is there and nothing else; it comes first, and again when changes were missed.
    Snapshot(Vec<Entry>),
    /// A key is new or another.
    Put(Entry),
    /// A key is gone.
    Deleted {
        /// The key below the store's prefix.
        key: String,
    },
}

/// The events of a prefix, in the order in which they happened.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
    _task: AbortOnDrop,
}

impl Store {
    /// Follows all keys that begin so below the store's prefix, as a task of the calling runtime.
    pub fn watch(&self, prefix: &str) -> Watch {
        let (sender, events) = mpsc::channel(QUEUE);
        let follower = Follower {
            store: self.clone(),
            prefix: prefix.to_owned(),
            events: sender,
            seen: 0,
        };
        Watch {
            events,
            _task: AbortOnDrop(tokio::spawn(follower.run()).abort_handle()),
        }
    }
}

impl Watch {
    /// The next event. May be dropped and called again.
    pub async fn next(&mut self) -> WatchEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The runtime ends.
            None => std::future::pending().await,
        }
    }
}

struct Follower {
    store: Store,
    prefix: String,
    events: mpsc::Sender<WatchEvent>,
    /// Everything up to this revision has been told; 0 for nothing.
    seen: i64,
}

/// Why a watch is over.
enum Over {
    /// Nobody wants to know any more.
    Dropped,
    /// Changes were missed: everything is to be read anew.
    Missed,
    /// The connection, or etcd's will.
    Failed(Error),
}

impl From<Error> for Over {
    fn from(error: Error) -> Over {
        Over::Failed(error)
    }
}

impl Follower {
    async fn run(mut self) {
        let mut links = self.store.links();
        let mut last = String::new();
        loop {
            let Some(link) = next_link(&mut links, None).await else {
                return;
            };
            let number = link.number;
            let ended = tokio::select! {
                over = self.follow(&link) => Some(over),
                // A connection that was left takes its watches with it.
                _ = links.wait_for(|now| now.as_ref().is_none_or(|l| l.number != number)) => None,
            };
            match ended {
                None => {}
                Some(Over::Dropped) => return,
                Some(Over::Missed) => self.seen = 0,
                Some(Over::Failed(error)) => {
                    self.store.suspect();
                    let text = error.to_string();
                    if text != last {
                        tracing::warn!(prefix = %self.prefix, %error, "a watch begins anew");
                        last = text;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn follow(&mut self, link: &Link) -> Over {
        match self.try_follow(link).await {
            Ok(never) => match never {},
            Err(over) => over,
        }
    }

    async fn try_follow(&mut self, link: &Link) -> Result<std::convert::Infallible, Over> {
        if self.seen == 0 {
            let (entries, revision) = self.store.list(link, &self.prefix, LIMIT).await?;
            self.tell(WatchEvent::Snapshot(entries)).await?;
            self.seen = revision;
        }
        let mut answers = self.begin(link).await?;
        loop {
            let answer = answers.message().await;
            let answer = answer.map_err(|status| failure(link.endpoint.to_string(), &status))?;
            let Some(answer) = answer else {
                return Err(Over::Failed(Error::NotConnected));
            };
            self.take(link, answer).await?;
        }
    }

    async fn begin(&self, link: &Link) -> Result<Streaming<WatchResponse>, Error> {
        let key = self.store.whole_key(&self.prefix);
        let create = WatchCreateRequest {
            range_end: end_of(&key),
            key,
            start_revision: self.seen + 1,
        };
        let create = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        // The stream of questions stays open: etcd ends a watch with it.
        let questions = tokio_stream::StreamExt::chain(
            tokio_stream::once(create),
            tokio_stream::pending::<WatchRequest>(),
        );
        let mut request = Request::new(questions);
        // A member that loses its majority ends the watch instead of saying nothing.
        let has_leader = tonic::metadata::MetadataValue::from_static("true");
        request.metadata_mut().insert("hasleader", has_leader);
        let mut client: WatchClient<Channel> =
            WatchClient::new(link.channel.clone()).max_decoding_message_size(MAX_ANSWER);
        within(&link.endpoint, LIMIT, client.watch(request)).await
    }

    async fn take(&mut self, link: &Link, answer: WatchResponse) -> Result<(), Over> {
        let revision = answer.header.map_or(0, |header| header.revision);
        if answer.compact_revision > 0 || (answer.created && revision < self.seen) {
            // The second: etcd is younger than what it said before, as of a backup.
            tracing::info!(prefix = %self.prefix, "changes were missed: all is read anew");
            return Err(Over::Missed);
        }
        if answer.canceled {
            return Err(Over::Failed(Error::Refused {
                endpoint: link.endpoint.to_string(),
                reason: answer.cancel_reason,
            }));
        }
        // What is only a word of how far etcd is; after a creation there may be more to come.
        let mut seen = match answer.events.is_empty() && !answer.created {
            true => revision,
            false => self.seen,
        };
        for event in answer.events {
            let is_deleted = event.r#type() == EventType::Delete;
            let Some(kv) = event.kv else { continue };
            seen = seen.max(kv.mod_revision);
            let Some(entry) = self.store.entry(kv) else {
                continue;
            };
            self.tell(match is_deleted {
                true => WatchEvent::Deleted { key: entry.key },
                false => WatchEvent::Put(entry),
            })
            .await?;
        }
        // Only when all are told: those of one transaction have one revision, and come together.
        self.seen = self.seen.max(seen);
        Ok(())
    }

    async fn tell(&self, event: WatchEvent) -> Result<(), Over> {
        let told = self.events.send(event).await;
        told.map_err(|_| Over::Dropped)
    }
}
