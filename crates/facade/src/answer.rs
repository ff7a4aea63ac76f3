//! What reads and writes answer.

use std::fmt;
use std::sync::Arc;

use mainstay_core::Lsn;

/// The name of a member, as the config has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName(Arc<str>);

impl MemberName {
    /// Takes a name as it is.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// How well the tier serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ServiceLevel {
    /// The first member serves.
    Normal,
    /// A standby serves.
    Standby,
    /// A volatile member serves, and no durable one is well.
    MemoryOnly,
    /// No member can answer.
    Unavailable,
}

impl ServiceLevel {
    /// The level as a number: 0 normal, 1 standby, 3 memory only, 4 unavailable (2 is kept for
    /// partial search).
    pub const fn number(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Standby => 1,
            Self::MemoryOnly => 3,
            Self::Unavailable => 4,
        }
    }

    /// The level as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Standby => "standby",
            Self::MemoryOnly => "memory_only",
            Self::Unavailable => "unavailable",
        }
    }
}

impl fmt::Display for ServiceLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer of a read, which says what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// The member that answered.
    pub served_by: MemberName,
    /// How well the tier served at that moment.
    pub level: ServiceLevel,
    /// How many entries of the log the member had not applied yet when it was asked.
    pub lag: u64,
    /// Whether the member let points go for want of room, so that there may be more than it knows of. It is asked
    /// only when no whole member can answer.
    pub partial: bool,
    /// The member's cursor when it was asked: the answer holds everything up to it.
    pub cursor: Lsn,
}

impl<T> Answer<T> {
    /// The same answer with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer {
            value: f(self.value),
            served_by: self.served_by,
            level: self.level,
            lag: self.lag,
            partial: self.partial,
            cursor: self.cursor,
        }
    }
}

/// The answer of an acked write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The last LSN of the write: a read "at least" this LSN sees it. If nothing had to be written
    /// (a delete whose filter accepts no point), the end of the log.
    pub lsn: Lsn,
    /// How many points the write names.
    pub points: u64,
}
