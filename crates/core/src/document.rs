//! What stores keep about themselves, as JSON: positions and collections.
//!
//! Each store wraps these in its own document, with its own checks against damage; the words are the same
//! everywhere.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::entry::{EntryHash, LogId, LogIdentity, Position};
use crate::id::Lsn;
use crate::name::{CollectionName, VectorName};
use crate::spec::{CollectionSpec, Distance, PayloadIndex, VectorSpec};

/// A position as JSON.
pub fn position_to_json(position: &Position) -> Value {
    json!({
        "log": position.log.id.0.to_string(),
        "epoch": position.log.epoch,
        "lsn": position.lsn.0,
        "hash": position.hash.to_string(),
    })
}

/// Reads what [`position_to_json`] made.
///
/// # Errors
/// What is wrong with it.
pub fn position_from_json(value: &Value) -> Result<Position, &'static str> {
    let id = value["log"].as_str().and_then(|text| Uuid::try_parse(text).ok());
    Ok(Position {
        log: LogIdentity {
            id: LogId(id.ok_or("its log id is no UUID")?),
            epoch: value["epoch"].as_u64().ok_or("its epoch is no number")?,
        },
        lsn: Lsn(value["lsn"].as_u64().ok_or("its LSN is no number")?),
        hash: value["hash"].as_str().and_then(parse_hash).ok_or("its hash is none")?,
    })
}

fn parse_hash(text: &str) -> Option<EntryHash> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(EntryHash(bytes))
}

/// A collection as JSON.
pub fn collection_to_json(spec: &CollectionSpec, incarnation: Lsn) -> Value {
    let vectors: serde_json::Map<String, Value> = spec
        .vectors
        .iter()
        .map(|(name, vector)| {
            let value = match vector {
                VectorSpec::Dense { dimension, distance } => {
                    json!({ "dimension": dimension, "distance": distance.as_str() })
                }
                VectorSpec::Sparse => json!("sparse"),
            };
            (name.as_str().to_owned(), value)
        })
        .collect();
    let indexes: serde_json::Map<String, Value> =
        spec.payload_indexes.iter().map(|(path, index)| (path.to_string(), json!(index.as_str()))).collect();
    json!({
        "name": spec.name.as_str(),
        "incarnation": incarnation.0,
        "vectors": vectors,
        "payload_indexes": indexes,
    })
}

/// Reads what [`collection_to_json`] made; `None` if it is something else.
pub fn collection_from_json(value: &Value) -> Option<(CollectionSpec, Lsn)> {
    let vectors = value["vectors"]
        .as_object()?
        .iter()
        .map(|(name, vector)| {
            let spec = match vector.as_str() {
                Some("sparse") => VectorSpec::Sparse,
                Some(_) => return None,
                None => VectorSpec::Dense {
                    dimension: usize::try_from(vector["dimension"].as_u64()?).ok()?,
                    distance: Distance::parse(vector["distance"].as_str()?).ok()?,
                },
            };
            Some((VectorName::new(name).ok()?, spec))
        })
        .collect::<Option<_>>()?;
    let payload_indexes = value["payload_indexes"]
        .as_object()?
        .iter()
        .map(|(path, index)| Some((path.parse().ok()?, PayloadIndex::parse(index.as_str()?).ok()?)))
        .collect::<Option<_>>()?;
    let name = CollectionName::new(value["name"].as_str()?).ok()?;
    Some((CollectionSpec { name, vectors, payload_indexes }, Lsn(value["incarnation"].as_u64()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_reads_back_as_it_was() {
        let mut spec = CollectionSpec::dense(CollectionName::new("c.d-e").unwrap(), 3, Distance::Manhattan)
            .with_vector(VectorName::new("words").unwrap(), VectorSpec::Sparse);
        for (path, index) in [
            ("a", PayloadIndex::Keyword),
            ("a.b[].c", PayloadIndex::Integer),
            ("\"x.y\"", PayloadIndex::Float),
            ("z", PayloadIndex::Bool),
            ("when", PayloadIndex::Datetime),
        ] {
            spec = spec.with_payload_index(path.parse().unwrap(), index);
        }
        let read = collection_from_json(&collection_to_json(&spec, Lsn(u64::MAX)));
        assert_eq!(read, Some((spec, Lsn(u64::MAX))));
    }

    #[test]
    fn a_position_reads_back_as_it_was_and_half_of_one_does_not() {
        let log = LogIdentity { id: LogId(Uuid::from_u128(7)), epoch: 3 };
        let position = Position { log, lsn: Lsn(u64::MAX), hash: EntryHash([0xa5; 32]) };
        let value = position_to_json(&position);
        assert_eq!(position_from_json(&value), Ok(position));
        for key in ["log", "epoch", "lsn", "hash"] {
            let mut half = value.clone();
            half[key] = json!("?");
            assert!(position_from_json(&half).is_err(), "{key}");
        }
    }
}
