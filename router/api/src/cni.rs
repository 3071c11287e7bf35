// SPDX-License-Identifier: Apache-2.0
//! How a CNI error travels through a gRPC status.

use prost::Message;
use tonic::{Code, Status};

use crate::v1alpha1::CniFailure;

impl CniFailure {
    /// CNI code 11: the runtime shall try again later.
    pub const TRY_AGAIN_LATER: u32 = 11;

    /// The status that carries this failure. The gRPC code says it coarsely for those who read
    /// no details.
    pub fn into_status(self) -> Status {
        let code = match self.code {
            2 | 4 | 6 | 7 => Code::InvalidArgument,
            3 => Code::NotFound,
            Self::TRY_AGAIN_LATER | 50 | 51 => Code::Unavailable,
            _ => Code::Internal,
        };
        let details = self.encode_to_vec();
        Status::with_details(code, self.message, details.into())
    }

    /// The failure a status carries; `None` for a status that the transport made.
    pub fn from_status(status: &Status) -> Option<CniFailure> {
        let failure = CniFailure::decode(status.details()).ok()?;
        (failure.code != 0).then_some(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_status() {
        let failure = CniFailure {
            code: 11,
            message: "busy".into(),
            details: "later".into(),
        };
        let status = failure.clone().into_status();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "busy");
        assert_eq!(CniFailure::from_status(&status), Some(failure));
    }

    #[test]
    fn a_status_of_the_transport_is_no_failure() {
        assert_eq!(CniFailure::from_status(&Status::unavailable("gone")), None);
    }
}
