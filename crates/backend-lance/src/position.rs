//! The record: what the store durably holds.
//!
//! One small file or object, replaced whole: JSON on the first line, the CRC-32 of that line in hex on
//! the second. It is written after a barrier that covers what it speaks of.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{ErrorKind as IoKind, Write};
use std::path::Path;

use mainstay_core::{Position, Result, document};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error;

/// The name of the record inside the directory.
pub(crate) const RECORD_FILE: &str = "mainstay.json";
/// The name it is written under before it takes its place.
pub(crate) const RECORD_TEMP: &str = "mainstay.json.tmp";
const FORMAT: u64 = 1;

/// What the store durably holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoreRecord {
    /// Names this store; another directory has another one.
    pub store: Uuid,
    /// How many records were written before; two copies of one store soon differ in it.
    pub sequence: u64,
    /// The position; without one the store holds nothing, or a load that was cut short.
    pub position: Option<Position>,
    /// The tables that belong to the position, each with its LanceDB version.
    pub tables: BTreeMap<String, u64>,
    /// Who has the store. A directory has a lock for that, and an object store nothing but this.
    pub holder: Option<Holder>,
}

/// Who has a store open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Tells it from every other one.
    pub id: Uuid,
    /// What people know it by.
    pub name: String,
}

/// What tells one written record from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size_bytes: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size_bytes: metadata.size(),
        }
    }

    /// The stamp of the record in a directory; `None` if there is no record.
    pub(crate) fn read(directory: &Path) -> Result<Option<Self>> {
        match fs::metadata(directory.join(RECORD_FILE)) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(e) if e.kind() == IoKind::NotFound => Ok(None),
            Err(e) => Err(error::io("looking at the record", e)),
        }
    }
}

impl StoreRecord {
    /// The record of a new, empty store.
    pub(crate) fn new() -> Self {
        Self { store: Uuid::new_v4(), sequence: 0, position: None, tables: BTreeMap::new(), holder: None }
    }

    /// Reads the record of a directory; `None` if there is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<(Self, Stamp)>> {
        let path = directory.join(RECORD_FILE);
        let stamp = Stamp::read(directory)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
            Err(e) => return Err(error::io("reading the record", e)),
        };
        let record = Self::read_text(&text)?;
        Ok(stamp.map(|stamp| (record, stamp)))
    }

    /// Writes the record durably: a synced temporary file, renamed, and the directory synced. The
    /// stamp is told before the record takes its place, so that nobody meets one he does not know.
    pub(crate) fn write(&self, directory: &Path, announce: impl FnOnce(Stamp)) -> Result<()> {
        let write = || {
            let temp = directory.join(RECORD_TEMP);
            let mut file = File::create(&temp)?;
            file.write_all(self.print().as_bytes())?;
            file.sync_all()?;
            announce(Stamp::of(&file.metadata()?));
            fs::rename(&temp, directory.join(RECORD_FILE))?;
            File::open(directory)?.sync_all()
        };
        write().map_err(|e| error::io("writing the record", e))
    }

    /// Reads what [`print`](Self::print) wrote.
    pub(crate) fn read_text(text: &str) -> Result<Self> {
        Self::parse(text).map_err(|why| {
            error::corrupt(format!(
                "{RECORD_FILE} of the LanceDB store is damaged ({why}); {}",
                error::RESTORE_OR_EMPTY
            ))
        })
    }

    /// The text of the record.
    pub(crate) fn print(&self) -> String {
        let position = self.position.as_ref().map(document::position_to_json);
        let mut value = json!({
            "format": FORMAT,
            "store": self.store.to_string(),
            "sequence": self.sequence,
            "position": position,
            "tables": self.tables,
        });
        if let Some(holder) = &self.holder {
            value["holder"] = json!({ "id": holder.id.to_string(), "name": holder.name });
        }
        let line = value.to_string();
        format!("{line}\n{:08x}\n", crc32fast::hash(line.as_bytes()))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (line, sum) = text.split_once('\n').ok_or("it is cut off")?;
        if sum.trim_end() != format!("{:08x}", crc32fast::hash(line.as_bytes())) {
            return Err("its checksum does not match");
        }
        let value: Value = serde_json::from_str(line).map_err(|_| "it is not JSON")?;
        if value["format"].as_u64() != Some(FORMAT) {
            return Err("its format is not one that this version reads");
        }
        let uuid = |value: &Value| value.as_str().and_then(|text| Uuid::try_parse(text).ok());
        let position = match &value["position"] {
            Value::Null => None,
            position => Some(document::position_from_json(position)?),
        };
        let tables = value["tables"].as_object().ok_or("it names no tables")?;
        let holder = match &value["holder"] {
            Value::Null => None,
            holder => Some(Holder {
                id: uuid(&holder["id"]).ok_or("its holder's id is no UUID")?,
                name: holder["name"].as_str().ok_or("its holder has no name")?.to_owned(),
            }),
        };
        let tables: Option<BTreeMap<String, u64>> =
            tables.iter().map(|(name, version)| Some((name.clone(), version.as_u64()?))).collect();
        Ok(Self {
            store: uuid(&value["store"]).ok_or("its store id is no UUID")?,
            sequence: value["sequence"].as_u64().ok_or("its sequence is no number")?,
            position,
            tables: tables.ok_or("a table's version is no number")?,
            holder,
        })
    }
}

#[cfg(test)]
mod tests {
    use mainstay_core::{EntryHash, LogId, LogIdentity, Lsn};

    use super::*;

    fn record() -> StoreRecord {
        let log = LogIdentity { id: LogId(Uuid::from_u128(7)), epoch: 3 };
        StoreRecord {
            position: Some(Position { log, lsn: Lsn(u64::MAX), hash: EntryHash([0xa5; 32]) }),
            tables: [("t1-c".to_owned(), 12)].into(),
            sequence: 9,
            holder: Some(Holder { id: Uuid::from_u128(5), name: "process 1 on \"x\"".to_owned() }),
            ..StoreRecord::new()
        }
    }

    #[test]
    fn a_record_reads_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(StoreRecord::read(directory.path()).unwrap(), None);
        for record in [record(), StoreRecord::new()] {
            let mut announced = None;
            record.write(directory.path(), |stamp| announced = Some(stamp)).unwrap();
            assert_eq!(StoreRecord::read(directory.path()).unwrap(), Some((record, announced.unwrap())));
        }
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let text = record().print();
        for at in 0..text.len() - 1 {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            let read = String::from_utf8(damaged).map(|text| StoreRecord::parse(&text));
            assert!(!matches!(read, Ok(Ok(_))), "byte {at}");
            assert!(StoreRecord::parse(&text[..at]).is_err(), "cut at {at}");
        }
    }
}
