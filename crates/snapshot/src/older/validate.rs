//! The six checks of a file.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::scan::{Failure, Found, scan};
use super::{Limits, Version};

/// What a file is checked for, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// The file can be read.
    Readable,
    /// It is JSON, one object.
    Parses,
    /// It has `version`, `metadata` and `collections`.
    RequiredFields,
    /// The version is 1.0 or 2.0.
    KnownVersion,
    /// `metadata`, `collections` and each collection are objects.
    Objects,
    /// Each collection has `points`, a list.
    Points,
}

impl Check {
    /// All checks, in order.
    pub const ALL: [Self; 6] =
        [Self::Readable, Self::Parses, Self::RequiredFields, Self::KnownVersion, Self::Objects, Self::Points];

    /// The name of the check.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Readable => "readable",
            Self::Parses => "parses",
            Self::RequiredFields => "required fields",
            Self::KnownVersion => "known version",
            Self::Objects => "metadata and collections are objects",
            Self::Points => "every collection has points",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well.
    Passed,
    /// What is wrong, and where.
    Failed(String),
    /// An earlier check failed, without which this one has nothing to look at.
    NotReached,
}

/// A check with what it found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The check.
    pub check: Check,
    /// What it found.
    pub outcome: Outcome,
}

/// Checks what a reader gives, from where it stands to its end.
pub fn validate(input: impl Read, limits: &Limits) -> [Checked; 6] {
    of(&scan(input, *limits, None))
}

/// Checks a file.
pub fn validate_file(path: &Path, limits: &Limits) -> [Checked; 6] {
    match File::open(path) {
        Ok(file) => validate(file, limits),
        Err(error) => of(&Err(Failure::Unreadable(error))),
    }
}

/// The checks of a file through which one pass went.
pub(super) fn of(scanned: &Result<Found, Failure>) -> [Checked; 6] {
    let mut reached = true;
    Check::ALL.map(|check| {
        let outcome = match (check, scanned) {
            _ if !reached => Outcome::NotReached,
            (Check::Readable, Err(Failure::Unreadable(error))) => Outcome::Failed(error.to_string()),
            (Check::Parses, Err(Failure::Wrong(what) | Failure::Point(what))) => {
                Outcome::Failed(what.clone())
            }
            (Check::RequiredFields, Ok(found)) => fields(found),
            (Check::KnownVersion, Ok(found)) => version(found),
            (Check::Objects, Ok(found)) => objects(found),
            (Check::Points, Ok(found)) => points(found),
            _ => Outcome::Passed,
        };
        let failed = matches!(outcome, Outcome::Failed(_));
        reached &= !(failed && check <= Check::Parses);
        Checked { check, outcome }
    })
}

fn outcome(problems: Vec<String>) -> Outcome {
    /// So many are written out.
    const SHOWN: usize = 10;
    match problems.len() {
        0 => Outcome::Passed,
        n if n > SHOWN => {
            Outcome::Failed(format!("{}, and {} more", problems[..SHOWN].join("; "), n - SHOWN))
        }
        _ => Outcome::Failed(problems.join("; ")),
    }
}

fn fields(found: &Found) -> Outcome {
    let there = [
        ("version", found.version.is_some()),
        ("metadata", found.metadata.is_some()),
        ("collections", found.collections.is_some()),
    ];
    let missing = there.into_iter().filter(|(_, there)| !there);
    outcome(missing.map(|(field, _)| format!("there is no `{field}`")).collect())
}

fn version(found: &Found) -> Outcome {
    match &found.version {
        None => Outcome::NotReached,
        Some(value) if Version::read(value).is_some() => Outcome::Passed,
        Some(value) => {
            let shown: String = match value {
                serde_json::Value::Array(_) => "a list".to_owned(),
                serde_json::Value::Object(_) => "an object".to_owned(),
                scalar => scalar.to_string().chars().take(64).collect(),
            };
            Outcome::Failed(format!("`version` is {shown}; this program reads 1.0 and 2.0"))
        }
    }
}

fn objects(found: &Found) -> Outcome {
    let tops = [("metadata", found.metadata), ("collections", found.collections)];
    if tops.iter().all(|(_, kind)| kind.is_none()) {
        return Outcome::NotReached;
    }
    let wrong = |what: String, kind: &str| (kind != "an object").then(|| format!("{what} is {kind}"));
    let tops = tops.into_iter().filter_map(|(name, kind)| wrong(format!("`{name}`"), kind?));
    let parts = found.parts.iter().filter_map(|part| wrong(format!("collection {:?}", part.name), part.kind));
    outcome(tops.chain(parts).collect())
}

fn points(found: &Found) -> Outcome {
    if found.collections != Some("an object") {
        return Outcome::NotReached;
    }
    let problem = |part: &super::scan::FoundCollection| match part.points {
        Some(Ok(_)) => None,
        Some(Err(kind)) => Some(format!("`points` of collection {:?} is {kind}", part.name)),
        None => Some(format!("collection {:?} has no `points`", part.name)),
    };
    outcome(found.parts.iter().filter_map(problem).collect())
}
