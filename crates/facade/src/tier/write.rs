//! Writes: checked, appended to the log, then acked by a cursor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mainstay_core::query::unique_ids;
use mainstay_core::spec::check_payload_depth;
use mainstay_core::{
    CollectionName, CollectionRef, CollectionSpec, Context, Effect, Error, ErrorKind, Fields, Filter, Lsn,
    Op, Payload, PayloadPatch, PayloadPath, Point, PointId, Result, ScrollQuery, StoreId,
};
use tokio::sync::OwnedRwLockReadGuard;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument;

use crate::answer::Written;
use crate::catalog::{Catalog, Claim};
use crate::config::Ack;
use crate::log::{MAX_ENTRY_BYTES, split_points};
use crate::sabotage::{self, Bug};
use crate::tier::counts::WriteOperation;
use crate::tier::read::{Reader, check_ids, closing};
use crate::tier::route::{self, Acked};
use crate::tier::{Shared, spans};

/// Most bytes of one point or payload: an entry holds at least one point whatever its encoding adds.
pub const MAX_POINT_BYTES: usize = MAX_ENTRY_BYTES / 2;

/// How long a writer waits for a member that is to serve first again soon.
const SOON: Duration = Duration::from_millis(250);

impl Shared {
    /// Makes a write of a caller seen: its span, and how it ended.
    pub(crate) async fn watched(
        &self,
        operation: WriteOperation,
        collection: &CollectionName,
        write: impl Future<Output = Result<Written>>,
    ) -> Result<Written> {
        let span = spans::write(operation, collection);
        let answer = write.instrument(span.clone()).await;
        self.counts.wrote(operation, &answer);
        let lsn = answer.as_ref().map_or_else(Error::lsn, |written| Some(written.lsn));
        if let Some(lsn) = lsn {
            span.record("lsn", lsn.0);
        }
        answer
    }

    pub(crate) async fn create_collection(self: Arc<Self>, spec: CollectionSpec) -> Result<Written> {
        self.new_collection(spec.clone(), Op::CreateCollection(spec)).await
    }

    pub(crate) async fn adopt_collection(
        self: Arc<Self>,
        spec: CollectionSpec,
        store: StoreId,
    ) -> Result<Written> {
        self.new_collection(spec.clone(), Op::AdoptCollection { spec, store }).await
    }

    async fn new_collection(self: Arc<Self>, spec: CollectionSpec, op: Op) -> Result<Written> {
        spec.check()?;
        self.change_collections(move |catalog| Ok((catalog.claim_new(&spec.name)?, op))).await
    }

    pub(crate) async fn drop_collection(self: Arc<Self>, name: CollectionName) -> Result<Written> {
        self.change_collections(move |catalog| {
            let (claim, collection) = catalog.claim_drop(&name)?;
            Ok((claim, Op::DropCollection(collection.reference())))
        })
        .await
    }

    async fn change_collections(
        self: Arc<Self>,
        claim: impl FnOnce(&Catalog) -> Result<(Claim<'_>, Op)> + Send + 'static,
    ) -> Result<Written> {
        let cx = self.call();
        let (turn, shared) = (self.turn(&cx).await?, Arc::clone(&self));
        // Owned by the tier, not by the caller: a caller that stops waiting, or waited in vain, must not leave the
        // catalog without a collection that is in the log.
        let logged = self.own(async move {
            let _turn = turn;
            let (claim, op) = claim(&shared.catalog)?;
            let lsn = shared.log_now(vec![op.clone()]).await?;
            claim.logged(lsn, &op);
            Ok(lsn)
        });
        let lsn = self.logged_in_time(&cx, logged).await?;
        self.ack(&cx, lsn, 0).await
    }

    pub(crate) async fn upsert(&self, name: &CollectionName, points: Vec<Point>) -> Result<Written> {
        let collection = self.catalog.get(name)?;
        let points = self.admit(&collection.spec, points)?;
        let count = points.len() as u64;
        let reference = collection.reference();
        let ops = split_points(points)
            .into_iter()
            .map(|points| Op::Upsert { collection: reference.clone(), points })
            .collect();
        self.write(ops, count).await
    }

    /// Checks a batch; of points with one id the last one stands.
    fn admit(&self, spec: &CollectionSpec, points: Vec<Point>) -> Result<Vec<Arc<Point>>> {
        let fail = |text: String| Err(Error::invalid(text).with_collection(&spec.name));
        let (most_points, most_bytes) = (self.options.max_batch_points, self.options.max_batch_bytes);
        if points.is_empty() {
            return fail("the batch is empty".into());
        }
        if points.len() > most_points {
            return fail(format!(
                "the batch has {} points; at most {most_points} are allowed (tier.max_batch_points), so send it in parts",
                points.len()
            ));
        }
        let mut bytes = 0;
        for point in &points {
            // Before anything that walks a payload to its bottom.
            let deep = |error: Error| error.with_context("point", point.id).with_collection(&spec.name);
            check_payload_depth(&point.payload).map_err(deep)?;
            let size = point.size_bytes();
            if size > MAX_POINT_BYTES {
                return fail(format!(
                    "point {} has {size} bytes; one entry of the log holds at most {MAX_POINT_BYTES}",
                    point.id
                ));
            }
            bytes += size;
        }
        if bytes > most_bytes {
            return fail(format!(
                "the batch has {bytes} bytes; at most {most_bytes} are allowed (tier.max_batch_bytes), so send it in parts"
            ));
        }
        let mut admitted = BTreeMap::new();
        for point in points {
            let id = point.id;
            let point = if sabotage::on(Bug::InputNotChecked) { point } else { spec.admit(point)? };
            admitted.insert(id, Arc::new(point));
        }
        Ok(admitted.into_values().collect())
    }

    pub(crate) async fn delete(&self, name: &CollectionName, ids: &[PointId]) -> Result<Written> {
        let collection = self.catalog.get(name)?.reference();
        check_ids(ids)?;
        let ids = unique_ids(ids);
        let count = ids.len() as u64;
        self.write(vec![Op::Delete { collection, ids }], count).await
    }

    /// Resolves the filter to ids before anything is logged, on a member that holds every write
    /// that was logged before this call, and every point.
    pub(crate) async fn delete_by_filter(&self, name: &CollectionName, filter: &Filter) -> Result<Written> {
        let collection = self.catalog.get(name)?.reference();
        filter.check()?;
        if filter.accepts_all() {
            let text = "the filter has no condition and would remove every point; to remove them all, drop the \
                        collection and create it again";
            return Err(Error::invalid(text).with_collection(name));
        }
        let end = self.log.bounds().last;
        let at_least = if sabotage::on(Bug::FilterResolvedAnywhere) { Lsn::ZERO } else { end };
        let reader = Reader::new(self).at_least(at_least).whole();
        let mut logged = Written { lsn: end, points: 0 };
        let removed = self.remove_accepted(&reader, &collection, filter, &mut logged).await;
        match (removed, logged.points) {
            (removed, 0) => removed.map(|()| logged),
            (Ok(()), _) => self.ack(&self.call(), logged.lsn, logged.points).await,
            (Err(error), _) => Err(half_done(error, logged)),
        }
    }

    /// Logs the removal of what the filter accepts, page by page, each in the time of a call; `logged` is how far that
    /// came.
    async fn remove_accepted(
        &self,
        reader: &Reader<'_>,
        collection: &CollectionRef,
        filter: &Filter,
        logged: &mut Written,
    ) -> Result<()> {
        let name = &collection.name;
        let mut query =
            ScrollQuery { after: None, limit: 10_000, filter: Some(filter.clone()), fields: Fields::NONE };
        loop {
            let page = reader.scroll(name, &query).await?.value;
            if page.incarnation != collection.incarnation {
                return Err(
                    Error::collection_not_found(name).with_context("because", "it was dropped meanwhile")
                );
            }
            let ids: Vec<_> = page.records.iter().map(|record| record.point.id).collect();
            if !ids.is_empty() {
                let points = ids.len() as u64;
                let op = Op::Delete { collection: collection.clone(), ids };
                logged.lsn = self.append(&self.call(), vec![op]).await?;
                logged.points += points;
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(()),
            }
        }
    }

    pub(crate) async fn set_payload(
        &self,
        name: &CollectionName,
        ids: &[PointId],
        payload: Payload,
    ) -> Result<Written> {
        self.check_payload(name, &payload)?;
        self.patch(name, ids, PayloadPatch::Set(payload)).await
    }

    pub(crate) async fn overwrite_payload(
        &self,
        name: &CollectionName,
        ids: &[PointId],
        payload: Payload,
    ) -> Result<Written> {
        self.check_payload(name, &payload)?;
        self.patch(name, ids, PayloadPatch::Overwrite(payload)).await
    }

    pub(crate) async fn delete_payload(
        &self,
        name: &CollectionName,
        ids: &[PointId],
        paths: Vec<PayloadPath>,
    ) -> Result<Written> {
        if paths.is_empty() {
            return Err(Error::invalid("the list of payload paths is empty").with_collection(name));
        }
        self.patch(name, ids, PayloadPatch::Delete(paths)).await
    }

    fn check_payload(&self, name: &CollectionName, payload: &Payload) -> Result<()> {
        check_payload_depth(payload).map_err(|error| error.with_collection(name))?;
        let (bytes, most) = (mainstay_core::point::payload_bytes(payload), MAX_POINT_BYTES);
        if bytes > most {
            return Err(Error::invalid(format!("the payload has {bytes} bytes; at most {most} are allowed"))
                .with_collection(name));
        }
        Ok(())
    }

    async fn patch(&self, name: &CollectionName, ids: &[PointId], patch: PayloadPatch) -> Result<Written> {
        let collection = self.catalog.get(name)?.reference();
        check_ids(ids)?;
        let ids = unique_ids(ids);
        let count = ids.len() as u64;
        self.write(vec![Op::PatchPayload { collection, ids, patch }], count).await
    }

    /// A call that answers by the deadline.
    fn call(&self) -> Context {
        Context::within(self.options.deadline)
    }

    async fn write(&self, ops: Vec<Op>, points: u64) -> Result<Written> {
        let cx = self.call();
        let lsn = self.append(&cx, ops).await?;
        self.ack(&cx, lsn, points).await
    }

    async fn append(&self, cx: &Context, ops: Vec<Op>) -> Result<Lsn> {
        let _turn = self.turn(cx).await?;
        self.logged_in_time(cx, self.log_now(ops)).await
    }

    /// Waits for the right to append beside other writers. Nothing has happened if it does not come.
    async fn turn(&self, cx: &Context) -> Result<OwnedRwLockReadGuard<()>> {
        if self.is_closing() {
            return Err(closing());
        }
        let turn = timeout_at(cx.deadline, Arc::clone(&self.order).read_owned()).await;
        turn.map_err(|_| {
            let text = "a repair held the log until the deadline, and nothing was written; try again";
            Error::new(ErrorKind::Timeout, text).with_operation("write")
        })
    }

    async fn log_now(&self, ops: Vec<Op>) -> Result<Lsn> {
        let (span, started) = (spans::append(), Instant::now());
        let appended = self.log.append(ops).instrument(span.clone()).await;
        self.counts.appended(started.elapsed(), &appended);
        let last = match appended {
            Err(_) if sabotage::on(Bug::AckWithoutLog) => self.log.bounds().last,
            appended => appended?.last,
        };
        span.record("lsn", last.0);
        Ok(last)
    }

    /// What the log answers by the deadline. Without an answer nobody knows: what waits for the log cannot be taken back.
    async fn logged_in_time(&self, cx: &Context, logging: impl Future<Output = Result<Lsn>>) -> Result<Lsn> {
        let Ok(logged) = timeout_at(cx.deadline, logging).await else {
            let text =
                "the log did not answer by the deadline, its disk may hang; the write may still happen";
            let late = Error::new(ErrorKind::Timeout, text).with_effect(Effect::Unknown);
            self.counts.appended(self.options.deadline, &Err(late.duplicate()));
            return Err(late.with_operation("write"));
        };
        logged
    }

    /// Waits until the entry counts as written.
    async fn ack(&self, cx: &Context, lsn: Lsn, points: u64) -> Result<Written> {
        let mut patience = None;
        let mut moved = self.follow_members();
        loop {
            let acked = self.acked_by_now(lsn);
            let waited = patience.is_some_and(|until| Instant::now() >= until);
            if acked == Acked::Yes || (acked == Acked::Soon && waited) {
                // Journal acks promise nothing to readers who do not ask for the LSN.
                if self.options.ack != Ack::Journal && !sabotage::on(Bug::AckedForgotten) {
                    self.acked.fetch_max(lsn.0, Ordering::Relaxed);
                }
                return Ok(Written { lsn, points });
            }
            let unknown = |kind, why: &str| {
                let text = format!("entry {lsn} is safe in the log and will be applied, but {why}");
                let effect = if sabotage::on(Bug::EffectDenied) { Effect::None } else { Effect::Unknown };
                Err(Error::new(kind, text).with_effect(effect).with_lsn(lsn).with_operation("write"))
            };
            if self.is_closing() {
                return unknown(ErrorKind::Unavailable, "the tier closes");
            }
            let until = match acked {
                Acked::Soon => *patience.get_or_insert(cx.deadline.min(Instant::now() + SOON)),
                Acked::No | Acked::Yes => cx.deadline,
            };
            if timeout_at(until, moved.changed()).await.is_err() && acked == Acked::No {
                return unknown(ErrorKind::Timeout, "no active member had applied it by the deadline");
            }
        }
    }

    /// Every write up to this one is visible to a reader of a member that holds it.
    pub(crate) fn acked(&self) -> Lsn {
        Lsn(self.acked.load(Ordering::Relaxed))
    }

    fn acked_by_now(&self, lsn: Lsn) -> Acked {
        match self.options.ack {
            _ if sabotage::on(Bug::AckAtOnce) => Acked::Yes,
            Ack::Journal => Acked::Yes,
            Ack::All if sabotage::on(Bug::AckAllByAny) => route::acked(&self.views(), lsn),
            Ack::Active => route::acked(&self.views(), lsn),
            Ack::All if self.views().iter().all(|view| view.cursor >= lsn) => Acked::Yes,
            Ack::All => Acked::No,
        }
    }
}

/// A write that failed after some of its entries were logged.
fn half_done(error: Error, logged: Written) -> Error {
    // The entry that failed last may be in the log too.
    let last = error.lsn().filter(|_| error.effect() == Effect::Unknown).unwrap_or(logged.lsn);
    let error = error.with_effect(Effect::Unknown).with_lsn(last.max(logged.lsn));
    error.with_context("points_logged_before", logged.points)
}
