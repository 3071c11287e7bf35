// SPDX-License-Identifier: Apache-2.0
//! The connection: which endpoint is spoken to, and whether it answers.

use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::error::{Error, words};
use crate::request;

/// How long one endpoint has for the connection, and to answer the first question.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// How often an endpoint is asked whether it still has a majority behind it, when nothing makes it
/// suspect.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// The pause after all endpoints have failed; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest pause. Shorter than half of the shortest lease, so that who comes back with etcd is
/// there before its lease is over.
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// How often the other end of a silent connection must show that it lives, and how long it has.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Most keys read at once; more are read in pages.
pub(crate) const PAGE: i64 = 1000;

/// Largest answer taken, in octets: a page of keys with what we write, many times over.
pub(crate) const MAX_ANSWER: usize = 16 << 20;

/// How to reach etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// URLs with `http://` or `https://`, tried in this order.
    pub endpoints: Vec<String>,
    /// The files of TLS. Taken for `https://` alone, which is not spoken without them.
    pub tls: Option<TlsFiles>,
    /// What every key begins with, without a `/` at the end.
    pub prefix: String,
}

/// The files of TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who may vouch for the servers.
    pub ca: PathBuf,
    /// The certificate this node shows and its key, where the servers want one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Whether etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The endpoint that answers.
    pub endpoint: Option<String>,
    /// Why none does; or the last time, while nothing is known yet.
    pub problem: Option<String>,
    /// Since when that is so.
    pub since: Instant,
}

/// A connection that answered.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) channel: Channel,
    pub(crate) endpoint: Arc<str>,
    /// Counts connections.
    pub(crate) number: u64,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    link: watch::Sender<Option<Link>>,
    status: watch::Sender<Status>,
    suspect: Notify,
}

/// The connection. Cheap to clone; it ends with the last clone and what was made from it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    _task: Arc<AbortOnDrop>,
}

#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Store {
    /// Begins to connect, as a task of the calling runtime, and goes on for ever.
    pub fn start(config: Config) -> Store {
        let status = Status {
            endpoint: None,
            problem: None,
            since: Instant::now(),
        };
        let shared = Arc::new(Shared {
            config,
            link: watch::Sender::new(None),
            status: watch::Sender::new(status),
            suspect: Notify::new(),
        });
        let task = tokio::spawn(keep_connected(Arc::clone(&shared))).abort_handle();
        Store {
            shared,
            _task: Arc::new(AbortOnDrop(task)),
        }
    }

    /// Whether etcd is reached, and from when on it was so.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Told when [`Store::status`] is another.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Whether there is a connection, as far as is known.
    pub fn is_connected(&self) -> bool {
        // What is said last when it comes, so that the rest is there as well.
        self.shared.status.borrow().endpoint.is_some()
    }

    /// The whole key of one below the prefix.
    pub(crate) fn whole_key(&self, key: &str) -> Vec<u8> {
        format!("{}/{key}", self.shared.config.prefix).into_bytes()
    }

    /// The key below the prefix of a whole one; nothing of one that is elsewhere or no text.
    pub(crate) fn own_key(&self, key: &[u8]) -> Option<String> {
        let key = str::from_utf8(key).ok()?;
        let below = key.strip_prefix(self.shared.config.prefix.as_str())?;
        Some(below.strip_prefix('/')?.to_owned())
    }

    pub(crate) fn link(&self) -> Result<Link, Error> {
        self.shared.link.borrow().clone().ok_or(Error::NotConnected)
    }

    pub(crate) fn links(&self) -> watch::Receiver<Option<Link>> {
        self.shared.link.subscribe()
    }

    /// The connection failed somebody: it is looked at now, not at the next turn.
    pub(crate) fn suspect(&self) {
        self.shared.suspect.notify_one();
    }
}

/// Waits for a connection that is not the one of this number.
pub(crate) async fn next_link(
    links: &mut watch::Receiver<Option<Link>>,
    last: Option<u64>,
) -> Option<Link> {
    let is_new = |link: &Option<Link>| link.as_ref().is_some_and(|l| Some(l.number) != last);
    let link = links.wait_for(is_new).await.ok()?;
    link.clone()
}

async fn keep_connected(shared: Arc<Shared>) {
    let mut pause = PAUSE_FIRST;
    let mut cluster = None;
    let mut number = 0;
    loop {
        for endpoint in &shared.config.endpoints {
            match connect(&shared, endpoint, &mut cluster).await {
                Ok(channel) => {
                    tracing::info!(%endpoint, "etcd is reached");
                    pause = PAUSE_FIRST;
                    number += 1;
                    let link = Link {
                        channel,
                        endpoint: endpoint.as_str().into(),
                        number,
                    };
                    shared.link.send_replace(Some(link.clone()));
                    shared.note(Some(endpoint), None);
                    let error = watch_over(&shared, &link, &mut cluster).await;
                    tracing::warn!(%endpoint, %error, "etcd is not reached any more");
                    shared.link.send_replace(None);
                    shared.note(None, Some(error.to_string()));
                }
                Err(error) => {
                    let text = error.to_string();
                    if shared.status.borrow().problem.as_ref() != Some(&text) {
                        tracing::warn!(%error, "etcd is not reached");
                    }
                    shared.note(None, Some(text));
                }
            }
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

impl Shared {
    fn note(&self, endpoint: Option<&String>, problem: Option<String>) {
        self.status.send_if_modified(|status| {
            let is_change = status.endpoint.as_ref() != endpoint || status.problem != problem;
            let was_reached = status.endpoint.is_some();
            if was_reached != endpoint.is_some() {
                status.since = Instant::now();
            }
            status.endpoint = endpoint.cloned();
            status.problem = problem;
            is_change
        });
    }
}

/// Nodes that lost one server together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let share = RandomState::new().hash_one(0) % 50;
    pause.mul_f64(1.0 - share as f64 / 100.0)
}

async fn connect(
    shared: &Shared,
    endpoint: &str,
    cluster: &mut Option<u64>,
) -> Result<Channel, Error> {
    let failed = |error: tonic::transport::Error| Error::Connect {
        endpoint: endpoint.to_owned(),
        reason: words(&error),
    };
    let mut to = Endpoint::from_shared(endpoint.to_owned())
        .map_err(failed)?
        .connect_timeout(CONNECT_LIMIT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(HEARTBEAT)
        .keep_alive_timeout(HEARTBEAT)
        .keep_alive_while_idle(true);
    if endpoint.starts_with("https://") {
        to = to.tls_config(tls(shared, endpoint)?).map_err(failed)?;
    }
    let limit = CONNECT_LIMIT * 2;
    let channel = match tokio::time::timeout(limit, to.connect()).await {
        Ok(connected) => connected.map_err(failed)?,
        Err(_) => {
            let endpoint = endpoint.to_owned();
            return Err(Error::TimedOut { endpoint, limit });
        }
    };
    probe(shared, &channel, endpoint, cluster).await?;
    Ok(channel)
}

fn tls(shared: &Shared, endpoint: &str) -> Result<ClientTlsConfig, Error> {
    let files = shared.config.tls.as_ref().ok_or_else(|| Error::Connect {
        endpoint: endpoint.to_owned(),
        reason: "https:// takes store.caFile".to_owned(),
    })?;
    let ca = Certificate::from_pem(read("store.caFile", &files.ca)?);
    let tls = ClientTlsConfig::new()
        .ca_certificate(ca)
        .timeout(CONNECT_LIMIT);
    Ok(match &files.identity {
        Some((certificate, key)) => tls.identity(Identity::from_pem(
            read("store.certFile", certificate)?,
            read("store.keyFile", key)?,
        )),
        None => tls,
    })
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|error| Error::File {
        setting,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// Asks something only a majority can answer, and of which cluster it is.
async fn probe(
    shared: &Shared,
    channel: &Channel,
    endpoint: &str,
    cluster: &mut Option<u64>,
) -> Result<(), Error> {
    let key = format!("{}/", shared.config.prefix).into_bytes();
    let found = request::cluster_of(channel, endpoint, key, CONNECT_LIMIT).await?;
    match *cluster {
        Some(known) if known != found => Err(Error::OtherCluster {
            endpoint: endpoint.to_owned(),
            found,
            known,
        }),
        Some(_) => Ok(()),
        None => {
            *cluster = Some(found);
            Ok(())
        }
    }
}

/// Returns when the connection is of no use any more.
async fn watch_over(shared: &Shared, link: &Link, cluster: &mut Option<u64>) -> Error {
    loop {
        // Who is told to hurry asks at once, but not without end.
        let _ = tokio::time::timeout(PROBE_INTERVAL, shared.suspect.notified()).await;
        if let Err(error) = probe(shared, &link.channel, &link.endpoint, cluster).await {
            return error;
        }
    }
}
