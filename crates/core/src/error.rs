//! One error type with kinds.

use std::error::Error as StdError;
use std::fmt;

use crate::id::Lsn;
use crate::name::CollectionName;

/// The result of this crate and of every store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong; decisions are made by this, never by the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's input is wrong.
    Invalid,
    /// The collection does not exist.
    NotFound,
    /// The collection exists already.
    AlreadyExists,
    /// The store does not do this; its capabilities say so.
    Unsupported,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// The store cannot be reached, or changed underneath.
    Unavailable,
    /// The deadline passed.
    Timeout,
    /// A limit on concurrency or a queue is reached.
    Overloaded,
    /// The circuit breaker refused the call.
    BreakerOpen,
    /// The run does not continue what the store holds.
    LogGap,
    /// The store permanently refuses this entry, or to be filled with as much.
    Rejected,
    /// Data failed its check.
    Corrupt,
    /// No room is left (disk or `max_memory`).
    StorageFull,
    /// A defect, here or in the store.
    Internal,
}

impl ErrorKind {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::Invalid,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Unsupported,
        Self::Unauthorized,
        Self::Unavailable,
        Self::Timeout,
        Self::Overloaded,
        Self::BreakerOpen,
        Self::LogGap,
        Self::Rejected,
        Self::Corrupt,
        Self::StorageFull,
        Self::Internal,
    ];

    /// The kind as one word, as it stands in messages and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::Unsupported => "unsupported",
            Self::Unauthorized => "unauthorized",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Overloaded => "overloaded",
            Self::BreakerOpen => "breaker_open",
            Self::LogGap => "log_gap",
            Self::Rejected => "rejected",
            Self::Corrupt => "corrupt",
            Self::StorageFull => "storage_full",
            Self::Internal => "internal",
        }
    }

    /// What the tier does with an error of this kind.
    pub const fn disposition(self) -> Disposition {
        match self {
            Self::Invalid | Self::NotFound | Self::AlreadyExists => Disposition::Return,
            Self::Unavailable | Self::Timeout | Self::Overloaded => Disposition::Retry,
            Self::Unsupported | Self::Unauthorized | Self::BreakerOpen | Self::LogGap | Self::StorageFull => {
                Disposition::NextMember
            }
            Self::Rejected | Self::Corrupt | Self::Internal => Disposition::Quarantine,
        }
    }

    /// Whether the error speaks of the store's health, so that a breaker counts it. What the
    /// caller did wrong, what the store never does and what a limit of ours refused does not.
    pub const fn counts_on_breaker(self) -> bool {
        matches!(
            self,
            Self::Unauthorized
                | Self::Unavailable
                | Self::Timeout
                | Self::Corrupt
                | Self::StorageFull
                | Self::Internal
        )
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Could a failed write have landed?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Effect {
    /// Certainly not.
    #[default]
    None,
    /// Perhaps; re-read the position before deciding.
    Unknown,
}

/// What the tier does with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The same member may answer if asked again; a read moves on meanwhile.
    Retry,
    /// This member will not answer; ask the next one.
    NextMember,
    /// The caller's to mend; no other member would answer differently.
    Return,
    /// A write that ends so takes the member out of service until somebody looks; a read moves on.
    Quarantine,
}

/// An error with everything that a person or a program needs to act on it.
///
/// ```
/// use mainstay_core::{Error, ErrorKind, Disposition};
/// let error = Error::new(ErrorKind::Unavailable, "connection refused").with_operation("search");
/// assert_eq!(error.disposition(), Disposition::Retry);
/// assert_eq!(error.to_string(), "unavailable: connection refused (operation: search)");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    effect: Effect,
    message: String,
    operation: Option<&'static str>,
    member: Option<String>,
    collection: Option<CollectionName>,
    lsn: Option<Lsn>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind. The message says what was wrong and what to do about it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            effect: Effect::None,
            message: message.into(),
            operation: None,
            member: None,
            collection: None,
            lsn: None,
            context: Vec::new(),
            source: None,
        }))
    }

    /// The caller's input is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The collection does not exist.
    pub fn collection_not_found(name: &CollectionName) -> Self {
        Self::new(ErrorKind::NotFound, format!("there is no collection `{name}`")).with_collection(name)
    }

    /// The same error with this effect.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// The same error naming the operation, if none is named yet.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// The same error naming the member, if none is named yet.
    #[must_use]
    pub fn with_member(mut self, member: &str) -> Self {
        self.0.member.get_or_insert_with(|| member.to_owned());
        self
    }

    /// The same error naming the collection, if none is named yet.
    #[must_use]
    pub fn with_collection(mut self, collection: &CollectionName) -> Self {
        self.0.collection.get_or_insert_with(|| collection.clone());
        self
    }

    /// The same error naming the log entry that it speaks of.
    #[must_use]
    pub fn with_lsn(mut self, lsn: Lsn) -> Self {
        self.0.lsn = Some(lsn);
        self
    }

    /// The same error with one more fact.
    #[must_use]
    pub fn with_context(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Could the write have landed?
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// What the tier does about it.
    pub fn disposition(&self) -> Disposition {
        self.0.kind.disposition()
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that failed.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The member that failed.
    pub fn member(&self) -> Option<&str> {
        self.0.member.as_deref()
    }

    /// The collection that the operation spoke of.
    pub fn collection(&self) -> Option<&CollectionName> {
        self.0.collection.as_ref()
    }

    /// The log entry that the error speaks of. On a failed write whose effect is unknown: the
    /// last LSN that the write was given, so that the caller can ask for it later.
    pub fn lsn(&self) -> Option<Lsn> {
        self.0.lsn
    }

    /// Further facts.
    pub fn context(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.context.iter().map(|(key, value)| (*key, value.as_str()))
    }

    /// A copy without the cause (its text is kept), to answer several waiters with one failure.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let inner = &self.0;
        let mut context = inner.context.clone();
        if let Some(source) = &inner.source {
            context.push(("cause", source.to_string()));
        }
        Self(Box::new(Inner {
            kind: inner.kind,
            effect: inner.effect,
            message: inner.message.clone(),
            operation: inner.operation,
            member: inner.member.clone(),
            collection: inner.collection.clone(),
            lsn: inner.lsn,
            context,
            source: None,
        }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        write!(f, "{}: {}", inner.kind, inner.message)?;
        let mut facts: Vec<(&str, String)> = Vec::new();
        facts.extend(inner.operation.map(|v| ("operation", v.to_owned())));
        facts.extend(inner.member.iter().map(|v| ("member", v.clone())));
        facts.extend(inner.collection.iter().map(|v| ("collection", v.to_string())));
        facts.extend(inner.lsn.map(|v| ("lsn", v.to_string())));
        facts.extend(inner.context.iter().map(|(k, v)| (*k, v.clone())));
        for (i, (key, value)) in facts.iter().enumerate() {
            write!(f, "{}{key}: {value}", if i == 0 { " (" } else { ", " })?;
        }
        if !facts.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if self.0.effect == Effect::Unknown {
            f.write_str(" [effect unknown]")?;
        }
        if let Some(source) = &self.0.source {
            write!(f, "; caused by: {source:?}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
