//! What happened to a tier, as it happens, for whoever wants to hear.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

use crate::answer::MemberName;
use crate::tier::member::MemberState;
use crate::tier::{Shared, route, until_closing};

/// Events that wait for a slow listener; beyond them it is told how many it missed.
pub(crate) const QUEUE: usize = 1_024;
/// Failed checks in a row after which somebody should look.
pub(crate) const ALERT_AFTER: u32 = 3;

/// Something that happened to a tier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A member's state changed.
    State {
        /// Which member.
        member: MemberName,
        /// The state before.
        from: MemberState,
        /// The state now.
        to: MemberState,
        /// Why, if the state now is not a good one.
        reason: Option<String>,
    },
    /// A member further down serves first now, or nobody does.
    Failover {
        /// Who served first.
        from: Option<MemberName>,
        /// Who does now.
        to: Option<MemberName>,
    },
    /// A member further up serves first again.
    Failback {
        /// Who served first.
        from: Option<MemberName>,
        /// Who does now.
        to: Option<MemberName>,
    },
    /// A member failed so many checks in a row that somebody should look.
    Alert {
        /// Which member.
        member: MemberName,
        /// How many.
        failed_checks: u32,
        /// What the last one said.
        reason: String,
    },
    /// A member holds something else than it should: somebody wrote to its store behind the tier's back.
    Drift {
        /// Which member.
        member: MemberName,
        /// How many points differ.
        points: u64,
        /// How many collections it has lost, or should not have.
        collections: u64,
        /// For how many of the points a repair was logged.
        repaired: u64,
    },
    /// A standby finds less than it should of what the serving member finds, on average over its recent shadow reads.
    Shadow {
        /// Which member.
        member: MemberName,
        /// The share of the hits that it finds, in percent.
        overlap_percent: u8,
    },
    /// A snapshot was made.
    Snapshot {
        /// Its id.
        id: String,
        /// How many points it has.
        points: u64,
        /// Bytes of its files.
        bytes: u64,
    },
    /// A snapshot was not made; earlier ones are as they were.
    SnapshotFailed {
        /// Why.
        reason: String,
    },
    /// The listener was too slow for so many events.
    Missed(u64),
}

impl Event {
    /// The kind of event as one word.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::State { .. } => "state",
            Self::Failover { .. } => "failover",
            Self::Failback { .. } => "failback",
            Self::Alert { .. } => "alert",
            Self::Drift { .. } => "drift",
            Self::Shadow { .. } => "shadow",
            Self::Snapshot { .. } => "snapshot",
            Self::SnapshotFailed { .. } => "snapshot_failed",
            Self::Missed(_) => "missed",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |member: &Option<MemberName>| member.as_ref().map_or("nobody", |n| n.as_str()).to_owned();
        match self {
            Self::State { member, from, to, reason } => {
                write!(f, "{member}: {from} -> {to}")?;
                reason.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
            }
            Self::Failover { from, to } => write!(f, "failover: {} -> {}", name(from), name(to)),
            Self::Failback { from, to } => write!(f, "failback: {} -> {}", name(from), name(to)),
            Self::Alert { member, failed_checks, reason } => {
                write!(f, "alert: {member} failed {failed_checks} checks in a row ({reason})")
            }
            Self::Drift { member, points, collections, repaired } => {
                write!(f, "drift: {member} differs in {points} points and {collections} collections")?;
                write!(f, " ({repaired} points repaired)")
            }
            Self::Shadow { member, overlap_percent } => {
                write!(f, "shadow: {member} finds {overlap_percent} % of the hits")
            }
            Self::Snapshot { id, points, bytes } => {
                write!(f, "snapshot: {id} with {points} points in {bytes} bytes")
            }
            Self::SnapshotFailed { reason } => write!(f, "no snapshot was made: {reason}"),
            Self::Missed(events) => write!(f, "{events} events were missed"),
        }
    }
}

/// The events of a tier from the moment it was asked for them.
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    pub(crate) fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self(receiver)
    }

    /// The next event; `None` once the tier is closed.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => Some(Event::Missed(events)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Tells who serves first whenever that changes, until the tier closes.
pub(crate) async fn tell_who_serves(shared: Arc<Shared>, mut closing: watch::Receiver<bool>) {
    let mut states = shared.changes.subscribe();
    let mut active = route::active(&shared.views());
    loop {
        // Time alone brings a member back, and a breaker that opens tells nobody.
        let waits = shared.members.iter().filter_map(|member| member.restored_in());
        let soon = waits.min().unwrap_or(Duration::MAX).min(shared.options.check_interval);
        tokio::select! {
            biased;
            () = until_closing(&mut closing) => return,
            _ = states.changed() => {}
            () = sleep(soon.max(Duration::from_millis(1))) => {}
        }
        let now = route::active(&shared.views());
        if now == active {
            continue;
        }
        let name = |index: Option<usize>| index.map(|index| shared.members[index].name().clone());
        let (from, to) = (name(active), name(now));
        // At the start nobody serves; that the first member begins to is no failback.
        let event = match (active, now) {
            (None, Some(0)) if shared.members.iter().all(|m| m.restored_in().is_none()) => None,
            (Some(before), Some(after)) if after < before => Some(Event::Failback { from, to }),
            (None, Some(_)) => Some(Event::Failback { from, to }),
            _ => Some(Event::Failover { from, to }),
        };
        active = now;
        match &event {
            Some(Event::Failover { .. }) => shared.counts.failed_over(),
            Some(Event::Failback { .. }) => shared.counts.failed_back(),
            _ => {}
        }
        if let Some(event) = event {
            tracing::warn!(%event, "who serves first");
            // Nobody may be listening.
            let _ = shared.events.send(event);
        }
    }
}
