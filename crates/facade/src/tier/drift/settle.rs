//! What differs is looked at again, judged, and made right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{CollectionName, Context, Fields, PointId, Record, Result, VectorStore};
use tokio::time::{sleep, timeout};

use super::history::History;
use super::judge::{self, Limits, State, Truth};
use super::look::{self, DEEP_PAGE, Look, Place, Seen};
use super::repair::{Repair, repair};
use super::report::DriftedPoint;
use super::round::{Round, Same, Scan, differ};
use crate::config::DriftPolicy;
use crate::tier::member::MemberState;
use crate::tier::write::MAX_POINT_BYTES;

/// How often a point that the log touches is looked at before it counts as unsettled.
const LOOKS: u32 = 3;
/// Asking whether a repair took.
const CHECK_TIMEOUT: Duration = Duration::from_secs(60);
/// Loading a member anew from another one.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(6 * 3_600);

/// Points of each member with versions that the log has not come to.
pub(super) type Beyond = BTreeMap<usize, BTreeMap<CollectionName, BTreeSet<PointId>>>;

impl Round<'_> {
    /// Looks again at what differs, says what is right, and repairs it.
    pub(super) async fn settle(&mut self, place: &Place, scan: &Scan) -> Result<Same> {
        let too_many = scan.more > 0;
        if too_many {
            self.report.too_many.push(place.reference.name.clone());
            self.settled = false;
        }
        let mut waiting: BTreeSet<PointId> = scan.suspects.union(&scan.moving).copied().collect();
        if waiting.is_empty() {
            return Ok(Same::Yes);
        }
        let mut history = History::of(place.reference.clone(), waiting.clone(), &*self.shared.log);
        for look in 0..LOOKS {
            if look > 0 {
                // By then what was applied is durable, if the log lets the point rest.
                sleep(self.shared.options.flush_interval).await;
            }
            let mut again = BTreeSet::new();
            let ids: Vec<PointId> = waiting.into_iter().collect();
            for chunk in ids.chunks(DEEP_PAGE) {
                let chunk = chunk.iter().copied().collect();
                let (sides, seen) = loop {
                    let sides = self.sides_but(&scan.lost);
                    if sides.len() < 2 {
                        self.settled = false;
                        return Ok(Same::Yes);
                    }
                    match look::points(self.shared, place, &sides, &chunk).await? {
                        Look::Changed => return Ok(Same::No),
                        Look::Lost(_) => {
                            self.settled = false;
                            return Ok(Same::Yes);
                        }
                        Look::Failed(side, why) => self.leave_out(side, why)?,
                        Look::Seen(seen) => break (sides, seen),
                    }
                };
                self.pace(seen.read).await;
                let base = scan.base;
                again.extend(self.judge(place, &sides, seen, &mut history, (base, too_many)).await?);
            }
            waiting = again;
            if waiting.is_empty() {
                return Ok(Same::Yes);
            }
        }
        self.report.unsettled += waiting.len() as u64;
        self.settled = false;
        Ok(Same::Yes)
    }

    /// Says what is right of what was seen, and repairs it; answers the ids to look at again.
    async fn judge(
        &mut self,
        place: &Place,
        sides: &[usize],
        mut seen: Seen,
        history: &mut History,
        (base, too_many): (bool, bool),
    ) -> Result<BTreeSet<PointId>> {
        let log = &*self.shared.log;
        let by_primary = self.config.policy == DriftPolicy::PrimaryWins && sides.first() == Some(&0);
        seen.states.retain(|_, states| differ(states));
        if seen.states.keys().any(|id| !seen.motion.ids.contains(id)) && !by_primary {
            // The log goes on meanwhile: what it did since is motion too.
            history.read_to(log, log.bounds().last).await?;
            let states = &seen.states;
            seen.motion.read_to(log, history.end(), &|id| states.contains_key(&id)).await?;
        }
        let limits = Limits { incarnation: place.reference.incarnation, cut: history.cut, base };
        let (mut again, mut found) = (BTreeSet::new(), Vec::new());
        let mut fix = Repair {
            collection: place.reference.clone(),
            upserts: BTreeMap::new(),
            deletes: BTreeSet::new(),
            motion: seen.motion.clone(),
        };
        for (id, states) in &seen.states {
            if seen.motion.ids.contains(id) {
                again.insert(*id);
                continue;
            }
            let logged;
            let truth: Option<&Record> = if by_primary {
                states.first().and_then(Option::as_ref)
            } else {
                logged = history.logged(log, *id).await?;
                let views: Vec<State<'_>> = states
                    .iter()
                    .zip(sides)
                    .map(|(record, side)| State {
                        record: record.as_ref(),
                        volatile: self.shared.members[*side].is_volatile(),
                    })
                    .collect();
                match judge::by_log(&views, &logged, limits) {
                    Truth::Absent => None,
                    Truth::Side(side) => states.get(side).and_then(Option::as_ref),
                    Truth::Logged => logged.record(),
                }
            };
            let kinds: Vec<_> = states.iter().map(|state| judge::difference(truth, state.as_ref())).collect();
            for (kind, side) in kinds.iter().zip(sides) {
                if let Some(kind) = *kind {
                    let collection = place.reference.name.clone();
                    self.report.members[*side].count(DriftedPoint { collection, id: *id, kind });
                }
            }
            found.push((*id, kinds));
            match truth.map(|record| place.spec.admit(record.point.clone())) {
                None => {
                    fix.deletes.insert(*id);
                }
                Some(Ok(point)) if point.size_bytes() <= MAX_POINT_BYTES => {
                    fix.upserts.insert(*id, Arc::new(point));
                }
                // Somebody wrote what the collection does not take.
                Some(_) => {}
            }
        }
        let may = match self.config.policy {
            DriftPolicy::Report => false,
            DriftPolicy::LogWins => !too_many,
            DriftPolicy::PrimaryWins => !too_many && by_primary,
        };
        let repaired = if may && !found.is_empty() { self.repair(fix).await } else { BTreeSet::new() };
        let end = log.bounds().last;
        for (id, kinds) in found {
            if !repaired.contains(&id) {
                self.settled = false;
                continue;
            }
            let states = seen.states.get(&id).into_iter().flatten();
            for ((kind, side), state) in kinds.into_iter().zip(sides).zip(states) {
                self.report.members[*side].repaired += u64::from(kind.is_some());
                // A store may pass over entries that are older than what it holds.
                if state.as_ref().is_some_and(|record| record.version > end) {
                    let name = place.reference.name.clone();
                    self.beyond.entry(*side).or_default().entry(name).or_default().insert(id);
                }
            }
        }
        Ok(again)
    }

    async fn repair(&mut self, fix: Repair) -> BTreeSet<PointId> {
        match repair(self.shared, fix).await {
            Ok(repaired) => repaired,
            Err(error) => {
                tracing::warn!(%error, "drift was not repaired");
                BTreeSet::new()
            }
        }
    }

    /// Loads a member anew that entries cannot repair, once everything else is repaired. One in a round, so that the
    /// others serve.
    pub(super) async fn reload_one(&mut self) {
        if self.config.policy == DriftPolicy::Report || !self.settled {
            return;
        }
        for (side, points) in std::mem::take(&mut self.beyond) {
            if self.passed_over(side, &points).await.unwrap_or(false) {
                self.reload.insert(side);
            }
        }
        let Some(target) = self.reload.first().copied() else { return };
        let well = |side: &&usize| {
            !self.reload.contains(side) && self.shared.members[**side].state() == MemberState::Live
        };
        let Some(source) = self.sides.iter().find(well).copied() else { return };
        let loaded = self.shared.members[target].ask_reload(source);
        self.report.members[target].reloaded = matches!(timeout(RELOAD_TIMEOUT, loaded).await, Ok(Ok(true)));
    }

    /// Whether a store passed over the repair of one of these points.
    async fn passed_over(
        &self,
        side: usize,
        points: &BTreeMap<CollectionName, BTreeSet<PointId>>,
    ) -> Result<bool> {
        let (member, end) = (&self.shared.members[side], self.shared.log.bounds().last);
        let mut cursor = member.watch_cursor();
        if timeout(CHECK_TIMEOUT, cursor.wait_for(|cursor| *cursor >= end)).await.is_err() {
            return Ok(false);
        }
        for (name, ids) in points {
            let ids: Vec<PointId> = ids.iter().copied().collect();
            for chunk in ids.chunks(DEEP_PAGE) {
                let cx = Context::within(CHECK_TIMEOUT);
                let held = member.store().get(&cx, name, chunk, &Fields::NONE).await?;
                let end = self.shared.log.bounds().last;
                if held.iter().any(|record: &Record| record.version > end) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
