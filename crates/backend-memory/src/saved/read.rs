//! Parts back into links, none of them believed.

use mainstay_core::{Error, ErrorKind, Lsn, PointId, Result};

use super::{ID_BYTES, NO_ID, NONE};

/// Slots of which most hold points: a collection is built anew when so many do not.
const SLOTS_PER_POINT: u64 = 4;
/// Slots that any collection may have.
const SPARE_SLOTS: u64 = 1_024;
/// Levels of a graph; usearch draws them with a chance that falls with each by the connectivity, two at least.
const MAX_LEVELS: u8 = 64;

/// The graphs of a collection.
#[derive(Debug, Default)]
pub struct Saved {
    /// The point of each slot.
    pub ids: Vec<Option<PointId>>,
    /// The version that it had.
    pub versions: Vec<Lsn>,
    /// The links in the graph of each dense vector, by its place in the spec.
    pub links: Vec<Links>,
}

/// The links of one graph.
#[derive(Debug, Default)]
pub struct Links {
    /// The row of each slot among those that have the vector.
    pub rows: Vec<u32>,
    /// The slot of each row.
    pub slots: Vec<u32>,
    /// The levels of each row, one at least.
    pub levels: Vec<u8>,
    /// Where the links of each row begin.
    starts: Vec<usize>,
    bytes: Vec<u8>,
}

impl Saved {
    /// Reads the parts of a collection that has so many dense vectors and about so many points.
    ///
    /// # Errors
    /// `Corrupt` with what is wrong. That links lead to slots that are there is checked by [`Links::of_row`].
    pub fn read(parts: &[Vec<u8>], vectors: usize, points: u64) -> Result<Self> {
        let links = (0..vectors).map(|_| Links::default()).collect();
        let mut saved = Self { links, ..Self::default() };
        for part in parts {
            saved.part(part, points).map_err(damaged)?;
        }
        Ok(saved)
    }

    fn part(&mut self, part: &[u8], points: u64) -> Result<(), &'static str> {
        let mut rest = part;
        let count = u32::from_le_bytes(take(&mut rest)?);
        let all = self.ids.len() as u64 + u64::from(count);
        if all > points.saturating_mul(SLOTS_PER_POINT).saturating_add(SPARE_SLOTS) {
            return Err("there are many more slots than points");
        }
        for _ in 0..count {
            let key: [u8; ID_BYTES] = take(&mut rest)?;
            let id = match key {
                NO_ID => None,
                key => Some(PointId::from_key(&key).ok_or("an id is none")?),
            };
            self.ids.push(id);
        }
        for _ in 0..count {
            self.versions.push(Lsn(u64::from_le_bytes(take(&mut rest)?)));
        }
        for links in &mut self.links {
            (0..count).try_for_each(|_| links.slot(&mut rest))?;
        }
        if rest.is_empty() { Ok(()) } else { Err("there are bytes after its end") }
    }
}

impl Links {
    /// Reads what the next slot has.
    fn slot(&mut self, rest: &mut &[u8]) -> Result<(), &'static str> {
        let slot = u32::try_from(self.rows.len()).map_err(|_| "there are too many slots")?;
        let [levels] = take(rest)?;
        if levels == 0 {
            self.rows.push(NONE);
            return Ok(());
        }
        if levels > MAX_LEVELS {
            return Err("a slot has too many levels");
        }
        self.rows.push(u32::try_from(self.slots.len()).map_err(|_| "there are too many slots")?);
        self.slots.push(slot);
        self.levels.push(levels);
        self.starts.push(self.bytes.len());
        for _ in 0..levels {
            let count = rest.first_chunk::<2>().ok_or(SHORT)?;
            let bytes = 2 + usize::from(u16::from_le_bytes(*count)) * 4;
            let (links, after) = rest.split_at_checked(bytes).ok_or(SHORT)?;
            self.bytes.extend_from_slice(links);
            *rest = after;
        }
        Ok(())
    }

    /// The rows that a row is linked to, level by level from the lowest. A link must lead to a row that is there, on a level
    /// that it has.
    ///
    /// # Errors
    /// `Corrupt` at the first link that does not.
    pub fn of_row(&self, row: usize) -> impl Iterator<Item = Result<Vec<u32>>> + '_ {
        let mut rest = self.starts.get(row).and_then(|start| self.bytes.get(*start..)).unwrap_or_default();
        let levels = self.levels.get(row).copied().unwrap_or_default();
        (0..levels).map(move |level| {
            let count = take(&mut rest).map(u16::from_le_bytes).map_err(damaged)?;
            (0..count)
                .map(|_| self.linked(u32::from_le_bytes(take(&mut rest).map_err(damaged)?), level))
                .collect()
        })
    }

    fn linked(&self, slot: u32, level: u8) -> Result<u32> {
        let row = self.rows.get(slot as usize).copied().filter(|row| *row != NONE);
        row.filter(|row| self.levels.get(*row as usize).is_some_and(|levels| *levels > level))
            .ok_or_else(|| damaged("a link leads nowhere"))
    }
}

const SHORT: &str = "it is cut short";

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or(SHORT)?;
    *rest = after;
    Ok(*taken)
}

pub fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("a saved graph is damaged: {what}"))
}
