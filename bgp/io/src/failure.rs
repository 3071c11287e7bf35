// SPDX-License-Identifier: Apache-2.0
//! The system's errors in the words of the core.

use std::io::{self, ErrorKind};

use bgp_core::peer::{FailureKind, TransportFailure};

/// Sorts an error of a socket.
pub(crate) fn transport_failure(error: &io::Error) -> TransportFailure {
    let kind = match error.kind() {
        ErrorKind::ConnectionRefused => FailureKind::Refused,
        ErrorKind::TimedOut => FailureKind::TimedOut,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::NetworkDown => {
            FailureKind::Unreachable
        }
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            FailureKind::Reset
        }
        ErrorKind::UnexpectedEof => FailureKind::Closed,
        ErrorKind::AddrNotAvailable => FailureKind::NoLocalAddress,
        _ if error.raw_os_error() == Some(libc::ENODEV)
            || error.raw_os_error() == Some(libc::ENXIO) =>
        {
            FailureKind::NoLocalAddress
        }
        _ => FailureKind::Other,
    };
    TransportFailure {
        kind,
        text: error.to_string(),
    }
}

/// The neighbour closed its end.
pub(crate) fn closed() -> TransportFailure {
    TransportFailure {
        kind: FailureKind::Closed,
        text: "end of stream".to_owned(),
    }
}
