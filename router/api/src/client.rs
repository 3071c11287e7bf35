// SPDX-License-Identifier: Apache-2.0
//! The caller's end of the socket.

use std::io;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::v1alpha1::bfd_client::BfdClient;
use crate::v1alpha1::bgp_client::BgpClient;
use crate::v1alpha1::cni_client::CniClient;
use crate::v1alpha1::config_client::ConfigClient;
use crate::v1alpha1::datapath_client::DatapathClient;
use crate::v1alpha1::egress_client::EgressClient;
use crate::v1alpha1::fib_client::FibClient;
use crate::v1alpha1::pods_client::PodsClient;
use crate::v1alpha1::resources_client::ResourcesClient;
use crate::v1alpha1::status_client::StatusClient;

/// Largest answer taken, in octets. Lists that can grow beyond it are streams of batches.
const MAX_MESSAGE_OCTETS: usize = 64 << 20;

/// Why the daemon cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket.
    #[error("no socket at {}: is causewayd running? Try `systemctl status causewayd`", .0.display())]
    NoSocket(PathBuf),
    /// There is a socket and nobody behind it.
    #[error(
        "nobody listens on {}: causewayd has ended without removing it; start it again",
        .0.display()
    )]
    NobodyListens(PathBuf),
    /// The caller may not open the socket.
    #[error(
        "no permission for {}: run as root or as a member of the group that owns the socket",
        .0.display()
    )]
    NoPermission(PathBuf),
    /// Anything else.
    #[error("cannot connect to {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket is there and does not speak gRPC.
    #[error("{} does not answer as causewayd does: {source}", path.display())]
    Transport {
        /// The socket.
        path: PathBuf,
        /// What the transport said.
        source: tonic::transport::Error,
    },
}

impl ConnectError {
    fn from_io(path: &Path, source: io::Error) -> ConnectError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ConnectError::NoSocket(path),
            io::ErrorKind::ConnectionRefused => ConnectError::NobodyListens(path),
            io::ErrorKind::PermissionDenied => ConnectError::NoPermission(path),
            _ => ConnectError::Socket { path, source },
        }
    }
}

/// A connection to the daemon. Cheap to clone; reconnects by itself when the daemon is restarted.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
}

/// Connects to the daemon's socket.
///
/// # Errors
///
/// [`ConnectError`], by the reason the kernel gave.
pub async fn connect(path: impl AsRef<Path>) -> Result<Connection, ConnectError> {
    let path = path.as_ref().to_owned();
    // The transport hides the kernel's error in layers of its own, so the socket is tried first.
    drop(
        UnixStream::connect(&path)
            .await
            .map_err(|e| ConnectError::from_io(&path, e))?,
    );
    // The address is never looked at: the connector below knows only the socket.
    let endpoint = Endpoint::from_static("http://causewayd");
    let socket = path.clone();
    let channel = endpoint
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|source| ConnectError::Transport { path, source })?;
    Ok(Connection { channel })
}

impl Connection {
    /// The `Status` service.
    pub fn status(&self) -> StatusClient<Channel> {
        StatusClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Bfd` service.
    pub fn bfd(&self) -> BfdClient<Channel> {
        BfdClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Bgp` service.
    pub fn bgp(&self) -> BgpClient<Channel> {
        BgpClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Resources` service.
    pub fn resources(&self) -> ResourcesClient<Channel> {
        ResourcesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Cni` service.
    pub fn cni(&self) -> CniClient<Channel> {
        CniClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Pods` service.
    pub fn pods(&self) -> PodsClient<Channel> {
        PodsClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Fib` service.
    pub fn fib(&self) -> FibClient<Channel> {
        FibClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Datapath` service.
    pub fn datapath(&self) -> DatapathClient<Channel> {
        DatapathClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Egress` service.
    pub fn egress(&self) -> EgressClient<Channel> {
        EgressClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }

    /// The `Config` service.
    pub fn config(&self) -> ConfigClient<Channel> {
        ConfigClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_OCTETS)
    }
}
