//! What several members hold of the same ids, and what the log did to these ids meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mainstay_core::{
    CollectionRef, CollectionSpec, Context, Error, ErrorKind, Fields, Lsn, PointId, Record, Result,
    ScrollPage, ScrollQuery, VectorStore,
};

use super::motion::Motion;
use crate::tier::Shared;
use crate::tier::member::{Member, MemberState};

/// Points of a window when ids and versions are compared.
pub(super) const PAGE: usize = 1_000;
/// Points that are read at once with all they hold.
pub(super) const DEEP_PAGE: usize = 128;
/// One page; the guard's own timeout is usually shorter.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A collection that is compared.
pub(super) struct Place {
    pub reference: CollectionRef,
    pub spec: Arc<CollectionSpec>,
}

/// What came of looking.
pub(super) enum Look {
    /// What the members hold.
    Seen(Seen),
    /// The collection was dropped or created meanwhile.
    Changed,
    /// This member does not have the collection.
    Lost(usize),
    /// This member cannot be read, and why.
    Failed(usize, String),
}

/// What the members hold of some ids.
pub(super) struct Seen {
    /// What the log did to the ids after the last entry that each of the members holds surely.
    pub motion: Motion,
    /// The states of each id, in the order of the members that were asked.
    pub states: BTreeMap<PointId, Vec<Option<Record>>>,
    /// The last id that this says something of; `None` if it is the last of all.
    pub upto: Option<PointId>,
    /// Points that were read, of all members.
    pub read: u64,
}

impl Seen {
    /// What is seen where no member has the collection.
    pub fn nothing(place: &Place) -> Self {
        let motion = Motion::after(&place.reference.name, Lsn::ZERO);
        Self { motion, states: BTreeMap::new(), upto: None, read: 0 }
    }
}

/// From where a member is looked at.
struct Vantage {
    changes: u64,
    known: Lsn,
}

impl Vantage {
    fn of(member: &Member) -> Option<Self> {
        let condition = member.condition();
        // What is in doubt in a durable store lies after its durable position.
        let known =
            if member.is_volatile() { member.cursor() } else { member.cursor().min(member.durable()) };
        (condition.state == MemberState::Live).then_some(Self { changes: condition.changes, known })
    }

    /// Whether the member did nothing meanwhile but follow the log.
    fn stands(&self, member: &Member) -> bool {
        let condition = member.condition();
        condition.state == MemberState::Live && condition.changes == self.changes
    }
}

/// Looks at the ids after `after`, at most up to `until`, one page of each member.
pub(super) async fn window(
    shared: &Shared,
    place: &Place,
    sides: &[usize],
    (after, until): (Option<PointId>, Option<PointId>),
    deep: bool,
) -> Result<Look> {
    let (limit, fields) = if deep { (DEEP_PAGE, Fields::ALL) } else { (PAGE, Fields::NONE) };
    let query = &ScrollQuery { after, limit, filter: None, fields };
    let (vantages, pages) = match ask(shared, sides, |store| {
        let name = &place.reference.name;
        Box::pin(async move { store.scroll(&Context::within(PAGE_TIMEOUT), name, query).await })
    })
    .await
    {
        Ok(answers) => answers,
        Err((side, why)) => return Ok(Look::Failed(side, why)),
    };
    let known = lowest(&vantages);
    let upto = pages.iter().flatten().filter_map(last_of_more).chain(until).min();
    let within = |id: PointId| after.is_none_or(|after| id > after) && upto.is_none_or(|upto| id <= upto);
    let mut motion = Motion::after(&place.reference.name, known);
    motion.read_to(&*shared.log, shared.log.bounds().last, &within).await?;
    if motion.collection {
        return Ok(Look::Changed);
    }
    let mut states: BTreeMap<PointId, Vec<Option<Record>>> = BTreeMap::new();
    let mut read = 0;
    for (at, (page, side)) in pages.into_iter().zip(sides).enumerate() {
        let page = match page {
            Ok(page) if page.incarnation == place.reference.incarnation => page,
            Ok(_) => return Ok(Look::Lost(*side)),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Look::Lost(*side)),
            Err(error) => return Ok(Look::Failed(*side, error.to_string())),
        };
        read += page.records.len() as u64;
        let mut before = after;
        for record in page.records {
            let id = record.point.id;
            if before.is_some_and(|before| id <= before) {
                return Ok(Look::Failed(*side, format!("it scrolled out of order at point {id}")));
            }
            before = Some(id);
            if within(id) {
                states.entry(id).or_insert_with(|| vec![None; sides.len()])[at] = Some(record);
            }
        }
    }
    Ok(Look::Seen(Seen { motion, states, upto: upto.filter(|upto| Some(*upto) != until), read }))
}

/// The last id of a page that others follow.
fn last_of_more(page: &ScrollPage) -> Option<PointId> {
    page.next.and(page.records.last().map(|record| record.point.id))
}

/// Looks at these ids in all they hold, once each store has said that it is where it is thought to be.
pub(super) async fn points(
    shared: &Shared,
    place: &Place,
    sides: &[usize],
    ids: &BTreeSet<PointId>,
) -> Result<Look> {
    let wanted: &Vec<PointId> = &ids.iter().copied().collect();
    let (vantages, answers) = match ask(shared, sides, |store| {
        let name = &place.reference.name;
        Box::pin(async move {
            let cx = Context::within(PAGE_TIMEOUT);
            let position = store.position(&cx).await?;
            Ok((position, store.get(&cx, name, wanted, &Fields::ALL).await))
        })
    })
    .await
    {
        Ok(answers) => answers,
        Err((side, why)) => return Ok(Look::Failed(side, why)),
    };
    let known = lowest(&vantages);
    let mut motion = Motion::after(&place.reference.name, known);
    motion.read_to(&*shared.log, shared.log.bounds().last, &|id| ids.contains(&id)).await?;
    if motion.collection {
        return Ok(Look::Changed);
    }
    let mut states: BTreeMap<PointId, Vec<Option<Record>>> =
        ids.iter().map(|id| (*id, vec![None; sides.len()])).collect();
    let mut read = 0;
    for (at, ((answer, side), vantage)) in answers.into_iter().zip(sides).zip(&vantages).enumerate() {
        let records = match answer {
            Err(error) => return Ok(Look::Failed(*side, error.to_string())),
            Ok((position, _)) if position.is_none_or(|position| position.lsn < vantage.known) => {
                // It came back older; its applier finds out and replays the difference.
                shared.members[*side].suspect();
                return Ok(Look::Failed(*side, "it is not where it was".to_owned()));
            }
            Ok((_, Err(error))) if error.kind() == ErrorKind::NotFound => return Ok(Look::Lost(*side)),
            Ok((_, Err(error))) => return Ok(Look::Failed(*side, error.to_string())),
            Ok((_, Ok(records))) => records,
        };
        read += records.len() as u64;
        for record in records {
            if let Some(states) = states.get_mut(&record.point.id) {
                states[at] = Some(record);
            }
        }
    }
    Ok(Look::Seen(Seen { motion, states, upto: None, read }))
}

/// Whether a member holds a collection otherwise than the log says: as another incarnation than `meant`, or not as
/// none.
///
/// # Errors
/// Whatever the member or the log run into.
pub(super) async fn collection_differs(
    shared: &Shared,
    side: usize,
    name: &mainstay_core::CollectionName,
    meant: Option<Lsn>,
) -> Result<bool> {
    let member = &shared.members[side];
    let Some(vantage) = Vantage::of(member) else { return Ok(false) };
    let cx = Context::within(PAGE_TIMEOUT);
    let position = member.store().position(&cx).await?;
    let held = member.store().collections(&cx).await?;
    let held = held.into_iter().find(|info| info.spec.name == *name).map(|info| info.incarnation);
    let mut motion = Motion::after(name, vantage.known);
    motion.read_to(&*shared.log, shared.log.bounds().last, &|_| false).await?;
    let now = shared.catalog.get(name).ok().map(|collection| collection.incarnation);
    let stands = vantage.stands(member) && position.is_some_and(|position| position.lsn >= vantage.known);
    Ok(stands && !motion.collection && now == meant && held != meant)
}

type Asking<'a, T> = futures::future::BoxFuture<'a, Result<T>>;

/// Asks each of the members at once. The members must do nothing meanwhile but follow the log.
async fn ask<'a, T: Send>(
    shared: &'a Shared,
    sides: &[usize],
    call: impl Fn(&'a mainstay_core::Guarded<dyn VectorStore>) -> Asking<'a, T>,
) -> Result<(Vec<Vantage>, Vec<Result<T, Error>>), (usize, String)> {
    let away = |side: usize| (side, format!("it is {}", shared.members[side].state()));
    let mut vantages = Vec::with_capacity(sides.len());
    for side in sides {
        vantages.push(Vantage::of(&shared.members[*side]).ok_or_else(|| away(*side))?);
    }
    let answers = join_all(sides.iter().map(|side| call(shared.members[*side].store()))).await;
    for (side, vantage) in sides.iter().zip(&vantages) {
        if !vantage.stands(&shared.members[*side]) {
            return Err((*side, "it went away meanwhile".to_owned()));
        }
    }
    Ok((vantages, answers))
}

fn lowest(vantages: &[Vantage]) -> Lsn {
    vantages.iter().map(|vantage| vantage.known).min().unwrap_or(Lsn::ZERO)
}
