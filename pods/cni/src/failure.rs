// SPDX-License-Identifier: Apache-2.0
//! What the runtime is told when something fails (CNI 1.1.0 §"Error").

use router_api::v1alpha1::CniFailure;
use serde_json::json;

/// A failure on its way to stdout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) details: String,
}

impl Failure {
    pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
    pub(crate) const INVALID_ENVIRONMENT: u32 = 4;
    pub(crate) const IO: u32 = 5;
    pub(crate) const DECODE: u32 = 6;
    pub(crate) const INVALID_CONFIG: u32 = 7;
    pub(crate) const TRY_AGAIN: u32 = CniFailure::TRY_AGAIN_LATER;
    pub(crate) const NOT_AVAILABLE: u32 = 50;

    pub(crate) fn new(code: u32, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            details: String::new(),
        }
    }

    pub(crate) fn with_details(self, details: impl Into<String>) -> Failure {
        Failure {
            details: details.into(),
            ..self
        }
    }

    /// What a gRPC status means: the daemon's own words, or the transport's.
    pub(crate) fn from_status(status: &tonic::Status) -> Failure {
        if let Some(failure) = CniFailure::from_status(status) {
            return Failure {
                code: failure.code,
                message: failure.message,
                details: failure.details,
            };
        }
        let code = match status.code() {
            tonic::Code::Unavailable
            | tonic::Code::Cancelled
            | tonic::Code::DeadlineExceeded
            | tonic::Code::ResourceExhausted => Failure::TRY_AGAIN,
            _ => Failure::IO,
        };
        Failure::new(
            code,
            format!("causewayd did not finish the call: {}", status.message()),
        )
        .with_details(format!(
            "gRPC status {:?}; see the daemon's log",
            status.code()
        ))
    }

    pub(crate) fn to_json(&self, version: &str) -> String {
        let mut error = json!({ "cniVersion": version, "code": self.code, "msg": self.message });
        if !self.details.is_empty() {
            error["details"] = json!(self.details);
        }
        format!("{error}\n")
    }
}
