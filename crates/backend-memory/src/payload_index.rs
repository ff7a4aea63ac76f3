//! Bitmaps of slots per value of a declared payload index.

use std::collections::BTreeMap;
use std::ops::Bound;

use mainstay_core::filter::parse_datetime;
use mainstay_core::{Condition, FieldTest, Filter, Match, Payload, PayloadIndex, PayloadPath, Range, Scalar};
use roaring::RoaringBitmap;
use serde_json::Value;

use crate::heap::{allocated, bitmap_bytes};

/// An indexed value. Numbers are kept twice in an integer index: as the integer for matches, and as a number
/// for ranges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Scalar(Scalar),
    /// A number as bits whose order is the order of numbers.
    Number(u64),
    /// Microseconds.
    Time(i64),
}

/// The bits of a number, in the order of numbers; −0.0 counts as 0.0.
fn ordered(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The bitmaps of all declared payload indexes of a collection.
#[derive(Clone, Default)]
pub struct PayloadIndexes {
    indexes: BTreeMap<PayloadPath, (PayloadIndex, BTreeMap<Key, RoaringBitmap>)>,
}

/// Slots that a filter may accept.
pub struct Candidates {
    /// No slot outside is accepted.
    pub slots: RoaringBitmap,
    /// Every slot inside is accepted, if it is alive.
    pub exact: bool,
}

impl PayloadIndexes {
    /// Empty indexes for these declarations.
    pub fn new(declared: &BTreeMap<PayloadPath, PayloadIndex>) -> Self {
        Self {
            indexes: declared.iter().map(|(path, kind)| (path.clone(), (*kind, BTreeMap::new()))).collect(),
        }
    }

    /// Adds the values of a slot.
    pub fn insert(&mut self, slot: u32, payload: &Payload) {
        for (path, (kind, values)) in &mut self.indexes {
            for key in keys(*kind, path, payload) {
                values.entry(key).or_default().insert(slot);
            }
        }
    }

    /// Removes the values of a slot.
    pub fn remove(&mut self, slot: u32, payload: &Payload) {
        for (path, (kind, values)) in &mut self.indexes {
            for key in keys(*kind, path, payload) {
                if let Some(slots) = values.get_mut(&key) {
                    slots.remove(slot);
                    if slots.is_empty() {
                        values.remove(&key);
                    }
                }
            }
        }
    }

    /// The slots that a filter may accept; `None` if no index narrows them down.
    pub fn candidates(&self, filter: &Filter) -> Option<Candidates> {
        let mut exact = filter.should.is_empty() && filter.must_not.is_empty();
        let mut slots: Option<RoaringBitmap> = None;
        for condition in &filter.must {
            match self.holds(condition) {
                Some(found) => slots = Some(slots.map_or(found.clone(), |slots| slots & found)),
                None => exact = false,
            }
        }
        slots.map(|slots| Candidates { slots, exact })
    }

    /// Exactly the slots for which a condition holds, if an index knows.
    fn holds(&self, condition: &Condition) -> Option<RoaringBitmap> {
        let Condition::Field { path, test } = condition else { return None };
        let (kind, values) = self.indexes.get(path)?;
        let of = |scalar: &Scalar| values.get(&Key::Scalar(scalar.clone())).cloned().unwrap_or_default();
        let indexed = |scalar: &Scalar| {
            matches!(
                (kind, scalar),
                (PayloadIndex::Keyword, Scalar::Str(_))
                    | (PayloadIndex::Integer, Scalar::Int(_))
                    | (PayloadIndex::Bool, Scalar::Bool(_))
            )
        };
        match test {
            FieldTest::Match(Match::Value(value)) if indexed(value) => Some(of(value)),
            FieldTest::Match(Match::Any(list)) if list.iter().all(indexed) => {
                Some(list.iter().map(of).fold(RoaringBitmap::new(), |all, slots| all | slots))
            }
            FieldTest::Range(range) if matches!(kind, PayloadIndex::Integer | PayloadIndex::Float) => {
                let range = Range {
                    gt: range.gt.map(ordered),
                    gte: range.gte.map(ordered),
                    lt: range.lt.map(ordered),
                    lte: range.lte.map(ordered),
                };
                Some(within(values, &range, Key::Number, |key| matches!(key, Key::Number(_))))
            }
            FieldTest::Datetime(range) if *kind == PayloadIndex::Datetime => {
                Some(within(values, range, Key::Time, |key| matches!(key, Key::Time(_))))
            }
            _ => None,
        }
    }

    /// About how many bytes the bitmaps and their keys take; the nodes of a B-tree are about two thirds full.
    pub fn bytes(&self) -> u64 {
        let of_value = |(key, slots): (&Key, &RoaringBitmap)| {
            let text = if let Key::Scalar(Scalar::Str(text)) = key { allocated(text.capacity()) } else { 0 };
            let node = (size_of::<Key>() + size_of::<RoaringBitmap>()) * 3 / 2;
            (node + text + bitmap_bytes(slots)) as u64
        };
        self.indexes.values().flat_map(|(_, values)| values).map(of_value).sum()
    }
}

fn keys(kind: PayloadIndex, path: &PayloadPath, payload: &Payload) -> Vec<Key> {
    let mut keys = Vec::new();
    for value in path.each(payload) {
        match (kind, value) {
            (PayloadIndex::Keyword, Value::String(text)) => keys.push(Key::Scalar(Scalar::Str(text.clone()))),
            (PayloadIndex::Bool, Value::Bool(b)) => keys.push(Key::Scalar(Scalar::Bool(*b))),
            (PayloadIndex::Integer, Value::Number(n)) => {
                keys.extend(n.as_i64().map(|n| Key::Scalar(Scalar::Int(n))));
                keys.extend(n.as_f64().map(|n| Key::Number(ordered(n))));
            }
            (PayloadIndex::Float, Value::Number(n)) => {
                keys.extend(n.as_f64().map(|n| Key::Number(ordered(n))))
            }
            (PayloadIndex::Datetime, Value::String(text)) => keys.extend(parse_datetime(text).map(Key::Time)),
            _ => {}
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

fn within<T: Copy + Ord>(
    values: &BTreeMap<Key, RoaringBitmap>,
    range: &Range<T>,
    key: impl Fn(T) -> Key,
    is_kind: impl Fn(&Key) -> bool,
) -> RoaringBitmap {
    // The tighter of the two lower bounds decides; upper bounds are checked as values come.
    let lower = match (range.gt, range.gte) {
        (Some(gt), Some(gte)) if gte > gt => Bound::Included(key(gte)),
        (Some(gt), _) => Bound::Excluded(key(gt)),
        (None, Some(gte)) => Bound::Included(key(gte)),
        (None, None) => Bound::Unbounded,
    };
    let (lt, lte) = (range.lt.map(&key), range.lte.map(&key));
    let below =
        |value: &Key| lt.as_ref().is_none_or(|lt| value < lt) && lte.as_ref().is_none_or(|lte| value <= lte);
    values
        .range((lower, Bound::Unbounded))
        .filter(|(value, _)| is_kind(value))
        .take_while(|(value, _)| below(value))
        .fold(RoaringBitmap::new(), |all, (_, slots)| all | slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_keep_the_order_of_numbers() {
        let numbers = [f64::NEG_INFINITY, -1e300, -1.5, -0.0, 1e-300, 1.0, 1e300, f64::INFINITY];
        assert!(numbers.map(ordered).is_sorted());
        assert_eq!(ordered(0.0), ordered(-0.0));
    }
}
