//! Reading back what was acked, from every member.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::{CollectionName, Fields, PointId, Result, ScrollQuery, Tier};

/// What points must be after a load.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Every content that a point may have: the last acked one, and those of later writes whose outcome
    /// nobody was told. `None` stands for a deleted point.
    points: BTreeMap<PointId, BTreeSet<Option<String>>>,
}

impl Expected {
    /// A write was acked: the point is this now.
    pub fn acked(&mut self, id: PointId, content: Option<String>) {
        self.points.insert(id, BTreeSet::from([content]));
    }

    /// A write may have happened: the point may be this, too.
    pub fn unknown(&mut self, id: PointId, content: Option<String>) {
        self.points.entry(id).or_insert_with(|| BTreeSet::from([None])).insert(content);
    }

    /// How many points were written.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The ids whose content is not one that it may be.
    fn wrong(&self, found: &BTreeMap<PointId, Option<String>>) -> Vec<PointId> {
        let right = |id: &PointId, allowed: &BTreeSet<Option<String>>| match found.get(id) {
            Some(text) => allowed.contains(text),
            None => allowed.contains(&None),
        };
        self.points.iter().filter(|(id, allowed)| !right(id, allowed)).map(|(id, _)| *id).collect()
    }
}

/// One member after a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// Its name.
    pub name: String,
    /// How many points the collection has in it.
    pub points: u64,
    /// The content hash of the collection.
    pub hash: String,
    /// Acked writes that are not in it.
    pub lost: u64,
}

/// What reading back found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Every member.
    pub members: Vec<MemberState>,
    /// Acked writes that some member does not hold.
    pub writes_lost: u64,
    /// Whether all members hold the same.
    pub equal: bool,
}

/// Reads a collection from every member of a tier that has caught up.
///
/// # Errors
/// Whatever a member answers.
pub async fn verify(tier: &Tier, collection: &CollectionName, expected: &Expected) -> Result<Verdict> {
    let mut members = Vec::new();
    let mut lost = BTreeSet::new();
    for member in tier.status().members {
        let name = member.name.as_str();
        let wrong = expected.wrong(&contents(tier, collection, name, expected).await?);
        let digests = tier.digest(name).await?;
        let digest = digests.iter().find(|digest| digest.name == *collection);
        members.push(MemberState {
            name: name.to_owned(),
            points: digest.map_or(0, |digest| digest.points),
            hash: digest.map(|digest| digest.hash.to_string()).unwrap_or_default(),
            lost: wrong.len() as u64,
        });
        lost.extend(wrong);
    }
    let equal =
        members.windows(2).all(|pair| (pair[0].points, &pair[0].hash) == (pair[1].points, &pair[1].hash));
    Ok(Verdict { members, writes_lost: lost.len() as u64, equal })
}

async fn contents(
    tier: &Tier,
    collection: &CollectionName,
    member: &str,
    expected: &Expected,
) -> Result<BTreeMap<PointId, Option<String>>> {
    let reader = tier.reader().from_member(member)?;
    let mut query =
        ScrollQuery { limit: 2_000, fields: Fields { text: true, ..Fields::NONE }, ..ScrollQuery::default() };
    let mut found = BTreeMap::new();
    loop {
        let page = reader.scroll(collection, &query).await?.value;
        let known = page.records.into_iter().filter(|record| expected.points.contains_key(&record.point.id));
        found.extend(known.map(|record| (record.point.id, record.point.text)));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_a_stale_and_a_resurrected_point_are_all_noticed() {
        let mut expected = Expected::default();
        let text = |text: &str| Some(text.to_owned());
        expected.acked(1.into(), text("a"));
        expected.acked(2.into(), text("new"));
        expected.acked(3.into(), None);
        expected.acked(4.into(), text("b"));
        expected.unknown(4.into(), text("c"));
        let found = |rows: &[(u64, &str)]| rows.iter().map(|(id, t)| ((*id).into(), text(t))).collect();
        assert_eq!(expected.wrong(&found(&[(1, "a"), (2, "new"), (4, "c")])), []);
        let wrong = expected.wrong(&found(&[(2, "old"), (3, "x"), (4, "d")]));
        assert_eq!(wrong, [1, 2, 3, 4].map(PointId::Num));
    }
}
