//! Retention: cutting the log at what every durable member holds durably.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Lsn, Result};
use tokio::sync::watch;

use crate::sabotage::{self, Bug};
use crate::tier::{Shared, until_closing};

/// How often the task looks whether the log can be cut.
const INTERVAL: Duration = Duration::from_secs(5);
/// A cut is worth its cost from this share of the log's `max_bytes` on.
const WORTHWHILE_SHARE: u64 = 16;
/// From this share of `max_bytes` on (in percent), members that are late no longer hold the log.
const PRESSED_PERCENT: u64 = 80;

/// What a decision knows of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Everything up to this LSN outlives a crash of the member; nothing of one whose data is damaged.
    pub durable: Lsn,
    /// Whether the member starts empty after its process ended.
    pub volatile: bool,
}

/// What a decision knows of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes that the log holds.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub max_bytes: u64,
    /// The LSN before its first entry.
    pub start: Lsn,
}

/// Up to which LSN the log may be cut now; `None` if it is not worth it.
///
/// The cut is what every durable member holds durably. When the log is nearly full, a late member
/// no longer holds it (it is loaded from another one later), but never is an entry cut that no
/// durable member holds. With snapshots (up to where they need no log), the log is cut no further than they allow either,
/// unless it is nearly full: then writes go before snapshots. A tier without a durable member keeps its whole log, because
/// it is the only copy, or what its snapshots do not have.
pub fn cut(extent: Extent, members: &[Holder], snapshots: Option<Lsn>) -> Option<Lsn> {
    let durable = || members.iter().filter(|member| !member.volatile).map(|member| member.durable);
    let pressed = extent.bytes >= extent.max_bytes / 100 * PRESSED_PERCENT;
    let worthwhile = extent.bytes >= extent.max_bytes / WORTHWHILE_SHARE;
    let to = if pressed { durable().max().or(snapshots) } else { durable().chain(snapshots).min() }?;
    (worthwhile && to > extent.start).then_some(to)
}

/// Cuts the log as members become durable, until the tier closes.
pub async fn run(shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(INTERVAL) => {}
            () = until_closing(&mut closing) => return,
        }
        if let Err(error) = cut_once(&shared).await {
            tracing::warn!(%error, "the log was not cut");
        }
    }
}

async fn cut_once(shared: &Shared) -> Result<()> {
    let bounds = shared.log.bounds();
    let extent = Extent {
        bytes: bounds.bytes,
        max_bytes: shared.options.log_max_bytes,
        start: shared.log.checkpoint().position.lsn,
    };
    let holders: Vec<_> = shared
        .members
        .iter()
        .map(|member| match member.is_volatile() {
            true if sabotage::on(Bug::CutCountsVolatile) => {
                Holder { durable: member.cursor(), volatile: false }
            }
            false if sabotage::on(Bug::CutAtCursor) => Holder { durable: member.cursor(), volatile: false },
            volatile => Holder { durable: member.durable(), volatile },
        })
        .collect();
    let snapshots = shared.snapshots.as_ref().map(|snapshots| snapshots.keeps());
    let Some(to) = cut(extent, &holders, snapshots) else { return Ok(()) };
    let before = if sabotage::on(Bug::CutOneTooFar) { to.next().next() } else { to.next() };
    let known = if sabotage::on(Bug::CutCatalogAtEnd) { bounds.last } else { to };
    let reached = shared.log.truncate_before(before, shared.catalog.at(known)).await?;
    tracing::info!(asked = %to, %reached, "log cut");
    shared.catalog.cut(reached);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(bytes: u64) -> Extent {
        Extent { bytes, max_bytes: 1_000, start: Lsn(10) }
    }

    fn holder(durable: u64) -> Holder {
        Holder { durable: Lsn(durable), volatile: false }
    }

    const VOLATILE: Holder = Holder { durable: Lsn::ZERO, volatile: true };

    #[test]
    fn the_log_is_cut_at_what_every_durable_member_holds() {
        assert_eq!(cut(extent(500), &[holder(90), holder(50), VOLATILE], None), Some(Lsn(50)));
        assert_eq!(cut(extent(500), &[holder(90), holder(10)], None), None);
        assert_eq!(cut(extent(10), &[holder(90)], None), None);
    }

    #[test]
    fn a_late_member_does_not_hold_a_full_log() {
        assert_eq!(cut(extent(900), &[holder(90), holder(0)], None), Some(Lsn(90)));
    }

    #[test]
    fn snapshots_hold_the_log_until_it_is_nearly_full() {
        let cut_at = |bytes, snapshots| cut(extent(bytes), &[holder(90), holder(80)], Some(Lsn(snapshots)));
        assert_eq!(cut_at(500, 40), Some(Lsn(40)));
        assert_eq!(cut_at(500, 85), Some(Lsn(80)));
        assert_eq!(cut_at(500, 0), None);
        assert_eq!(cut_at(900, 0), Some(Lsn(90)));
    }

    #[test]
    fn snapshots_are_a_copy_of_a_tier_without_a_durable_member() {
        assert_eq!(cut(extent(500), &[VOLATILE], Some(Lsn(40))), Some(Lsn(40)));
        assert_eq!(cut(extent(900), &[VOLATILE], Some(Lsn(0))), None);
    }

    #[test]
    fn the_only_copy_is_never_cut() {
        assert_eq!(cut(extent(1_000), &[VOLATILE, VOLATILE], None), None);
        assert_eq!(cut(extent(1_000), &[VOLATILE, holder(0)], None), None);
    }
}
