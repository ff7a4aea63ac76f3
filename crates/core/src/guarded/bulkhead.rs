//! A limit on the calls under way, with a bounded queue before it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct Bulkhead {
    slots: Semaphore,
    max_concurrent: usize,
    max_queued: usize,
    queued: AtomicUsize,
}

impl Bulkhead {
    pub(super) fn new(max_concurrent: usize, max_queued: usize) -> Self {
        Self {
            slots: Semaphore::new(max_concurrent),
            max_concurrent,
            max_queued,
            queued: AtomicUsize::new(0),
        }
    }

    /// A slot, if one is free now.
    pub(super) fn try_enter(&self) -> Option<SemaphorePermit<'_>> {
        self.slots.try_acquire().ok()
    }

    /// A slot, after waiting in the queue.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<SemaphorePermit<'_>> {
        let place = Place::take(self)?;
        let slot = timeout_at(deadline, self.slots.acquire()).await;
        drop(place);
        match slot {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(crate::store::closed()),
            Err(_) => Err(Error::new(
                ErrorKind::Overloaded,
                format!(
                    "none of the {} calls under way ended before the deadline; allow more with \
                     max_concurrent or send fewer",
                    self.max_concurrent
                ),
            )),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.max_concurrent.saturating_sub(self.slots.available_permits())
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

/// A place in the queue, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(bulkhead: &'a Bulkhead) -> Result<Self> {
        let max = bulkhead.max_queued;
        bulkhead
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| (queued < max).then_some(queued + 1))
            .map_err(|_| {
                Error::new(
                    ErrorKind::Overloaded,
                    format!(
                        "{} calls are under way and {max} wait; allow more with max_concurrent and \
                         max_queued or send fewer",
                        bulkhead.max_concurrent
                    ),
                )
            })?;
        Ok(Self(&bulkhead.queued))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
