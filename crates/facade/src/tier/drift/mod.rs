//! Drift: what somebody wrote to one store behind the tier's back.
//!
//! | module | idea |
//! |---|---|
//! | `look` | what several members hold of the same ids, and what the log did to them meanwhile |
//! | `motion` | the ids that the log touched since |
//! | `history` | what the log as a whole says of some ids |
//! | `judge` | which of several states is the right one: a plain decision |
//! | `round` | one comparison of everything |
//! | `settle` | what differs is looked at again, judged, and made right |
//! | `repair` | entries that make it right |
//! | `report` | what was found |
//!
//! # Data flow
//!
//! A round goes through each collection in *windows* of ids, ascending. Of each window every live member is asked for ids
//! and versions (of some windows, in turn, for all that the points hold), and the answers are laid beside each other.
//! Stores hold no hashes of their own, so a hash of a range would cost the same reads and say less. Ids that differ are
//! suspects; they are looked at again with all they hold, and what differs then and is not explained by the log is drift.
//!
//! Members are at different cursors and move while they are read. Be `known` the lowest LSN that each of the members
//! holds surely: its cursor before the read, and for a durable member what it holds durably, because a store that is in
//! doubt about a write keeps its durable position before it. Be `end` the end of the log after the read. An id that no
//! entry in `known+1..=end` touches must be the same in all of them, whatever they have applied beyond `known`. One that
//! such an entry touches says nothing; it is looked at again later, and counted as unsettled if it never rests.
//!
//! Under `log-wins` the right state is what the last entry wrote that touches the id; where the log was cut, the newest
//! version that an entry can have written, so that no point is removed that may be an acked write. Under `primary-wins`
//! it is what the first member holds.
//!
//! A repair is an entry of the log like any other: an upsert of the right point, or a delete. It must not come after a
//! write that it does not know. Writers pass the tier's `order` side by side, a repair passes it alone: it looks at the
//! log once more, lets go the ids that were touched, and appends. A write whose caller gave up may have been on its way
//! into the log all the same and land before the repair; its part is then appended again after it.
//!
//! What entries cannot repair is loaded anew from another member: a collection that a store lost, and points whose version
//! is one that the log has not come to. That is done only when everything else that was found is repaired, and one member
//! at a time, so that nothing is let go that only that member had, and somebody serves.
//!
//! # Failure cases
//!
//! | what happens | what follows |
//! |---|---|
//! | a member fails, or is not live any more | it is left out of the rest of the round |
//! | it was loaded anew between two reads | its state changed in between, and it is left out |
//! | its server came back older, and nobody noticed yet | its position is asked before a suspect counts |
//! | fewer than two members are left | the round ends with an error |
//! | a collection is dropped or created again | it is passed over, whatever was found in it |
//! | a write comes between the look and the repair | the id is let go until the next round |
//! | somebody writes to the store between the look and the repair | the repair stands; the next round looks again |
//! | the log takes no more entries | nothing is repaired; the points count as left |
//! | more points of a collection differ than `max_repairs` | none of them is repaired: that is no other writer, but a loss |
//! | the tier closes | the round ends where it is; what it appended is whole |

mod history;
mod judge;
mod look;
mod motion;
mod repair;
mod report;
mod round;
mod settle;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

pub use report::{CollectionDrift, DriftKind, DriftReport, DriftedPoint, MemberDrift};

use crate::config::DriftConfig;
use crate::tier::read::closing as closed;
use crate::tier::{Event, Shared, until_closing};
use round::Round;

/// What a tier remembers of its rounds.
#[derive(Default)]
pub(crate) struct Drift {
    last: Mutex<Option<(Arc<DriftReport>, Instant)>>,
    rounds: AtomicU64,
    running: AtomicBool,
}

/// The one round that may run.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Drift {
    /// What the last round found.
    pub(crate) fn last(&self) -> Option<Arc<DriftReport>> {
        self.last.lock().as_ref().map(|(report, _)| Arc::clone(report))
    }

    /// How long ago the last round ended that compared the members.
    pub(crate) fn last_age(&self) -> Option<Duration> {
        self.last.lock().as_ref().map(|(_, ended)| ended.elapsed())
    }

    fn begin(&self) -> Result<Running<'_>> {
        if self.running.swap(true, Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Overloaded, "the members are being compared already")
                .with_operation("drift"));
        }
        Ok(Running(&self.running))
    }
}

/// Compares the members every so often, until the tier closes.
pub(crate) async fn run(shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    let Some(interval) = shared.options.drift.interval else { return };
    loop {
        tokio::select! {
            // A config that was made in code may say anything.
            () = sleep(interval.max(Duration::from_secs(1))) => {}
            () = until_closing(&mut closing) => return,
        }
        let config = shared.options.drift.clone();
        match round(&shared, &config).await {
            Ok(_) => {}
            Err(_) if shared.is_closing() => return,
            Err(error) => tracing::warn!(%error, "the members were not compared"),
        }
    }
}

/// Compares the members once.
pub(crate) async fn round(shared: &Shared, config: &DriftConfig) -> Result<Arc<DriftReport>> {
    let _running = shared.drift.begin()?;
    let number = shared.drift.rounds.fetch_add(1, Ordering::Relaxed);
    let mut closing = shared.closing.clone();
    let outcome = tokio::select! {
        outcome = Round::new(shared, config, number).run() => outcome,
        () = until_closing(&mut closing) => return Err(closed()),
    };
    shared.counts.compared(&outcome);
    let report = Arc::new(outcome?);
    for (member, found) in shared.members.iter().zip(&report.members) {
        member.counts().compared(found);
    }
    for member in report.members.iter().filter(|member| member.has_drift()) {
        let event = Event::Drift {
            member: member.member.clone(),
            points: member.points_that_differ(),
            collections: member.collections.len() as u64,
            repaired: member.repaired,
        };
        tracing::warn!(%event, policy = config.policy.as_str(), "drift");
        // Nobody may be listening.
        let _ = shared.events.send(event);
    }
    *shared.drift.last.lock() = Some((Arc::clone(&report), Instant::now()));
    Ok(report)
}
