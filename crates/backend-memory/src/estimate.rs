//! What a store takes to hold points, before it is filled with them: plain decisions over plain numbers.
//!
//! Bytes per point are those of the very structures that will hold it, so that an estimate and what the store accounts
//! for later agree to a few percent; a test says so. Resident memory has been measured beside both.

use std::fmt;

use mainstay_core::{Distance, Error, ErrorKind, Expected, Lsn, PointId, Result, VectorSpec};

use crate::graph::Graph;
use crate::options::{MemoryOptions, Quantization, WhenFull};
use crate::payload_index::PayloadIndexes;
use crate::slot::Slot;
use crate::slots::Slots;

/// From so many points on a fill looks for free memory with a safety factor.
pub const YELLOW_POINTS: u64 = 100_000;
/// Beyond so many points a fill wants `allow_red_zone`.
pub const RED_POINTS: u64 = 500_000;
/// What must be free beyond twice the estimate: buffers of the fill, and what the allocator keeps.
pub const SAFETY_BYTES: u64 = 500_000_000;

/// How much a fill asks of a machine, by its points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Zone {
    /// Fewer than [`YELLOW_POINTS`]: the estimate must be free.
    Green,
    /// At most [`RED_POINTS`]: twice the estimate and [`SAFETY_BYTES`] must be free.
    Yellow,
    /// Beyond: as yellow, and only with `allow_red_zone`.
    Red,
}

impl Zone {
    /// The zone of so many points.
    pub const fn of(points: u64) -> Self {
        match points {
            0..YELLOW_POINTS => Self::Green,
            YELLOW_POINTS..=RED_POINTS => Self::Yellow,
            _ => Self::Red,
        }
    }

    /// The zone as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// About how many bytes a store with these options takes to hold these points.
pub fn bytes(options: &MemoryOptions, expected: &[Expected]) -> u64 {
    expected.iter().fold(0, |all: u64, expected| all.saturating_add(of_collection(options, expected)))
}

fn of_collection(options: &MemoryOptions, expected: &Expected) -> u64 {
    let Expected { spec, points, sample } = expected;
    let graphs = dense(expected)
        .map(|(vectors, dimension, distance)| Graph::estimate(vectors, dimension, distance, options));
    let slots = Slots::estimate(*points);
    let mut indexes = PayloadIndexes::new(&spec.payload_indexes);
    let (mut bodies, mut ids) = (0, 0);
    for (at, point) in (0..).zip(sample) {
        indexes.insert(at, &point.payload);
        bodies += Slot::copied(Lsn::ZERO, point, 0).bytes();
        // A B-tree whose keys come in order is half full.
        ids += 2 * match point.id {
            PointId::Num(_) => size_of::<(u64, u32)>(),
            PointId::Uuid(_) => size_of::<(uuid::Uuid, u32)>(),
        } as u64;
    }
    graphs.sum::<u64>().saturating_add(slots).saturating_add(scaled(
        bodies + ids + indexes.bytes(),
        *points,
        sample.len() as u64,
    ))
}

/// How many points have each dense vector, by the sample; all of them where there is none.
fn dense(expected: &Expected) -> impl Iterator<Item = (u64, usize, Distance)> {
    let Expected { spec, points, sample } = expected;
    spec.vectors.iter().filter_map(move |(name, vector)| match vector {
        VectorSpec::Dense { dimension, distance } => {
            let with = sample.iter().filter(|point| point.vectors.contains_key(name)).count() as u64;
            let vectors =
                if sample.is_empty() { *points } else { scaled(with, *points, sample.len() as u64) };
            Some((vectors, *dimension, *distance))
        }
        VectorSpec::Sparse => None,
    })
}

/// What all points take if so many of them take this.
fn scaled(of_sample: u64, points: u64, sampled: u64) -> u64 {
    let all = u128::from(of_sample) * u128::from(points) / u128::from(sampled.max(1));
    u64::try_from(all).unwrap_or(u64::MAX)
}

/// How a store would hold points, or why it would not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many points there are.
    pub points: u64,
    /// About how many bytes they take in this quantization.
    pub bytes: u64,
    /// The numbers of the graphs: what the options say, or less where that does not fit.
    pub quantization: Quantization,
    /// What the options say.
    pub configured: Quantization,
    /// The zone of what will be held.
    pub zone: Zone,
    /// What must be free for it.
    pub needed_bytes: u64,
    /// What is free, if that is known.
    pub free_bytes: Option<u64>,
    /// Most bytes that the store may hold.
    pub max_memory: Option<u64>,
    /// Whether the store will hold only a part of the points.
    pub partial: bool,
    /// Why the store refuses, with what would help; empty if it does not.
    pub refused: Vec<String>,
}

/// Decides how a store with these options holds these points while so much memory is free.
///
/// What does not fit as configured is held in less. That cannot be less than `f32`: the exact vectors are kept in each
/// case, and with `f16` or `i8` a graph of its own beside them, so `i8` saves one byte a dimension of `f16`'s six, and
/// `f32`, whose graph is the exact vectors, one more.
pub fn plan(options: &MemoryOptions, expected: &[Expected], free_bytes: Option<u64>) -> Plan {
    let steps: &[Quantization] = match options.quantization {
        Quantization::F16 => &[Quantization::F16, Quantization::I8, Quantization::F32],
        Quantization::I8 => &[Quantization::I8, Quantization::F32],
        Quantization::F32 => &[Quantization::F32],
    };
    let mut last = with(options, options.quantization, expected, free_bytes);
    for step in &steps[1..] {
        if last.refused.is_empty() && !last.partial {
            break;
        }
        let next = with(options, *step, expected, free_bytes);
        // A collection of other distances has no smaller form.
        if next.bytes < last.bytes {
            last = next;
        }
    }
    last
}

fn with(
    options: &MemoryOptions,
    quantization: Quantization,
    expected: &[Expected],
    free_bytes: Option<u64>,
) -> Plan {
    let configured = options.quantization;
    let options = &MemoryOptions { quantization, ..options.clone() };
    let points: u64 = expected.iter().map(|expected| expected.points).sum();
    let bytes = bytes(options, expected);
    let most = options.max_memory.unwrap_or(u64::MAX);
    let too_much = bytes > most;
    let partial = too_much && options.when_full == WhenFull::Partial;
    let (held, held_bytes) = if partial { (scaled(most, points, bytes), most) } else { (points, bytes) };
    let zone = Zone::of(held);
    let needed_bytes = match zone {
        Zone::Green => held_bytes,
        Zone::Yellow | Zone::Red => held_bytes.saturating_mul(2).saturating_add(SAFETY_BYTES),
    }
    .min(most.max(held_bytes));
    let mut refused = Vec::new();
    if too_much && !partial {
        refused.push(format!(
            "max_memory allows {}: raise it, or set when_full = \"partial\" to keep the points used last",
            mebibytes(most)
        ));
    }
    if zone == Zone::Red && !options.allow_red_zone {
        refused.push(format!("more than {RED_POINTS} points are the red zone: set allow_red_zone = true"));
    }
    if let Some(free) = free_bytes.filter(|free| *free < needed_bytes) {
        refused.push(format!(
            "{} of memory are free, {} are wanted: free some, or lower max_memory and set when_full = \"partial\"",
            mebibytes(free),
            mebibytes(needed_bytes)
        ));
    }
    Plan {
        points,
        bytes,
        quantization,
        configured,
        zone,
        needed_bytes,
        free_bytes,
        max_memory: options.max_memory,
        partial,
        refused,
    }
}

impl Plan {
    /// Bytes of one point, on average.
    pub fn bytes_per_point(&self) -> u64 {
        self.bytes.checked_div(self.points).unwrap_or(0)
    }

    /// Whether the collections could be built anew beside the old ones within `max_memory`. Without that room, what
    /// points that are replaced or deleted later take is not freed.
    pub fn leaves_room_for_rebuilds(&self) -> bool {
        self.max_memory.is_none_or(|max| self.bytes.saturating_mul(2) <= max)
    }

    /// The plan in one sentence.
    pub fn text(&self) -> String {
        format!(
            "{} points take about {} in {} ({} bytes a point, {} zone)",
            self.points,
            mebibytes(self.bytes),
            self.quantization.as_str(),
            self.bytes_per_point(),
            self.zone
        )
    }

    /// What an operator should know of it, if there is anything.
    pub fn notice(&self) -> Option<String> {
        let mut notes = Vec::new();
        if self.quantization != self.configured {
            let (from, to) = (self.configured.as_str(), self.quantization.as_str());
            notes.push(format!("held in {to} instead of {from}, which did not fit"));
        }
        if self.partial {
            let most = mebibytes(self.max_memory.unwrap_or(u64::MAX));
            notes.push(format!("{}; max_memory allows {most}, so only a part is kept", self.text()));
        } else if !self.leaves_room_for_rebuilds() {
            let twice = mebibytes(self.bytes.saturating_mul(2));
            notes.push(format!("max_memory leaves no room for a rebuild when points change; {twice} would"));
        }
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// Takes the plan.
    ///
    /// # Errors
    /// `Rejected` with the numbers and what would help, if the store refuses.
    pub fn accept(&self) -> Result<()> {
        if self.refused.is_empty() {
            return Ok(());
        }
        let text =
            format!("the memory member is not filled: {}, and {}", self.text(), self.refused.join("; "));
        Err(Error::new(ErrorKind::Rejected, text))
    }
}

/// A size for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests;
