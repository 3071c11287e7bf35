// SPDX-License-Identifier: Apache-2.0
//! The connection against a real etcd that hangs, dies, forgets and is somebody else.

mod server;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use router_store::{Config, Entry, Error, Put, Store, TlsFiles, Watch, WatchEvent};

use server::{Server, connected, free_port, wait_until};

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Keys and values as a watch tells them.
async fn next(watch: &mut Watch) -> Result<Vec<(String, String)>> {
    let event = tokio::time::timeout(Duration::from_secs(60), watch.next()).await?;
    let pair = |entry: Entry| {
        (
            entry.key,
            String::from_utf8_lossy(&entry.value).into_owned(),
        )
    };
    Ok(match event {
        WatchEvent::Snapshot(entries) => {
            let mut pairs: Vec<_> = entries.into_iter().map(pair).collect();
            pairs.push(("end".to_owned(), String::new()));
            pairs
        }
        WatchEvent::Put(entry) => vec![pair(entry)],
        WatchEvent::Deleted { key } => vec![(key, "deleted".to_owned())],
    })
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

/// Writes, over whatever is there.
async fn put(store: &Store, key: &str, value: &str) -> Result<()> {
    let before = store.get(key, LIMIT).await?;
    let revision = before.map_or(0, |entry| entry.revision);
    let put = store.put_if(key, value.as_bytes(), revision, LIMIT).await?;
    ensure!(matches!(put, Put::Done { .. }), "{put:?}");
    Ok(())
}

#[tokio::test]
async fn of_two_who_write_one_is_told_what_the_other_wrote() -> Result<()> {
    let server = Server::start()?;
    let (one, two) = (server.store(), server.store());
    connected(&one).await?;
    connected(&two).await?;
    assert_eq!(one.get("a", LIMIT).await?, None);
    let Put::Done { revision } = one.put_if("a", b"1", 0, LIMIT).await? else {
        bail!("the first is refused");
    };
    let found = Entry {
        key: "a".to_owned(),
        value: b"1".to_vec(),
        revision,
    };
    let second = two.put_if("a", b"2", 0, LIMIT).await?;
    assert_eq!(second, Put::Conflict(Some(found.clone())));
    assert_eq!(two.get("a", LIMIT).await?, Some(found));
    let third = two.put_if("a", b"2", revision, LIMIT).await?;
    assert!(matches!(third, Put::Done { revision: next } if next > revision));
    let seen = server.etcdctl(server.port, &["get", "--prefix", "/causeway/"])?;
    assert_eq!(seen, "/causeway/a\n2\n");
    Ok(())
}

#[tokio::test]
async fn keys_last_as_long_as_their_session() -> Result<()> {
    let server = Server::start()?;
    let (own, other) = (server.store(), server.store());
    connected(&other).await?;
    let mut watch = other.watch("gateways/");
    assert_eq!(next(&mut watch).await?, pairs(&[("end", "")]));
    let life = Duration::from_secs(3);
    let session = own.session(life);
    session.keep("gateways/a", b"here");
    assert_eq!(next(&mut watch).await?, pairs(&[("gateways/a", "here")]));
    session.keep("gateways/b", b"too");
    assert_eq!(next(&mut watch).await?, pairs(&[("gateways/b", "too")]));
    session.drop_key("gateways/b");
    let gone = pairs(&[("gateways/b", "deleted")]);
    assert_eq!(next(&mut watch).await?, gone);
    // It outlives its first lease by far.
    let quiet = tokio::time::timeout(life * 2, watch.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let began = Instant::now();
    drop(session);
    let gone = pairs(&[("gateways/a", "deleted")]);
    assert_eq!(next(&mut watch).await?, gone);
    // Given back it would be gone at once.
    let lasted = began.elapsed();
    assert!(lasted > life / 10, "{lasted:?}");
    Ok(())
}

#[tokio::test]
async fn what_happens_while_etcd_is_down_for_us_is_not_missed() -> Result<()> {
    let mut server = Server::start()?;
    let store = server.store();
    connected(&store).await?;
    put(&store, "a", "1").await?;
    let mut watch = store.watch("");
    assert_eq!(next(&mut watch).await?, pairs(&[("a", "1"), ("end", "")]));
    let session = store.session(Duration::from_secs(60));
    session.keep("here", b"");
    assert_eq!(next(&mut watch).await?, pairs(&[("here", "")]));

    // Killed and started again with its data: the watch goes on where it was, by events alone.
    server.kill()?;
    wait_until("the loss to be seen", async || !store.is_connected()).await?;
    let problem = store.status().problem.context("a problem")?;
    assert!(problem.contains(&server.url()), "{problem}");
    let refused = store.get("a", LIMIT).await;
    assert!(matches!(refused, Err(Error::NotConnected)), "{refused:?}");
    server.run(server.port)?;
    connected(&store).await?;
    assert_eq!(store.status().problem, None);
    put(&store, "a", "2").await?;
    assert_eq!(next(&mut watch).await?, pairs(&[("a", "2")]));

    // Changed where we do not see it, by others.
    let elsewhere = server.port;
    let away = free_port()?;
    let reach = |server: &Server| server.etcdctl(away, &["get", "/causeway/a"]).is_ok();
    server.kill()?;
    server.run(away)?;
    wait_until("etcd elsewhere", async || reach(&server)).await?;
    server.etcdctl(away, &["put", "/causeway/a", "3"])?;
    server.etcdctl(away, &["put", "/causeway/b", "1"])?;
    server.etcdctl(away, &["del", "/causeway/b"])?;
    server.kill()?;
    server.run(elsewhere)?;
    assert_eq!(next(&mut watch).await?, pairs(&[("a", "3")]));
    assert_eq!(next(&mut watch).await?, pairs(&[("b", "1")]));
    assert_eq!(next(&mut watch).await?, pairs(&[("b", "deleted")]));

    // The same, and what happened is not known any more: all there is, at once.
    server.kill()?;
    server.run(away)?;
    wait_until("etcd elsewhere", async || reach(&server)).await?;
    server.etcdctl(away, &["put", "/causeway/a", "4"])?;
    server.etcdctl(away, &["put", "/causeway/c", "1"])?;
    let status = server.etcdctl(away, &["put", "/causeway/c", "2", "-w", "fields"])?;
    let revision = status
        .lines()
        .find_map(|l| l.strip_prefix("\"Revision\" : "));
    server.etcdctl(away, &["compact", revision.context("a revision")?])?;
    server.kill()?;
    server.run(elsewhere)?;
    let all = pairs(&[("a", "4"), ("c", "2"), ("here", ""), ("end", "")]);
    assert_eq!(next(&mut watch).await?, all);
    Ok(())
}

#[tokio::test]
async fn an_etcd_that_hangs_delays_nobody_longer_than_asked() -> Result<()> {
    let server = Server::start()?;
    let store = server.store();
    connected(&store).await?;
    let session = store.session(Duration::from_secs(2));
    session.keep("here", b"");
    let mut lease = session.lease();
    let first = *lease.wait_for(Option::is_some).await?;
    server.pause().await?;
    let began = Instant::now();
    let limit = Duration::from_millis(100);
    let asked = store.get("here", limit).await;
    let taken = began.elapsed();
    assert!(matches!(asked, Err(Error::TimedOut { .. })), "{asked:?}");
    assert!(taken >= limit && taken < LIMIT, "{taken:?}");
    wait_until("the loss to be seen", async || !store.is_connected()).await?;
    lease.wait_for(Option::is_none).await?;
    server.go_on()?;
    connected(&store).await?;
    let second = *lease.wait_for(Option::is_some).await?;
    assert_ne!(first, second);
    assert!(store.get("here", LIMIT).await?.is_some());
    Ok(())
}

/// A CA in `folder`, its issuer, and a certificate of it.
fn authority(folder: &Path, name: &str) -> Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    fs::write(folder.join(name), params.self_signed(&key)?.pem())?;
    Ok(Issuer::new(params, key))
}

fn certificate(folder: &Path, name: &str, issuer: &Issuer<'static, KeyPair>) -> Result<()> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    let certificate = params.signed_by(&key, issuer)?;
    fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    Ok(())
}

#[tokio::test]
async fn tls_shows_both_ends_and_a_missing_file_is_no_way_around_it() -> Result<()> {
    let server = Server::start_with(|folder| {
        let issuer = authority(folder, "ca.pem")?;
        certificate(folder, "server", &issuer)?;
        certificate(folder, "client", &issuer)?;
        let identity = (folder.join("client.pem"), folder.join("client.key"));
        Ok(Some(TlsFiles {
            ca: folder.join("ca.pem"),
            identity: Some(identity),
        }))
    })?;
    let folder = server.folder();
    let store = server.store();
    connected(&store).await.with_context(|| server.log())?;
    put(&store, "a", "1").await?;

    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut config = server.config();
        if let Some(files) = &mut config.tls {
            change(files);
        }
        Store::start(config)
    };
    let says = async |store: &Store, what: &str| {
        wait_until(what, async || {
            assert!(!store.is_connected(), "connected without {what}");
            let problem = store.status().problem;
            problem.is_some_and(|problem| problem.contains(what))
        })
        .await
        .with_context(|| format!("{:?}", store.status()))
    };
    authority(folder, "other.pem")?;
    let stranger = with(&|files| files.ca = folder.join("other.pem"));
    says(&stranger, "UnknownIssuer").await?;
    let nobody = with(&|files| files.identity = None);
    says(&nobody, "ertificate").await?;

    // The file comes later: no restart.
    let late = with(&|files| {
        let late = files.identity.as_mut().map(|(certificate, _)| certificate);
        late.into_iter()
            .for_each(|path| *path = folder.join("late.pem"));
    });
    says(&late, "store.certFile: cannot read").await?;
    says(&late, "late.pem").await?;
    fs::copy(folder.join("client.pem"), folder.join("late.pem"))?;
    connected(&late).await?;
    assert!(late.get("a", LIMIT).await?.is_some());
    Ok(())
}

#[tokio::test]
async fn one_of_three_members_may_die_and_without_two_nothing_is_said() -> Result<()> {
    let mut members = Server::start_three()?;
    let store = Store::start(Config {
        endpoints: members.iter().map(Server::url).collect(),
        ..members[0].config()
    });
    connected(&store).await?;
    put(&store, "a", "1").await?;
    let mut watch = store.watch("");
    assert_eq!(next(&mut watch).await?, pairs(&[("a", "1"), ("end", "")]));
    let session = store.session(Duration::from_secs(60));
    session.keep("here", b"");
    assert_eq!(next(&mut watch).await?, pairs(&[("here", "")]));
    let lease = *session.lease().wait_for(Option::is_some).await?;

    // The one that is spoken to: another takes its place, with the lease and the watch.
    let endpoint = store.status().endpoint.context("an endpoint")?;
    let spoken_to = members.iter().position(|member| member.url() == endpoint);
    let mut dead = members.remove(spoken_to.context("one of them")?);
    dead.kill()?;
    wait_until("another member", async || {
        let now = store.status().endpoint;
        now.is_some_and(|now| now != endpoint)
    })
    .await?;
    // A member that has lost its leader refuses a moment what the next one takes.
    wait_until("a write", async || put(&store, "a", "2").await.is_ok()).await?;
    assert_eq!(next(&mut watch).await?, pairs(&[("a", "2")]));
    assert_eq!(*session.lease().borrow(), lease);

    // Another one: there is no majority, and a lonely member is not asked for what it remembers.
    let mut second = members.remove(0);
    second.kill()?;
    wait_until("the loss to be seen", async || !store.is_connected()).await?;
    let problem = store.status().problem;
    ensure!(problem.is_some(), "{:?}", store.status());
    let asked = store.get("a", LIMIT).await;
    assert!(asked.is_err(), "{asked:?}");
    let written = store.put_if("b", b"1", 0, LIMIT).await;
    assert!(written.is_err(), "{written:?}");

    // Either is back: everything goes on, and nothing was written meanwhile.
    dead.run(dead.port)?;
    connected(&store).await?;
    let seen = store.get("b", LIMIT).await?;
    assert_eq!(seen, None);
    wait_until("a write", async || put(&store, "a", "3").await.is_ok()).await?;
    assert_eq!(next(&mut watch).await?, pairs(&[("a", "3")]));
    assert_eq!(*session.lease().borrow(), lease);
    Ok(())
}

#[tokio::test]
async fn another_cluster_is_not_taken_for_the_one_of_before() -> Result<()> {
    let mut first = Server::start()?;
    let second = Server::start()?;
    let mut config = first.config();
    config.endpoints.push(second.url());
    let store = Store::start(config);
    wait_until("the first", async || {
        store.status().endpoint == Some(first.url())
    })
    .await?;
    put(&store, "a", "1").await?;
    first.kill()?;
    wait_until("the second to be refused", async || {
        assert_ne!(store.status().endpoint, Some(second.url()));
        let problem = store.status().problem;
        problem.is_some_and(|problem| problem.contains("is of another etcd cluster"))
    })
    .await?;
    first.run(first.port)?;
    connected(&store).await?;
    assert!(store.get("a", LIMIT).await?.is_some());
    Ok(())
}
