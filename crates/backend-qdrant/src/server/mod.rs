//! The engine behind gRPC.

mod client;
mod convert;
mod describe;
mod error;
mod filter;
mod limits;
mod options;
mod replicas;
mod upsert;

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::StreamExt;
use mainstay_core::{
    CollectionName, CollectionSpec, Context, Error, ErrorKind, Fields, Filter, Hit, Lsn, PayloadPath,
    PointId, Record, Result, SearchQuery, Selector,
};
use qdrant_client::qdrant::{
    self as proto, CollectionExistsRequest, CountPoints, CreateFieldIndexCollection, DeleteCollection,
    GetCollectionInfoRequest, GetPoints, HealthCheckRequest, ListCollectionsRequest, QueryPoints,
    ScrollPoints, SearchParams, UpdateBatchPoints, UpdateStatus, UpsertPoints,
};

use self::client::Nodes;
use self::convert::Update;
use self::limits::{Limits, Met};
pub use self::options::{
    CollectionOptions, Compression, Consistency, Ordering, QuantizationKind, Secret, ServerOptions,
};
use self::replicas::Replicated;
use self::upsert::Upsert;
use crate::engine::{Batch, Description, Engine, Scroll};
use crate::payload::VERSION;

/// The collection that holds the control document.
const CONTROL: &str = "mainstay_control";
/// The point in it.
const CONTROL_POINT: u64 = 1;
const STAMP_KEY: &str = "stamp";
const DOCUMENT_KEY: &str = "document";

/// Updates of one run under way: while the server applies one, the next is sent.
const UPDATES_IN_FLIGHT: usize = 4;
/// Ids that one request asks for.
const IDS_PER_REQUEST: usize = 1_000;

/// A Qdrant server or cluster.
pub struct Server {
    options: ServerOptions,
    nodes: Nodes,
    limits: Met,
    replicated: Replicated,
}

impl Server {
    /// A server that nothing is asked of yet.
    ///
    /// # Errors
    /// `Invalid` for an option out of its range or a URL that is none.
    pub fn new(options: ServerOptions) -> Result<Self> {
        options.check()?;
        Ok(Self {
            nodes: Nodes::new(&options)?,
            options,
            limits: Met::default(),
            replicated: Replicated::default(),
        })
    }

    fn consistency(&self) -> Option<proto::ReadConsistency> {
        self.options.read_consistency.map(Consistency::to_proto)
    }

    /// The control point with some of its payload.
    async fn control_point(&self, cx: &Context, key: &str) -> Result<Option<String>> {
        let request = GetPoints {
            collection_name: CONTROL.into(),
            ids: vec![CONTROL_POINT.into()],
            with_payload: Some(convert::payload_keys(&[key])),
            // The newest of all replicas that can be asked: an older document would set the store back.
            read_consistency: Some(Consistency::Majority.to_proto()),
            ..GetPoints::default()
        };
        let answer = self.nodes.points(cx, |mut api| {
            let request = request.clone();
            async move { api.get(request).await }
        });
        let points = match answer.await {
            Ok(answer) => answer.result,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(point) = points.into_iter().next() else { return Ok(None) };
        let Some(value) = point.payload.get(key).and_then(|value| value.as_str()) else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("the point {CONTROL_POINT} of the collection {CONTROL} has no `{key}`"),
            ));
        };
        Ok(Some(value.clone()))
    }

    async fn create_control(&self, cx: &Context) -> Result<()> {
        let request = proto::CreateCollection {
            collection_name: CONTROL.into(),
            vectors_config: Some(convert::single_vector(1)),
            shard_number: Some(1),
            replication_factor: self.options.collections.replication_factor,
            write_consistency_factor: self.options.collections.write_consistency_factor,
            timeout: convert::timeout(cx),
            ..proto::CreateCollection::default()
        };
        self.create_unless_there(cx, request).await
    }

    async fn create_unless_there(&self, cx: &Context, request: proto::CreateCollection) -> Result<()> {
        let created = self
            .nodes
            .collections(cx, |mut api| {
                let request = request.clone();
                async move { api.create(request).await }
            })
            .await;
        match created {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn update(
        &self,
        cx: &Context,
        name: &CollectionName,
        update: Update,
        ordering: Ordering,
        limits: Limits,
    ) -> Result<()> {
        let (collection_name, ordering) = (name.as_str().into(), Some(ordering.to_proto()));
        let timeout = limits.timeout(cx);
        match update {
            Update::Upsert(points) => {
                let request = Upsert { collection_name, wait: true, points, ordering, timeout };
                let answer = self.nodes.upsert(cx, request).await;
                let result = answer.map_err(error::of_write)?.result;
                completed(result)
            }
            Update::Batch(operations) => {
                let wait = Some(true);
                let request = UpdateBatchPoints { collection_name, wait, operations, ordering, timeout };
                let answer = self.nodes.points(cx, |mut api| async move { api.update_batch(request).await });
                let results = answer.await.map_err(error::of_write)?.result;
                results.into_iter().try_for_each(|result| completed(Some(result)))
            }
        }
    }

    async fn field_index(&self, cx: &Context, request: CreateFieldIndexCollection) -> Result<()> {
        let answer = self.nodes.points(cx, |mut api| {
            let request = request.clone();
            async move { api.create_field_index(request).await }
        });
        let result = answer.await.map_err(error::of_write)?.result;
        completed(result)
    }

    async fn retrieve(&self, cx: &Context, request: GetPoints) -> Result<Vec<proto::RetrievedPoint>> {
        let answer = self.nodes.points(cx, |mut api| {
            let request = request.clone();
            async move { api.get(request).await }
        });
        Ok(answer.await.map_err(error::of_read)?.result)
    }
}

/// Every answer to a write but `Completed` is an unknown outcome.
fn completed(result: Option<proto::UpdateResult>) -> Result<()> {
    let status = result.map_or(UpdateStatus::UnknownUpdateStatus as i32, |result| result.status);
    if status == UpdateStatus::Completed as i32 {
        return Ok(());
    }
    let status = UpdateStatus::try_from(status).map_or("an unknown status", |status| status.as_str_name());
    Err(Error::new(ErrorKind::Timeout, format!("Qdrant answered {status} instead of Completed"))
        .with_effect(mainstay_core::Effect::Unknown))
}

#[async_trait]
impl Engine for Server {
    fn is_durable(&self) -> bool {
        // With `wait`, Qdrant flushes its write-ahead log before it applies an operation.
        true
    }

    async fn control(&self, cx: &Context) -> Result<Option<String>> {
        self.control_point(cx, DOCUMENT_KEY).await
    }

    async fn stamp(&self, cx: &Context) -> Result<Option<String>> {
        self.control_point(cx, STAMP_KEY).await
    }

    async fn set_control(&self, cx: &Context, stamp: &str, document: &str) -> Result<()> {
        let payload = [(STAMP_KEY, stamp), (DOCUMENT_KEY, document)];
        let request = UpsertPoints {
            collection_name: CONTROL.into(),
            wait: Some(true),
            points: vec![proto::PointStruct {
                id: Some(CONTROL_POINT.into()),
                vectors: Some(vec![1.0].into()),
                payload: payload.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            }],
            // A position that is read back older than it was written would only cost time; a lost one more.
            ordering: Some(Ordering::Strong.to_proto()),
            timeout: convert::timeout(cx),
            ..UpsertPoints::default()
        };
        let put = || {
            self.nodes.points(cx, |mut api| {
                let request = request.clone();
                async move { api.upsert(request).await }
            })
        };
        let answer = match put().await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.create_control(cx).await?;
                put().await
            }
            answer => answer,
        };
        let result = answer.map_err(error::of_write)?.result;
        completed(result)
    }

    async fn collections(&self, cx: &Context) -> Result<Vec<String>> {
        let answer =
            self.nodes.collections(cx, |mut api| async move { api.list(ListCollectionsRequest {}).await });
        let collections = answer.await?.collections.into_iter().map(|collection| collection.name);
        Ok(collections.filter(|name| name != CONTROL).collect())
    }

    async fn describe(&self, cx: &Context, name: &str) -> Result<Description> {
        let points = self.count_by(cx, name, None).await?;
        Ok(Description { points, spec: describe::spec(name, &self.info(cx, name).await?) })
    }

    async fn create(&self, cx: &Context, spec: &CollectionSpec) -> Result<()> {
        if spec.name.as_str() == CONTROL {
            return Err(Error::new(
                ErrorKind::Rejected,
                format!("the name {CONTROL} is taken by Mainstay itself"),
            ));
        }
        let request = self.options.collections.create(spec, convert::timeout(cx));
        self.create_unless_there(cx, request).await.map_err(error::of_write)
    }

    async fn index(&self, cx: &Context, spec: &CollectionSpec) -> Result<()> {
        let there = self.info(cx, spec.name.as_str()).await?.payload_schema;
        let ordering = Some(self.options.write_ordering.to_proto());
        for request in convert::indexes(spec, ordering, convert::timeout(cx)) {
            if !there.contains_key(&request.field_name) {
                self.field_index(cx, request).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, cx: &Context, name: &CollectionName) -> Result<()> {
        let request =
            DeleteCollection { collection_name: name.as_str().into(), timeout: convert::timeout(cx) };
        let removed = self.nodes.collections(cx, |mut api| {
            let request = request.clone();
            async move { api.delete(request).await }
        });
        match removed.await {
            Ok(answer) if answer.result => Ok(()),
            // `false` stands for a collection that is not there, or for one that is still there.
            Ok(_) => {
                let request = CollectionExistsRequest { collection_name: name.as_str().into() };
                let there = self.nodes.collections(cx, |mut api| {
                    let request = request.clone();
                    async move { api.collection_exists(request).await }
                });
                if there.await?.result.is_some_and(|result| result.exists) {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        "Qdrant did not remove the collection in time",
                    ));
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error::of_write(error)),
        }
    }

    async fn write(&self, cx: &Context, spec: &CollectionSpec, batch: Batch) -> Result<()> {
        let batch = &batch;
        let ordering = self.ordering_of(cx, spec.name.as_str()).await;
        self.within_limits(cx, spec.name.as_str(), |limits| async move {
            let most_points = self.options.batch_points.min(limits.points);
            let updates = convert::updates(spec, batch, most_points, self.options.batch_bytes);
            let updates =
                updates.into_iter().map(|update| self.update(cx, &spec.name, update, ordering, limits));
            // Each id is in one of them, so their order does not matter. None is given up because another one failed: it
            // could take effect after a newer write.
            let updates = futures::stream::iter(updates).buffer_unordered(UPDATES_IN_FLIGHT);
            updates.collect::<Vec<_>>().await.into_iter().collect()
        })
        .await
    }

    async fn versions(
        &self,
        cx: &Context,
        name: &CollectionName,
        ids: &[PointId],
    ) -> Result<BTreeMap<PointId, Lsn>> {
        let mut versions = BTreeMap::new();
        for ids in ids.chunks(IDS_PER_REQUEST) {
            let request = GetPoints {
                collection_name: name.as_str().into(),
                ids: ids.iter().map(|id| convert::id_to_proto(*id)).collect(),
                with_payload: Some(convert::payload_keys(&[VERSION])),
                read_consistency: self.consistency(),
                ..GetPoints::default()
            };
            for point in self.retrieve(cx, request).await? {
                let record = convert::record(point.id, point.payload, None)?;
                versions.insert(record.point.id, record.version);
            }
        }
        Ok(versions)
    }

    async fn get(
        &self,
        cx: &Context,
        spec: &CollectionSpec,
        ids: &[PointId],
        fields: &Fields,
    ) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        for ids in ids.chunks(IDS_PER_REQUEST) {
            let request = GetPoints {
                collection_name: spec.name.as_str().into(),
                ids: ids.iter().map(|id| convert::id_to_proto(*id)).collect(),
                with_payload: Some(convert::with_payload(fields)),
                with_vectors: Some(convert::with_vectors(spec, fields)),
                read_consistency: self.consistency(),
                ..GetPoints::default()
            };
            for point in self.retrieve(cx, request).await? {
                records.push(convert::record(point.id, point.payload, point.vectors)?);
            }
        }
        Ok(records)
    }

    async fn scroll(&self, cx: &Context, spec: &CollectionSpec, scroll: &Scroll<'_>) -> Result<Vec<Record>> {
        self.within_limits(cx, spec.name.as_str(), |limits| self.pages(cx, spec, scroll, limits)).await
    }

    async fn search(
        &self,
        cx: &Context,
        spec: &CollectionSpec,
        query: &SearchQuery,
        limit: usize,
    ) -> Result<Vec<Hit>> {
        let request = QueryPoints {
            collection_name: spec.name.as_str().into(),
            query: Some(convert::nearest(&query.vector)),
            using: Some(query.using.as_str().to_owned()).filter(|name| !name.is_empty()),
            filter: query.filter.as_ref().map(filter::to_proto),
            params: Some(SearchParams { exact: Some(query.exact), ..SearchParams::default() }),
            with_payload: Some(convert::with_payload(&query.fields)),
            with_vectors: Some(convert::with_vectors(spec, &query.fields)),
            read_consistency: self.consistency(),
            ..QueryPoints::default()
        };
        let wanted = query.offset.saturating_add(query.limit);
        let call = |limits: Limits| {
            // More than is wanted serves to tell ties, which the server may not allow; what is wanted is asked for.
            let most = limit.min(limits.hits.max(wanted));
            let request =
                QueryPoints { limit: Some(most as u64), timeout: limits.timeout(cx), ..request.clone() };
            async move {
                let answer = self.nodes.points(cx, |mut api| {
                    let request = request.clone();
                    async move { api.query(request).await }
                });
                Ok(answer.await.map_err(error::of_read)?.result)
            }
        };
        let points = self.within_limits(cx, spec.name.as_str(), call).await?;
        let hits = points.into_iter().map(|point| {
            let Record { version, point: held } = convert::record(point.id, point.payload, point.vectors)?;
            Ok(Hit { score: point.score, version, point: held })
        });
        hits.collect()
    }

    async fn count(&self, cx: &Context, name: &CollectionName, filter: Option<&Filter>) -> Result<u64> {
        self.count_by(cx, name.as_str(), filter.map(filter::to_proto)).await
    }

    async fn count_mixed(&self, cx: &Context, name: &CollectionName, path: &PayloadPath) -> Result<u64> {
        self.count_by(cx, name.as_str(), Some(filter::mixed_at(path))).await
    }

    async fn flush(&self, _: &Context) -> Result<bool> {
        Ok(true)
    }

    async fn ping(&self, cx: &Context) -> Result<()> {
        let answer =
            self.nodes.service(cx, |mut api| async move { api.health_check(HealthCheckRequest {}).await });
        answer.await.map(|_| ())
    }

    async fn close(&self) {}
}

impl Server {
    /// A scroll in pages that the server allows.
    async fn pages(
        &self,
        cx: &Context,
        spec: &CollectionSpec,
        scroll: &Scroll<'_>,
        limits: Limits,
    ) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut offset = scroll.from.map(convert::id_to_proto);
        loop {
            let page = (scroll.limit - records.len()).min(limits.hits);
            let request = ScrollPoints {
                collection_name: spec.name.as_str().into(),
                filter: scroll.filter.map(filter::to_proto),
                offset,
                limit: Some(u32::try_from(page).unwrap_or(u32::MAX)),
                with_payload: Some(convert::with_payload(scroll.fields)),
                with_vectors: Some(convert::with_vectors(spec, scroll.fields)),
                read_consistency: self.consistency(),
                timeout: limits.timeout(cx),
                ..ScrollPoints::default()
            };
            let answer = self.nodes.points(cx, |mut api| {
                let request = request.clone();
                async move { api.scroll(request).await }
            });
            let answer = answer.await.map_err(error::of_read)?;
            for point in answer.result {
                records.push(convert::record(point.id, point.payload, point.vectors)?);
            }
            offset = answer.next_page_offset;
            if offset.is_none() || records.len() >= scroll.limit {
                return Ok(records);
            }
        }
    }

    async fn info(&self, cx: &Context, name: &str) -> Result<proto::CollectionInfo> {
        let answer = self.nodes.collections(cx, |mut api| {
            let request = GetCollectionInfoRequest { collection_name: name.into() };
            async move { api.get(request).await }
        });
        Ok(answer.await?.result.unwrap_or_default())
    }

    async fn count_by(&self, cx: &Context, name: &str, filter: Option<proto::Filter>) -> Result<u64> {
        let request = CountPoints {
            collection_name: name.into(),
            filter,
            exact: Some(true),
            read_consistency: self.consistency(),
            ..CountPoints::default()
        };
        let call = |limits: Limits| {
            let request = CountPoints { timeout: limits.timeout(cx), ..request.clone() };
            async move {
                let answer = self.nodes.points(cx, |mut api| {
                    let request = request.clone();
                    async move { api.count(request).await }
                });
                Ok(answer.await.map_err(error::of_read)?.result)
            }
        };
        Ok(self.within_limits(cx, name, call).await?.map_or(0, |result| result.count))
    }
}

/// Whether payload comes back with a point.
fn wants_payload(fields: &Fields) -> bool {
    !matches!(fields.payload, Selector::None)
}
