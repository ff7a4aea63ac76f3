use std::time::Duration;

use mainstay_core::{CollectionName, CollectionSpec, Distance, ErrorKind, Lsn, Point};
use mainstay_snapshot::SnapshotId;
use mainstay_snapshot::prune::{Keep, PruneOptions, prune};

use super::find::find;
use super::{RestoreOptions, open_repository_for_writing};
use crate::{Config, SaveMode, Tier};

#[tokio::test]
async fn what_a_restore_has_yet_to_read_is_not_pruned_and_is_missed_once_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let (log, snapshots) = (directory.path().join("log"), directory.path().join("snapshots"));
    let text = format!(
        "[tier]\nmembers = [\"a\"]\n[members.a]\nbackend = \"memory\"\n[log]\npath = {log:?}\n\
         [snapshots]\ndir = {snapshots:?}\n"
    );
    let mut config = Config::from_toml(&text).unwrap();
    config.snapshots.save = SaveMode::Manual;
    let tier = Tier::open(config.clone()).await.unwrap();
    let docs = CollectionName::new("docs").unwrap();
    tier.create_collection(CollectionSpec::dense(docs.clone(), 2, Distance::Dot)).await.unwrap();
    for id in 0..4_u64 {
        tier.snapshot().await.unwrap();
        tier.upsert(&docs, vec![Point::new(id, vec![id as f32, 1.0])]).await.unwrap();
    }
    tier.snapshot().await.unwrap();
    tier.close().await.unwrap();

    let repository = open_repository_for_writing(&config).await.unwrap();
    let listed = repository.snapshots().await.unwrap();
    let made: Vec<SnapshotId> = listed.iter().map(|listed| listed.id).collect();
    let options = RestoreOptions { snapshot: Some(made[0]), ..RestoreOptions::default() };
    let found = find(&repository, &options).await.unwrap();
    assert_eq!((found.manifest.from.lsn, found.to), (Lsn(1), Lsn(5)));
    let keep = PruneOptions {
        keep: Keep { last: 2, ..Keep::default() },
        also: [].into(),
        grace: Duration::ZERO,
        dry_run: false,
    };
    let mut entries = found.entries(&repository).await.unwrap();
    let pruned = prune(&repository, &keep).await.unwrap();
    assert_eq!((pruned.snapshots.as_slice(), pruned.in_use.as_slice()), (&made[1..3], &made[..1]));
    let mut read = Vec::new();
    while let Some(part) = entries.next().await.unwrap() {
        read.extend(part.into_iter().map(|entry| entry.lsn.0));
    }
    assert_eq!(read, [2, 3, 4, 5]);
    entries.mark.remove().await;

    let pruned = prune(&repository, &keep).await.unwrap();
    assert_eq!(pruned.snapshots, [made[0]]);
    let log = found.manifest.from.log;
    for name in repository.segments(log).await.unwrap() {
        repository.remove_segment(log, name).await.unwrap();
    }
    let error = found.entries(&repository).await.unwrap().next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("run the restore again"), "{error}");
}
