//! A client: random operations, and what may be expected of each answer.

use std::sync::Arc;
use std::time::Duration;

use mainstay::config::ReadPolicy;
use mainstay::{
    Ack, Answer, CollectionName, CollectionSpec, Distance, Effect, Error, ErrorKind, FieldTest, Fields,
    Filter, Lsn, MemberState, Point, PointId, Reader, Record, ScrollQuery, SearchQuery, ServiceLevel, Tier,
    Written,
};
use mainstay_core::{BreakerState, Condition, Match, Op, PayloadIndex, Scalar};
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::json;
use tokio::time::sleep;

use crate::scenario::Scenario;
use crate::store::Machine;
use crate::world::World;

const NAMES: [&str; 2] = ["docs", "pages"];
const IDS: u64 = 16;

/// What a write wants to see in the log at its LSN.
enum Wanted {
    Token(u64),
    Delete(Vec<PointId>),
    Drop(CollectionName),
    Filter {
        name: CollectionName,
        key: i64,
        from: Lsn,
        /// No store went back meanwhile.
        certain: bool,
    },
}

/// What is known before a read.
struct Before {
    /// The last entry.
    end: Lsn,
    /// The last write that was acked under `active` or `all`.
    acked: Lsn,
    /// Members that are well: their number, cursor and count of troubles.
    well: Vec<(usize, Lsn, u64)>,
    quarantined: Vec<usize>,
    setbacks: Vec<(u64, bool)>,
    at_least: Lsn,
    from: Option<usize>,
}

/// One client.
pub struct Client {
    world: Arc<World>,
    tier: Tier,
}

impl Client {
    /// A client of a tier.
    pub fn new(world: &Arc<World>, tier: &Tier) -> Self {
        Self { world: Arc::clone(world), tier: tier.clone() }
    }

    /// Does so many operations, with pauses.
    pub async fn run(self, operations: u32) {
        for _ in 0..operations {
            let pause = match self.world.draw(|rng| rng.random_range(0..10)) {
                0..5 => Duration::ZERO,
                5..8 => self.world.millis(0..=300),
                _ => self.world.millis(100..=4_000),
            };
            sleep(pause).await;
            self.world.step().await;
            self.operate().await;
            self.world.step().await;
            self.world.check_status();
        }
    }

    fn name(&self) -> CollectionName {
        let text = self.world.draw(|rng| *NAMES.choose(rng).unwrap_or(&"docs"));
        CollectionName::new(text).unwrap_or_else(|_| unreachable!("the names are good"))
    }

    fn ids(&self) -> Vec<PointId> {
        self.world.draw(|rng| {
            let count = rng.random_range(1..=5);
            (0..count).map(|_| PointId::Num(rng.random_range(0..IDS))).collect()
        })
    }

    fn vector(&self, dimension: usize) -> Vec<f32> {
        self.world.draw(|rng| (0..dimension).map(|_| rng.random_range(-1.0..1.0_f32)).collect())
    }

    fn dimension(&self, name: &CollectionName) -> Option<(usize, Lsn)> {
        let (incarnation, spec) = self.world.truth.lock().collection(name, Lsn(u64::MAX))?;
        match spec.vectors.values().next() {
            Some(mainstay::VectorSpec::Dense { dimension, .. }) => Some((*dimension, incarnation)),
            _ => None,
        }
    }

    /// One operation.
    pub async fn operate(&self) {
        let name = self.name();
        let Some((dimension, _)) = self.dimension(&name) else { return self.create(name).await };
        match self.world.draw(|rng| rng.random_range(0..100)) {
            0..2 => self.create(name).await,
            2..4 => self.drop_collection(name).await,
            4..32 => self.upsert(&name, dimension).await,
            32..38 => self.delete(&name).await,
            38..44 => self.patch(&name).await,
            44..48 => self.delete_by_filter(&name).await,
            48..53 => self.bad_input(&name, dimension).await,
            53..54 => self.failback(),
            54..72 => self.search(&name, dimension).await,
            72..84 => self.get(&name).await,
            84..93 => self.scroll(&name).await,
            _ => self.count(&name).await,
        }
    }

    /// Creates a collection.
    pub async fn create(&self, name: CollectionName) {
        let token = self.world.token();
        let (dimension, distance) = self.world.draw(|rng| {
            let distances = [Distance::Dot, Distance::Euclidean, Distance::Cosine];
            (rng.random_range(2..5), *distances.choose(rng).unwrap_or(&Distance::Dot))
        });
        let Ok(path) = format!("t{token}").parse() else { return };
        let spec =
            CollectionSpec::dense(name, dimension, distance).with_payload_index(path, PayloadIndex::Keyword);
        let written = self.tier.create_collection(spec).await;
        self.written("create", Wanted::Token(token), written);
    }

    async fn drop_collection(&self, name: CollectionName) {
        let written = self.tier.drop_collection(&name).await;
        self.written("drop", Wanted::Drop(name), written);
    }

    /// Writes a few points.
    pub async fn upsert(&self, name: &CollectionName, dimension: usize) {
        let (token, key) = (self.world.token(), self.world.draw(|rng| rng.random_range(0..3)));
        let points = self.ids().into_iter();
        let points = points
            .map(|id| Point::new(id, self.vector(dimension)).with_payload(json!({"w": token, "k": key})));
        let written = self.tier.upsert(name, points.collect()).await;
        self.written("upsert", Wanted::Token(token), written);
    }

    async fn delete(&self, name: &CollectionName) {
        let mut ids = self.ids();
        ids.sort();
        ids.dedup();
        let written = self.tier.delete(name, &ids).await;
        self.written("delete", Wanted::Delete(ids), written);
    }

    async fn patch(&self, name: &CollectionName) {
        let (token, ids) = (self.world.token(), self.ids());
        let mark = self.world.draw(|rng| rng.random_range(0..3));
        let payload = match json!({"w": token, "k": mark}) {
            serde_json::Value::Object(payload) => payload,
            _ => return,
        };
        let written = match mark {
            0 => self.tier.overwrite_payload(name, &ids, payload).await,
            _ => self.tier.set_payload(name, &ids, payload).await,
        };
        self.written("patch", Wanted::Token(token), written);
    }

    async fn delete_by_filter(&self, name: &CollectionName) {
        let Ok(path) = "k".parse() else { return };
        let key = self.world.draw(|rng| rng.random_range(0..3));
        let test = FieldTest::Match(Match::Value(Scalar::Int(key)));
        let filter = Filter::all([Condition::Field { path, test }]);
        let (from, setbacks) = (self.tier.log_end(), self.setbacks());
        let written = self.tier.delete_by_filter(name, &filter).await;
        let certain = setbacks == self.setbacks() && setbacks.iter().all(|(_, surprised)| !surprised);
        let wanted = Wanted::Filter { name: name.clone(), key, from, certain };
        self.written("delete by filter", wanted, written);
    }

    /// What a write says must be what the log says (P1), also that it did nothing (P8).
    fn written(&self, what: &'static str, wanted: Wanted, written: mainstay::Result<Written>) {
        let world = &self.world;
        if world.is_over() {
            return;
        }
        match written {
            Ok(written) => {
                world.note(|| format!("client: {what} is acked at {}", written.lsn));
                self.acked(what, written);
                self.logged(what, &wanted, written);
            }
            Err(error) => {
                world.note(|| format!("client: {what} fails: {error:?}"));
                if error.effect() == Effect::None
                    && let Wanted::Token(token) = wanted
                {
                    world.told.lock().refused.push((token, format!("{what}: {error}")));
                    self.world.expect(world.truth.lock().token(token).is_none(), "P1", || {
                        format!("{what} is in the log, its caller was told that it had no effect: {error}")
                    });
                }
            }
        }
    }

    fn acked(&self, what: &str, written: Written) {
        let world = &self.world;
        if written.points == 0 && what == "delete by filter" {
            return;
        }
        let machines = world.machines.lock().clone();
        let has = |machine: &Arc<Machine>| {
            machine.is_surprised()
                || machine.is_strange()
                || machine.shown().reached().is_some_and(|reached| reached >= written.lsn)
        };
        let enough = match world.scenario.tier.ack {
            Ack::Journal => return,
            Ack::Active => machines.iter().any(has),
            Ack::All => machines.iter().all(has),
        };
        world.expect(enough, "P1", || {
            let reached: Vec<_> = machines.iter().map(|machine| machine.shown().reached()).collect();
            format!(
                "{what} at {} is acked ({:?}), the members are at {reached:?}",
                written.lsn, world.scenario.tier.ack
            )
        });
        let mut told = world.told.lock();
        told.acked = told.acked.max(written.lsn);
    }

    fn logged(&self, what: &str, wanted: &Wanted, written: Written) {
        let truth = self.world.truth.lock();
        let entry = truth.entry(written.lsn).map(|entry| &entry.op);
        let fits = match wanted {
            Wanted::Token(token) => truth.token(*token) == Some(written.lsn),
            Wanted::Delete(ids) => {
                matches!(entry, Some(Op::Delete { ids: found, .. })
                    if found.len() == ids.len() && ids.iter().all(|id| found.contains(id)))
            }
            Wanted::Drop(name) => matches!(entry, Some(Op::DropCollection(dropped)) if dropped.name == *name),
            Wanted::Filter { name, key, from, certain } => {
                let matched = |point: &Point| point.payload.get("k").and_then(|k| k.as_i64()) == Some(*key);
                let (here, end) = (truth.collection(name, *from), truth.end());
                let still = here.filter(|here| truth.collection(name, end) == Some(here.clone()));
                // Whatever it accepted before the call, and nobody wrote since, is gone.
                !certain
                    || still.is_none_or(|(incarnation, _)| {
                        truth
                            .points(incarnation, end)
                            .iter()
                            .all(|(_, found)| found.version > *from || !matched(&found.point))
                    })
            }
        };
        let found = entry.cloned();
        drop(truth);
        self.world.expect(fits, "P1", || format!("{what} is acked at {}, there is {found:?}", written.lsn));
    }

    async fn bad_input(&self, name: &CollectionName, dimension: usize) {
        let token = self.world.token();
        let payload = json!({"w": token, "k": 1});
        let point = |vector: Vec<f32>| Point::new(1, vector).with_payload(payload.clone());
        let case = self.world.draw(|rng| rng.random_range(0..5));
        let mut nan = self.vector(dimension);
        nan[0] = if self.world.one_in(2) { f32::NAN } else { f32::INFINITY };
        let missing = CollectionName::new("missing").unwrap_or_else(|_| name.clone());
        let refused = match case {
            0 => self.tier.upsert(name, vec![point(self.vector(dimension + 3))]).await,
            1 => self.tier.upsert(name, vec![point(nan)]).await,
            2 => self.tier.upsert(&missing, vec![point(self.vector(dimension))]).await,
            3 => self.tier.upsert(name, vec![point(self.vector(dimension)); 21]).await,
            _ => self.tier.upsert(name, Vec::new()).await,
        };
        if self.world.is_over() {
            return;
        }
        let kind = refused.as_ref().err().map(Error::kind);
        self.world.expect(matches!(kind, Some(ErrorKind::Invalid | ErrorKind::NotFound)), "P8", || {
            format!("bad input (case {case}) was answered {refused:?}")
        });
        self.world.expect(self.world.truth.lock().token(token).is_none(), "P8", || {
            format!("bad input (case {case}) is in the log")
        });
    }

    fn failback(&self) {
        let member = self.world.draw(|rng| rng.random_range(0..self.world.scenario.members.len()));
        if self.tier.failback(Scenario::NAMES[member]).is_ok() {
            self.world.note(|| format!("client: lets member {member} serve first again"));
            self.world.told.lock().restored[member] = Some(self.world.now());
        }
    }

    fn setbacks(&self) -> Vec<(u64, bool)> {
        self.world.machines.lock().iter().map(|machine| machine.setbacks()).collect()
    }

    /// A reader with random conditions, and what is known before it reads.
    fn reader(&self) -> (Reader<'_>, Before) {
        let world = &self.world;
        let end = self.tier.log_end();
        let acked = world.told.lock().acked;
        let mut reader = self.tier.reader();
        let mut at_least = Lsn::ZERO;
        if world.one_in(3) {
            at_least = if world.one_in(2) { end } else { acked.min(end) };
            reader = reader.at_least(at_least);
        }
        let members = world.scenario.members.len();
        let from = world.one_in(10).then(|| world.draw(|rng| rng.random_range(0..members)));
        if let Some(from) = from {
            reader = reader.from_member(Scenario::NAMES[from]).unwrap_or(reader);
        }
        let machines = world.machines.lock().clone();
        let setbacks = self.setbacks();
        let (mut well, mut quarantined) = (Vec::new(), Vec::new());
        for (at, (member, machine)) in self.tier.status().members.iter().zip(&machines).enumerate() {
            if member.state == MemberState::Live
                && member.breaker == BreakerState::Closed
                && !machine.is_surprised()
                && !machine.is_strange()
            {
                well.push((at, member.cursor, machine.troubles()));
            }
            if member.state == MemberState::Quarantined {
                quarantined.push(at);
            }
        }
        (reader, Before { end, acked, well, quarantined, setbacks, at_least, from })
    }

    /// The members that were well all the time.
    fn well(&self, before: &Before) -> Vec<(usize, Lsn)> {
        let machines = self.world.machines.lock().clone();
        let status = self.tier.status();
        let stayed = before.well.iter().filter(|(at, _, troubles)| {
            let member = &status.members[*at];
            machines[*at].troubles() == *troubles
                && member.state == MemberState::Live
                && member.breaker == BreakerState::Closed
        });
        stayed.map(|(at, cursor, _)| (*at, *cursor)).collect()
    }

    /// What every answer says of itself must be so (P2, P4).
    fn answered<T>(
        &self,
        what: &str,
        name: &CollectionName,
        before: &Before,
        answer: &mainstay::Result<Answer<T>>,
    ) -> Option<(Lsn, Lsn)> {
        let world = &self.world;
        if world.is_over() {
            return None;
        }
        let well = self.well(before);
        let end = self.tier.log_end();
        // A collection that came or went meanwhile is there for some members and not for others.
        let (created, steady) = {
            let truth = world.truth.lock();
            let (here, there) = (truth.collection(name, before.end), truth.collection(name, end));
            (here.as_ref().map(|(incarnation, _)| *incarnation), here.is_some() && here == there)
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                world.note(|| format!("client: {what} fails: {error}"));
                let gone = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid)
                    && world.truth.lock().was_missing(name, Lsn(before.end.0.saturating_sub(8)), end);
                let fit = well.iter().find(|(_, cursor)| {
                    *cursor >= before.at_least && created.is_none_or(|created| *cursor >= created)
                });
                if let (Some((member, cursor)), None, true) = (fit, before.from, steady && !gone) {
                    world.fail(
                        "P2",
                        format!("{what} fails ({error}) while member {member} is well at {cursor}"),
                    );
                }
                return None;
            }
        };
        let Some(served) = *world.served.lock() else {
            world.fail("P4", format!("{what} was answered by nobody"));
            return None;
        };
        let named = Scenario::NAMES.iter().position(|name| *name == answer.served_by.as_str());
        world.note(|| {
            format!(
                "client: {what} is answered by {named:?} at {} ({}, lag {})",
                answer.cursor, answer.level, answer.lag
            )
        });
        world.expect(named == Some(served.member), "P4", || {
            format!("{what} says that {named:?} answered; it was {}", served.member)
        });
        world.expect(answer.cursor >= before.at_least, "P4", || {
            format!("{what} wants at least {}, the answer is of {}", before.at_least, answer.cursor)
        });
        let lag = answer.cursor.lag_behind(before.end)..=answer.cursor.lag_behind(end);
        world.expect(lag.contains(&answer.lag), "P4", || {
            format!("{what} says that it is {} behind; it is {lag:?}", answer.lag)
        });
        let first = served.member == 0;
        let normal = answer.level == ServiceLevel::Normal;
        let preferred = world.scenario.tier.read == ReadPolicy::Preferred;
        world.expect(if first { normal } else { !normal || !preferred }, "P4", || {
            format!("{what} was served by member {} at level {}", served.member, answer.level)
        });
        world.expect(!before.quarantined.contains(&served.member), "P7", || {
            format!("{what} was served by member {}, which is quarantined", served.member)
        });
        let fresh = |cursor: Lsn| cursor >= before.acked && created.is_some_and(|created| cursor >= created);
        if let Some((member, cursor)) = well.iter().find(|(_, cursor)| fresh(*cursor))
            && before.from.is_none()
            && steady
        {
            world.expect(answer.cursor >= before.acked, "P4", || {
                format!(
                    "{what} is answered at {}, {} was acked before and member {member} is well at {cursor}",
                    answer.cursor, before.acked
                )
            });
        }
        let machine = &world.machines.lock()[served.member].clone();
        // That a store went back is known when it is asked again; what it answers until then, nobody can tell.
        let (setbacks, surprised) = before.setbacks[served.member];
        if surprised || served.surprised || machine.setbacks().0 != setbacks || machine.is_strange() {
            return None;
        }
        world.expect(served.position >= Some(answer.cursor), "P4", || {
            format!("{what} says that it holds {}; the store is at {:?}", answer.cursor, served.position)
        });
        Some((answer.cursor, served.horizon.max(answer.cursor)))
    }

    /// Each record must have been so between two entries.
    fn check_records<'r>(
        &self,
        name: &CollectionName,
        span: Option<(Lsn, Lsn)>,
        records: impl IntoIterator<Item = &'r Record>,
    ) {
        let Some((from, to)) = span else { return };
        for record in records {
            let truth = self.world.truth.lock();
            let incarnations: Vec<Lsn> = [from, to]
                .iter()
                .filter_map(|lsn| truth.collection(name, *lsn).map(|(incarnation, _)| incarnation))
                .collect();
            let was = |incarnation: &Lsn| truth.was(*incarnation, record.point.id, Some(record), from, to);
            // A collection that came and went in between is not looked up.
            let fits = incarnations.is_empty() || incarnations.iter().any(was);
            let steady = incarnations.len() == 2 && incarnations[0] == incarnations[1];
            drop(truth);
            self.world.expect(fits || !steady, "P3", || {
                format!("an answer of {from}..{to} has {record:?}, which nobody wrote so")
            });
        }
    }

    /// Searches.
    pub async fn search(&self, name: &CollectionName, dimension: usize) {
        let (reader, before) = self.reader();
        let limit = self.world.draw(|rng| rng.random_range(1..20));
        let mut query = SearchQuery::new(self.vector(dimension)).with_limit(limit).exact();
        query.fields = Fields::ALL;
        let answer = reader.search(name, query).await;
        let span = self.answered("search", name, &before, &answer);
        if let Ok(answer) = &answer {
            let records: Vec<Record> = answer
                .value
                .iter()
                .map(|hit| Record { version: hit.version, point: hit.point.clone() })
                .collect();
            self.check_records(name, span, &records);
        }
    }

    async fn get(&self, name: &CollectionName) {
        let (reader, before) = self.reader();
        let mut ids = self.ids();
        ids.sort();
        ids.dedup();
        let answer = reader.get(name, &ids, &Fields::ALL).await;
        let span = self.answered("get", name, &before, &answer);
        let (Ok(answer), Some((from, to))) = (&answer, span) else { return };
        self.check_records(name, span, &answer.value);
        let truth = self.world.truth.lock();
        let (Some((a, _)), Some((b, _))) = (truth.collection(name, from), truth.collection(name, to)) else {
            return;
        };
        let missing = ids.iter().find(|id| {
            let found = answer.value.iter().find(|record| record.point.id == **id);
            a == b && !truth.was(a, **id, found, from, to)
        });
        let missing = missing.copied();
        drop(truth);
        self.world.expect(missing.is_none(), "P3", || {
            format!("a get at {from}..{to} answers wrongly of point {missing:?}: {:?}", answer.value)
        });
    }

    async fn scroll(&self, name: &CollectionName) {
        let (reader, before) = self.reader();
        let query = ScrollQuery { limit: 6, fields: Fields::ALL, ..ScrollQuery::default() };
        let answer = reader.scroll(name, &query).await;
        let span = self.answered("scroll", name, &before, &answer);
        if let Ok(answer) = &answer {
            self.check_records(name, span, &answer.value.records);
        }
    }

    async fn count(&self, name: &CollectionName) {
        let (reader, before) = self.reader();
        let answer = reader.count(name, None).await;
        let span = self.answered("count", name, &before, &answer);
        let (Ok(answer), Some((from, to))) = (&answer, span) else { return };
        if from != to {
            return;
        }
        let truth = self.world.truth.lock();
        let Some((incarnation, _)) = truth.collection(name, from) else { return };
        let expected = truth.points(incarnation, from).len() as u64;
        drop(truth);
        self.world.expect(answer.value == expected, "P3", || {
            format!("a count at {from} answers {}, the log says {expected}", answer.value)
        });
    }
}
