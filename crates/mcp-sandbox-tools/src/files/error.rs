use std::io;
use std::time::Duration;

use thiserror::Error;

/// Why a file tool did not do what it was asked; its text is for the model.
#[derive(Debug, Error)]

pub(super) enum FileError {
    /// The path leads out of the working directory and the other permitted directories.
    #[error(
        "path '{path}' is outside the session's working directory{}",
        if *.others { " and its other permitted directories" } else { "" }
    )]
    Outside {
        /// As it was given.
        path: String,
        /// Whether there are other permitted directories.
        others: bool,
    },
    /// The path leads nowhere: a loop of links, a directory that may not be searched.
    #[error("path '{path}': {}", phrase(.source))]
    Path {
        /// As it was given.
        path: String,
        /// What the system answered.
        source: io::Error,
    },
    /// Writing below a directory that is for reading only.
    #[error("{path} is inside read-only directory {root}")]
    ReadOnly {
        /// As it was given.
        path: String,
        /// The directory.
        root: String,
    },
    /// A directory, FIFO, device or socket.
    #[error("{path}: not a regular file")]
    NotRegular {
        /// As it was given.
        path: String,
    },
    /// The content is no UTF-8.
    #[error("{path}: not valid UTF-8 text ({hint})")]
    NotText {
        /// As it was given.
        path: String,
        /// What can be done with such a file.
        hint: &'static str,
    },
    /// The file is larger than the tool takes.
    #[error("{path} is {size} bytes, exceeds {limit}-byte limit{hint}")]
    TooLarge {
        /// As it was given.
        path: String,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
        /// What to do instead.
        hint: &'static str,
    },
    /// A range of lines has a start and an end.
    #[error("view_range must be [start_line, end_line]")]
    RangeShape,
    /// Images and PDFs have no lines.
    #[error("view_range is not supported for image/PDF files")]
    RangeOfBinary,
    /// The lines asked for are larger than the tool returns.
    #[error(
        "view_range [{start}, {end}] of {path} exceeds {limit}-byte limit. \
         Narrow the view_range to read a smaller portion."
    )]
    RangeTooLarge {
        /// As it was given.
        path: String,
        /// First line.
        start: i64,
        /// Last line.
        end: i64,
        /// The limit.
        limit: u64,
    },
    /// A single line is larger than the tool returns.
    #[error(
        "line {line} of {path} alone exceeds {limit}-byte limit. The read tool cannot return part of a line, \
         so view_range cannot narrow this further."
    )]
    LineTooLong {
        /// As it was given.
        path: String,
        /// Number of the line, from 1.
        line: i64,
        /// The limit.
        limit: u64,
    },
    /// The text to replace is not there.
    #[error("old_string not found in {path}")]
    OldStringMissing {
        /// As it was given.
        path: String,
    },
    /// The text to replace is there more than once.
    #[error("old_string appears {count} times in {path} (must be unique)")]
    OldStringNotUnique {
        /// As it was given.
        path: String,
        /// How often.
        count: usize,
    },
    /// A pattern that starts at the root.
    #[error("absolute pattern not permitted; pass a relative pattern (and optionally path)")]
    AbsolutePattern,
    /// A pattern that climbs.
    #[error("'..' is not permitted in the pattern")]
    ParentPattern,
    /// A pattern that is none.
    #[error("invalid pattern: {reason}")]
    Pattern {
        /// Why.
        reason: String,
    },
    /// A regular expression that is none.
    #[error("invalid regex: {reason}")]
    Regex {
        /// Why.
        reason: String,
    },
    /// The search took too long.
    #[error("timed out after {}s", .0.as_secs())]
    TimedOut(Duration),
    /// The system refused.
    #[error("{path}: {}", phrase(.source))]
    Io {
        /// As it was given.
        path: String,
        /// What the system answered.
        source: io::Error,
    },
}

impl FileError {
    pub(super) fn io(path: &str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn not_regular(path: &str) -> Self {
        Self::NotRegular {
            path: path.to_owned(),
        }
    }
}

/// The same words on every system.
fn phrase(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::AlreadyExists => "file already exists".to_owned(),
        _ if error.raw_os_error() == Some(libc::ELOOP) => {
            "too many levels of symbolic links".to_owned()
        }
        _ => {
            let text = error.to_string();
            let plain = text.split(" (os error").next().unwrap_or(&text);
            plain.to_lowercase()
        }
    }
}
