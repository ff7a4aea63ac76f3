//! The memory of the machine, or of the container that the process runs in.

use sysinfo::System;

/// Bytes of memory that are free to be taken: the least of what the machine has available and what the limit of the
/// process's control group leaves, not counting caches, which give way. `None` where nobody knows.
pub fn free_bytes() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    if system.total_memory() == 0 {
        return None;
    }
    let limit = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    Some(limit.map_or(u64::MAX, |left| left).min(system.available_memory()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn free_memory_is_known_and_no_more_than_the_machine_has() {
        let mut system = System::new();
        system.refresh_memory();
        let free = free_bytes().unwrap();
        assert!(free > 0 && free <= system.total_memory(), "{free}");
    }
}
