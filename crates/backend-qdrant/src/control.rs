//! The control document: the position, and the collections that belong to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_core::{
    CollectionName, CollectionRef, CollectionSpec, Error, ErrorKind, Lsn, PayloadPath, Position, Result,
    StoreId, document,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

const FORMAT: u64 = 1;
/// Points may be of any version: the store is being loaded, or its document is from before there was a ceiling.
pub const UNKNOWN_CEILING: Lsn = Lsn(u64::MAX);

/// A collection as the store knows it.
#[derive(Debug)]
pub struct Known {
    /// Its spec.
    pub spec: CollectionSpec,
    /// The LSN that created it.
    pub incarnation: Lsn,
    /// Whether some point has a value at an indexed path that is not of the index's type, as far as that was counted.
    pub mixed: Mutex<BTreeMap<PayloadPath, bool>>,
}

impl Known {
    /// A collection of which nothing was counted.
    pub fn new(spec: CollectionSpec, incarnation: Lsn) -> Self {
        Self { spec, incarnation, mixed: Mutex::default() }
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        (&self.spec, self.incarnation) == (&other.spec, other.incarnation)
    }
}

/// What the store durably says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Names the place of the store.
    pub id: StoreId,
    /// Names this version of the document; no two have the same.
    pub stamp: Uuid,
    /// The position; `None` for a store that holds nothing or is being loaded.
    pub position: Option<Position>,
    /// No point is newer than this entry: it is raised before newer ones are written. [`UNKNOWN_CEILING`] if
    /// points may be of any version.
    pub ceiling: Lsn,
    /// The collections by name.
    pub collections: BTreeMap<CollectionName, Arc<Known>>,
}

impl Control {
    /// Of a store that holds nothing.
    pub fn new() -> Self {
        let (id, stamp) = (StoreId(Uuid::new_v4()), Uuid::new_v4());
        Self { id, stamp, position: None, ceiling: Lsn::ZERO, collections: BTreeMap::new() }
    }

    /// The collection that an entry means; `None` if it is gone or another one.
    pub fn meant(&self, collection: &CollectionRef) -> Option<&Arc<Known>> {
        self.collections.get(&collection.name).filter(|known| known.incarnation == collection.incarnation)
    }

    /// The document as text.
    pub fn print(&self) -> String {
        let collections: Vec<Value> = self
            .collections
            .values()
            .map(|known| document::collection_to_json(&known.spec, known.incarnation))
            .collect();
        json!({
            "format": FORMAT,
            "store": self.id.to_string(),
            "stamp": self.stamp.to_string(),
            "position": self.position.as_ref().map(document::position_to_json),
            "ceiling": self.ceiling.0,
            "collections": collections,
        })
        .to_string()
    }

    /// Reads a document.
    ///
    /// # Errors
    /// `Corrupt` with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text).map_err(|why| {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the control document of the Qdrant store is damaged ({why}); restore the store from a backup, \
                     or empty it to have it filled again"
                ),
            )
        })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let value: Value = serde_json::from_str(text).map_err(|_| "it is not JSON")?;
        if value["format"].as_u64() != Some(FORMAT) {
            return Err("its format is not one that this version reads");
        }
        let uuid = |key: &str| value[key].as_str().and_then(|text| Uuid::try_parse(text).ok());
        let position = match &value["position"] {
            Value::Null => None,
            position => Some(document::position_from_json(position)?),
        };
        let ceiling = match &value["ceiling"] {
            Value::Null => UNKNOWN_CEILING,
            ceiling => Lsn(ceiling.as_u64().ok_or("its ceiling is no LSN")?),
        };
        let collections = value["collections"].as_array().ok_or("it names no collections")?;
        let collections = collections.iter().map(|collection| {
            let (spec, incarnation) = document::collection_from_json(collection)?;
            Some((spec.name.clone(), Arc::new(Known::new(spec, incarnation))))
        });
        Ok(Self {
            id: StoreId(uuid("store").ok_or("the id of its store is no UUID")?),
            stamp: uuid("stamp").ok_or("its stamp is no UUID")?,
            position,
            ceiling,
            collections: collections.collect::<Option<_>>().ok_or("a collection in it cannot be read")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::{Distance, EntryHash, LogId, LogIdentity};

    use super::*;

    #[test]
    fn a_document_reads_back_as_it_was_and_a_cut_one_is_refused() {
        let spec = CollectionSpec::dense(CollectionName::new("docs").unwrap(), 3, Distance::Dot);
        let log = LogIdentity { id: LogId(Uuid::from_u128(1)), epoch: 2 };
        let control = Control {
            position: Some(Position { log, lsn: Lsn(9), hash: EntryHash([3; 32]) }),
            ceiling: Lsn(12),
            collections: [(spec.name.clone(), Arc::new(Known::new(spec, Lsn(4))))].into(),
            ..Control::new()
        };
        let text = control.print();
        assert_eq!(Control::parse(&text).unwrap(), control);
        assert_eq!(Control::parse(&text[..text.len() - 2]).unwrap_err().kind(), ErrorKind::Corrupt);
        let older = text.replace(r#""ceiling":12,"#, "");
        assert_eq!(Control::parse(&older).unwrap(), Control { ceiling: UNKNOWN_CEILING, ..control });
    }
}
