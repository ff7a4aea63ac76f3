//! What this process takes of its machine.

use std::fs;

/// Files that may stay open beyond those of the first rounds, for connections that come and go.
const SPARE_DESCRIPTORS: u64 = 16;
/// Memory that may stay beyond that of the first rounds: what allocators keep.
const SPARE_BYTES: u64 = 64 << 20;

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

    /// Whether the last third of these took no more than the first third did, but for what comes and goes.
    pub fn stayed_flat(rounds: &[Self]) -> bool {
        let third = (rounds.len() / 3).max(1).min(rounds.len());
        let most = |rounds: &[Self], figure: fn(&Self) -> u64| rounds.iter().map(figure).max().unwrap_or(0);
        let (first, last) = (&rounds[..third], &rounds[rounds.len() - third..]);
        most(last, |f| f.descriptors) <= most(first, |f| f.descriptors) + SPARE_DESCRIPTORS
            && most(last, |f| f.resident_bytes) <= most(first, |f| f.resident_bytes) * 5 / 4 + SPARE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_not_flat() {
        let of = |mebibytes: u64, descriptors| Footprint { resident_bytes: mebibytes << 20, descriptors };
        let rounds =
            |grow: u64, open: u64| (0..30).map(|i| of(200 + i * grow, 40 + i * open)).collect::<Vec<_>>();
        assert!(Footprint::stayed_flat(&rounds(0, 0)));
        assert!(!Footprint::stayed_flat(&rounds(10, 0)), "memory");
        assert!(!Footprint::stayed_flat(&rounds(0, 1)), "descriptors");
        assert!(Footprint::stayed_flat(&[]));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_is_counted() {
        let before = Footprint::now().unwrap();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let after = Footprint::now().unwrap();
        assert!(after.descriptors >= before.descriptors + 40, "{before:?} {after:?}");
        assert!(after.resident_bytes > 1 << 20);
        drop(files);
    }
}
