//! Older formats: JSON backup files of versions 1.0 and 2.0.
//!
//! A file is one JSON object with `version`, `metadata` and `collections`; `docs/snapshot-format.md` describes both.
//! [`validate`] says which of six checks a file passes. [`Backup`] reads a file twice: once to check every point and to
//! learn what its collections are, and again to hand out the points, batch by batch, so that a file may be larger than
//! memory. [`export`] writes version 2.0. All but [`export`] block; an async caller gives them a thread.

mod export;
mod learn;
mod point;
mod read;
mod scan;
mod validate;
mod walk;

#[cfg(test)]
mod tests;

pub use export::{Exported, export};
pub use read::{Backup, Collection};
pub use validate::{Check, Checked, Outcome, validate, validate_file};

use serde_json::Value;

/// What reading a file may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest point, and largest value of any other kind, in bytes of JSON. 8 MiB, by default: the largest dense vector
    /// takes less than 2. In memory, a payload or a config may take eight times as much.
    pub value_bytes: u64,
    /// Most collections: 10,000, by default.
    pub collections: usize,
    /// Ids held in memory at once to find the same one twice; a larger collection is gone through several times. 4
    /// million, by default, which take up to 200 MiB.
    pub ids: usize,
    /// Most points in a batch: 256, by default.
    pub batch_points: usize,
    /// A batch ends when its points take so many bytes in memory: 8 MiB, by default.
    pub batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            value_bytes: 8 << 20,
            collections: 10_000,
            ids: 4 << 20,
            batch_points: 256,
            batch_bytes: 8 << 20,
        }
    }
}

/// The version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.0.
    V1,
    /// 2.0.
    V2,
}

impl Version {
    /// Reads `"1.0"`, `"2.0"`, or the numbers; `None` for anything else.
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) if text == "1.0" => Some(Self::V1),
            Value::String(text) if text == "2.0" => Some(Self::V2),
            Value::Number(number) if number.as_f64() == Some(1.0) => Some(Self::V1),
            Value::Number(number) if number.as_f64() == Some(2.0) => Some(Self::V2),
            _ => None,
        }
    }

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
            Self::V2 => "2.0",
        }
    }
}
