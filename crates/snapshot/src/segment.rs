//! The log between snapshots: entries as the log itself encodes them, many to a file.
//!
//! ```text
//! "MSTAYLOG" | format u8 = 1 | log id, 16 bytes | epoch u64 | first LSN u64 | last LSN u64 | unpacked bytes u64 | zstd
//! unpacked: number of marks u32 | (LSN u64 | milliseconds since 1970 u64) for each mark | (length u32 | entry) for each entry
//! ```
//!
//! Numbers are big-endian. A mark says that every entry up to its LSN had been written by its time. What an entry is, is the log's to say; each carries a checksum and the hash of the one before.

use std::cmp::Reverse;

use chrono::{DateTime, Utc};
use mainstay_core::entry::{LogId, LogIdentity};
use mainstay_core::{Error, ErrorKind, Lsn, Result};
use object_store::path::Path;
use uuid::Uuid;

use crate::bounded::unpack;
use crate::layout::{self, ContentHash, SegmentName};
use crate::repository::Repository;
use crate::work::blocking;

const MAGIC: [u8; 8] = *b"MSTAYLOG";
const FORMAT: u8 = 1;
const HEAD_BYTES: usize = 8 + 1 + 16 + 8 * 4;
/// zstd's fastest of the usual levels: segments are written all the time.
const LEVEL: i32 = 1;
/// Largest segment, unpacked.
pub const MAX_SEGMENT_BYTES: usize = 64 << 20;
/// Segments are put together up to this size, packed.
const MERGED_BYTES: u64 = 8 << 20;

/// Entries of a log, contiguous, from the first LSN on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The log.
    pub log: LogIdentity,
    /// The LSN of the first entry.
    pub first: Lsn,
    /// By when entries had been written, LSNs ascending; the last mark is of the last entry.
    pub marks: Vec<TimeMark>,
    /// The entries, at least one.
    pub entries: Vec<Vec<u8>>,
}

/// Every entry up to an LSN had been written by a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeMark {
    /// The LSN.
    pub lsn: Lsn,
    /// The time, in UTC to the millisecond.
    pub time: DateTime<Utc>,
}

impl Segment {
    /// The LSN of the last entry.
    pub fn last(&self) -> Lsn {
        Lsn(self.first.0.saturating_add(self.entries.len() as u64).saturating_sub(1))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let internal = |text: &str| Error::new(ErrorKind::Internal, text);
        let size =
            4 + self.marks.len() * 16 + self.entries.iter().map(|entry| entry.len() + 4).sum::<usize>();
        if self.entries.is_empty() || size > MAX_SEGMENT_BYTES {
            return Err(internal("a segment is empty or too large"));
        }
        let mut raw = Vec::with_capacity(size);
        raw.extend((self.marks.len() as u32).to_be_bytes());
        for mark in &self.marks {
            raw.extend(mark.lsn.0.to_be_bytes());
            raw.extend(mark.time.timestamp_millis().to_be_bytes());
        }
        for entry in &self.entries {
            raw.extend((entry.len() as u32).to_be_bytes());
            raw.extend_from_slice(entry);
        }
        let packed = zstd::bulk::compress(&raw, LEVEL)
            .map_err(|e| internal("entries of the log could not be packed").with_source(e))?;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + packed.len());
        bytes.extend(MAGIC);
        bytes.push(FORMAT);
        bytes.extend(self.log.id.0.as_bytes());
        for number in [self.log.epoch, self.first.0, self.last().0, raw.len() as u64] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(packed);
        Ok(bytes)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (head, packed) = bytes.split_at_checked(HEAD_BYTES).ok_or("it is too short")?;
        if head[..8] != MAGIC {
            return Err("it is no segment of a log".to_owned());
        }
        if head[8] != FORMAT {
            return Err(format!("its format is {}, this program reads {FORMAT}", head[8]));
        }
        let id: [u8; 16] = head[9..25].try_into().unwrap_or_default();
        let number =
            |at: usize| u64::from_be_bytes(head[25 + 8 * at..33 + 8 * at].try_into().unwrap_or_default());
        let (epoch, first, last, size) = (number(0), number(1), number(2), number(3));
        let raw = unpack(packed, size, MAX_SEGMENT_BYTES)?;
        let mut rest = raw.as_slice();
        let (marks, mut entries) = (read_marks(&mut rest)?, Vec::new());
        while let Some((length, after)) = rest.split_at_checked(4) {
            let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
            let (entry, after) = after.split_at_checked(length).ok_or("an entry is cut short")?;
            entries.push(entry.to_vec());
            rest = after;
        }
        let log = LogIdentity { id: LogId(Uuid::from_bytes(id)), epoch };
        let segment = Self { log, first: Lsn(first), marks, entries };
        let marked = segment.marks.windows(2).all(|pair| pair[0].lsn < pair[1].lsn)
            && segment.marks.first().is_some_and(|mark| mark.lsn >= segment.first)
            && segment.marks.last().is_some_and(|mark| mark.lsn.0 == last);
        if !marked || !rest.is_empty() || segment.entries.is_empty() || segment.last().0 != last || first == 0
        {
            return Err("it does not hold the entries that it says".to_owned());
        }
        Ok(segment)
    }
}

fn read_marks(rest: &mut &[u8]) -> Result<Vec<TimeMark>, String> {
    const SHORT: &str = "it is cut short";
    let (count, after) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let bytes = (u32::from_be_bytes(*count) as usize).checked_mul(16).ok_or(SHORT)?;
    let (marks, after) = after.split_at_checked(bytes).ok_or(SHORT)?;
    *rest = after;
    let mark = |bytes: &[[u8; 8]; 2]| {
        let time = DateTime::from_timestamp_millis(i64::from_be_bytes(bytes[1])).ok_or("a time is none")?;
        Ok(TimeMark { lsn: Lsn(u64::from_be_bytes(bytes[0])), time })
    };
    marks.as_chunks::<8>().0.as_chunks::<2>().0.iter().map(mark).collect()
}

/// Which segments give every entry after `after`, as far as they go without a gap; the fewest. Some may overlap, because
/// they are put together now and then.
pub fn covering(segments: &[SegmentName], after: Lsn) -> Vec<SegmentName> {
    let (mut chosen, mut reached) = (Vec::new(), after);
    loop {
        let next = segments
            .iter()
            .filter(|segment| segment.last > reached && segment.first.0 <= reached.0.saturating_add(1))
            .max_by_key(|segment| segment.last);
        match next {
            Some(next) => {
                chosen.push(*next);
                reached = next.last;
            }
            None => return chosen,
        }
    }
}

impl Repository {
    /// Writes entries of a log.
    ///
    /// # Errors
    /// Whatever the place runs into; `Internal` for too many bytes.
    pub async fn write_segment(&self, segment: Segment) -> Result<SegmentName> {
        let (segment, bytes) = blocking(move || {
            let bytes = segment.encode()?;
            Ok((segment, bytes))
        })
        .await?;
        let name = SegmentName { first: segment.first, last: segment.last(), hash: ContentHash::of(&bytes) };
        self.write(&layout::segment(segment.log, name), bytes.into()).await?;
        Ok(name)
    }

    /// The segments of a log, by their first entry.
    ///
    /// # Errors
    /// Whatever the place runs into.
    pub async fn segments(&self, log: LogIdentity) -> Result<Vec<SegmentName>> {
        let files = self.list(&layout::log(log)).await?;
        let mut names: Vec<_> =
            files.iter().filter_map(|file| layout::read_segment(&file.location)).collect();
        names.sort();
        Ok(names)
    }

    /// The logs that there are segments of.
    ///
    /// # Errors
    /// Whatever the place runs into.
    pub async fn logs(&self) -> Result<Vec<LogIdentity>> {
        let files = self.list(&Path::from(layout::LOG)).await?;
        let mut logs: Vec<_> = files
            .iter()
            .filter_map(|file| {
                let mut parts = file.location.parts();
                parts.next();
                layout::read_log(parts.next()?.as_ref())
            })
            .collect();
        logs.sort_by_key(|log| (log.id.0, log.epoch));
        logs.dedup();
        Ok(logs)
    }

    /// The entries of a segment.
    ///
    /// # Errors
    /// `Corrupt` with the file's name.
    pub async fn read_segment(&self, log: LogIdentity, name: SegmentName) -> Result<Segment> {
        let path = layout::segment(log, name);
        let bytes = self.read(&path, name.hash, MAX_SEGMENT_BYTES as u64 + HEAD_BYTES as u64).await?;
        let decoded = blocking(move || Ok(Segment::decode(&bytes))).await?;
        let segment = decoded.map_err(|what| self.damaged(path.as_ref(), &what))?;
        if segment.log != log || segment.first != name.first || segment.last() != name.last {
            return Err(self.damaged(path.as_ref(), "it holds other entries than its name says"));
        }
        Ok(segment)
    }

    /// Removes a segment.
    ///
    /// # Errors
    /// Whatever the place runs into.
    pub async fn remove_segment(&self, log: LogIdentity, name: SegmentName) -> Result<()> {
        self.check_writable()?;
        self.remove(&layout::segment(log, name)).await
    }

    /// Puts small segments together, oldest first; the parts are removed when the whole is there, also those that were left
    /// beside a whole by a process that was killed. Answers how many files there are fewer.
    ///
    /// # Errors
    /// `Corrupt` if a segment is damaged, which then stays as it is; whatever the place runs into.
    pub async fn merge_segments(&self, log: LogIdentity) -> Result<u64> {
        self.check_writable()?;
        let files = self.list(&layout::log(log)).await?;
        let mut files: Vec<_> = files
            .iter()
            .filter_map(|file| Some((layout::read_segment(&file.location)?, file.size)))
            .collect();
        // A whole before its parts.
        files.sort_by_key(|(name, _)| (name.first, Reverse(name.last), name.hash));
        let (mut fewer, mut group, mut bytes): (u64, Vec<SegmentName>, u64) = (0, Vec::new(), 0);
        let mut widest: Option<SegmentName> = None;
        for (name, size) in files {
            if let Some(whole) = widest.filter(|widest| widest.last >= name.last) {
                self.read_segment(log, whole).await?;
                self.remove(&layout::segment(log, name)).await?;
                fewer += 1;
                continue;
            }
            widest = Some(name);
            let follows = group.last().is_none_or(|last| last.last.0.checked_add(1) == Some(name.first.0));
            if !follows || bytes + size > MERGED_BYTES {
                fewer += self.merge(log, &group).await?;
                (group, bytes) = (Vec::new(), 0);
            }
            group.push(name);
            bytes += size;
        }
        Ok(fewer + self.merge(log, &group).await?)
    }

    async fn merge(&self, log: LogIdentity, group: &[SegmentName]) -> Result<u64> {
        let [first, _, ..] = group else { return Ok(0) };
        let mut whole = Segment { log, first: first.first, marks: Vec::new(), entries: Vec::new() };
        for name in group {
            let part = self.read_segment(log, *name).await?;
            whole.marks.extend(part.marks);
            whole.entries.extend(part.entries);
        }
        if whole.marks.len() * 16 + whole.entries.iter().map(|entry| entry.len() + 4).sum::<usize>() + 4
            > MAX_SEGMENT_BYTES
        {
            return Ok(0);
        }
        self.write_segment(whole).await?;
        for name in group {
            self.remove(&layout::segment(log, *name)).await?;
        }
        Ok(group.len() as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(first: u64, last: u64) -> SegmentName {
        SegmentName { first: Lsn(first), last: Lsn(last), hash: ContentHash::of(&[first as u8, last as u8]) }
    }

    #[test]
    fn segments_cover_the_log_without_a_gap_and_without_a_detour() {
        let all = [name(1, 3), name(4, 6), name(1, 6), name(7, 9), name(11, 12)];
        let covered =
            |after: u64| covering(&all, Lsn(after)).iter().map(|n| (n.first.0, n.last.0)).collect::<Vec<_>>();
        assert_eq!(covered(0), [(1, 6), (7, 9)]);
        assert_eq!(covered(5), [(1, 6), (7, 9)]);
        assert_eq!(covered(10), [(11, 12)]);
        assert_eq!(covered(12), []);
        assert_eq!(covering(&all[1..2], Lsn(0)), []);
        let end = [name(1, u64::MAX), name(0, 3)];
        assert_eq!(covering(&end, Lsn(0)), end[..1]);
        assert_eq!(covering(&end, Lsn(u64::MAX)), []);
    }

    #[test]
    fn a_segment_reads_back_as_it_was_and_nothing_else_does() {
        let log = LogIdentity { id: LogId(Uuid::from_u128(5)), epoch: 2 };
        let marks = [(7, 0), (9, 5)].map(|(lsn, time)| TimeMark {
            lsn: Lsn(lsn),
            time: DateTime::from_timestamp_millis(time).unwrap(),
        });
        let segment = Segment {
            log,
            first: Lsn(7),
            marks: marks.into(),
            entries: vec![vec![1, 2, 3], vec![], vec![9; 500]],
        };
        let bytes = segment.encode().unwrap();
        assert_eq!(Segment::decode(&bytes).unwrap(), segment);
        for length in 0..bytes.len() {
            assert!(Segment::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        let mut bomb = bytes.clone();
        bomb[HEAD_BYTES - 8..HEAD_BYTES].copy_from_slice(&u64::MAX.to_be_bytes());
        assert!(Segment::decode(&bomb).unwrap_err().contains("unpacked"));
    }
}
