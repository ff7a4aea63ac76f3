//! From the wire to the engine and back, written apart from Mainstay's own mapping, which it is there to check.

use std::collections::HashMap;

use qdrant_client::qdrant as proto;
use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::value::Kind;
use qdrant_edge::{
    Distance, Filter, JsonPath, Payload, PayloadSelector, PayloadSelectorExclude, PayloadSelectorInclude,
    PointId, PointStructPersisted, SparseVector, VectorInternal, VectorPersisted, VectorStructInternal,
    VectorStructPersisted, WithPayloadInterface, WithVector,
};
use serde_json::{Value, json};
use tonic::Status;

fn bad(what: &str) -> Status {
    Status::invalid_argument(format!("Wrong input: {what}"))
}

/// A distance.
pub fn distance(distance: proto::Distance) -> Result<Distance, Status> {
    match distance {
        proto::Distance::Cosine => Ok(Distance::Cosine),
        proto::Distance::Dot => Ok(Distance::Dot),
        proto::Distance::Euclid => Ok(Distance::Euclid),
        proto::Distance::Manhattan => Ok(Distance::Manhattan),
        proto::Distance::UnknownDistance => Err(bad("unknown distance")),
    }
}

/// A payload path.
pub fn path(text: &str) -> Result<JsonPath, Status> {
    text.parse().map_err(|()| bad(&format!("Invalid json path: '{text}'")))
}

/// An id.
pub fn id(id: Option<proto::PointId>) -> Result<PointId, Status> {
    match id.and_then(|id| id.point_id_options) {
        Some(PointIdOptions::Num(number)) => Ok(PointId::NumId(number)),
        Some(PointIdOptions::Uuid(text)) => {
            let uuid = text.parse().map_err(|_| bad(&format!("Unable to parse UUID: {text}")))?;
            Ok(PointId::Uuid(uuid))
        }
        None => Err(bad("Empty ID is not allowed")),
    }
}

/// Ids.
pub fn ids(given: Vec<proto::PointId>) -> Result<Vec<PointId>, Status> {
    given.into_iter().map(|given| id(Some(given))).collect()
}

/// An id for the wire.
pub fn id_out(id: PointId) -> Option<proto::PointId> {
    let options = match id {
        PointId::NumId(number) => PointIdOptions::Num(number),
        PointId::Uuid(uuid) => PointIdOptions::Uuid(uuid.to_string()),
    };
    Some(proto::PointId { point_id_options: Some(options) })
}

fn json_of(value: proto::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::IntegerValue(value)) => json!(value),
        Some(Kind::DoubleValue(value)) => json!(value),
        Some(Kind::StringValue(value)) => json!(value),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(json_of).collect()),
        Some(Kind::StructValue(map)) => Value::Object(payload(map.fields).0),
    }
}

/// A payload.
pub fn payload(fields: HashMap<String, proto::Value>) -> Payload {
    Payload(fields.into_iter().map(|(key, value)| (key, json_of(value))).collect())
}

/// A payload for the wire.
pub fn payload_out(payload: Option<Payload>) -> HashMap<String, proto::Value> {
    payload.into_iter().flat_map(|payload| payload.0).map(|(key, value)| (key, value.into())).collect()
}

fn vector(vector: proto::Vector) -> Result<VectorPersisted, Status> {
    use proto::vector::Vector;
    match vector.vector {
        Some(Vector::Dense(dense)) => Ok(VectorPersisted::Dense(dense.data)),
        Some(Vector::Sparse(sparse)) => {
            Ok(VectorPersisted::Sparse(SparseVector { indices: sparse.indices, values: sparse.values }))
        }
        Some(_) => Err(Status::unimplemented("the stand-in has no such vector")),
        // The fields of clients before 1.16.
        #[expect(deprecated, reason = "older clients use it")]
        None => Ok(VectorPersisted::Dense(vector.data)),
    }
}

/// A point.
pub fn point(given: proto::PointStruct) -> Result<PointStructPersisted, Status> {
    use proto::vectors::VectorsOptions;
    let vectors = match given.vectors.and_then(|vectors| vectors.vectors_options) {
        Some(VectorsOptions::Vector(one)) => HashMap::from([(String::new(), vector(one)?)]),
        Some(VectorsOptions::Vectors(named)) => {
            let named = named.vectors.into_iter().map(|(name, given)| Ok((name, vector(given)?)));
            named.collect::<Result<_, Status>>()?
        }
        None => return Err(bad("Expected some vectors")),
    };
    Ok(PointStructPersisted {
        id: id(given.id)?,
        vector: VectorStructPersisted::Named(vectors),
        payload: Some(payload(given.payload)),
    })
}

fn vector_out(vector: VectorInternal) -> proto::VectorOutput {
    use proto::vector_output::Vector;
    let vector = match vector {
        VectorInternal::Dense(data) => Some(Vector::Dense(proto::DenseVector { data })),
        VectorInternal::Sparse(sparse) => {
            Some(Vector::Sparse(proto::SparseVector { indices: sparse.indices, values: sparse.values }))
        }
        VectorInternal::MultiDense(_) => None,
    };
    proto::VectorOutput { vector, ..proto::VectorOutput::default() }
}

/// Vectors for the wire.
pub fn vectors_out(vectors: Option<VectorStructInternal>) -> Option<proto::VectorsOutput> {
    use proto::vectors_output::VectorsOptions;
    let options = match vectors? {
        VectorStructInternal::Single(data) => VectorsOptions::Vector(vector_out(VectorInternal::Dense(data))),
        VectorStructInternal::MultiDense(_) => return None,
        VectorStructInternal::Named(named) => {
            let vectors = named.into_iter().map(|(name, vector)| (name, vector_out(vector))).collect();
            VectorsOptions::Vectors(proto::NamedVectorsOutput { vectors })
        }
    };
    Some(proto::VectorsOutput { vectors_options: Some(options) })
}

/// Which payload comes back; none unless it is asked for.
pub fn with_payload(given: Option<proto::WithPayloadSelector>) -> Result<WithPayloadInterface, Status> {
    use proto::with_payload_selector::SelectorOptions;
    let paths = |fields: Vec<String>| fields.iter().map(|field| path(field)).collect::<Result<Vec<_>, _>>();
    Ok(match given.and_then(|given| given.selector_options) {
        None => WithPayloadInterface::Bool(false),
        Some(SelectorOptions::Enable(all)) => WithPayloadInterface::Bool(all),
        Some(SelectorOptions::Include(include)) => {
            let include = PayloadSelectorInclude { include: paths(include.fields)? };
            WithPayloadInterface::Selector(PayloadSelector::Include(include))
        }
        Some(SelectorOptions::Exclude(exclude)) => {
            let exclude = PayloadSelectorExclude { exclude: paths(exclude.fields)? };
            WithPayloadInterface::Selector(PayloadSelector::Exclude(exclude))
        }
    })
}

/// Which vectors come back; none unless they are asked for.
pub fn with_vector(given: Option<proto::WithVectorsSelector>) -> WithVector {
    use proto::with_vectors_selector::SelectorOptions;
    match given.and_then(|given| given.selector_options) {
        None => WithVector::Bool(false),
        Some(SelectorOptions::Enable(all)) => WithVector::Bool(all),
        Some(SelectorOptions::Include(include)) => WithVector::Selector(include.names),
    }
}

/// A filter, through the engine's own reader of its JSON form.
pub fn filter(given: Option<proto::Filter>) -> Result<Option<Filter>, Status> {
    let Some(given) = given else { return Ok(None) };
    let filter = serde_json::from_value(filter_json(given)?);
    filter.map(Some).map_err(|error| bad(&format!("filter: {error}")))
}

fn filter_json(given: proto::Filter) -> Result<Value, Status> {
    let mut clauses = serde_json::Map::new();
    for (name, conditions) in [("must", given.must), ("should", given.should), ("must_not", given.must_not)] {
        if !conditions.is_empty() {
            let conditions: Vec<Value> =
                conditions.into_iter().map(condition_json).collect::<Result<_, _>>()?;
            clauses.insert(name.into(), conditions.into());
        }
    }
    Ok(Value::Object(clauses))
}

fn condition_json(given: proto::Condition) -> Result<Value, Status> {
    Ok(match given.condition_one_of {
        Some(ConditionOneOf::Field(field)) => field_json(field)?,
        Some(ConditionOneOf::IsEmpty(empty)) => json!({ "is_empty": { "key": empty.key } }),
        Some(ConditionOneOf::IsNull(test)) => json!({ "is_null": { "key": test.key } }),
        Some(ConditionOneOf::HasId(has)) => {
            let ids: Vec<Value> = ids(has.has_id)?
                .into_iter()
                .map(|id| match id {
                    PointId::NumId(number) => json!(number),
                    PointId::Uuid(uuid) => json!(uuid.to_string()),
                })
                .collect();
            json!({ "has_id": ids })
        }
        Some(ConditionOneOf::Filter(filter)) => filter_json(filter)?,
        _ => return Err(Status::unimplemented("the stand-in has no such condition")),
    })
}

fn field_json(field: proto::FieldCondition) -> Result<Value, Status> {
    let key = field.key;
    if let Some(given) = field.r#match.and_then(|given| given.match_value) {
        let test = match given {
            MatchValue::Keyword(value) => json!({ "value": value }),
            MatchValue::Integer(value) => json!({ "value": value }),
            MatchValue::Boolean(value) => json!({ "value": value }),
            MatchValue::Keywords(list) => json!({ "any": list.strings }),
            MatchValue::Integers(list) => json!({ "any": list.integers }),
            MatchValue::ExceptKeywords(list) => json!({ "except": list.strings }),
            MatchValue::ExceptIntegers(list) => json!({ "except": list.integers }),
            _ => return Err(Status::unimplemented("the stand-in has no such match")),
        };
        return Ok(json!({ "key": key, "match": test }));
    }
    if let Some(proto::Range { lt, gt, gte, lte }) = field.range {
        return Ok(json!({ "key": key, "range": { "lt": lt, "gt": gt, "gte": gte, "lte": lte } }));
    }
    if let Some(proto::DatetimeRange { lt, gt, gte, lte }) = field.datetime_range {
        let moment = |given: Option<prost_types::Timestamp>| {
            given.and_then(|at| {
                let moment = chrono::DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?)?;
                Some(moment.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true))
            })
        };
        let (lt, gt, gte, lte) = (moment(lt), moment(gt), moment(gte), moment(lte));
        return Ok(json!({ "key": key, "range": { "lt": lt, "gt": gt, "gte": gte, "lte": lte } }));
    }
    Err(Status::unimplemented("the stand-in has no such condition"))
}
