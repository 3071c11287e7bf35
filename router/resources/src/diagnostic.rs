// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a file, as data and as text.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is used.
    Warning,
    /// The file is not used; its last good version stays in force.
    Error,
}

/// The sort of a finding, for programs and for `causeway explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The file cannot be read.
    Unreadable,
    /// The file is larger than is accepted.
    TooLarge,
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is not YAML.
    Syntax,
    /// Aliases or nesting expand beyond what is accepted.
    TooComplex,
    /// A key occurs twice in one mapping.
    DuplicateKey,
    /// A document is not an object with `apiVersion`, `kind` and `metadata`.
    NotAnObject,
    /// A kind Causeway does not read.
    UnknownKind,
    /// A field the kind does not have.
    UnknownField,
    /// A required field is missing.
    MissingField,
    /// A value of the wrong type.
    WrongType,
    /// A value outside what is allowed.
    InvalidValue,
    /// A rule between fields is broken.
    BrokenRule,
    /// An object of the same kind and name comes earlier.
    DuplicateObject,
    /// A field that is accepted and has no effect.
    Ignored,
}

impl Code {
    /// The code as users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Unreadable => "CW0101",
            Code::TooLarge => "CW0102",
            Code::NotUtf8 => "CW0103",
            Code::Syntax => "CW0104",
            Code::TooComplex => "CW0105",
            Code::DuplicateKey => "CW0106",
            Code::NotAnObject => "CW0107",
            Code::UnknownKind => "CW0108",
            Code::UnknownField => "CW0109",
            Code::MissingField => "CW0110",
            Code::WrongType => "CW0111",
            Code::InvalidValue => "CW0112",
            Code::BrokenRule => "CW0113",
            Code::DuplicateObject => "CW0114",
            Code::Ignored => "CW0115",
        }
    }

    /// All codes, in order.
    pub const ALL: [Code; 15] = [
        Code::Unreadable,
        Code::TooLarge,
        Code::NotUtf8,
        Code::Syntax,
        Code::TooComplex,
        Code::DuplicateKey,
        Code::NotAnObject,
        Code::UnknownKind,
        Code::UnknownField,
        Code::MissingField,
        Code::WrongType,
        Code::InvalidValue,
        Code::BrokenRule,
        Code::DuplicateObject,
        Code::Ignored,
    ];
}

/// A place in a text: line and column from 1, and the bytes meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The bytes meant, for tools that underline them.
    pub bytes: Range<usize>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub file: PathBuf,
    /// The document in the file, from 1; `None` when the finding is about the whole file.
    pub document: Option<usize>,
    /// The place; `None` when the finding is about the whole file.
    pub place: Option<Place>,
    /// The object concerned, `CiliumBGPPeerConfig/tor`, as far as it is known.
    pub object: Option<String>,
    /// The path of the field, `spec.timers.holdTimeSeconds`; empty at the top.
    pub field: String,
    /// How bad it is.
    pub severity: Severity,
    /// The sort of finding.
    pub code: Code,
    /// What is wrong, with what was found.
    pub message: String,
    /// What is allowed, or what to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A finding about a whole file.
    pub fn about_file(file: &Path, code: Code, message: impl Into<String>) -> Self {
        Diagnostic {
            file: file.to_path_buf(),
            document: None,
            place: None,
            object: None,
            field: String::new(),
            severity: Severity::Error,
            code,
            message: message.into(),
            help: None,
        }
    }

    /// Whether the finding keeps the file from being used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    /// Writes one line:
    /// `bgp.yaml:7:21: error[CW0112]: document 2, spec.x: 2 is below 3; allowed: 3 to 65535`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, ": {severity}[{}]: ", self.code.as_str())?;
        if let Some(document) = self.document {
            write!(f, "document {document}, ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}, ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}
