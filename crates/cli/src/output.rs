//! What people and programs read.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use mainstay::{Error, ErrorKind};
use serde_json::{Value, json};
use tabled::builder::Builder;
use tabled::settings::Style;

use crate::args::Format;

/// Where answers go.
#[derive(Clone, Copy)]
pub struct Output {
    /// How answers are printed.
    pub format: Format,
    /// Whether progress may be shown.
    pub progress: bool,
}

impl Output {
    /// Output in this form; progress only on a terminal.
    pub fn new(format: Format, quiet: bool) -> Self {
        Self { format, progress: !quiet && std::io::stderr().is_terminal() }
    }

    /// Prints one answer: the JSON value, or the text.
    pub fn print(&self, value: &Value, text: impl FnOnce() -> String) {
        let line = match self.format {
            Format::Json => value.to_string(),
            Format::Table => text(),
        };
        // A reader that went away, such as `head`, is no error.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// Says something beside the answer.
    pub fn note(&self, text: &str) {
        if self.format == Format::Table {
            eprintln!("{text}");
        }
    }

    /// A bar for work of a known length.
    pub fn bar(&self, total: u64, what: &'static str) -> ProgressBar {
        if !self.progress {
            return ProgressBar::hidden();
        }
        let style =
            ProgressStyle::with_template("{msg:20} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
        ProgressBar::new(total)
            .with_message(what)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    /// Prints an error with a next step, and answers the exit code.
    pub fn fail(&self, error: &Error) -> ExitCode {
        match self.format {
            Format::Json => eprintln!("{}", error_json(error)),
            Format::Table => {
                eprintln!("error: {error}");
                if let Some(hint) = next_step(error.kind()) {
                    eprintln!("  next: {hint}");
                }
            }
        }
        exit_code(error.kind())
    }
}

/// An error as JSON.
fn error_json(error: &Error) -> Value {
    let context: serde_json::Map<_, _> =
        error.context().map(|(key, value)| (key.to_owned(), value.into())).collect();
    json!({ "error": {
        "kind": error.kind().as_str(),
        "message": error.message(),
        "member": error.member(),
        "collection": error.collection().map(ToString::to_string),
        "lsn": error.lsn().map(|lsn| lsn.0),
        "context": context,
        "next": next_step(error.kind()),
    }})
}

/// The exit code of an error; documented in the help.
fn exit_code(kind: ErrorKind) -> ExitCode {
    ExitCode::from(match kind {
        ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::Unsupported => 2,
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Overloaded | ErrorKind::BreakerOpen => 4,
        ErrorKind::Corrupt | ErrorKind::StorageFull => 5,
        _ => 1,
    })
}

fn next_step(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotFound => Some("`mainstay collections list` shows what is there"),
        ErrorKind::Unavailable | ErrorKind::Timeout => {
            Some("`mainstay status` shows each member with its last error")
        }
        ErrorKind::Corrupt => Some("see docs/recover.md"),
        ErrorKind::StorageFull => Some("free space or raise the limit that the message names"),
        _ => None,
    }
}

/// A table with a header.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut builder = Builder::default();
    builder.push_record(header);
    rows.into_iter().for_each(|row| builder.push_record(row));
    builder.build().with(Style::rounded()).to_string()
}

/// A text on one line, at most this many characters.
pub fn short(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
