// SPDX-License-Identifier: Apache-2.0
//! A lease that is kept alive, and the keys that last as long as it does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use crate::connection::{AbortOnDrop, Link, Store, next_link};
use crate::error::Error;
use crate::wire::etcdserverpb::kv_client::KvClient;
use crate::wire::etcdserverpb::lease_client::LeaseClient;
use crate::wire::etcdserverpb::request_op::Request as Op;
use crate::wire::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, RequestOp, TxnRequest,
};

/// The lease is kept alive this many times in its life: two may be lost.
const TIMES_A_LIFE: u32 = 3;

/// The pause after something failed on a connection that stands.
const AGAIN: Duration = Duration::from_millis(200);

/// A lease and the keys that hang on it.
///
/// It is taken when etcd is reached, kept alive while it is, and taken anew with all its keys when it
/// is lost. It is not given back at the end: who restarts within its life was never gone.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    lease: watch::Receiver<Option<i64>>,
    _task: AbortOnDrop,
}

#[derive(Debug)]
struct Shared {
    keys: Mutex<BTreeMap<String, Vec<u8>>>,
    changed: Notify,
}

impl Shared {
    fn keys(&self) -> BTreeMap<String, Vec<u8>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }
}

impl Store {
    /// Begins a session whose lease lasts so long without a word, in whole seconds, as a task of the
    /// calling runtime.
    pub fn session(&self, life: Duration) -> Session {
        let shared = Arc::new(Shared {
            keys: Mutex::default(),
            changed: Notify::new(),
        });
        let (told, lease) = watch::channel(None);
        let keeper = Keeper {
            store: self.clone(),
            shared: Arc::clone(&shared),
            life,
            told,
        };
        Session {
            shared,
            lease,
            _task: AbortOnDrop(tokio::spawn(keeper.run()).abort_handle()),
        }
    }
}

impl Session {
    /// Keeps a key there for as long as the session lasts, from when etcd is reached.
    pub fn keep(&self, key: &str, value: &[u8]) {
        self.change(|keys| keys.insert(key.to_owned(), value.to_owned()) != Some(value.to_owned()));
    }

    /// Does not any more; the key is deleted.
    pub fn drop_key(&self, key: &str) {
        self.change(|keys| keys.remove(key).is_some());
    }

    /// The lease, once its keys are written; nothing while it is lost or not taken yet.
    pub fn lease(&self) -> watch::Receiver<Option<i64>> {
        self.lease.clone()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> bool) {
        let mut keys = self
            .shared
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if change(&mut keys) {
            self.shared.changed.notify_one();
        }
    }
}

struct Keeper {
    store: Store,
    shared: Arc<Shared>,
    life: Duration,
    told: watch::Sender<Option<i64>>,
}

/// A lease etcd gave.
struct Lease {
    id: i64,
    /// When it was asked for, or last to be prolonged: it lasts its life from then on at least.
    since: Instant,
    /// What hangs on it.
    written: BTreeMap<String, Vec<u8>>,
}

impl Keeper {
    async fn run(self) {
        let mut links = self.store.links();
        let mut lease: Option<Lease> = None;
        let mut failure = String::new();
        loop {
            let ends = lease.as_ref().map(|lease| lease.since + self.life);
            let link = tokio::select! {
                link = next_link(&mut links, None) => link,
                () = until(ends) => {
                    self.lose(&mut lease);
                    continue;
                }
            };
            let Some(link) = link else {
                return;
            };
            let result = self.hold(&link, &mut lease).await;
            // What etcd does not know any more, or does not in any case by now.
            let is_over = |lease: &Lease| lease.since.elapsed() >= self.life;
            if lease.as_ref().is_none_or(is_over) {
                self.lose(&mut lease);
            }
            if let Err(error) = result {
                let text = error.to_string();
                if text != failure {
                    tracing::warn!(%error, "no lease");
                    failure = text;
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    fn lose(&self, lease: &mut Option<Lease>) {
        *lease = None;
        if self.told.send_replace(None).is_some() {
            tracing::warn!("the lease is lost");
        }
    }

    /// Keeps the lease alive on this connection until it fails or the lease is lost.
    async fn hold(&self, link: &Link, lease: &mut Option<Lease>) -> Result<(), Error> {
        let pause = self.life / TIMES_A_LIFE;
        loop {
            match lease {
                None => *lease = Some(self.grant(link, pause).await?),
                Some(known) => {
                    let began = Instant::now();
                    if !self.prolong(link, known.id, pause).await? {
                        *lease = None;
                        return Ok(());
                    }
                    known.since = began;
                }
            }
            let Some(known) = lease else { continue };
            let next = known.since + pause;
            loop {
                self.write(link, known, pause).await?;
                self.told.send_if_modified(|told| {
                    let id = Some(known.id);
                    std::mem::replace(told, id) != id
                });
                let changed = self.shared.changed.notified();
                if tokio::time::timeout_at(next.into(), changed).await.is_err() {
                    break;
                }
            }
        }
    }

    async fn grant(&self, link: &Link, limit: Duration) -> Result<Lease, Error> {
        let since = Instant::now();
        let request = LeaseGrantRequest {
            ttl: i64::try_from(self.life.as_secs()).unwrap_or(i64::MAX),
            id: 0,
        };
        let mut client = client(&link.channel);
        let asked = client.lease_grant(request);
        let granted = self.store.within(link, limit, asked).await?;
        if !granted.error.is_empty() {
            return Err(Error::Refused {
                endpoint: link.endpoint.to_string(),
                reason: granted.error,
            });
        }
        tracing::info!(lease = granted.id, seconds = granted.ttl, "lease taken");
        Ok(Lease {
            id: granted.id,
            since,
            written: BTreeMap::new(),
        })
    }

    /// Whether the lease is there still.
    async fn prolong(&self, link: &Link, id: i64, limit: Duration) -> Result<bool, Error> {
        let mut client = client(&link.channel);
        let endpoint = link.endpoint.as_ref();
        let ask = async {
            let request = tokio_stream::once(LeaseKeepAliveRequest { id });
            let mut answers = client.lease_keep_alive(request).await?.into_inner();
            Ok(tonic::Response::new(answers.message().await?))
        };
        let answer = self.store.within(link, limit, ask).await?;
        let answer = answer.ok_or_else(|| Error::Nonsense {
            endpoint: endpoint.to_owned(),
            what: "no word of the lease",
        })?;
        Ok(answer.ttl > 0)
    }

    /// Makes what hangs on the lease what is wanted.
    async fn write(&self, link: &Link, lease: &mut Lease, limit: Duration) -> Result<(), Error> {
        let wanted = self.shared.keys();
        let mut operations = Vec::new();
        for (key, value) in &wanted {
            if lease.written.get(key) != Some(value) {
                operations.push(Op::RequestPut(PutRequest {
                    key: self.store.whole_key(key),
                    value: value.clone(),
                    lease: lease.id,
                }));
            }
        }
        for key in lease
            .written
            .keys()
            .filter(|key| !wanted.contains_key(*key))
        {
            operations.push(Op::RequestDeleteRange(DeleteRangeRequest {
                key: self.store.whole_key(key),
                range_end: Vec::new(),
            }));
        }
        // etcd takes 128 in one transaction by default.
        for part in operations.chunks(100) {
            let part = part.iter().cloned();
            let request = TxnRequest {
                success: part.map(|op| RequestOp { request: Some(op) }).collect(),
                ..TxnRequest::default()
            };
            let mut client = KvClient::new(link.channel.clone());
            self.store.within(link, limit, client.txn(request)).await?;
        }
        lease.written = wanted;
        Ok(())
    }
}

/// For ever without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

fn client(channel: &Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel.clone())
}
