//! One comparison of everything.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use mainstay_core::{CollectionName, Context, Error, ErrorKind, Lsn, PointId, Record, Result, VectorStore};
use tokio::time::{Instant, sleep, timeout_at};

use super::judge;
use super::look::{self, Look, Place, Seen};
use super::report::{CollectionDrift, DriftKind, DriftReport, MemberDrift};
use super::settle::Beyond;
use crate::config::{DriftConfig, DriftPolicy};
use crate::tier::Shared;
use crate::tier::member::MemberState;

/// A collection that seems to be lost is looked at again after this, when the catalog knows what the log knows.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Listing collections.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// One comparison of the members.
pub(super) struct Round<'a> {
    pub shared: &'a Shared,
    pub config: &'a DriftConfig,
    number: u64,
    pub report: DriftReport,
    /// The members that are compared.
    pub sides: Vec<usize>,
    /// Points whose repair a store may have passed over.
    pub beyond: Beyond,
    /// Members that entries cannot repair.
    pub reload: BTreeSet<usize>,
    /// Whether everything that was found is known in full and repaired, apart from what a reload is for.
    pub settled: bool,
}

/// What a scan of one collection found.
#[derive(Default)]
pub(super) struct Scan {
    /// Ids that differ.
    pub suspects: BTreeSet<PointId>,
    /// Ids that differ and that the log touched meanwhile.
    pub moving: BTreeSet<PointId>,
    /// Ids that differ, beyond those in `suspects`.
    pub more: u64,
    /// Whether members agree on points that no entry wrote.
    pub base: bool,
    /// Members that do not have the collection.
    pub lost: BTreeSet<usize>,
}

/// Whether the collection that is worked on is still the same.
#[derive(PartialEq)]
pub(super) enum Same {
    Yes,
    No,
}

impl<'a> Round<'a> {
    pub fn new(shared: &'a Shared, config: &'a DriftConfig, number: u64) -> Self {
        let report = DriftReport {
            policy: config.policy,
            started: SystemTime::now(),
            took: Duration::ZERO,
            collections: 0,
            ranges: 0,
            passed_over: Vec::new(),
            too_many: Vec::new(),
            unsettled: 0,
            members: shared.members.iter().map(|member| MemberDrift::new(member.name().clone())).collect(),
        };
        let sides = (0..shared.members.len()).collect();
        let (beyond, reload) = (Beyond::new(), BTreeSet::new());
        Self { shared, config, number, report, sides, beyond, reload, settled: true }
    }

    /// Compares everything.
    ///
    /// # Errors
    /// `Unavailable` if fewer than two members can be read; whatever the log runs into.
    pub async fn run(mut self) -> Result<DriftReport> {
        let started = Instant::now();
        for (side, member) in self.shared.members.iter().enumerate() {
            if member.state() != MemberState::Live {
                self.leave_out(side, format!("it is {}", member.state()))?;
            }
        }
        self.check_sides()?;
        self.wait_for_durable_positions().await?;
        self.find_extra_collections().await?;
        for spec in self.shared.catalog.specs() {
            let Ok(collection) = self.shared.catalog.get(&spec.name) else { continue };
            let place = Place { reference: collection.reference(), spec: collection.spec };
            match self.compare(&place).await? {
                Same::Yes => self.report.collections += 1,
                Same::No => {
                    self.report.passed_over.push(spec.name);
                    self.settled = false;
                }
            }
        }
        self.reload_one().await;
        self.report.took = started.elapsed();
        Ok(self.report)
    }

    /// Goes on without a member.
    pub fn leave_out(&mut self, side: usize, why: String) -> Result<()> {
        self.sides.retain(|other| *other != side);
        self.report.members[side].left_out = Some(why);
        self.settled = false;
        self.check_sides()
    }

    /// One member alone cannot be compared.
    fn check_sides(&self) -> Result<()> {
        if self.sides.len() >= 2 {
            return Ok(());
        }
        let texts: Vec<_> = self
            .report
            .members
            .iter()
            .filter_map(|member| Some(format!("`{}`: {}", member.member, member.left_out.as_ref()?)))
            .collect();
        let why = if texts.is_empty() { "the tier has one".to_owned() } else { texts.join("; ") };
        let text = format!("fewer than two members can be compared ({why})");
        Err(Error::new(ErrorKind::Unavailable, text).with_operation("drift"))
    }

    /// A member that was opened just now does not know yet what it holds durably, and one that is in doubt about a
    /// write will know soon.
    async fn wait_for_durable_positions(&mut self) -> Result<()> {
        let options = &self.shared.options;
        let patience = 2 * options.flush_interval + options.check_interval;
        let until = Instant::now() + patience;
        for side in self.sides.clone() {
            let member = &self.shared.members[side];
            if member.is_volatile() {
                continue;
            }
            let cursor = member.cursor();
            let mut durable = member.watch_durable();
            let known = timeout_at(until, durable.wait_for(|durable| *durable >= cursor)).await;
            if known.is_err() && member.durable() < self.shared.log.checkpoint().position.lsn {
                self.leave_out(side, "what it holds durably is not known".to_owned())?;
            }
        }
        Ok(())
    }

    /// Reads no more points a second than the config allows.
    pub async fn pace(&self, points: u64) {
        sleep(Duration::from_secs_f64(points as f64 / f64::from(self.config.points_per_second.max(1)))).await;
    }

    async fn find_extra_collections(&mut self) -> Result<()> {
        let mut found: Vec<(usize, CollectionName)> = Vec::new();
        for side in self.sides.clone() {
            match self.shared.members[side].store().collections(&Context::within(LIST_TIMEOUT)).await {
                Err(error) => self.leave_out(side, error.to_string())?,
                Ok(infos) => found.extend(
                    infos
                        .into_iter()
                        .filter(|info| self.shared.catalog.get(&info.spec.name).is_err())
                        .map(|info| (side, info.spec.name)),
                ),
            }
        }
        for (side, name) in found {
            self.look_again(side, &name, None, DriftKind::Extra).await?;
        }
        Ok(())
    }

    /// Notes a collection that a member holds otherwise than the log says, if that still stands.
    async fn look_again(
        &mut self,
        side: usize,
        name: &CollectionName,
        meant: Option<Lsn>,
        kind: DriftKind,
    ) -> Result<()> {
        sleep(SECOND_LOOK).await;
        match look::collection_differs(self.shared, side, name, meant).await {
            Ok(true) => {
                self.report.members[side].collections.push(CollectionDrift { name: name.clone(), kind });
                // What only the first member has is not for the others to take away.
                let keep =
                    self.config.policy == DriftPolicy::PrimaryWins && side == 0 && kind == DriftKind::Extra;
                if keep {
                    self.settled = false;
                } else {
                    self.reload.insert(side);
                }
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => self.leave_out(side, error.to_string()),
        }
    }

    async fn compare(&mut self, place: &Place) -> Result<Same> {
        let mut scan = Scan::default();
        if self.scan(place, &mut scan).await? == Same::No {
            return Ok(Same::No);
        }
        for side in scan.lost.clone() {
            let name = &place.reference.name;
            self.look_again(side, name, Some(place.reference.incarnation), DriftKind::Missing).await?;
        }
        self.settle(place, &scan).await
    }

    /// The members that hold the collection.
    pub fn sides_but(&self, lost: &BTreeSet<usize>) -> Vec<usize> {
        self.sides.iter().copied().filter(|side| !lost.contains(side)).collect()
    }

    /// Goes through the ids of a collection, window by window.
    async fn scan(&mut self, place: &Place, scan: &mut Scan) -> Result<Same> {
        let (mut after, mut number) = (None, self.number);
        loop {
            let Some(seen) = self.window(place, scan, (after, None), false).await? else {
                return Ok(Same::No);
            };
            self.report.ranges += 1;
            if is_deep(number, self.config.deep)
                && self.scan_deeply(place, scan, (after, seen.upto)).await? == Same::No
            {
                return Ok(Same::No);
            }
            number += 1;
            match seen.upto {
                Some(upto) => after = Some(upto),
                None => return Ok(Same::Yes),
            }
        }
    }

    async fn scan_deeply(
        &mut self,
        place: &Place,
        scan: &mut Scan,
        (mut after, until): (Option<PointId>, Option<PointId>),
    ) -> Result<Same> {
        loop {
            let Some(seen) = self.window(place, scan, (after, until), true).await? else {
                return Ok(Same::No);
            };
            match seen.upto {
                Some(upto) => after = Some(upto),
                None => return Ok(Same::Yes),
            }
        }
    }

    /// Compares one window and notes what differs; `None` if the collection is another one now.
    async fn window(
        &mut self,
        place: &Place,
        scan: &mut Scan,
        range: (Option<PointId>, Option<PointId>),
        deep: bool,
    ) -> Result<Option<Seen>> {
        loop {
            let sides = self.sides_but(&scan.lost);
            if sides.is_empty() {
                return Ok(Some(Seen::nothing(place)));
            }
            match look::window(self.shared, place, &sides, range, deep).await? {
                Look::Changed => return Ok(None),
                Look::Lost(side) => {
                    scan.lost.insert(side);
                }
                Look::Failed(side, why) => self.leave_out(side, why)?,
                Look::Seen(seen) => {
                    for (at, side) in sides.iter().enumerate() {
                        let points =
                            seen.states.values().filter(|states| states[at].is_some()).count() as u64;
                        let member = &mut self.report.members[*side];
                        *(if deep { &mut member.deep_points } else { &mut member.points }) += points;
                    }
                    scan.take(&seen, self.config.max_repairs);
                    self.pace(seen.read).await;
                    return Ok(Some(seen));
                }
            }
        }
    }
}

impl Scan {
    /// Notes what differs, at most so many points of each sort; what moves beyond that is left to the next round.
    fn take(&mut self, seen: &Seen, most: u64) {
        for (id, states) in &seen.states {
            let moves = seen.motion.ids.contains(id);
            if !differ(states) {
                let from_nobody =
                    |state: &&Option<Record>| state.as_ref().is_some_and(|r| r.version == Lsn::ZERO);
                self.base |= states.iter().filter(from_nobody).count() >= 2;
            } else if moves && (self.moving.len() as u64) < most {
                self.moving.insert(*id);
            } else if !moves && !self.suspects.contains(id) {
                if (self.suspects.len() as u64) < most {
                    self.suspects.insert(*id);
                } else {
                    self.more += 1;
                }
            }
        }
    }
}

/// Whether members hold different states of a point.
pub(super) fn differ(states: &[Option<Record>]) -> bool {
    let first = states.first().and_then(Option::as_ref);
    states.iter().any(|state| judge::difference(first, state.as_ref()).is_some())
}

/// Whether a window is one of the share that is read deeply. `number` grows with the windows and with the rounds, so
/// that each is in turn.
fn is_deep(number: u64, share: f64) -> bool {
    let before = (number as f64 * share).floor();
    ((number + 1) as f64 * share).floor() > before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_windows_is_deep_and_each_is_in_turn() {
        let deep =
            |round: u64| (0..10).filter(move |window| is_deep(round + window, 0.1)).collect::<Vec<_>>();
        let mut turns: Vec<u64> = (0..10).flat_map(deep).collect();
        turns.sort_unstable();
        assert_eq!(turns, (0..10).collect::<Vec<_>>());
        assert!((0..100).all(|number| is_deep(number, 1.0)));
        assert!((0..100).all(|number| !is_deep(number, 0.0)));
    }
}
