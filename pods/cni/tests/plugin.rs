// SPDX-License-Identifier: Apache-2.0
//! The plugin as a runtime executes it: environment, standard input and output, exit code. At the
//! other end of the socket is a service that notes what it is asked and answers as it is told;
//! what the real daemon answers is tested with the daemon.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use router_api::v1alpha1::cni_server::{Cni, CniServer};
use router_api::v1alpha1::{
    CniAddRequest, CniAddResponse, CniAttachment, CniCheckRequest, CniCheckResponse, CniDelRequest,
    CniDelResponse, CniFailure, CniGcRequest, CniGcResponse, CniInterface, CniIp, CniRoute,
    CniStatusRequest, CniStatusResponse,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

/// What a daemon was asked, in its own words.
#[derive(Clone, Debug, PartialEq)]
enum Asked {
    Add(CniAddRequest),
    Del(CniDelRequest),
    Check(CniCheckRequest),
    Gc(CniGcRequest),
    Status(CniStatusRequest),
}

#[derive(Clone, Default)]
struct Service {
    asked: Arc<Mutex<Vec<Asked>>>,
    failure: Option<CniFailure>,
    never_answers: bool,
}

impl Service {
    async fn answer<T>(&self, asked: Asked, answer: T) -> Result<Response<T>, Status> {
        self.asked.lock().unwrap().push(asked);
        if self.never_answers {
            std::future::pending::<()>().await;
        }
        match &self.failure {
            Some(failure) => Err(failure.clone().into_status()),
            None => Ok(Response::new(answer)),
        }
    }
}

#[tonic::async_trait]
impl Cni for Service {
    async fn add(&self, r: Request<CniAddRequest>) -> Result<Response<CniAddResponse>, Status> {
        let request = r.into_inner();
        let pod = CniInterface {
            name: "eth0".into(),
            mac: "0a:00:00:00:00:01".into(),
            mtu: 1450,
            sandbox: request.netns.clone(),
        };
        let response = CniAddResponse {
            interfaces: vec![pod],
            ips: vec![CniIp {
                address: "fd00::2/128".into(),
                gateway: "fe80::1".into(),
                interface: 0,
            }],
            routes: vec![CniRoute {
                dst: "::/0".into(),
                gw: "fe80::1".into(),
            }],
        };
        self.answer(Asked::Add(request), response).await
    }

    async fn del(&self, r: Request<CniDelRequest>) -> Result<Response<CniDelResponse>, Status> {
        self.answer(Asked::Del(r.into_inner()), CniDelResponse {})
            .await
    }

    async fn check(
        &self,
        r: Request<CniCheckRequest>,
    ) -> Result<Response<CniCheckResponse>, Status> {
        self.answer(Asked::Check(r.into_inner()), CniCheckResponse {})
            .await
    }

    async fn gc(&self, r: Request<CniGcRequest>) -> Result<Response<CniGcResponse>, Status> {
        self.answer(
            Asked::Gc(r.into_inner()),
            CniGcResponse {
                removed: Vec::new(),
            },
        )
        .await
    }

    async fn status(
        &self,
        r: Request<CniStatusRequest>,
    ) -> Result<Response<CniStatusResponse>, Status> {
        self.answer(Asked::Status(r.into_inner()), CniStatusResponse {})
            .await
    }
}

/// The service on a socket, until dropped.
struct Daemon {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Daemon {
    fn start(socket: &Path, service: Service) -> Daemon {
        let (stop, stopped) = oneshot::channel();
        let path = socket.to_owned();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let router = tonic::transport::Server::builder().add_service(CniServer::new(service));
            let shutdown = async {
                let _: Result<(), _> = stopped.await;
            };
            let access = router_api::Access::default();
            runtime.block_on(async {
                tokio::select! {
                    served = router_api::serve_unix(router, &path, access, std::future::pending()) => served.unwrap(),
                    () = shutdown => {}
                }
            });
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < deadline, "the service does not listen");
            thread::yield_now();
        }
        Daemon {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

struct Finished {
    success: bool,
    stdout: String,
}

impl Finished {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {:?}", self.stdout))
    }
}

struct Setup {
    _folder: TempDir,
    socket: PathBuf,
    config: Value,
}

fn setup() -> Setup {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("socket");
    let config = json!({
        "cniVersion": "1.1.0",
        "name": "pods",
        "type": "causeway-cni",
        "socket": socket,
        "timeoutSeconds": 30,
    });
    Setup {
        _folder: folder,
        socket,
        config,
    }
}

fn execute(command: &str, config: &str) -> Finished {
    let mut child = Command::new(env!("CARGO_BIN_EXE_causeway-cni"))
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c0ffee")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", "/run/netns/c0ffee")
        .env("CNI_PATH", "/opt/cni/bin")
        .env(
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(config.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    Finished {
        success: output.status.success(),
        stdout: String::from_utf8(output.stdout).unwrap(),
    }
}

fn attachment() -> Option<CniAttachment> {
    Some(CniAttachment {
        container_id: "c0ffee".into(),
        ifname: "eth0".into(),
    })
}

#[test]
fn version_needs_no_daemon() {
    let finished = execute("VERSION", r#"{"cniVersion":"1.0.0"}"#);
    assert!(finished.success);
    let expected = json!({
        "cniVersion": "1.0.0",
        "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    });
    assert_eq!(finished.json(), expected);
    assert_eq!(execute("VERSION", "").json()["cniVersion"], "1.1.0");
}

#[test]
fn each_verb_reaches_the_daemon_with_what_the_runtime_said() {
    let setup = setup();
    let service = Service::default();
    let _daemon = Daemon::start(&setup.socket, service.clone());
    let mut config = setup.config;
    config["prevResult"] = json!({ "cniVersion": "1.1.0", "ips": [{ "address": "192.0.2.7/24" }] });
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "c0ffee", "ifname": "eth0" }]);
    config["args"] = json!({ "cni": { "labels": [{ "key": "app", "value": "web" }] } });
    let text = config.to_string();

    let added = execute("ADD", &text);
    assert!(added.success);
    let expected = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{
            "name": "eth0", "mac": "0a:00:00:00:00:01", "mtu": 1450,
            "sandbox": "/run/netns/c0ffee",
        }],
        "ips": [
            { "address": "192.0.2.7/24" },
            { "address": "fd00::2/128", "gateway": "fe80::1", "interface": 0 },
        ],
        "routes": [{ "dst": "::/0", "gw": "fe80::1" }],
        "dns": {},
    });
    assert_eq!(added.json(), expected);
    for verb in ["CHECK", "DEL", "GC", "STATUS"] {
        let finished = execute(verb, &text);
        assert_eq!(
            (finished.success, finished.stdout.as_str()),
            (true, ""),
            "{verb}"
        );
    }

    let asked = service.asked.lock().unwrap();
    let Asked::Add(add) = &asked[0] else {
        panic!("{asked:?}")
    };
    assert_eq!(add.attachment, attachment());
    assert_eq!(
        (add.netns.as_str(), add.network.as_str()),
        ("/run/netns/c0ffee", "pods")
    );
    assert_eq!(add.args["K8S_POD_NAME"], "web-0");
    assert_eq!(add.config, text.as_bytes());
    let netns = "/run/netns/c0ffee".to_owned();
    let network = "pods".to_owned();
    let rest = [
        Asked::Check(CniCheckRequest {
            attachment: attachment(),
            netns: netns.clone(),
            network: network.clone(),
            previous_result: config["prevResult"].to_string().into_bytes(),
        }),
        Asked::Del(CniDelRequest {
            attachment: attachment(),
            netns,
            network: network.clone(),
        }),
        Asked::Gc(CniGcRequest {
            network: network.clone(),
            valid_attachments: attachment().into_iter().collect(),
        }),
        Asked::Status(CniStatusRequest { network }),
    ];
    assert_eq!(asked[1..], rest);
}

#[test]
fn a_refusal_is_passed_on_in_the_version_asked_for() {
    let setup = setup();
    let failure = CniFailure {
        code: 100,
        message: "no IPv4 address is left".into(),
        details: "give the node a further pod CIDR".into(),
    };
    let service = Service {
        failure: Some(failure),
        ..Service::default()
    };
    let _daemon = Daemon::start(&setup.socket, service);
    let mut config = setup.config;
    config["cniVersion"] = json!("0.4.0");
    let finished = execute("ADD", &config.to_string());
    assert!(!finished.success);
    let expected = json!({
        "cniVersion": "0.4.0",
        "code": 100,
        "msg": "no IPv4 address is left",
        "details": "give the node a further pod CIDR",
    });
    assert_eq!(finished.json(), expected);
}

#[test]
fn without_a_daemon_it_fails_closed() {
    let setup = setup();
    let mut config = setup.config;
    config["timeoutSeconds"] = json!(1);
    let text = config.to_string();
    for verb in ["ADD", "DEL", "CHECK"] {
        let finished = execute(verb, &text);
        assert!(!finished.success);
        assert_eq!(finished.json()["code"], 11, "{verb}");
    }
    let finished = execute("STATUS", &text);
    assert_eq!(
        (finished.success, &finished.json()["code"]),
        (false, &json!(50))
    );
}

#[test]
fn a_daemon_that_is_being_restarted_is_waited_for() {
    let setup = setup();
    let text = setup.config.to_string();
    let plugin = thread::spawn(move || execute("DEL", &text));
    let service = Service::default();
    let _daemon = Daemon::start(&setup.socket, service.clone());
    let finished = plugin.join().unwrap();
    assert_eq!((finished.success, finished.stdout.as_str()), (true, ""));
    assert_eq!(service.asked.lock().unwrap().len(), 1);
}

#[test]
fn a_daemon_that_never_answers_is_not_waited_for_longer_than_allowed() {
    let setup = setup();
    let service = Service {
        never_answers: true,
        ..Service::default()
    };
    let _daemon = Daemon::start(&setup.socket, service);
    let mut config = setup.config;
    config["timeoutSeconds"] = json!(1);
    let finished = execute("ADD", &config.to_string());
    assert!(!finished.success);
    assert_eq!(finished.json()["code"], 11);
    assert_eq!(
        finished.json()["msg"],
        "causewayd did not answer within 1 s"
    );
}

#[test]
fn gc_without_its_list_removes_nothing() {
    let setup = setup();
    let service = Service::default();
    let _daemon = Daemon::start(&setup.socket, service.clone());
    let finished = execute("GC", &setup.config.to_string());
    assert_eq!(
        (finished.success, &finished.json()["code"]),
        (false, &json!(7))
    );
    assert!(service.asked.lock().unwrap().is_empty());
}

#[test]
fn nonsense_is_answered_with_json_all_the_same() {
    assert_eq!(execute("ADD", "{").json()["code"], 6);
    assert_eq!(
        execute("ADD", r#"{"cniVersion":"9.9.9","name":"n"}"#).json()["cniVersion"],
        "1.1.0"
    );
    assert_eq!(execute("DANCE", "{}").json()["code"], 4);
}
