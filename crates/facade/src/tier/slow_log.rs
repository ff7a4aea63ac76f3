//! A log for tests whose disk is slow.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstay_core::{Entry, LogIdentity, Lsn, Op, Position, Result};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::catalog::Collections;
use crate::log::{Appended, Bounds, Checkpoint, Hold, Log, MemoryLog};

/// A log whose appends take a while, one after the other, and land although nobody waits for them any more.
#[derive(Default)]
pub(super) struct SlowLog {
    inner: Arc<MemoryLog>,
    queue: Arc<tokio::sync::Mutex<()>>,
    takes: Mutex<Duration>,
    close_takes: Mutex<Duration>,
}

impl SlowLog {
    pub fn appends_take(&self, time: Duration) {
        *self.takes.lock() = time;
    }

    pub fn close_takes(&self, time: Duration) {
        *self.close_takes.lock() = time;
    }
}

#[async_trait]
impl Log for SlowLog {
    fn identity(&self) -> LogIdentity {
        self.inner.identity()
    }

    fn bounds(&self) -> Bounds {
        self.inner.bounds()
    }

    fn watch_end(&self) -> watch::Receiver<Lsn> {
        self.inner.watch_end()
    }

    fn checkpoint(&self) -> Checkpoint {
        self.inner.checkpoint()
    }

    async fn append(&self, ops: Vec<Op>) -> Result<Appended> {
        let (inner, queue, takes) = (Arc::clone(&self.inner), Arc::clone(&self.queue), *self.takes.lock());
        let append = async move {
            let _turn = queue.lock().await;
            sleep(takes).await;
            inner.append(ops).await
        };
        tokio::spawn(append).await.unwrap()
    }

    async fn read(&self, after: Lsn, max_bytes: usize) -> Result<Vec<Arc<Entry>>> {
        self.inner.read(after, max_bytes).await
    }

    async fn position_at(&self, lsn: Lsn) -> Result<Position> {
        self.inner.position_at(lsn).await
    }

    async fn truncate_before(&self, lsn: Lsn, collections: Collections) -> Result<Lsn> {
        self.inner.truncate_before(lsn, collections).await
    }

    fn hold(&self, lsn: Lsn) -> Hold {
        self.inner.hold(lsn)
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    async fn close(&self) -> Result<()> {
        let takes = *self.close_takes.lock();
        sleep(takes).await;
        self.inner.close().await
    }
}
