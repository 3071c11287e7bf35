// SPDX-License-Identifier: Apache-2.0
//! Starts the subsystems in order, connects them, and ends them in order.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use bgp_core::deliveries::{SELECTION_DEFERRAL, STALE_ROUTES};
use bgp_core::peer::StopReason;
use bgp_io::drain::Drain;
use bgp_io::{Recorder, Speaker};
use bpf_loader::Datapath;
use pods_io::{Manager, StateFolder};
use router_netlink::{Ownership, Protocol, TunnelKind};
use router_resources::settings::{Effective, Settings, TunnelProtocol};
use router_store::Store;
use router_types::TableId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::egress::EgressSource;
use crate::egress::recent::Recent;
use crate::intent::{self, Intent, State, Subsystems};
use crate::learned::{self, Delivered};
use crate::routes::{Listeners, Routes};
use crate::{bfd, grpc, handover, metrics, privileges, readiness, store};

/// Batches of best paths that may wait for the routes.
const ROUTE_EVENTS: usize = 16;

/// CNI calls that may wait for their pod to be decided about.
const WAITERS: usize = 256;

/// How long a predecessor that was told to end, or was killed, may take to be gone.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(5);

/// Everything that runs, for the API and the metrics.
#[derive(Clone)]
pub struct Parts {
    /// Settings with their origins.
    pub effective: Arc<Effective>,
    /// When the daemon started.
    pub started: Instant,
    /// Resources and what became of them.
    pub state: Arc<Mutex<State>>,
    /// BGP.
    pub speaker: Speaker,
    /// Whether the node is drained.
    pub drain: Arc<Drain>,
    /// BFD, which runs in a process of its own.
    pub bfd: bgp_bfdd::client::Client,
    /// Which neighbours have sent all their routes.
    pub delivered: Arc<Delivered>,
    /// RIB and kernel.
    pub routes: Routes,
    /// Pods; `None` where the data plane could not be loaded.
    pub pods: Option<Manager>,
    /// The data plane, or why there is none.
    pub datapath: Result<Arc<Mutex<Datapath>>, Arc<str>>,
    /// Egress gateways; `None` where egress is off on this node.
    pub egress: Option<Arc<dyn EgressSource>>,
    /// The etcd nodes agree by, where there is one.
    pub store: Option<Store>,
    /// What egress gateways refused of late.
    pub refused: Arc<Recent>,
    /// Asks for what is there now to be in force, and to be told then.
    pub settle: mpsc::Sender<intent::Waiter>,
}

/// Runs the daemon until it is told to end.
///
/// # Errors
/// What keeps it from starting.
pub fn run(
    config: Option<PathBuf>,
    flags: Vec<(String, String)>,
    record: Option<PathBuf>,
    take_over: bool,
    effective: Effective,
) -> anyhow::Result<()> {
    let recorder = match record {
        Some(path) => Recorder::to_file(&path)
            .with_context(|| format!("recording into {}", path.display()))?,
        None => Recorder::off(),
    };
    privileges::drop_unused()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(config, flags, recorder, take_over, effective))
}

async fn serve(
    config: Option<PathBuf>,
    flags: Vec<(String, String)>,
    recorder: Recorder,
    take_over: bool,
    effective: Effective,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let settings = Arc::new(effective.settings.clone());
    tracing::info!(node = %settings.node_name, version = env!("CARGO_PKG_VERSION"), "starting");

    let adopted = if take_over {
        handover::take_over(&settings.socket)?
    } else {
        Vec::new()
    };
    let folder = StateFolder::take(&settings.state_directory.join("pods"), PREDECESSOR_LIMIT)?;
    let datapath = open_datapath(&settings);
    let restarted = match &datapath {
        Ok(datapath) => intent::lock(datapath)
            .status()
            .is_ok_and(|status| status.adopted),
        Err(_) => false,
    };
    let (pods, _folder) = match &datapath {
        Ok(datapath) => {
            let pods = start_pods(&settings, folder, Arc::clone(datapath))?;
            (Some(pods), None)
        }
        // Still nobody else's: this daemon owns the node's routes.
        Err(_) => (None, Some(folder)),
    };

    let (events, route_events) = mpsc::channel(ROUTE_EVENTS);
    let bfd = bfd::start(&settings.socket);
    let (speaker, sessions) = Speaker::start(
        bgp_io::Options {
            restarted,
            hold_ends: restarted,
            adopted,
            recorder,
            bfd: Some(bfd.clone()),
        },
        events,
    )
    .context("starting the BGP speaker")?;

    let interfaces_changed = Arc::new(Notify::new());
    let (next_hops, mut next_hop_changes) = mpsc::unbounded_channel();
    let (links_down, mut links_that_went_down) = mpsc::unbounded_channel();
    let listeners = Listeners {
        next_hops: Box::new(move |changes| {
            // The daemon ends: nobody uses next hops any more.
            let _ = next_hops.send(changes);
        }),
        kernel_changed: {
            let datapath = datapath.as_ref().ok().cloned();
            Box::new(move || {
                if let Some(datapath) = &datapath
                    && let Err(error) = intent::lock(datapath).routes_changed()
                {
                    tracing::warn!(%error, "cached routing answers may be stale for 100 ms");
                }
            })
        },
        interfaces_changed: {
            let changed = Arc::clone(&interfaces_changed);
            Box::new(move || changed.notify_one())
        },
        link_down: Box::new(move |link, name| {
            // The daemon ends: so do its sessions.
            let _ = links_down.send((link, name.to_owned()));
        }),
    };
    let rib = router_rib::Config {
        metric: settings.kernel_metric,
        ..Default::default()
    };
    let ownership = Ownership {
        protocol: Protocol(settings.kernel_protocol),
        metric: settings.kernel_metric,
        tables: [TableId(settings.kernel_table)].into(),
    };
    let (routes, _routes_thread) =
        Routes::start(TableId(settings.kernel_table), rib, ownership, listeners)?;

    let to_speaker = speaker.clone();
    tokio::spawn(async move {
        while let Some((link, name)) = links_that_went_down.recv().await {
            to_speaker.link_down(link, name).await;
        }
    });
    let to_speaker = speaker.clone();
    tokio::spawn(async move {
        while let Some(changes) = next_hop_changes.recv().await {
            to_speaker
                .set_next_hops(learned::speaker_hops(changes))
                .await;
        }
    });
    let delivered = Arc::new(Delivered::default());
    let (release, released) = oneshot::channel();
    tokio::spawn(learned::carry(
        route_events,
        speaker.clone(),
        routes.clone(),
        Arc::clone(&delivered),
        released,
    ));

    let drain = {
        let changed = Arc::clone(&interfaces_changed);
        Arc::new(Drain::open(&settings.state_directory, changed))
    };
    let discovery = {
        let changed = Arc::clone(&interfaces_changed);
        bgp_io::RouterDiscovery::new(move || changed.notify_one())
    };
    let held_changed = Arc::new(Notify::new());
    let store = settings.store.as_ref().map(store::start);
    let egress = datapath.as_ref().ok().and_then(|datapath| {
        let (bfd, changed) = (bfd.clone(), Arc::clone(&held_changed));
        let store = store.clone();
        start_egress(&settings, Arc::clone(datapath), bfd, changed, store)
    });
    let (settle, waiters) = mpsc::channel(WAITERS);
    let subsystems = Subsystems {
        speaker: speaker.clone(),
        routes: routes.clone(),
        pods: pods.clone(),
        datapath: datapath.as_ref().ok().cloned(),
        egress: egress.clone(),
        discovery,
        drain: Arc::clone(&drain),
    };
    let mut intent = Intent::new(Arc::clone(&settings), subsystems)?;
    let parts = Parts {
        effective: Arc::new(effective),
        started,
        state: intent.state(),
        speaker: speaker.clone(),
        drain: Arc::clone(&drain),
        bfd: bfd.clone(),
        delivered: Arc::clone(&delivered),
        routes: routes.clone(),
        pods,
        datapath: datapath.clone(),
        egress: egress.map(|node| Arc::new(node) as Arc<dyn EgressSource>),
        store,
        refused: Arc::default(),
        settle,
    };
    let mut source = intent::source(&settings);
    intent.begin(&mut source).await;
    if let Ok(datapath) = &datapath {
        reap(datapath);
    }
    let api = grpc::serve(parts.clone()).await?;
    let metrics = metrics::serve(parts.clone()).await?;
    let files = intent::watch(source)?;
    tokio::spawn(intent.run(files, interfaces_changed, held_changed, waiters));
    tokio::spawn(drain.run(speaker.clone()));
    if let Some(egress) = &parts.egress {
        tokio::spawn(Arc::clone(&parts.refused).watch(Arc::clone(egress)));
    }

    let prune = {
        let (speaker, routes) = (speaker.clone(), routes.clone());
        async move {
            if restarted {
                delivered.all(&speaker, SELECTION_DEFERRAL).await;
            }
            let (passed, all_passed) = oneshot::channel();
            // Whoever carries the routes ends with the daemon.
            let _ = release.send(passed);
            let in_kernel = async {
                if all_passed.await.is_ok() {
                    routes.settled().await;
                }
            };
            if tokio::time::timeout(SELECTION_DEFERRAL, in_kernel)
                .await
                .is_err()
            {
                tracing::info!(
                    "neighbours are told the end of the routes before the kernel has them"
                );
            }
            speaker.send_ends().await;
            delivered.all(&speaker, STALE_ROUTES).await;
            routes.prune().await;
        }
    };
    tokio::spawn(prune);
    if let Some(every) = readiness::alive_interval() {
        tokio::spawn(watch_over(parts.clone(), every));
    }
    readiness::ready("serving");
    tracing::info!(took = ?started.elapsed(), "ready");

    let heir = handover::Heir::expect(&settings.socket)
        .inspect_err(|error| tracing::warn!(%error, "sessions cannot be handed over"))
        .ok();
    let asked = async {
        match &heir {
            Some(heir) => heir.asked().await,
            None => std::future::pending().await,
        }
    };
    let heir = tokio::select! {
        told = until_told_to_end(config, flags) => told.map(|()| None)?,
        heir = asked => Some(heir),
    };
    match heir.as_ref().map(handover::pid_of) {
        // The service goes on.
        Some(Some(pid)) => readiness::succeeded_by(pid),
        Some(None) => tracing::warn!("the service manager is not told of the successor"),
        None => readiness::stopping(),
    }
    tracing::info!("ending");
    // Sessions first: what they say to neighbours is still true then. Routes, pods and programs
    // stay for the next run.
    // BFD sessions go on, for the next run.
    bfd.detach();
    match heir {
        Some(heir) => handover::pass_on(heir, speaker.hand_over().await).await,
        None => speaker.stop(StopReason::PlannedRestart).await,
    }
    api.abort();
    metrics.abort();
    if sessions.join().is_err() {
        tracing::error!("the thread of the sessions had panicked");
    }
    Ok(())
}

/// Tells the service manager that the daemon is alive, as long as the threads that matter answer: a
/// daemon that hangs is to be restarted.
async fn watch_over(parts: Parts, every: Duration) {
    loop {
        let answers = async {
            parts.routes.ask(|_| ()).await;
            parts.speaker.sessions().await;
        };
        match tokio::time::timeout(every, answers).await {
            Ok(()) => readiness::alive(),
            Err(_) => tracing::error!("routes or sessions do not answer"),
        }
        tokio::time::sleep(every / 2).await;
    }
}

fn open_datapath(settings: &Settings) -> Result<Arc<Mutex<Datapath>>, Arc<str>> {
    let config = bpf_loader::Config {
        pin_root: settings.pin_root.clone(),
        ..Default::default()
    };
    match Datapath::open(config) {
        Ok(datapath) => Ok(Arc::new(Mutex::new(datapath))),
        Err(error) => {
            // BGP still has its worth on a node without pods of ours: go on, and say so.
            tracing::error!("no data plane, so no pods: {error}");
            Err(error.to_string().into())
        }
    }
}

fn start_pods(
    settings: &Settings,
    folder: StateFolder,
    datapath: Arc<Mutex<Datapath>>,
) -> anyhow::Result<Manager> {
    let config = pods_io::Config {
        pod_cidrs: settings.pod_cidrs.clone(),
        ..pods_io::Config::new().context("reading the boot id")?
    };
    let (manager, report) =
        Manager::start(config, folder, datapath).context("starting the pods")?;
    tracing::info!(?report, "pods adopted");
    Ok(manager)
}

fn start_egress(
    settings: &Settings,
    datapath: Arc<Mutex<Datapath>>,
    bfd: bgp_bfdd::client::Client,
    held_changed: Arc<Notify>,
    store: Option<Store>,
) -> Option<egress_io::node::Node> {
    let lease = settings.store.as_ref().map(|store| store.lease);
    let store = store.zip(lease);
    let store = store.map(|(store, lease)| egress_io::node::StoreConfig { store, lease });
    let config = egress_io::node::Config {
        pin_root: settings.pin_root.clone(),
        tunnel_kind: match settings.egress.tunnel_protocol {
            TunnelProtocol::Vxlan => TunnelKind::Vxlan,
            TunnelProtocol::Geneve => TunnelKind::Geneve,
        },
        tunnel_port: settings.egress.tunnel_port,
        tunnel_mtu: settings.egress.pod_tunnel_mtu,
        max_mappings: settings.egress.max_mappings,
        state_directory: settings.state_directory.clone(),
        name: settings.node_name.clone(),
        peers: egress_io::node::PeersConfig {
            port: settings.egress.peer_port,
            secret_file: settings.egress.secret_file.clone(),
            bfd: Some(bfd),
            store,
        },
        held_changed,
    };
    egress_io::node::Node::start(config, datapath)
        .inspect_err(|error| tracing::error!(%error, "no egress policies"))
        .ok()
}

fn reap(datapath: &Mutex<Datapath>) {
    match intent::lock(datapath).reap() {
        Ok(report) => tracing::debug!(?report, "old pins removed"),
        Err(error) => tracing::warn!(%error, "old pins cannot be removed"),
    }
}

/// Waits for SIGTERM or SIGINT. SIGHUP checks the settings and says which need a restart; SIGUSR2
/// starts a successor that takes the sessions over.
async fn until_told_to_end(
    config: Option<PathBuf>,
    flags: Vec<(String, String)>,
) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = upgrade.recv() => handover::start_successor(),
            _ = hangup.recv() => match Settings::load(config.as_deref(), flags.clone()) {
                Ok(_) => tracing::info!(
                    "settings are read at the start only: restart the daemon to use changed ones \
                     (resources are watched)"
                ),
                Err(findings) => {
                    for finding in findings {
                        tracing::error!("{finding}");
                    }
                }
            },
        }
    }
}
