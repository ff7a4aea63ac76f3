//! The log without a thread, for simulations: whoever writes is a task, and reads do not leave theirs.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::Result;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::commit::{Committer, Request};
use super::{DiskLog, MAX_WAITING, Queue, SyncPolicy, Writer};
use crate::log::storage::{Barrier, Mark, Opened, Storage};

/// How long the next request waits before it is served.
pub type Wait = Box<dyn FnMut() -> Duration + Send>;

impl<S: Storage> DiskLog<S> {
    /// A log over this storage whose writer is a task of the runtime that this is called in.
    ///
    /// # Errors
    /// Whatever the storage runs into.
    pub fn start_in_task(
        opened: Opened<S>,
        barrier: Barrier,
        mark: Mark,
        max_bytes: u64,
        policy: SyncPolicy,
        wait: Wait,
    ) -> Result<Self> {
        let (shared, committer) = Self::parts(opened, barrier, mark, max_bytes, policy)?;
        let (queue, requests) = mpsc::channel(MAX_WAITING);
        let task = tokio::spawn(serve(committer, requests, wait));
        Ok(Self {
            shared: Arc::clone(&shared),
            queue: Queue::Task(queue),
            writer: Mutex::new(Some(Writer::Task(task))),
        })
    }
}

async fn serve<S: Storage>(
    mut committer: Committer<S>,
    mut requests: mpsc::Receiver<Request>,
    mut wait: Wait,
) {
    loop {
        let request = match committer.sync_due() {
            None => requests.recv().await,
            Some(due) => match timeout(due, requests.recv()).await {
                Ok(request) => request,
                Err(_) => {
                    // A failure is latched, and the next append tells it.
                    drop(committer.sync_now());
                    continue;
                }
            },
        };
        let Some(request) = request else { break };
        sleep(wait()).await;
        if committer.serve(request, || requests.try_recv().ok()) {
            return;
        }
    }
    committer.end();
}
