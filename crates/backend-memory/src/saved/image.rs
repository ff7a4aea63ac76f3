//! Links and vectors as a file of usearch, which is the one way to give it links.
//!
//! ```text
//! rows u32 | bytes of a row u32 | the rows
//! head, 64 bytes: "usearch", versions, kinds of numbers | at 17 how many rows u64 | …
//! rows u64 | most links u64 | most links on the lowest level u64 | highest level u64 | row to begin at u64
//! for each row: level i16
//! for each row: key u64 | level i16 | for each level: links u32, each the u32 of a row, and room for the most
//! ```
//!
//! Little-endian, usearch 2.26. What says versions and kinds is taken from the file of an index that is empty; if that does not
//! look like this, graphs are built anew.

use mainstay_core::{Error, ErrorKind, Result};
use usearch::Index;

use super::read::{Links, damaged};
use crate::graph::usearch_error;
use crate::pages::Pages;

const SIZES: usize = 8;
const HEAD: usize = 64;
const HEADER: usize = 40;
/// Where the head says how many rows there are.
const PRESENT: usize = 17;
/// Key and level of a row.
const ROW_HEAD: usize = 10;

/// A file of usearch whose vectors are still to come.
pub struct Image {
    bytes: Pages,
    row_bytes: usize,
    rows: usize,
    /// Where the links of each row are.
    nodes: Vec<usize>,
    has: Vec<bool>,
    most_on_lowest: usize,
}

impl Image {
    /// Of these links, for an index that is as empty as this one.
    ///
    /// # Errors
    /// `Corrupt` if the links cannot be those of such an index; `Unsupported` if usearch writes its files in another way.
    pub fn new(empty: &Index, links: &Links) -> Result<Self> {
        let mut form = vec![0; empty.serialized_length()];
        empty.save_to_buffer(&mut form).map_err(usearch_error)?;
        if form.len() != SIZES + HEAD + HEADER || !form[SIZES..].starts_with(b"usearch") {
            return Err(Error::new(ErrorKind::Unsupported, "usearch writes its files in an unknown way"));
        }
        let (sizes, rest) = form.split_at(SIZES);
        let (head, header) = rest.split_at(HEAD);
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
        let most = usize::try_from(number(8)).unwrap_or(usize::MAX);
        let most_on_lowest = usize::try_from(number(16)).unwrap_or(usize::MAX);
        let row_bytes = u32::from_le_bytes(sizes[4..].try_into().unwrap_or_default()) as usize;
        let rows = links.slots.len();
        let node_bytes = |levels: u8| {
            ROW_HEAD + 4 + most_on_lowest * 4 + usize::from(levels.saturating_sub(1)) * (4 + most * 4)
        };
        let all_nodes: usize = links.levels.iter().map(|levels| node_bytes(*levels)).sum();
        let after_rows = SIZES + rows * row_bytes;
        let mut bytes = Pages::zeroed(after_rows + HEAD + HEADER + rows * 2 + all_nodes)?;
        bytes[..4].copy_from_slice(&(rows as u32).to_le_bytes());
        bytes[4..SIZES].copy_from_slice(&sizes[4..]);
        let count = (rows as u64).to_le_bytes();
        let mut rest = &mut bytes[after_rows..];
        put(&mut rest, head)[PRESENT..PRESENT + 8].copy_from_slice(&count);
        let highest = links.levels.iter().copied().max().unwrap_or(1);
        let begin = links.levels.iter().position(|levels| *levels == highest).unwrap_or(0);
        put(&mut rest, &count);
        put(&mut rest, &header[8..24]);
        put(&mut rest, &u64::from(highest - 1).to_le_bytes());
        put(&mut rest, &(begin as u64).to_le_bytes());
        for levels in &links.levels {
            put(&mut rest, &i16::from(levels - 1).to_le_bytes());
        }
        let mut nodes = Vec::with_capacity(rows);
        let mut at = after_rows + HEAD + HEADER + rows * 2;
        for (row, (slot, levels)) in links.slots.iter().zip(&links.levels).enumerate() {
            nodes.push(at + ROW_HEAD);
            let mut node = &mut bytes[at..at + node_bytes(*levels)];
            at += node.len();
            put(&mut node, &u64::from(*slot).to_le_bytes());
            put(&mut node, &i16::from(levels - 1).to_le_bytes());
            for (level, linked) in links.of_row(row).enumerate() {
                let (linked, most) = (linked?, if level == 0 { most_on_lowest } else { most });
                if linked.len() > most {
                    return Err(damaged("a slot has too many links"));
                }
                let (list, after) = node.split_at_mut(4 + most * 4);
                node = after;
                list[..4].copy_from_slice(&(linked.len() as u32).to_le_bytes());
                for (place, row) in list[4..].as_chunks_mut::<4>().0.iter_mut().zip(linked) {
                    *place = row.to_le_bytes();
                }
            }
        }
        Ok(Self { bytes, row_bytes, rows, nodes, has: vec![false; rows], most_on_lowest })
    }

    /// Bytes that it takes with what it knows of its rows.
    pub fn all_bytes(&self) -> usize {
        self.bytes.len() + self.rows * (size_of::<usize>() + size_of::<bool>())
    }

    /// The vector of a row, to be written; `None` if there is no such row.
    pub fn row_mut(&mut self, row: u32) -> Option<&mut [u8]> {
        *self.has.get_mut(row as usize)? = true;
        let start = SIZES + row as usize * self.row_bytes;
        self.bytes.get_mut(start..start + self.row_bytes)
    }

    /// Gives rows that got no vector that of a neighbour.
    pub fn fill_gaps(&mut self) {
        for row in 0..self.rows {
            if self.has[row] {
                continue;
            }
            let near = self.lowest_links(row).find(|near| self.has.get(*near).is_some_and(|has| *has));
            if let Some(near) = near {
                let from = SIZES + near * self.row_bytes;
                self.bytes.copy_within(from..from + self.row_bytes, SIZES + row * self.row_bytes);
            }
        }
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of a vector that was written.
    pub fn row(&self, row: usize) -> Option<&[u8]> {
        let start = SIZES + row * self.row_bytes;
        self.bytes.get(start..start + self.row_bytes).filter(|_| self.has.get(row) == Some(&true))
    }

    fn lowest_links(&self, row: usize) -> impl Iterator<Item = usize> + '_ {
        let list = self.bytes.get(self.nodes[row]..).unwrap_or_default();
        let (count, list) = list.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let count = (u32::from_le_bytes(*count) as usize).min(self.most_on_lowest);
        list.as_chunks::<4>().0.iter().take(count).map(|row| u32::from_le_bytes(*row) as usize)
    }
}

/// Writes bytes at the beginning of a place, which goes on after them.
fn put<'a>(place: &mut &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (here, after) = std::mem::take(place).split_at_mut(bytes.len());
    *place = after;
    here.copy_from_slice(bytes);
    here
}
