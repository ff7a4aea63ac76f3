//! Shadow reads: a small share of the searches is answered by a standby too, so that it is known to be good before it is
//! needed.
//!
//! Nobody waits for a shadow read: it is a task of the tier with a deadline of its own, there are few of them at a time,
//! and one more than that is not made. It is compared with the answer that the caller got:
//!
//! - *overlap*: the share of the hits that both found, of those that either should have;
//! - *score drift*: how far the scores of common hits are apart.
//!
//! Both members must hold the same entries for that. The serving member's cursor before the search is known, and only a
//! standby that is at least there is asked. What the log did to the collection from there until the standby answered is
//! read from the log: points that it touched are taken out of both answers, and as many hits are compared as both lists
//! still say something of. So a write in between never looks like a loss, and a busy collection is measured all the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mainstay_core::{CollectionName, Context, Fields, Hit, Lsn, PointId, Result, SearchQuery, VectorStore};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast};
use tokio::time::Instant;

use crate::answer::{Answer, MemberName};
use crate::config::ShadowConfig;
use crate::log::Log;
use crate::tier::member::MemberState;
use crate::tier::{Event, Shared};

/// Shadow reads that the figures speak of.
const WINDOW: usize = 256;
/// Fewer than this are too few to warn by.
const FEWEST: usize = 20;
/// A standby may take this long; the guard's own timeout is usually shorter.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Entries between the two answers that are read to know what they touched; after more, nothing is said.
const MOST_BYTES: usize = 1 << 20;

/// How well a member answers searches that another one served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShadowStatus {
    /// Shadow reads that the figures below speak of, at most the last 256.
    pub samples: usize,
    /// The share of the hits that it found, on average; 1 if there are no samples.
    pub overlap: f64,
    /// The lowest share in one search.
    pub lowest_overlap: f64,
    /// The mean difference of the scores of common hits.
    pub mean_score_drift: f64,
    /// The largest one.
    pub max_score_drift: f64,
    /// Shadow reads that were compared since the start.
    pub compared: u64,
    /// Shadow reads that said nothing, because too much was written meanwhile.
    pub passed_over: u64,
    /// Shadow reads that it did not answer.
    pub failed: u64,
    /// How long ago the last one was compared.
    pub last: Option<Duration>,
}

/// What one shadow read says.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    overlap: f64,
    mean_score_drift: f64,
    max_score_drift: f64,
}

#[derive(Debug, Default)]
struct Figures {
    samples: VecDeque<Sample>,
    compared: u64,
    passed_over: u64,
    failed: u64,
    last: Option<Instant>,
    /// Whether the overlap was too low, and somebody was told.
    told: bool,
}

/// The shadow reads of a tier.
pub(crate) struct Shadow {
    config: ShadowConfig,
    searches: AtomicU64,
    running: Arc<Semaphore>,
    figures: Vec<Mutex<Figures>>,
    events: broadcast::Sender<Event>,
}

/// A search as the caller was answered.
struct Served {
    name: CollectionName,
    query: SearchQuery,
    hits: Vec<Seen>,
    cursor: Lsn,
}

/// A hit, without what it holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    id: PointId,
    score: f32,
}

impl Shadow {
    pub(crate) fn new(config: ShadowConfig, members: usize, events: broadcast::Sender<Event>) -> Self {
        let figures = (0..members).map(|_| Mutex::default()).collect();
        let running = Arc::new(Semaphore::new(config.max_concurrent));
        Self { config, searches: AtomicU64::new(0), running, figures, events }
    }

    /// The figures of one member; `None` if it was not asked yet.
    pub(crate) fn status(&self, member: usize) -> Option<ShadowStatus> {
        let figures = self.figures[member].lock();
        let asked = figures.compared + figures.passed_over + figures.failed > 0;
        asked.then(|| figures.status())
    }

    /// The number of this search if it is to be answered by a standby too.
    fn choose(&self) -> Option<u64> {
        if self.config.share <= 0.0 {
            return None;
        }
        let number = self.searches.fetch_add(1, Ordering::Relaxed);
        // Mixed, so that searches that come in turn are not all or never chosen.
        let drawn = (mix(number) >> 11) as f64 / (1_u64 << 53) as f64;
        (drawn < self.config.share).then_some(number)
    }

    fn note(&self, member: &MemberName, index: usize, outcome: Result<Option<Sample>>) {
        let mut figures = self.figures[index].lock();
        match outcome {
            Err(_) => figures.failed += 1,
            Ok(None) => figures.passed_over += 1,
            Ok(Some(sample)) => figures.add(sample),
        }
        let overlap = figures.status().overlap;
        let low = figures.samples.len() >= FEWEST && overlap < self.config.min_overlap;
        if low && !figures.told {
            let overlap_percent = (overlap * 100.0).round() as u8;
            let event = Event::Shadow { member: member.clone(), overlap_percent };
            tracing::warn!(%event, "shadow reads");
            // Nobody may be listening.
            let _ = self.events.send(event);
        }
        figures.told = low;
    }
}

impl Figures {
    fn add(&mut self, sample: Sample) {
        if self.samples.len() == WINDOW {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        self.compared += 1;
        self.last = Some(Instant::now());
    }

    fn status(&self) -> ShadowStatus {
        let mean = |of: fn(&Sample) -> f64, none: f64| match self.samples.len() {
            0 => none,
            n => self.samples.iter().map(of).sum::<f64>() / n as f64,
        };
        ShadowStatus {
            samples: self.samples.len(),
            overlap: mean(|sample| sample.overlap, 1.0),
            lowest_overlap: self.samples.iter().map(|sample| sample.overlap).fold(1.0, f64::min),
            mean_score_drift: mean(|sample| sample.mean_score_drift, 0.0),
            max_score_drift: self.samples.iter().map(|sample| sample.max_score_drift).fold(0.0, f64::max),
            compared: self.compared,
            passed_over: self.passed_over,
            failed: self.failed,
            last: self.last.map(|last| last.elapsed()),
        }
    }
}

impl Shared {
    /// Sends a search that was answered to a standby too, if it is chosen and there is room. Never waits.
    pub(crate) fn shadow(&self, name: &CollectionName, query: &SearchQuery, answer: &Answer<Vec<Hit>>) {
        let Some(number) = self.shadow.choose() else { return };
        if self.is_closing() {
            return;
        }
        let standbys: Vec<usize> = (0..self.members.len())
            .filter(|index| {
                let member = &self.members[*index];
                *member.name() != answer.served_by
                    && member.state() == MemberState::Live
                    && member.cursor() >= answer.cursor
            })
            .collect();
        let Ok(room) = Arc::clone(&self.shadow.running).try_acquire_owned() else { return };
        let Some(index) = standbys.get(usize::try_from(mix(!number)).unwrap_or(0) % standbys.len().max(1))
        else {
            return;
        };
        let (index, shadow, log) = (*index, Arc::clone(&self.shadow), Arc::clone(&self.log));
        let member = Arc::clone(&self.members[index]);
        let served = Served {
            name: name.clone(),
            query: SearchQuery { fields: Fields::NONE, ..query.clone() },
            hits: answer.value.iter().map(Seen::of).collect(),
            cursor: answer.cursor,
        };
        let mut closing = self.closing.clone();
        self.spawn_owned(async move {
            let _room = room;
            let ask = async {
                let cx = Context::within(TIMEOUT);
                let hits = member.store().search(&cx, &served.name, &served.query).await?;
                compare(&*log, &served, hits.iter().map(Seen::of).collect()).await
            };
            tokio::select! {
                outcome = ask => shadow.note(member.name(), index, outcome),
                () = super::until_closing(&mut closing) => {}
            }
        });
    }
}

impl Seen {
    fn of(hit: &Hit) -> Self {
        Self { id: hit.point.id, score: hit.score }
    }
}

/// Compares the two answers; `None` if what was written meanwhile leaves nothing to say.
async fn compare(log: &dyn Log, served: &Served, hits: Vec<Seen>) -> Result<Option<Sample>> {
    let Some(touched) = touched(log, &served.name, served.cursor).await? else { return Ok(None) };
    // An offset passes over hits that nobody has seen.
    if !touched.is_empty() && served.query.offset > 0 {
        return Ok(None);
    }
    Ok(Some(sample(&served.hits, &hits, served.query.limit, &touched)))
}

/// The points that the log touched after this entry; `None` if that was too much, or the collection itself.
async fn touched(log: &dyn Log, name: &CollectionName, after: Lsn) -> Result<Option<BTreeSet<PointId>>> {
    let (end, mut touched) = (log.bounds().last, BTreeSet::new());
    if after >= end {
        return Ok(Some(touched));
    }
    let entries = log.read(after, MOST_BYTES).await?;
    if entries.last().is_none_or(|last| last.lsn < end) {
        return Ok(None);
    }
    for entry in entries.iter().filter(|entry| entry.op.collection() == name) {
        if entry.op.is_of_collections() {
            return Ok(None);
        }
        touched.extend(entry.op.ids());
    }
    Ok(Some(touched))
}

/// What two answers to one search say of each other, apart from points that were written meanwhile.
fn sample(served: &[Seen], shadow: &[Seen], limit: usize, touched: &BTreeSet<PointId>) -> Sample {
    let untouched = |hits: &[Seen]| -> Vec<Seen> {
        hits.iter().copied().filter(|hit| !touched.contains(&hit.id)).collect()
    };
    let (mut a, mut b) = (untouched(served), untouched(shadow));
    // A list that is full says nothing of what comes after it; one that is not has all there is.
    let most = match (served.len() >= limit, shadow.len() >= limit) {
        (true, true) => a.len().min(b.len()),
        (true, false) => a.len(),
        (false, true) => b.len(),
        (false, false) => a.len().max(b.len()),
    };
    a.truncate(most);
    b.truncate(most);
    let scores: BTreeMap<PointId, f32> = a.iter().map(|hit| (hit.id, hit.score)).collect();
    let apart: Vec<f64> = b
        .iter()
        .filter_map(|hit| Some((f64::from(hit.score) - f64::from(*scores.get(&hit.id)?)).abs()))
        .collect();
    let expected = a.len().max(b.len());
    Sample {
        overlap: if expected == 0 { 1.0 } else { apart.len() as f64 / expected as f64 },
        mean_score_drift: apart.iter().sum::<f64>() / apart.len().max(1) as f64,
        max_score_drift: apart.iter().copied().fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests;

/// The finaliser of SplitMix64: numbers that follow each other come out as if drawn.
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
