// SPDX-License-Identifier: Apache-2.0
//! Asking the daemon.

use std::path::Path;
use std::time::Duration;

use router_api::v1alpha1::{
    CniAddRequest, CniAttachment, CniCheckRequest, CniDelRequest, CniGcRequest, CniStatusRequest,
};
use router_api::{ConnectError, Connection};
use tokio::time::{Instant, sleep, timeout_at};

use crate::call::Call;
use crate::failure::Failure;
use crate::invocation::{Configuration, ValidAttachment};
use crate::result;

/// How long a daemon is waited for that does not listen: a restart takes about a second.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Sends a call to the daemon and returns what goes to stdout.
pub(crate) async fn ask(call: Call) -> Result<String, Failure> {
    let configuration = call
        .configuration()
        .expect("VERSION is answered without the daemon")
        .clone();
    let is_status = matches!(call, Call::Status { .. });
    let now = Instant::now();
    let deadline = now + configuration.timeout();
    let patience = if is_status {
        now
    } else {
        deadline.min(now + RESTART_PATIENCE)
    };
    let answer = async {
        let connection = connect(&configuration.socket(), patience).await?;
        send(&connection, call, &configuration).await
    };
    let outcome = timeout_at(deadline, answer).await.unwrap_or_else(|_| {
        Err(Failure::new(
            Failure::TRY_AGAIN,
            format!(
                "causewayd did not answer within {} s",
                configuration.timeout().as_secs()
            ),
        )
        .with_details("look at `causeway status` and the daemon's log"))
    });
    outcome.map_err(|failure| match failure.code {
        // STATUS has its own word for it: CNI 1.1.0 §"STATUS".
        Failure::TRY_AGAIN if is_status => Failure {
            code: Failure::NOT_AVAILABLE,
            ..failure
        },
        _ => failure,
    })
}

async fn connect(socket: &Path, patience: Instant) -> Result<Connection, Failure> {
    loop {
        let error = match router_api::connect(socket).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let is_passing = match error {
            ConnectError::NoSocket(_)
            | ConnectError::NobodyListens(_)
            | ConnectError::Transport { .. } => true,
            ConnectError::NoPermission(_) | ConnectError::Socket { .. } => false,
        };
        if !is_passing || Instant::now() >= patience {
            let code = if is_passing {
                Failure::TRY_AGAIN
            } else {
                Failure::IO
            };
            return Err(Failure::new(
                code,
                format!("causewayd cannot be reached: {error}"),
            ));
        }
        sleep(RETRY_INTERVAL).await;
    }
}

async fn send(
    connection: &Connection,
    call: Call,
    configuration: &Configuration,
) -> Result<String, Failure> {
    let mut client = connection.cni();
    let network = configuration.name.clone();
    match call {
        Call::Add {
            attachment,
            netns,
            args,
            json,
            ..
        } => {
            let attachment = Some(attachment);
            let request = CniAddRequest {
                attachment,
                netns,
                args,
                network,
                config: json,
            };
            let response = client.add(request).await.map_err(refused)?.into_inner();
            let previous = configuration.prev_result.clone();
            return result::added(&response, previous, &configuration.cni_version);
        }
        Call::Del {
            attachment, netns, ..
        } => {
            let request = CniDelRequest {
                attachment: Some(attachment),
                netns,
                network,
            };
            client.del(request).await.map_err(refused)?;
        }
        Call::Check {
            attachment, netns, ..
        } => {
            let previous_result = configuration
                .prev_result
                .as_ref()
                .map(|r| r.to_string().into_bytes());
            let request = CniCheckRequest {
                attachment: Some(attachment),
                netns,
                network,
                previous_result: previous_result.unwrap_or_default(),
            };
            client.check(request).await.map_err(refused)?;
        }
        Call::Gc { .. } => {
            let valid = configuration.valid_attachments.as_ref().ok_or_else(|| {
                // An absent list is not an empty one: that would remove every pod.
                Failure::new(
                    Failure::INVALID_CONFIG,
                    "GC without `cni.dev/valid-attachments`",
                )
            })?;
            let valid_attachments = valid.iter().map(attachment).collect();
            client
                .gc(CniGcRequest {
                    network,
                    valid_attachments,
                })
                .await
                .map_err(refused)?;
        }
        Call::Status { .. } => {
            client
                .status(CniStatusRequest { network })
                .await
                .map_err(refused)?;
        }
        Call::Version { .. } => {}
    }
    Ok(String::new())
}

fn attachment(valid: &ValidAttachment) -> CniAttachment {
    CniAttachment {
        container_id: valid.container_id.clone(),
        ifname: valid.ifname.clone(),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
fn refused(status: tonic::Status) -> Failure {
    Failure::from_status(&status)
}
