//! Reading back what was acked, from every member.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay::{CollectionName, Disposition, Error, ErrorKind, Fields, PointId, Result, ScrollQuery, Tier};
use tokio::time::{Instant, sleep};

/// How long after a member could not be read it is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long after a load a write may still take effect, and be put right.
const LATE: Duration = Duration::from_secs(60);
/// How long after members were found to differ they are read again.
const PUT_RIGHT: Duration = Duration::from_secs(1);
/// Points of a page: few enough that a slow server gives them within a short timeout.
const PAGE: usize = 500;

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

/// Reads a collection from every member of a tier that has caught up. A member that cannot be read for the moment, as
/// while its breaker is open after the load, is asked again for as long as `patience`.
///
/// # Errors
/// Whatever a member answers, in the end.
pub async fn verify(
    tier: &Tier,
    collection: &CollectionName,
    expected: &Expected,
    patience: Duration,
) -> Result<Verdict> {
    let until = Instant::now() + patience;
    let mut members = Vec::new();
    let mut lost = BTreeSet::new();
    for member in tier.status().members {
        let name = member.name.as_str();
        let found = once_readable(until, || contents(tier, collection, name, expected)).await?;
        let wrong = expected.wrong(&found);
        let digests = once_readable(until, || tier.digest(name)).await?;
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

/// As [`verify`], again for a minute while the members differ: a write that waited in a frozen server takes effect late,
/// and its store looks again after a grace time.
///
/// # Errors
/// As [`verify`].
pub async fn verify_late(
    tier: &Tier,
    collection: &CollectionName,
    expected: &Expected,
    patience: Duration,
) -> Result<Verdict> {
    let mut verdict = verify(tier, collection, expected, patience).await?;
    let until = Instant::now() + LATE;
    while !verdict.equal && Instant::now() < until {
        sleep(PUT_RIGHT).await;
        verdict = verify(tier, collection, expected, patience).await?;
    }
    Ok(verdict)
}

/// Asks until the answer is not that the member cannot be read now, or the time has come.
async fn once_readable<T>(until: Instant, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    loop {
        match ask().await {
            Err(error) if is_passing(&error) && Instant::now() < until => sleep(AGAIN).await,
            answer => return answer,
        }
    }
}

/// Whether the member may answer later; a tier asks the next one instead while a breaker is open.
fn is_passing(error: &Error) -> bool {
    error.disposition() == Disposition::Retry || error.kind() == ErrorKind::BreakerOpen
}

async fn contents(
    tier: &Tier,
    collection: &CollectionName,
    member: &str,
    expected: &Expected,
) -> Result<BTreeMap<PointId, Option<String>>> {
    let reader = tier.reader().from_member(member)?;
    let mut query =
        ScrollQuery { limit: PAGE, fields: Fields { text: true, ..Fields::NONE }, ..ScrollQuery::default() };
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

    /// Asks a member that gives this error for a while and then an answer; how long that took.
    async fn asked(kind: ErrorKind, for_a: Duration, patience: Duration) -> (Result<u8>, Duration) {
        let began = Instant::now();
        let answer = once_readable(began + patience, async || {
            if began.elapsed() < for_a { Err(Error::new(kind, "not now")) } else { Ok(7) }
        });
        (answer.await, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_whose_breaker_is_open_is_waited_for_and_judged_then() {
        let (minute, patience) = (Duration::from_secs(60), Duration::from_secs(120));
        let (answer, took) = asked(ErrorKind::BreakerOpen, minute, patience).await;
        assert_eq!(answer.unwrap(), 7);
        assert!(took >= minute && took < patience, "{took:?}");
        let (answer, took) = asked(ErrorKind::Timeout, patience * 2, patience).await;
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
        assert!(took >= patience && took <= patience + AGAIN, "{took:?}");
        let (answer, took) = asked(ErrorKind::Corrupt, minute, patience).await;
        assert_eq!((answer.unwrap_err().kind(), took), (ErrorKind::Corrupt, Duration::ZERO));
    }

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
