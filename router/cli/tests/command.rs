// SPDX-License-Identifier: Apache-2.0
//! The program itself against a gRPC server with fixed answers: what goes where, and how it ends.

mod fixtures;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use router_api::v1alpha1::*;
use router_api::{Access, serve_unix};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status as RpcStatus};

/// A daemon that always answers the same.
struct Fixed {
    status: GetStatusResponse,
}

#[tonic::async_trait]
impl status_server::Status for Fixed {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, RpcStatus> {
        Ok(Response::new(self.status.clone()))
    }
}

type RouteStream = tokio_stream::Iter<std::vec::IntoIter<Result<RouteBatch, RpcStatus>>>;

#[tonic::async_trait]
impl bgp_server::Bgp for Fixed {
    async fn list_peers(
        &self,
        _: Request<ListPeersRequest>,
    ) -> Result<Response<ListPeersResponse>, RpcStatus> {
        Ok(Response::new(fixtures::peers()))
    }

    type ListRoutesStream = RouteStream;

    async fn list_routes(
        &self,
        request: Request<ListRoutesRequest>,
    ) -> Result<Response<RouteStream>, RpcStatus> {
        let request = request.into_inner();
        if !["", "tor-a", "tor-b"].contains(&request.peer.as_str()) {
            return Err(RpcStatus::not_found(format!("no peer {}", request.peer)));
        }
        // A batch for each route, as a long table comes.
        let batches = fixtures::routes().into_iter().map(|route| {
            Ok(RouteBatch {
                node: "node-a".into(),
                routes: vec![route],
            })
        });
        let mut batches: Vec<_> = batches.collect();
        if request.limit != 0 {
            batches.truncate(request.limit as usize);
        }
        Ok(Response::new(tokio_stream::iter(batches)))
    }

    async fn explain_prefix(
        &self,
        request: Request<ExplainPrefixRequest>,
    ) -> Result<Response<ExplainPrefixResponse>, RpcStatus> {
        let request = request.into_inner();
        if !["", "tor-a", "tor-b"].contains(&request.peer.as_str()) {
            return Err(RpcStatus::not_found(format!("no peer {}", request.peer)));
        }
        Ok(Response::new(match request.destination.as_str() {
            "10.1.0.0/16" => fixtures::prefix_explanation(),
            _ => fixtures::explanation_of_nothing(),
        }))
    }

    async fn begin_drain(
        &self,
        request: Request<BeginDrainRequest>,
    ) -> Result<Response<DrainState>, RpcStatus> {
        let request = request.into_inner();
        Ok(Response::new(DrainState {
            wait_s: request.wait_s,
            reason: request.reason,
            ..fixtures::drain("announcing")
        }))
    }

    async fn end_drain(
        &self,
        _: Request<EndDrainRequest>,
    ) -> Result<Response<DrainState>, RpcStatus> {
        Ok(Response::new(fixtures::drain("in-service")))
    }

    async fn get_drain(
        &self,
        _: Request<GetDrainRequest>,
    ) -> Result<Response<DrainState>, RpcStatus> {
        Ok(Response::new(fixtures::drain("withdrawn")))
    }

    async fn refresh_peer(
        &self,
        _: Request<RefreshPeerRequest>,
    ) -> Result<Response<PeerActionResponse>, RpcStatus> {
        Err(RpcStatus::failed_precondition(
            "the peer does not know route refresh",
        ))
    }

    async fn reset_peer(
        &self,
        request: Request<ResetPeerRequest>,
    ) -> Result<Response<PeerActionResponse>, RpcStatus> {
        let request = request.into_inner();
        if request.peer == "tor-b" {
            // Longer than any --timeout a test gives.
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
        let done = vec![format!(
            "{}/{}: session reset",
            request.instance, request.peer
        )];
        Ok(Response::new(PeerActionResponse { done }))
    }
}

type MappingStream = tokio_stream::Iter<std::vec::IntoIter<Result<EgressMappingBatch, RpcStatus>>>;

#[tonic::async_trait]
impl egress_server::Egress for Fixed {
    async fn list_egress_policies(
        &self,
        _: Request<ListEgressPoliciesRequest>,
    ) -> Result<Response<ListEgressPoliciesResponse>, RpcStatus> {
        Ok(Response::new(ListEgressPoliciesResponse::default()))
    }

    async fn list_egress_rules(
        &self,
        _: Request<ListEgressRulesRequest>,
    ) -> Result<Response<ListEgressRulesResponse>, RpcStatus> {
        Err(RpcStatus::failed_precondition("egress is off on this node"))
    }

    async fn list_egress_gateways(
        &self,
        _: Request<ListEgressGatewaysRequest>,
    ) -> Result<Response<ListEgressGatewaysResponse>, RpcStatus> {
        Ok(Response::new(fixtures::egress::gateways()))
    }

    type ListEgressMappingsStream = MappingStream;

    async fn list_egress_mappings(
        &self,
        request: Request<ListEgressMappingsRequest>,
    ) -> Result<Response<MappingStream>, RpcStatus> {
        let mut mappings = fixtures::egress::mappings();
        let matching = mappings.len() as u64;
        mappings.truncate(request.into_inner().limit as usize);
        let batches = mappings.into_iter().map(|one| {
            Ok(EgressMappingBatch {
                node: "node-a".into(),
                mappings: vec![one],
                matching,
            })
        });
        let batches: Vec<_> = batches.collect();
        Ok(Response::new(tokio_stream::iter(batches)))
    }

    async fn explain_egress(
        &self,
        request: Request<ExplainEgressRequest>,
    ) -> Result<Response<ExplainEgressResponse>, RpcStatus> {
        match request.into_inner().pod.as_str() {
            "shop/web-0" => Ok(Response::new(fixtures::egress::explanation())),
            "job-7" => Ok(Response::new(fixtures::egress::refusal())),
            other => Err(RpcStatus::not_found(format!("no pod {other}"))),
        }
    }

    async fn trace_egress(
        &self,
        request: Request<TraceEgressRequest>,
    ) -> Result<Response<TraceEgressResponse>, RpcStatus> {
        let request = request.into_inner();
        let flow = (request.protocol.as_str(), request.port, request.source_port);
        match (request.pod.as_str(), flow) {
            ("shop/web-0", ("tcp", 443, 40000)) => Ok(Response::new(fixtures::egress::trace())),
            ("job-7", ("", 0, 0)) => Ok(Response::new(TraceEgressResponse {
                decision: Some(fixtures::egress::refusal()),
                ..Default::default()
            })),
            other => Err(RpcStatus::not_found(format!("no flow {other:?}"))),
        }
    }
}

/// The server, alive until it is dropped.
struct Daemon {
    folder: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    fn start(status: GetStatusResponse) -> Daemon {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = folder.path().join("causeway.sock");
        let (stop, stopped) = oneshot::channel();
        let path = socket.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(async move {
                let router = tonic::transport::Server::builder()
                    .add_service(bgp_server::BgpServer::new(Fixed {
                        status: status.clone(),
                    }))
                    .add_service(egress_server::EgressServer::new(Fixed {
                        status: status.clone(),
                    }))
                    .add_service(status_server::StatusServer::new(Fixed { status }));
                let shutdown = async { drop(stopped.await) };
                serve_unix(router, &path, Access::default(), shutdown)
                    .await
                    .expect("serves");
            });
        });
        let deadline = Instant::now() + Duration::from_secs(30);
        while !socket.exists() {
            assert!(Instant::now() < deadline, "the socket never came");
            std::thread::sleep(Duration::from_millis(5));
        }
        Daemon {
            folder,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("causeway.sock")
    }

    fn run(&self, line: &[&str]) -> Output {
        causeway(&self.socket(), line)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn command(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command
        .env_clear()
        .env("CAUSEWAY_SOCKET", socket)
        .stdin(Stdio::null());
    command
}

fn causeway(socket: &Path, line: &[&str]) -> Output {
    command(socket)
        .args(line)
        .output()
        .expect("the program runs")
}

fn offline(line: &[&str]) -> Output {
    causeway(Path::new("/nonexistent/causeway.sock"), line)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn data_goes_to_stdout_and_remarks_to_stderr() {
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["bgp", "peers"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let golden = include_str!("golden/bgp-peers.txt");
    let data: String = golden
        .lines()
        .filter(|l| !l.starts_with("(stderr)"))
        .map(|l| format!("{l}\n"))
        .collect();
    assert_eq!(stdout(&output), data);
    assert!(
        stderr(&output).contains("tor-b is active: no answer"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn unhealthy_is_1_and_ignored_warnings_are_not() {
    let daemon = Daemon::start(fixtures::status());
    assert_eq!(daemon.run(&["status"]).status.code(), Some(1));
    drop(daemon);
    let mut warning = fixtures::healthy_status();
    warning.health = Health::Warning.into();
    let daemon = Daemon::start(warning);
    assert_eq!(daemon.run(&["status"]).status.code(), Some(1));
    assert_eq!(
        daemon.run(&["status", "--ignore-warnings"]).status.code(),
        Some(0)
    );
    drop(daemon);
    let daemon = Daemon::start(fixtures::healthy_status());
    assert_eq!(daemon.run(&["status", "--wait"]).status.code(), Some(0));
}

#[test]
fn a_drain_is_waited_for_unless_detached() {
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["drain", "--wait", "1500ms", "--detach"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(said.contains("GRACEFUL_SHUTDOWN for 2 s"), "{said}");
    let output = daemon.run(&["drain", "--wait", "2s", "--reason", "new disks"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(
        stdout(&output).lines().next(),
        include_str!("golden/drain-withdrawn.txt").lines().next()
    );
    let output = daemon.run(&["undrain"]);
    assert!(
        stdout(&output).contains("in service"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn an_explanation_without_a_route_is_4_and_an_unknown_peer_is_named() {
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["bgp", "explain", "10.1.0.0/16", "tor-a"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), include_str!("golden/bgp-explain.txt"));
    let output = daemon.run(&["bgp", "explain", "10.9.0.0/16"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stdout(&output).contains("no route"), "{}", stdout(&output));
    let output = daemon.run(&["bgp", "explain", "10.1.0.0/16", "tor-c"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("tor-"), "{}", stderr(&output));
}

#[test]
fn waiting_too_long_is_124() {
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["status", "--wait", "--wait-duration", "100ms"]);
    assert_eq!(output.status.code(), Some(124));
    assert!(
        stdout(&output).contains("tor-b"),
        "the last status is shown"
    );
    let output = daemon.run(&["bgp", "reset", "tor-b", "--yes", "--timeout", "200ms"]);
    assert_eq!(output.status.code(), Some(124));
    assert!(stderr(&output).contains("CW0004"));
}

#[test]
fn wrong_usage_is_2_with_a_suggestion() {
    let output = offline(&["statsu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("status"), "{}", stderr(&output));
    let output = offline(&["bgp", "peers", "-o", "jsno"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("did you mean `json`?"),
        "{}",
        stderr(&output)
    );
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["bgp", "peers", "-o", "jsonpath=$.items["]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn no_daemon_is_3_and_says_where_and_what_to_do() {
    let output = offline(&["bgp", "peers"]);
    assert_eq!(output.status.code(), Some(3));
    let message = stderr(&output);
    for part in [
        "error[CW0001]",
        "/nonexistent/causeway.sock",
        "is causewayd running?",
        "fix:",
    ] {
        assert!(message.contains(part), "{part} is missing in {message}");
    }
    assert_eq!(stdout(&output), "");
}

#[test]
fn unknown_objects_are_4_with_a_near_name() {
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["bgp", "neighbor", "tro-a"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("did you mean tor-a?"),
        "{}",
        stderr(&output)
    );
    let output = daemon.run(&["bgp", "routes", "received", "peer", "torb"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("did you mean tor-b?"),
        "{}",
        stderr(&output)
    );
    assert_eq!(offline(&["explain", "CW9999"]).status.code(), Some(4));
}

#[test]
fn refusals_are_5() {
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["bgp", "refresh", "tor-a"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("does not know route refresh"));
    // Nobody to ask: refused rather than done.
    let output = daemon.run(&["bgp", "reset", "tor-a"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("--yes"));
    let output = daemon.run(&["bgp", "reset", "fabric/tor-a", "--yes"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "fabric/tor-a: session reset\n");
    // A service the daemon does not have.
    let output = daemon.run(&["pods"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(stderr(&output).contains("CW0007"));
}

#[test]
fn egress_says_by_its_exit_code_whether_packets_leave() {
    let daemon = Daemon::start(fixtures::status());
    let code = |line: &[&str]| daemon.run(line).status.code();
    assert_eq!(
        code(&["egress", "explain", "shop/web-0", "203.0.113.9"]),
        Some(0)
    );
    let refusal = daemon.run(&["egress", "why", "job-7", "233.252.0.1"]);
    assert_eq!(refusal.status.code(), Some(1));
    assert!(stdout(&refusal).contains("no gateway is healthy"));
    assert_eq!(code(&["egress", "explain", "none", "203.0.113.9"]), Some(4));
    assert_eq!(
        code(&["egress", "explain", "job-7", "example.org"]),
        Some(2)
    );
    let flow = "egress trace shop/web-0 203.0.113.9 --protocol tcp --port 443 --source-port 40000";
    let flow: Vec<&str> = flow.split(' ').collect();
    assert_eq!(code(&flow), Some(0));
    assert_eq!(code(&["egress", "trace", "job-7", "233.252.0.1"]), Some(1));
    assert_eq!(code(&["egress", "trace", "none", "203.0.113.9"]), Some(4));
    let unknown = ["egress", "trace", "job-7", "233.252.0.1", "--protocol", "x"];
    assert_eq!(code(&unknown), Some(2));
    assert_eq!(code(&["egress", "policies", "none"]), Some(4));
    let off = daemon.run(&["egress", "ls"]);
    assert_eq!(off.status.code(), Some(5));
    assert!(stderr(&off).contains("egress is off"), "{}", stderr(&off));
    let output = daemon.run(&["egress", "nat", "--limit", "2"]);
    assert_eq!(stdout(&output).lines().count(), 3);
    assert!(stderr(&output).contains("2 of 3"), "{}", stderr(&output));
}

#[test]
fn a_peer_goes_by_its_address_as_well() {
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["bgp", "neighbor", "fd00:0:b::1", "-o", "name"]);
    assert_eq!(stdout(&output), "fabric/tor-b\n");
}

#[test]
fn jsonpath_and_limits_work_over_a_stream() {
    let daemon = Daemon::start(fixtures::status());
    let output = daemon.run(&["bgp", "routes", "-o", "jsonpath={.items[*].prefix}"]);
    assert_eq!(stdout(&output), "0.0.0.0/0 0.0.0.0/0 10.1.0.0/24\n");
    // The example in the help.
    let path = "jsonpath={.items[?@.session-state != \"established\"].name}";
    assert_eq!(
        stdout(&daemon.run(&["bgp", "peers", "-o", path])),
        "tor-b\n"
    );
    let output = daemon.run(&["bgp", "routes", "--limit", "2", "-o", "name"]);
    assert_eq!(stdout(&output), "0.0.0.0/0\n0.0.0.0/0\n");
    assert!(
        stderr(&output).contains("--limit 0 shows all"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn colour_follows_the_flag_and_the_environment() {
    let daemon = Daemon::start(fixtures::status());
    let coloured = |flags: &[&str], variables: &[(&str, &str)]| {
        let mut command = command(&daemon.socket());
        command
            .args(["bgp", "peers"])
            .args(flags)
            .envs(variables.iter().copied());
        stdout(&command.output().expect("the program runs")).contains('\x1b')
    };
    assert!(!coloured(&[], &[]), "a pipe is not coloured");
    assert!(coloured(&["--color", "always"], &[("NO_COLOR", "1")]));
    assert!(coloured(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(
        &[],
        &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]
    ));
    assert!(!coloured(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]));
}

#[test]
fn watching_repeats_until_it_is_ended() {
    let daemon = Daemon::start(fixtures::status());
    let mut child = command(&daemon.socket())
        .args(["bgp", "peers", "-o", "name", "--watch=20ms"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let seen: Vec<String> = lines.take(6).map(|line| line.expect("UTF-8")).collect();
    child.kill().expect("its own child");
    child.wait().expect("its own child");
    assert_eq!(seen, ["fabric/tor-a", "fabric/tor-b"].repeat(3));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let daemon = Daemon::start(fixtures::status());
    let mut child = command(&daemon.socket())
        .args(["bgp", "routes", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
}

#[test]
fn messages_are_decoded_without_a_daemon() {
    let keepalive = "ffffffffffffffffffffffffffffffff001304";
    let output = offline(&["bgp", "decode", keepalive]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).to_lowercase().contains("keepalive"));
    let output = offline(&[
        "bgp",
        "decode",
        keepalive,
        "-o",
        "jsonpath=$.messages[0].type",
    ]);
    assert_eq!(stdout(&output), "keepalive\n");
    // A keepalive must have no body (RFC 4271 §6.1).
    let output = offline(&["bgp", "decode", "ffffffffffffffffffffffffffffffff00140400"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let output = offline(&["bgp", "decode", "xyz"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("CW0011"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("messages.bin");
    let mut bytes = vec![0xff; 16];
    bytes.extend([0, 19, 4]);
    std::fs::write(&file, bytes).expect("written");
    let output = offline(&["bgp", "decode", file.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn files_are_checked_with_the_line_and_a_mark() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("peer.yaml");
    let yaml = "apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig\nmetadata:\n  name: tor\n\
                spec:\n  timers:\n    holdTimeSeconds: 2\n";
    std::fs::write(&file, yaml).expect("written");
    let path = folder.path().to_str().expect("UTF-8");
    let output = offline(&["config", "check", path]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    for part in [
        "peer.yaml:7:",
        "spec.timers.holdTimeSeconds",
        "7 |     holdTimeSeconds: 2",
        "^",
        "1 error",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    std::fs::write(
        &file,
        yaml.replace(": 2", ": 9")
            .replace("timers:", "timers:\n    keepAliveTimeSeconds: 3"),
    )
    .expect("written");
    let output = offline(&["config", "check", path]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let settings = folder.path().join("causeway.yaml");
    std::fs::write(&settings, "nodename: a\n").expect("written");
    let output = offline(&["config", "check", settings.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("nodeName"), "{}", stdout(&output));
    let output = offline(&["config", "check", "/nonexistent.yaml"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn help_begins_with_examples_and_comes_within_a_tenth_of_a_second() {
    // The best of some runs: the limit is about the program, not about its neighbours.
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(offline(&["bgp", "routes", "--help"]).status.code(), Some(0));
            start.elapsed()
        })
        .min()
        .expect("some runs");
    assert!(best < Duration::from_millis(100), "{best:?}");
    let output = offline(&["--help"]);
    assert!(
        stdout(&output).starts_with("Examples:"),
        "{}",
        stdout(&output)
    );
    assert!(stdout(&output).contains("124  no answer in time"));
}

#[test]
fn completions_man_pages_and_defaults_come_without_a_daemon() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let output = offline(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(stdout(&output).contains("causeway"), "{shell}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = offline(&["man", folder.path().to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for page in ["causeway.1", "causeway-bgp.1", "causeway-bgp-routes.1"] {
        let text = std::fs::read_to_string(folder.path().join(page)).expect(page);
        assert!(
            text.contains("Exit codes") || page != "causeway.1",
            "{page}"
        );
    }
    let output = offline(&["config", "show", "--default"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("nodeName"));
    let output = offline(&["explain", "cw202"]);
    assert!(
        stdout(&output).starts_with("CW0202: "),
        "{}",
        stdout(&output)
    );
    assert_eq!(stdout(&offline(&["version"])), "causeway   0.1.0\n");
}
