//! A simulated store: honest about its contract, in bad weather.
//!
//! What it holds is in a [`Machine`], which outlives the process. A [`Handle`] is what a process opens on it. Requests
//! may fail before or after they took effect, hang, come late or half; the contract holds all the same, because what an
//! entry writes is fenced by its LSN and what belongs to an older load is refused.

mod apply;
mod machine;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mainstay::{
    CollectionName, Distance, Fields, Filter, Hit, PointId, Record, ScrollPage, ScrollQuery, SearchQuery,
    VectorStore,
};
use mainstay_core::store::closed;
use mainstay_core::{
    Capabilities, CollectionInfo, Context, Durability, Effect, Error, ErrorKind, Operation, Pipeline,
    Position, RestoreStep, Result, Run, SearchCapabilities, score,
};
use parking_lot::Mutex;
use rand::Rng;
use rand::seq::IndexedRandom;
use tokio::time::sleep;

pub use self::machine::{Machine, Reach};
pub use self::state::{Held, Slot, State};
use crate::scenario::Kind;
use crate::world::{Served, World};

/// A store whose calls take longer than this is not well.
const SLOW_MS: u64 = 100;

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It fails and has no effect.
    Before(ErrorKind),
    /// It takes effect and the answer is lost.
    After(ErrorKind),
    /// It never answers and has no effect.
    Hang,
    /// It takes effect and never answers.
    HangAfter,
    /// It fails, and takes effect so much later.
    Late(Duration),
    /// It takes effect twice, the second time so much later.
    Twice(Duration),
    /// So many points of it take effect.
    Half(usize),
}

/// A store as a process has it open.
pub struct Handle {
    machine: Arc<Machine>,
    world: Arc<World>,
    closed: AtomicBool,
    pipeline: Mutex<Arc<Pipeline>>,
    /// Whoever has it is the next run.
    next_run: tokio::sync::Mutex<()>,
}

impl Handle {
    /// Opens a store.
    pub fn new(world: &Arc<World>, machine: &Arc<Machine>) -> Self {
        Self {
            machine: Arc::clone(machine),
            world: Arc::clone(world),
            closed: AtomicBool::new(false),
            pipeline: Mutex::default(),
            next_run: tokio::sync::Mutex::default(),
        }
    }

    /// Where its data is.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// The world that it is in.
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Draws what goes wrong with a call.
    fn fault(&self, operation: Operation) -> Option<Fault> {
        let world = &self.world;
        if !world.is_stormy() || !world.draw(|rng| rng.random_ratio(world.scenario.faults, 1_000)) {
            return None;
        }
        let victim = world.scenario.victim == self.machine.member && world.scenario.members.len() > 1;
        let mut kinds = vec![
            ErrorKind::Unavailable,
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Overloaded,
            ErrorKind::Unauthorized,
            ErrorKind::StorageFull,
        ];
        let quarantines = operation.is_write() || operation.is_check_up();
        if victim || !quarantines {
            kinds.push(ErrorKind::Internal);
        }
        if !quarantines {
            kinds.extend([ErrorKind::Corrupt, ErrorKind::Unsupported]);
        }
        let later = world.millis(1..=20_000);
        let fault = world.draw(|rng| {
            let kind = *kinds.choose(rng).unwrap_or(&ErrorKind::Unavailable);
            match rng.random_range(0..if operation.is_write() { 12 } else { 6 }) {
                0..4 => Fault::Before(kind),
                4 => Fault::Hang,
                5 | 6 => Fault::After(kind),
                7 => Fault::HangAfter,
                8 | 9 => Fault::Late(later),
                10 => Fault::Twice(later),
                _ => Fault::Half(rng.random_range(0..8)),
            }
        });
        self.machine.trouble();
        world.note(|| format!("store {}: {operation} meets {fault:?}", self.machine.member));
        Some(fault)
    }

    /// What every call goes through before it reaches the data.
    async fn enter(&self, operation: Operation) -> Result<Option<Fault>> {
        let (world, machine) = (&self.world, &self.machine);
        world.step().await;
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        machine.tick();
        match machine.reach() {
            Reach::Fine => {}
            Reach::Down(until) if until > world.now() => {
                machine.trouble();
                if world.one_in(4) {
                    sleep(world.millis(1..=300)).await;
                }
                return Err(Error::new(ErrorKind::Unavailable, "connection refused"));
            }
            Reach::Hanging(until) if until > world.now() => {
                machine.trouble();
                sleep(until - world.now()).await;
                world.step().await;
                machine.trouble();
            }
            Reach::Slow(until, most) if until > world.now() => {
                if most > SLOW_MS {
                    machine.trouble();
                }
                sleep(world.millis(1..=most)).await;
            }
            Reach::Down(_) | Reach::Hanging(_) | Reach::Slow(..) => machine.set_reach(Reach::Fine),
        }
        let fault = self.fault(operation);
        match world.draw(|rng| rng.random_range(0..8)) {
            0..4 => tokio::task::yield_now().await,
            4..7 => {}
            _ => sleep(world.millis(1..=4)).await,
        }
        world.step().await;
        machine.tick();
        match fault {
            Some(Fault::Before(kind)) => {
                if operation.is_write() || operation.is_check_up() {
                    machine.told_failure(kind);
                }
                Err(Error::new(kind, "a fault, before the store was asked"))
            }
            Some(Fault::Hang) => {
                std::future::pending::<()>().await;
                Err(closed())
            }
            fault => Ok(fault),
        }
    }

    /// What every call goes through after it took effect.
    async fn leave<T>(&self, operation: Operation, fault: Option<Fault>, answer: Result<T>) -> Result<T> {
        self.world.step().await;
        let lost = |kind| {
            let effect = if operation.is_write() { Effect::Unknown } else { Effect::None };
            Error::new(kind, "a fault, the answer was lost").with_effect(effect)
        };
        match fault {
            Some(Fault::After(kind)) => {
                if operation.is_write() || operation.is_check_up() {
                    self.machine.told_failure(kind);
                }
                Err(lost(kind))
            }
            Some(Fault::HangAfter) => {
                std::future::pending::<()>().await;
                answer
            }
            Some(Fault::Late(_)) => Err(lost(ErrorKind::Timeout)),
            _ => answer,
        }
    }

    /// A read: the data as it is at one moment.
    async fn read<T>(&self, operation: Operation, read: impl FnOnce(&State) -> Result<T>) -> Result<T> {
        let fault = self.enter(operation).await?;
        let answer = read(&self.machine.shown());
        let answer = self.leave(operation, fault, answer).await;
        if answer.is_ok() && !self.world.is_over() {
            // Nothing else runs until the caller has it.
            let state = self.machine.shown();
            *self.world.served.lock() = Some(Served {
                member: self.machine.member,
                // Without a position it holds all up to 0; while it is loaded not even that.
                position: (!state.restoring).then(|| state.reached().unwrap_or_default()),
                horizon: state.horizon,
                surprised: self.machine.is_surprised(),
            });
        }
        answer
    }

    fn held<T>(state: &State, name: &CollectionName, read: impl FnOnce(&Held) -> Result<T>) -> Result<T> {
        read(state.collections.get(name).ok_or_else(|| Error::collection_not_found(name))?)
    }
}

fn record(version: mainstay::Lsn, point: &mainstay::Point, fields: &Fields) -> Record {
    Record { version, point: fields.select(point) }
}

fn accepts(filter: Option<&Filter>, point: &mainstay::Point) -> bool {
    filter.is_none_or(|filter| filter.accepts(point.id, &point.payload))
}

#[async_trait]
impl VectorStore for Handle {
    fn capabilities(&self) -> Capabilities {
        let durability = match self.machine.kind {
            Kind::Volatile => Durability::Volatile,
            _ => Durability::OnFlush,
        };
        Capabilities {
            search: SearchCapabilities { dense: &Distance::ALL, sparse: true },
            durability,
            pipelining: self.pipelining(),
        }
    }

    async fn position(&self, _: &Context) -> Result<Option<Position>> {
        let fault = self.enter(Operation::Position).await?;
        let answer = self.leave(Operation::Position, fault, Ok(())).await;
        answer.map(|()| self.machine.tell_position())
    }

    async fn apply(&self, _: &Context, run: &Run) -> Result<Position> {
        self.world.check_status();
        self.apply_run(run).await
    }

    async fn flush(&self, _: &Context) -> Result<Option<Position>> {
        let fault = self.enter(Operation::Flush).await?;
        let flushed = match fault {
            Some(Fault::Half(_)) => Err(Error::new(ErrorKind::Unavailable, "the flush failed")),
            Some(Fault::Late(_)) => Ok(None),
            _ => Ok(self.machine.flush()),
        };
        let answer = self.leave(Operation::Flush, fault, flushed).await;
        if let Ok(durable) = &answer {
            self.machine.told_durable(*durable);
            let (member, at) = (self.machine.member, durable.map(|position| position.lsn));
            self.world.note(|| format!("store {member}: is durable at {at:?}"));
        }
        answer
    }

    async fn restore(&self, _: &Context, step: RestoreStep<'_>) -> Result<()> {
        let fault = self.enter(Operation::Restore).await?;
        let done = match &step {
            RestoreStep::Begin => "begins to load".to_owned(),
            RestoreStep::Finish { position } => format!("is loaded at {}", position.lsn),
            _ => "loads".to_owned(),
        };
        let taken = match (fault, step) {
            (Some(Fault::Late(_)), _) => Ok(()),
            (Some(Fault::Half(most)), RestoreStep::Points { collection, mut records }) => {
                records.truncate(most);
                self.machine.restore(RestoreStep::Points { collection, records })?;
                let error = Error::new(ErrorKind::Unavailable, "the connection was lost half-way");
                Err(error.with_effect(Effect::Unknown))
            }
            (_, step) => self.machine.restore(step),
        };
        let member = self.machine.member;
        self.world.note(|| format!("store {member}: {done}: {taken:?}"));
        self.leave(Operation::Restore, fault, taken).await
    }

    async fn search(&self, _: &Context, name: &CollectionName, query: &SearchQuery) -> Result<Vec<Hit>> {
        self.read(Operation::Search, |state| {
            Self::held(state, name, |held| {
                let spec = held.spec.vector(&query.using)?;
                let mut scored = Vec::new();
                for (_, version, point) in held.records() {
                    let Some(vector) = point.vectors.get(&query.using) else { continue };
                    let Some(score) = score::score(spec, &query.vector, vector) else { continue };
                    if accepts(query.filter.as_ref(), point)
                        && score::passes(spec, score, query.score_threshold)
                    {
                        scored.push((score, version, point));
                    }
                }
                scored.sort_by(|a, b| score::order(spec, (a.0, a.2.id), (b.0, b.2.id)));
                let page = scored.into_iter().skip(query.offset).take(query.limit);
                let hit = |(score, version, point): (f32, _, &Arc<mainstay::Point>)| Hit {
                    score,
                    version,
                    point: query.fields.select(point),
                };
                Ok(page.map(hit).collect())
            })
        })
        .await
    }

    async fn get(
        &self,
        _: &Context,
        name: &CollectionName,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        self.read(Operation::Get, |state| {
            Self::held(state, name, |held| {
                let found = ids.iter().filter_map(|id| held.points.get(id));
                let found = found.filter_map(|slot| Some((slot.version, slot.point.as_ref()?)));
                Ok(found.map(|(version, point)| record(version, point, fields)).collect())
            })
        })
        .await
    }

    async fn scroll(&self, _: &Context, name: &CollectionName, query: &ScrollQuery) -> Result<ScrollPage> {
        self.read(Operation::Scroll, |state| {
            Self::held(state, name, |held| {
                let after = held.records().filter(|(id, ..)| query.after.is_none_or(|after| *id > after));
                let mut found =
                    after.filter(|(_, _, point)| accepts(query.filter.as_ref(), point)).peekable();
                let page = found.by_ref().take(query.limit);
                let records: Vec<Record> =
                    page.map(|(_, version, point)| record(version, point, &query.fields)).collect();
                let next = found.peek().and(records.last().map(|record| record.point.id));
                Ok(ScrollPage { incarnation: held.incarnation, records, next })
            })
        })
        .await
    }

    async fn count(&self, _: &Context, name: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        self.read(Operation::Count, |state| {
            Self::held(state, name, |held| {
                Ok(held.records().filter(|(_, _, point)| accepts(filter, point)).count() as u64)
            })
        })
        .await
    }

    async fn collections(&self, _: &Context) -> Result<Vec<CollectionInfo>> {
        self.read(Operation::Collections, |state| {
            let info = |held: &Arc<Held>| CollectionInfo {
                spec: (*held.spec).clone(),
                incarnation: held.incarnation,
                points: held.records().count() as u64,
            };
            Ok(state.collections.values().map(info).collect())
        })
        .await
    }

    async fn ping(&self, _: &Context) -> Result<()> {
        let fault = self.enter(Operation::Ping).await?;
        self.leave(Operation::Ping, fault, Ok(())).await
    }

    async fn close(&self, _: &Context) -> Result<()> {
        self.world.step().await;
        self.closed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}
