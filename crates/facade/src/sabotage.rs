//! Deliberate bugs, by which the simulation proves that its checks can see.
//!
//! Each stands in the code as `sabotage::on(Bug::…)`. Without the feature `simulation` that is `false` at compile time,
//! and nothing of it is left. With the feature, at most one is on in a thread.

/// One deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An applier moves the cursor before the store has applied the run.
    CursorBeforeApply,
    /// A run that failed counts as applied.
    EntrySkippedOnRetry,
    /// After an error the cursor is what it was, whatever the store says.
    PositionRemembered,
    /// A store whose history parted from the log's is followed on.
    HistoryNotCompared,
    /// A store that belongs to another log is followed on.
    IdentityNotCompared,
    /// A store that is ahead of the log is followed on.
    AheadOfLogAccepted,
    /// A flush that failed counts as done.
    FlushFailureIgnored,
    /// Appliers do not make the log durable before the stores.
    StoreFlushedBeforeLog,
    /// A log that cannot be read takes members out of service.
    LogBlamedOnStore,
    /// A member that is emptied to be loaded keeps its cursor.
    CursorKeptWhileLoading,
    /// A member whose load failed answers reads while it is down.
    HalfLoadedAnswersWhenDown,
    /// A loaded member takes the end of the log for its position.
    BootstrapAtLogEnd,
    /// A member is loaded from one that came back older meanwhile.
    SourceWentBack,
    /// What goes wrong with the source of a load is blamed on its target.
    SourceFailureBlamed,
    /// Only the first page of a collection is loaded.
    BootstrapFirstPageOnly,
    /// An entry that its store refuses is tried for ever.
    PoisonNotQuarantined,
    /// An entry that one store refuses takes every member out of service.
    PoisonStopsAll,
    /// The log is cut one entry too far.
    CutOneTooFar,
    /// The log is cut at what is applied, durable or not.
    CutAtCursor,
    /// What a volatile member holds counts as durable.
    CutCountsVolatile,
    /// A cut stores the collections of the end of the log.
    CutCatalogAtEnd,
    /// A write that the log refused is acked.
    AckWithoutLog,
    /// A write is acked before any member has it.
    AckAtOnce,
    /// `ack = "all"` is content with one member.
    AckAllByAny,
    /// Reads do not know what was acked.
    AckedForgotten,
    /// Points are logged as they come.
    InputNotChecked,
    /// A delete by filter asks a member that may be behind.
    FilterResolvedAnywhere,
    /// A write whose ack did not come in time says that it had no effect.
    EffectDenied,
    /// A read takes a member that has not reached the LSN that it asked for.
    AtLeastIgnored,
    /// Answers say that they are not behind.
    LagHidden,
    /// Answers name the member that was asked first.
    ServedByFirst,
    /// Every answer says that the service is normal.
    LevelAlwaysNormal,
    /// The first failure ends a read.
    NoNextMember,
    /// A slow member is raced by one that lacks acked writes.
    HedgeToStale,
    /// A member that is being loaded answers reads.
    HalfLoadedServes,
    /// A quarantined member answers reads.
    QuarantinedServes,
    /// A member that was away serves first at once.
    FailbackAtOnce,
    /// `sync = "immediate"` does not sync.
    AckBeforeSync,
    /// What a start finds beyond the last sync is not synced.
    TailNotSynced,
    /// What a cut wrote and no sync is known to have covered is not written again by a start.
    DoubtForgotten,
    /// After a failed sync the log takes more entries.
    FailedSyncForgotten,
    /// A cut removes entries before its checkpoint is durable.
    CutBeforeCheckpoint,
    /// Checksums of entries are not compared.
    ChecksumIgnored,
    /// A start takes a log whose durable end is missing.
    WatermarkIgnored,
}

impl Bug {
    /// Every bug.
    pub const ALL: &[Self] = &[
        Self::CursorBeforeApply,
        Self::EntrySkippedOnRetry,
        Self::PositionRemembered,
        Self::HistoryNotCompared,
        Self::IdentityNotCompared,
        Self::AheadOfLogAccepted,
        Self::FlushFailureIgnored,
        Self::StoreFlushedBeforeLog,
        Self::LogBlamedOnStore,
        Self::CursorKeptWhileLoading,
        Self::HalfLoadedAnswersWhenDown,
        Self::BootstrapAtLogEnd,
        Self::SourceWentBack,
        Self::SourceFailureBlamed,
        Self::BootstrapFirstPageOnly,
        Self::PoisonNotQuarantined,
        Self::PoisonStopsAll,
        Self::CutOneTooFar,
        Self::CutAtCursor,
        Self::CutCountsVolatile,
        Self::CutCatalogAtEnd,
        Self::AckWithoutLog,
        Self::AckAtOnce,
        Self::AckAllByAny,
        Self::AckedForgotten,
        Self::InputNotChecked,
        Self::FilterResolvedAnywhere,
        Self::EffectDenied,
        Self::AtLeastIgnored,
        Self::LagHidden,
        Self::ServedByFirst,
        Self::LevelAlwaysNormal,
        Self::NoNextMember,
        Self::HedgeToStale,
        Self::HalfLoadedServes,
        Self::QuarantinedServes,
        Self::FailbackAtOnce,
        Self::AckBeforeSync,
        Self::TailNotSynced,
        Self::DoubtForgotten,
        Self::FailedSyncForgotten,
        Self::CutBeforeCheckpoint,
        Self::ChecksumIgnored,
        Self::WatermarkIgnored,
    ];
}

#[cfg(feature = "simulation")]
thread_local! {
    static ON: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Puts a bug into the tiers and logs of this thread, or takes it out.
#[cfg(feature = "simulation")]
pub fn set(bug: Option<Bug>) {
    ON.set(bug);
}

/// Whether a bug is on in this thread.
#[cfg(feature = "simulation")]
pub(crate) fn on(bug: Bug) -> bool {
    ON.get() == Some(bug)
}

/// Without the feature no bug is ever on.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub(crate) const fn on(_: Bug) -> bool {
    false
}
