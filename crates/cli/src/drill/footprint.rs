//! What this process takes of its machine.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long after one look the next one comes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Files that may stay open beyond those of earlier rounds, for connections that come and go.
const SPARE_DESCRIPTORS: u64 = 16;
/// Memory that may stay beyond that of earlier rounds: what allocators keep.
const SPARE_BYTES: u64 = 32 << 20;

/// Memory and open files at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of memory that are resident.
    pub resident_bytes: u64,
    /// Files, sockets and pipes that are open.
    pub descriptors: u64,
}

impl Footprint {
    /// What is taken now; `None` where the system does not say (only Linux does).
    pub fn now() -> Option<Self> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: u64 = kibibytes.trim().trim_end_matches("kB").trim().parse().ok()?;
        let descriptors = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Self { resident_bytes: kibibytes << 10, descriptors })
    }

    /// The least of each that is taken at any moment of this time: a scan's buffers and files come and go, and what is kept
    /// is never gone. One look, at least.
    pub async fn least_within(time: Duration) -> Option<Self> {
        Self::least_of(time, Self::now).await
    }

    async fn least_of(time: Duration, look: impl Fn() -> Option<Self>) -> Option<Self> {
        let until = Instant::now() + time;
        let mut least = look();
        while Instant::now() < until {
            sleep(LOOK_EVERY.min(until - Instant::now())).await;
            least = least.zip(look()).map(|(least, now)| Self {
                resident_bytes: least.resident_bytes.min(now.resident_bytes),
                descriptors: least.descriptors.min(now.descriptors),
            });
        }
        least
    }

    /// Whether the last quarter of these took no more than the one before it, but for what comes and goes. The first half
    /// does not count: caches fill.
    pub fn stayed_flat(rounds: &[Self]) -> bool {
        let settled = &rounds[rounds.len() / 2..];
        let (before, last) = settled.split_at(settled.len() / 2);
        let most = |rounds: &[Self], figure: fn(&Self) -> u64| rounds.iter().map(figure).max();
        let flat = |figure: fn(&Self) -> u64, allowed: fn(u64) -> u64| {
            most(before, figure).is_none_or(|before| most(last, figure) <= Some(allowed(before)))
        };
        flat(|f| f.descriptors, |before| before + SPARE_DESCRIPTORS)
            && flat(|f| f.resident_bytes, |before| before + before / 10 + SPARE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_not_flat() {
        let of = |mebibytes: u64, descriptors| Footprint { resident_bytes: mebibytes << 20, descriptors };
        let rounds =
            |grow: u64, open: u64| (0..60).map(|i| of(200 + i * grow, 40 + i * open)).collect::<Vec<_>>();
        assert!(Footprint::stayed_flat(&rounds(0, 0)));
        assert!(!Footprint::stayed_flat(&rounds(20, 0)), "memory");
        assert!(!Footprint::stayed_flat(&rounds(0, 2)), "descriptors");
        let filled: Vec<_> = (0..60).map(|i| of(200 + i.min(29) * 30, 40)).collect();
        assert!(Footprint::stayed_flat(&filled), "caches that fill");
        assert!(Footprint::stayed_flat(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_for_a_moment_is_not_kept() {
        let start = Instant::now();
        let least_of = async |seconds: u64| {
            let look = || {
                let second = start.elapsed().as_secs();
                Some(Footprint {
                    resident_bytes: if second == 7 { 200 } else { 900 },
                    descriptors: if (1..4).contains(&second) { 90 } else { 40 },
                })
            };
            Footprint::least_of(Duration::from_secs(seconds), look).await.unwrap()
        };
        let of = |resident_bytes, descriptors| Footprint { resident_bytes, descriptors };
        assert_eq!(least_of(0).await, of(900, 40), "one look");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(least_of(2).await, of(900, 90), "kept all the time");
        assert_eq!(least_of(5).await, of(200, 40), "each of them at another moment");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_is_counted() {
        let before = Footprint::now().unwrap();
        // So many that what other tests close meanwhile does not matter.
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let after = Footprint::now().unwrap();
        assert!(after.descriptors >= before.descriptors + 150, "{before:?} {after:?}");
        assert!(after.resident_bytes > 1 << 20);
        drop(files);
    }
}
