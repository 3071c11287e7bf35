// SPDX-License-Identifier: Apache-2.0
//! `causeway bgp policy test`: the examples of the guide come out as the guide says, and the
//! program ends as scripts expect.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use router_api::v1alpha1::*;
use router_api::{Access, serve_unix};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status as RpcStatus};

fn guide() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/src/policy.md");
    fs::read_to_string(page).unwrap()
}

/// The blocks of a language on a page.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    page.split(&format!("```{language}\n"))
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}

/// A folder with the guide's policies in `policy.yaml`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let policies = blocks(&guide(), "yaml").join("---\n");
    fs::write(folder.path().join("policy.yaml"), policies).unwrap();
    folder
}

fn causeway(folder: &Path, socket: &Path, words: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_causeway"))
        .env_clear()
        .env("CAUSEWAY_SOCKET", socket)
        .current_dir(folder)
        .stdin(Stdio::null())
        .args(words)
        .output()
        .expect("the program runs")
}

fn offline(folder: &Path, line: &str) -> Output {
    causeway(
        folder,
        Path::new("/nonexistent/causeway.sock"),
        &words(line),
    )
}

/// The words of a line of shell, with single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn the_examples_of_the_guide_come_out_as_it_says() {
    let (folder, page) = (folder(), guide());
    let examples = blocks(&page, "console");
    assert!(examples.len() >= 3, "only {} examples", examples.len());
    for example in examples {
        let (line, expected) = example.split_once('\n').unwrap();
        let line = line.strip_prefix("$ causeway ").unwrap();
        let output = offline(folder.path(), line);
        assert_eq!(
            text(&output.stdout),
            expected,
            "{line}: {}",
            text(&output.stderr)
        );
        let is_accepted = expected.lines().next().unwrap().contains(" is accepted ");
        assert_eq!(
            output.status.code(),
            Some(if is_accepted { 0 } else { 1 }),
            "{line}"
        );
    }
}

#[test]
fn json_has_the_verdicts_the_failures_and_the_changes() {
    let folder = folder();
    let line = "bgp policy test from-fabric -f policy.yaml -o json --route 10.8.0.0/16 --as-path '65001 65020' --med 7";
    let output = offline(folder.path(), line);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["kind"], "BGPPolicyTest");
    assert_eq!(json["verdict"], "Accept");
    assert_eq!(json["decidedBy"], "storage");
    assert_eq!(json["statements"][0]["outcome"], "NoMatch");
    assert_eq!(
        json["statements"][0]["failed"][0]["condition"],
        "communities.any"
    );
    assert_eq!(json["changes"][0]["attribute"], "localPreference");
    assert_eq!(json["changes"][0]["after"], "200");
}

#[test]
fn mistakes_say_what_and_where() {
    let folder = folder();
    for (line, code, expected) in [
        (
            "bgp policy test from-fabrik -f policy.yaml --route 10.8.0.0/16",
            4,
            "did you mean from-fabric?",
        ),
        (
            "bgp policy test from-fabric -f policy.yaml --route 10.8.0.1/16",
            2,
            "did you mean 10.8.0.0/16?",
        ),
        (
            "bgp policy test from-fabric -f policy.yaml --route ::/0 --as-path AS1",
            2,
            "not an AS path",
        ),
        (
            "bgp policy test from-fabric -f policy.yaml --route ::/0 --communities 1:2:x",
            2,
            "not a community",
        ),
        (
            "bgp policy test from-fabric -f absent.yaml --route ::/0",
            5,
            "absent.yaml",
        ),
        ("bgp policy test from-fabric --route ::/0", 3, "causewayd"),
    ] {
        let output = offline(folder.path(), line);
        assert_eq!(output.status.code(), Some(code), "{line}");
        let message = text(&output.stderr);
        assert!(message.contains(expected), "{line}: {message}");
    }
}

/// A daemon that holds one policy.
struct OnePolicy;

#[tonic::async_trait]
impl resources_server::Resources for OnePolicy {
    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, RpcStatus> {
        assert_eq!(request.into_inner().kind, "BGPPolicy");
        let object_json = serde_json::json!({
            "apiVersion": "causeway.io/v1alpha1",
            "kind": "BGPPolicy",
            "metadata": { "name": "held", "generation": 3 },
            "spec": {
                "defaultAction": "Reject",
                "statements": [{
                    "name": "private",
                    "match": { "originASNs": ["64512-65534", 23456] },
                    "action": "Accept",
                }],
            },
        });
        let resource = Resource {
            kind: "BGPPolicy".into(),
            name: "held".into(),
            object_json: object_json.to_string(),
            ..Resource::default()
        };
        Ok(Response::new(ListResourcesResponse {
            node: "node-a".into(),
            resources: vec![resource],
            ..ListResourcesResponse::default()
        }))
    }
}

#[test]
fn without_a_file_the_daemons_policy_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let socket: PathBuf = folder.path().join("causeway.sock");
    let (stop, stopped) = oneshot::channel::<()>();
    let path = socket.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let service = resources_server::ResourcesServer::new(OnePolicy);
            let router = tonic::transport::Server::builder().add_service(service);
            let shutdown = async { drop(stopped.await) };
            let served = serve_unix(router, &path, Access::default(), shutdown).await;
            served.expect("serves");
        });
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while !socket.exists() {
        assert!(Instant::now() < deadline, "the socket never came");
        std::thread::sleep(Duration::from_millis(5));
    }
    for (path, code) in [("1 64600", 0), ("1 23456", 0), ("1 2", 1)] {
        let line = format!("bgp policy test held --route 10.0.0.0/8 --as-path '{path}'");
        let output = causeway(folder.path(), &socket, &words(&line));
        assert_eq!(
            output.status.code(),
            Some(code),
            "{path}: {}",
            text(&output.stderr)
        );
    }
    let output = causeway(
        folder.path(),
        &socket,
        &words("bgp policy test hold --route ::/0"),
    );
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("did you mean held?"));
    drop(stop);
    thread.join().unwrap();
}
