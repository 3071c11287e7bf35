// SPDX-License-Identifier: Apache-2.0
//! Errors as the user sees them: what, where, why and how to mend it.

use std::io;
use std::path::Path;

use router_api::ConnectError;
use tonic::Code;

use crate::exit::Exit;
use crate::output::{Look, Tone};

/// Why a command ends without its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code that `causeway explain` takes.
    pub code: &'static str,
    /// What could not be done.
    pub what: String,
    /// On which object, file or socket.
    pub place: Option<String>,
    /// The cause.
    pub why: Option<String>,
    /// What to do.
    pub fix: Option<String>,
    /// How the process ends.
    pub exit: Exit,
}

impl Failure {
    /// A failure with nothing but a sentence yet.
    pub fn new(code: &'static str, exit: Exit, what: impl Into<String>) -> Failure {
        Failure {
            code,
            what: what.into(),
            place: None,
            why: None,
            fix: None,
            exit,
        }
    }

    /// Adds the object, file or socket.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Failure {
        self.place = Some(place.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Failure {
        self.why = Some(why.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Failure {
        self.fix = Some(fix.into());
        self
    }

    /// A value on the command line that makes no sense.
    pub fn usage(what: impl Into<String>) -> Failure {
        Failure::new("CW0005", Exit::Usage, what)
    }

    /// A file that cannot be read or written.
    pub fn file(what: &str, path: &Path, error: &io::Error) -> Failure {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Refused,
        };
        Failure::new("CW0010", exit, what)
            .at(path.display().to_string())
            .why(error.to_string())
    }

    /// What the daemon said.
    pub fn from_status(what: &str, status: &tonic::Status) -> Failure {
        let message = status.message().to_owned();
        let (code, exit, fix) = match status.code() {
            Code::NotFound => ("CW0002", Exit::NotFound, None),
            Code::InvalidArgument | Code::OutOfRange => ("CW0005", Exit::Usage, None),
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::Aborted => ("CW0003", Exit::Refused, None),
            Code::Unimplemented => (
                "CW0007",
                Exit::Refused,
                Some("compare the versions with `causeway version`"),
            ),
            Code::DeadlineExceeded | Code::Cancelled => (
                "CW0004",
                Exit::Timeout,
                Some("try again with a longer --timeout"),
            ),
            Code::Unavailable => (
                "CW0001",
                Exit::Unreachable,
                Some("look with `systemctl status causewayd`"),
            ),
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => (
                "CW0008",
                Exit::Refused,
                Some("the daemon's log: `journalctl -u causewayd`"),
            ),
        };
        let mut failure = Failure::new(code, exit, what);
        failure.why = (!message.is_empty()).then_some(message);
        failure.fix = fix.map(str::to_owned);
        failure
    }

    /// The text for standard error, several lines.
    pub fn render(&self, look: &Look) -> String {
        let head = look.paint(Tone::Bad, &format!("error[{}]", self.code));
        let mut text = format!("{head}: {}\n", self.what);
        let lines = [
            ("where", self.place.clone()),
            ("why", self.why.clone()),
            ("fix", self.fix.clone()),
            ("more", Some(format!("causeway explain {}", self.code))),
        ];
        for (label, value) in lines {
            if let Some(value) = value {
                let label = look.paint(Tone::Strong, &format!("{label:>7}"));
                text.push_str(&format!("{label}: {value}\n"));
            }
        }
        text
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Failure {
        let failure = Failure::new("CW0001", Exit::Unreachable, "cannot reach the daemon")
            .why(error.to_string());
        match error {
            ConnectError::NoPermission(_) => Failure {
                exit: Exit::Refused,
                ..failure
            },
            _ => failure.fix("start causewayd, or name its socket with --socket"),
        }
    }
}
