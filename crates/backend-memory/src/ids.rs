//! Which slot a point is in.

use std::collections::BTreeMap;
use std::ops::Bound;

use mainstay_core::PointId;
use uuid::Uuid;

/// Slots by point id, in the order of ids. Numbers and UUIDs are kept apart, because one key for both
/// would take twice the memory of a number.
#[derive(Default)]
pub struct Ids {
    numbers: BTreeMap<u64, u32>,
    uuids: BTreeMap<Uuid, u32>,
}

impl Ids {
    /// How many points there are.
    pub fn len(&self) -> usize {
        self.numbers.len() + self.uuids.len()
    }

    /// The slot of a point.
    pub fn get(&self, id: PointId) -> Option<u32> {
        match id {
            PointId::Num(id) => self.numbers.get(&id),
            PointId::Uuid(id) => self.uuids.get(&id),
        }
        .copied()
    }

    /// Puts a point into a slot and answers the one that it was in.
    pub fn insert(&mut self, id: PointId, slot: u32) -> Option<u32> {
        match id {
            PointId::Num(id) => self.numbers.insert(id, slot),
            PointId::Uuid(id) => self.uuids.insert(id, slot),
        }
    }

    /// Forgets a point.
    pub fn remove(&mut self, id: PointId) {
        match id {
            PointId::Num(id) => self.numbers.remove(&id),
            PointId::Uuid(id) => self.uuids.remove(&id),
        };
    }

    /// The points after one, or all of them.
    pub fn after(&self, after: Option<PointId>) -> impl Iterator<Item = (PointId, u32)> {
        let (numbers, uuids) = match after {
            None => (Some(Bound::Unbounded), Bound::Unbounded),
            Some(PointId::Num(id)) => (Some(Bound::Excluded(id)), Bound::Unbounded),
            Some(PointId::Uuid(id)) => (None, Bound::Excluded(id)),
        };
        let numbers = numbers.into_iter().flat_map(|from| self.numbers.range((from, Bound::Unbounded)));
        let uuids = self.uuids.range((uuids, Bound::Unbounded));
        numbers
            .map(|(id, slot)| (PointId::Num(*id), *slot))
            .chain(uuids.map(|(id, slot)| (PointId::Uuid(*id), *slot)))
    }

    /// The slots of all points, in the order of ids.
    pub fn slots(&self) -> impl Iterator<Item = u32> {
        self.numbers.values().chain(self.uuids.values()).copied()
    }

    /// About how many bytes the maps take; the nodes of a B-tree are about half full when ids ascend.
    pub fn bytes(&self) -> usize {
        2 * (self.numbers.len() * size_of::<(u64, u32)>() + self.uuids.len() * size_of::<(Uuid, u32)>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_before_uuids_and_a_page_starts_after_its_cursor() {
        let uuid = |n| PointId::Uuid(Uuid::from_u128(n));
        let mut ids = Ids::default();
        for (slot, id) in [uuid(2), PointId::Num(9), uuid(1), PointId::Num(3)].into_iter().enumerate() {
            assert_eq!(ids.insert(id, slot as u32), None);
        }
        let from = |after| ids.after(after).map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(from(None), [PointId::Num(3), PointId::Num(9), uuid(1), uuid(2)]);
        assert_eq!(from(Some(PointId::Num(3))), [PointId::Num(9), uuid(1), uuid(2)]);
        assert_eq!(from(Some(PointId::Num(9))), [uuid(1), uuid(2)]);
        assert_eq!(from(Some(uuid(1))), [uuid(2)]);
        assert_eq!(ids.slots().collect::<Vec<_>>(), [3, 1, 2, 0]);
    }
}
