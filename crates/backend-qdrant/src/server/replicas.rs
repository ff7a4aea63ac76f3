//! Whether a collection has replicas, for which writes are ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mainstay_core::Context;
use parking_lot::Mutex;
use qdrant_client::qdrant::{CollectionClusterInfoRequest, CollectionClusterInfoResponse};
use tokio::time::Instant;

use super::{Ordering, Server};

/// How long an answer holds. A replica that is made meanwhile gets the writes from the one that there was.
const KNOWN_FOR: Duration = Duration::from_secs(5);

/// When it was asked of each collection, and whether it has replicas.
pub type Replicated = Mutex<BTreeMap<String, (Instant, bool)>>;

impl Server {
    /// How writes to a collection are ordered: as the options say, unless there are no replicas that could differ. A
    /// server that orders writes takes one after the other, and an import waits for each.
    pub(super) async fn ordering_of(&self, cx: &Context, name: &str) -> Ordering {
        match self.options.write_ordering {
            Ordering::Medium | Ordering::Strong if !self.has_replicas(cx, name).await => Ordering::Weak,
            ordering => ordering,
        }
    }

    async fn has_replicas(&self, cx: &Context, name: &str) -> bool {
        let known = self.replicated.lock().get(name).copied();
        if let Some((asked, answer)) = known
            && asked.elapsed() < KNOWN_FOR
        {
            return answer;
        }
        let request = CollectionClusterInfoRequest { collection_name: name.to_owned() };
        let info =
            self.nodes.collections(cx, |mut api| async move { api.collection_cluster_info(request).await });
        // Who does not say may have some.
        let answer = info.await.map_or(true, |info| tells_of_replicas(&info));
        self.replicated.lock().insert(name.to_owned(), (Instant::now(), answer));
        answer
    }
}

/// Whether a shard is in more than one place, or about to be.
fn tells_of_replicas(info: &CollectionClusterInfoResponse) -> bool {
    let local = info.local_shards.iter().map(|shard| shard.shard_id);
    let remote = info.remote_shards.iter().map(|shard| shard.shard_id);
    let mut seen = BTreeSet::new();
    let twice = local.chain(remote).any(|shard| !seen.insert(shard));
    twice || !info.shard_transfers.is_empty() || !info.resharding_operations.is_empty()
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant as proto;

    use super::*;

    #[test]
    fn a_shard_in_two_places_or_on_its_way_to_one_has_replicas() {
        let local = |shard_id| proto::LocalShardInfo { shard_id, ..Default::default() };
        let remote = |shard_id, peer_id| proto::RemoteShardInfo { shard_id, peer_id, ..Default::default() };
        let info = |local_shards, remote_shards| CollectionClusterInfoResponse {
            local_shards,
            remote_shards,
            ..Default::default()
        };
        assert!(!tells_of_replicas(&info(vec![local(0)], vec![])), "one node");
        assert!(!tells_of_replicas(&info(vec![local(0), local(2)], vec![remote(1, 7)])), "shards apart");
        assert!(tells_of_replicas(&info(vec![local(0), local(1)], vec![remote(1, 7)])));
        assert!(tells_of_replicas(&info(vec![], vec![remote(1, 7), remote(1, 8)])));
        let transfer = vec![proto::ShardTransferInfo::default()];
        let moving =
            CollectionClusterInfoResponse { shard_transfers: transfer, ..info(vec![local(0)], vec![]) };
        assert!(tells_of_replicas(&moving));
    }
}
