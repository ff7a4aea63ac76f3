//! The calls.

use std::sync::Arc;
use std::time::Instant;

use qdrant_client::qdrant as proto;
use qdrant_client::qdrant::collections_server::Collections;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::points_server::Points;
use qdrant_client::qdrant::points_update_operation::Operation;
use qdrant_client::qdrant::qdrant_server::Qdrant;
use qdrant_edge::{
    CountRequest, NamedQuery, PayloadOps, PointInsertOperations, PointOperations, QueryEnum, QueryRequest,
    ScoringQuery, ScrollRequest, SearchParams, SetPayloadOp, SparseVector, UpdateOperation, VectorInternal,
};
use tonic::{Request, Response, Status};

use super::collection::Collection;
use super::strict::{Asked, check, upserted};
use super::{StandIn, convert};

/// A service of which some calls are answered and the others declined.
macro_rules! service {
    ($service:path, { $($answered:tt)* }, $($declined:ident: $request:ident => $response:ident,)*) => {
        #[tonic::async_trait]
        impl $service for StandIn {
            $($answered)*
            $(
                async fn $declined(
                    &self,
                    _: Request<proto::$request>,
                ) -> Result<Response<proto::$response>, Status> {
                    Err(Status::unimplemented(concat!("the stand-in has no ", stringify!($declined))))
                }
            )*
        }
    };
}

type Answer<T> = Result<Response<T>, Status>;

impl StandIn {
    async fn on<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce(&Collection) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let collection = self.collection(name)?;
        blocking(move || work(&collection)).await
    }

    /// Refuses what the strict mode of a collection does not allow.
    fn allow(&self, name: &str, asked: Asked) -> Result<(), Status> {
        check(&self.collection(name)?.config(), &asked)
    }

    /// Keeps how an upsert was to be ordered.
    fn note(&self, name: &str, ordering: Option<proto::WriteOrdering>) {
        let ordering = ordering.unwrap_or_default().r#type();
        self.orderings.lock().insert(name.to_owned(), ordering);
    }

    async fn write(
        &self,
        name: &str,
        operations: Vec<UpdateOperation>,
    ) -> Answer<proto::PointsOperationResponse> {
        let start = Instant::now();
        self.on(name, |collection| collection.write(operations)).await?;
        let result = Some(completed());
        Ok(Response::new(proto::PointsOperationResponse {
            result,
            time: start.elapsed().as_secs_f64(),
            usage: None,
        }))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Status::internal(format!("Service internal error: {error}"))))
}

fn completed() -> proto::UpdateResult {
    proto::UpdateResult { operation_id: Some(0), status: proto::UpdateStatus::Completed as i32 }
}

fn selected(selector: Option<proto::PointsSelector>) -> Result<Vec<qdrant_edge::PointId>, Status> {
    match selector.and_then(|selector| selector.points_selector_one_of) {
        Some(PointsSelectorOneOf::Points(list)) => convert::ids(list.ids),
        Some(PointsSelectorOneOf::Filter(_)) => Err(Status::unimplemented("the stand-in selects by ids")),
        None => Err(Status::invalid_argument("Wrong input: PointsSelector is missing")),
    }
}

fn upsert(points: Vec<proto::PointStruct>) -> Result<UpdateOperation, Status> {
    let points = points.into_iter().map(convert::point).collect::<Result<_, _>>()?;
    let points = PointOperations::UpsertPoints(PointInsertOperations::PointsList(points));
    Ok(UpdateOperation::PointOperation(points))
}

fn delete(ids: Vec<qdrant_edge::PointId>) -> UpdateOperation {
    UpdateOperation::PointOperation(PointOperations::DeletePoints { ids })
}

fn operation(given: proto::PointsUpdateOperation) -> Result<UpdateOperation, Status> {
    match given.operation {
        Some(Operation::Upsert(list)) => upsert(list.points),
        Some(Operation::DeletePoints(list)) => Ok(delete(selected(list.points)?)),
        Some(Operation::OverwritePayload(overwrite)) => {
            let set = SetPayloadOp {
                payload: convert::payload(overwrite.payload),
                points: Some(selected(overwrite.points_selector)?),
                filter: None,
                key: None,
            };
            Ok(UpdateOperation::PayloadOperation(PayloadOps::OverwritePayload(set)))
        }
        _ => Err(Status::unimplemented("the stand-in has no such operation")),
    }
}

fn query_vector(query: Option<proto::Query>) -> Result<VectorInternal, Status> {
    use proto::query::Variant;
    use proto::vector_input::Variant as Input;
    let nearest = match query.and_then(|query| query.variant) {
        Some(Variant::Nearest(nearest)) => nearest.variant,
        _ => return Err(Status::unimplemented("the stand-in has only nearest queries")),
    };
    match nearest {
        Some(Input::Dense(dense)) => Ok(VectorInternal::Dense(dense.data)),
        Some(Input::Sparse(sparse)) => {
            Ok(VectorInternal::Sparse(SparseVector { indices: sparse.indices, values: sparse.values }))
        }
        _ => Err(Status::unimplemented("the stand-in has no such vector input")),
    }
}

service! {
    Points,
    {
        async fn upsert(&self, request: Request<proto::UpsertPoints>) -> Answer<proto::PointsOperationResponse> {
            let request = request.into_inner();
            let asked =
                Asked { upserted: request.points.len(), timeout: request.timeout, ..Asked::default() };
            self.allow(&request.collection_name, asked)?;
            self.note(&request.collection_name, request.ordering);
            let operation = upsert(request.points)?;
            self.write(&request.collection_name, vec![operation]).await
        }

        async fn delete(&self, request: Request<proto::DeletePoints>) -> Answer<proto::PointsOperationResponse> {
            let request = request.into_inner();
            let operation = delete(selected(request.points)?);
            self.write(&request.collection_name, vec![operation]).await
        }

        async fn update_batch(
            &self,
            request: Request<proto::UpdateBatchPoints>,
        ) -> Answer<proto::UpdateBatchResponse> {
            let request = request.into_inner();
            for operation in &request.operations {
                let asked = Asked { upserted: upserted(operation), timeout: request.timeout, ..Asked::default() };
                self.allow(&request.collection_name, asked)?;
            }
            let operations =
                request.operations.into_iter().map(operation).collect::<Result<Vec<_>, _>>()?;
            let result = operations.iter().map(|_| completed()).collect();
            self.write(&request.collection_name, operations).await?;
            Ok(Response::new(proto::UpdateBatchResponse { result, ..Default::default() }))
        }

        async fn create_field_index(
            &self,
            request: Request<proto::CreateFieldIndexCollection>,
        ) -> Answer<proto::PointsOperationResponse> {
            let request = request.into_inner();
            let kind = request.field_type();
            self.on(&request.collection_name.clone(), move |collection| {
                collection.index(&request.field_name, kind)
            })
            .await?;
            let result = Some(completed());
            Ok(Response::new(proto::PointsOperationResponse { result, ..Default::default() }))
        }

        async fn get(&self, request: Request<proto::GetPoints>) -> Answer<proto::GetResponse> {
            let request = request.into_inner();
            let ids = convert::ids(request.ids)?;
            let payload = convert::with_payload(request.with_payload)?;
            let vectors = convert::with_vector(request.with_vectors);
            let records = self
                .on(&request.collection_name, move |collection| {
                    collection.read(|shard| shard.retrieve(&ids, Some(payload), Some(vectors)))
                })
                .await?;
            let result = records.into_iter().map(retrieved).collect();
            Ok(Response::new(proto::GetResponse { result, ..Default::default() }))
        }

        async fn scroll(&self, request: Request<proto::ScrollPoints>) -> Answer<proto::ScrollResponse> {
            let request = request.into_inner();
            let (limit, timeout) = (request.limit.map(u64::from), request.timeout);
            self.allow(&request.collection_name, Asked { limit, timeout, ..Asked::default() })?;
            let scroll = ScrollRequest {
                offset: request.offset.map(|offset| convert::id(Some(offset))).transpose()?,
                limit: Some(request.limit.unwrap_or(10) as usize),
                filter: convert::filter(request.filter)?,
                with_payload: Some(convert::with_payload(request.with_payload)?),
                with_vector: convert::with_vector(request.with_vectors),
                order_by: None,
            };
            let (records, next) = self
                .on(&request.collection_name, move |collection| collection.read(|shard| shard.scroll(scroll)))
                .await?;
            let result = records.into_iter().map(retrieved).collect();
            let next_page_offset = next.and_then(convert::id_out);
            Ok(Response::new(proto::ScrollResponse { next_page_offset, result, ..Default::default() }))
        }

        async fn count(&self, request: Request<proto::CountPoints>) -> Answer<proto::CountResponse> {
            let request = request.into_inner();
            let count = CountRequest {
                filter: convert::filter(request.filter)?,
                exact: request.exact.unwrap_or(true),
            };
            let count = self
                .on(&request.collection_name, move |collection| collection.read(|shard| shard.count(count)))
                .await?;
            let result = Some(proto::CountResult { count: count as u64 });
            Ok(Response::new(proto::CountResponse { result, ..Default::default() }))
        }

        async fn query(&self, request: Request<proto::QueryPoints>) -> Answer<proto::QueryResponse> {
            let request = request.into_inner();
            let params = request.params.unwrap_or_default();
            let (limit, timeout, exact) = (request.limit, request.timeout, params.exact == Some(true));
            self.allow(&request.collection_name, Asked { limit, timeout, exact, ..Asked::default() })?;
            let query = NamedQuery {
                query: query_vector(request.query)?,
                using: Some(request.using.unwrap_or_default()),
            };
            let query = QueryRequest {
                prefetches: Vec::new(),
                query: Some(ScoringQuery::Vector(QueryEnum::Nearest(query))),
                filter: convert::filter(request.filter)?,
                score_threshold: request.score_threshold.map(Into::into),
                limit: request.limit.unwrap_or(10) as usize,
                offset: request.offset.unwrap_or(0) as usize,
                params: Some(SearchParams { exact: params.exact.unwrap_or(false), ..SearchParams::default() }),
                with_vector: convert::with_vector(request.with_vectors),
                with_payload: convert::with_payload(request.with_payload)?,
            };
            let points = self
                .on(&request.collection_name, move |collection| collection.read(|shard| shard.query(query)))
                .await?;
            let result = points
                .into_iter()
                .map(|point| proto::ScoredPoint {
                    id: convert::id_out(point.id),
                    payload: convert::payload_out(point.payload),
                    score: point.score,
                    version: point.version,
                    vectors: convert::vectors_out(point.vector),
                    ..Default::default()
                })
                .collect();
            Ok(Response::new(proto::QueryResponse { result, ..Default::default() }))
        }
    },
    update_vectors: UpdatePointVectors => PointsOperationResponse,
    delete_vectors: DeletePointVectors => PointsOperationResponse,
    set_payload: SetPayloadPoints => PointsOperationResponse,
    overwrite_payload: SetPayloadPoints => PointsOperationResponse,
    delete_payload: DeletePayloadPoints => PointsOperationResponse,
    clear_payload: ClearPayloadPoints => PointsOperationResponse,
    delete_field_index: DeleteFieldIndexCollection => PointsOperationResponse,
    create_vector_name: CreateVectorNameRequest => PointsOperationResponse,
    delete_vector_name: DeleteVectorNameRequest => PointsOperationResponse,
    search: SearchPoints => SearchResponse,
    search_batch: SearchBatchPoints => SearchBatchResponse,
    search_groups: SearchPointGroups => SearchGroupsResponse,
    recommend: RecommendPoints => RecommendResponse,
    recommend_batch: RecommendBatchPoints => RecommendBatchResponse,
    recommend_groups: RecommendPointGroups => RecommendGroupsResponse,
    discover: DiscoverPoints => DiscoverResponse,
    discover_batch: DiscoverBatchPoints => DiscoverBatchResponse,
    query_batch: QueryBatchPoints => QueryBatchResponse,
    query_groups: QueryPointGroups => QueryGroupsResponse,
    facet: FacetCounts => FacetResponse,
    search_matrix_pairs: SearchMatrixPoints => SearchMatrixPairsResponse,
    search_matrix_offsets: SearchMatrixPoints => SearchMatrixOffsetsResponse,
}

fn retrieved(record: qdrant_edge::Record) -> proto::RetrievedPoint {
    proto::RetrievedPoint {
        id: convert::id_out(record.id),
        payload: convert::payload_out(record.payload),
        vectors: convert::vectors_out(record.vector),
        ..Default::default()
    }
}

service! {
    Collections,
    {
        async fn get(
            &self,
            request: Request<proto::GetCollectionInfoRequest>,
        ) -> Answer<proto::GetCollectionInfoResponse> {
            let name = request.into_inner().collection_name;
            let collection = self.collection(&name)?;
            let count = CountRequest { filter: None, exact: true };
            let points = blocking({
                let collection = Arc::clone(&collection);
                move || collection.read(|shard| shard.count(count))
            })
            .await?;
            let result = Some(proto::CollectionInfo {
                status: proto::CollectionStatus::Green as i32,
                payload_schema: collection.schema(),
                points_count: Some(points as u64),
                config: Some(collection.config()),
                ..Default::default()
            });
            Ok(Response::new(proto::GetCollectionInfoResponse { result, ..Default::default() }))
        }

        async fn list(
            &self,
            _: Request<proto::ListCollectionsRequest>,
        ) -> Answer<proto::ListCollectionsResponse> {
            let collections = self.collections.read();
            let collections =
                collections.keys().map(|name| proto::CollectionDescription { name: name.clone() }).collect();
            Ok(Response::new(proto::ListCollectionsResponse { collections, ..Default::default() }))
        }

        async fn create(
            &self,
            request: Request<proto::CreateCollection>,
        ) -> Answer<proto::CollectionOperationResponse> {
            let request = request.into_inner();
            let server = self.clone();
            blocking(move || {
                let name = request.collection_name.clone();
                let mut collections = server.collections.write();
                if collections.contains_key(&name) {
                    return Err(Status::already_exists(format!("Wrong input: Collection `{name}` already exists!")));
                }
                let collection = Collection::create(&server.storage.join(&name), &request)?;
                collections.insert(name, Arc::new(collection));
                Ok(())
            })
            .await?;
            Ok(Response::new(proto::CollectionOperationResponse { result: true, time: 0.0 }))
        }

        async fn update(
            &self,
            request: Request<proto::UpdateCollection>,
        ) -> Answer<proto::CollectionOperationResponse> {
            let request = request.into_inner();
            let Some(strict) = request.strict_mode_config else {
                return Err(Status::unimplemented("the stand-in changes only the strict mode"));
            };
            self.collection(&request.collection_name)?.set_strict_mode(strict)?;
            Ok(Response::new(proto::CollectionOperationResponse { result: true, time: 0.0 }))
        }

        async fn delete(
            &self,
            request: Request<proto::DeleteCollection>,
        ) -> Answer<proto::CollectionOperationResponse> {
            let name = request.into_inner().collection_name;
            let removed = self.collections.write().remove(&name);
            let result = removed.is_some();
            if let Some(collection) = removed {
                blocking(move || collection.remove()).await?;
            }
            Ok(Response::new(proto::CollectionOperationResponse { result, time: 0.0 }))
        }

        async fn collection_exists(
            &self,
            request: Request<proto::CollectionExistsRequest>,
        ) -> Answer<proto::CollectionExistsResponse> {
            let exists = self.collections.read().contains_key(&request.into_inner().collection_name);
            let result = Some(proto::CollectionExists { exists });
            Ok(Response::new(proto::CollectionExistsResponse { result, time: 0.0 }))
        }

        async fn collection_cluster_info(
            &self,
            request: Request<proto::CollectionClusterInfoRequest>,
        ) -> Answer<proto::CollectionClusterInfoResponse> {
            self.collection(&request.into_inner().collection_name)?;
            let state = proto::ReplicaState::Active as i32;
            let local = proto::LocalShardInfo { state, ..proto::LocalShardInfo::default() };
            let remote = (1..=self.other_replicas)
                .map(|peer_id| proto::RemoteShardInfo { peer_id, state, ..proto::RemoteShardInfo::default() });
            Ok(Response::new(proto::CollectionClusterInfoResponse {
                shard_count: 1,
                local_shards: vec![local],
                remote_shards: remote.collect(),
                ..proto::CollectionClusterInfoResponse::default()
            }))
        }
    },
    update_aliases: ChangeAliases => CollectionOperationResponse,
    list_collection_aliases: ListCollectionAliasesRequest => ListAliasesResponse,
    list_aliases: ListAliasesRequest => ListAliasesResponse,
    update_collection_cluster_setup: UpdateCollectionClusterSetupRequest => UpdateCollectionClusterSetupResponse,
    create_shard_key: CreateShardKeyRequest => CreateShardKeyResponse,
    delete_shard_key: DeleteShardKeyRequest => DeleteShardKeyResponse,
    list_shard_keys: ListShardKeysRequest => ListShardKeysResponse,
}

#[tonic::async_trait]
impl Qdrant for StandIn {
    async fn health_check(&self, _: Request<proto::HealthCheckRequest>) -> Answer<proto::HealthCheckReply> {
        Ok(Response::new(proto::HealthCheckReply {
            title: "qdrant stand-in".into(),
            version: "1.18.0".into(),
            commit: None,
        }))
    }
}
