//! Damage to every file of a small repository: each is an error that names the file, and nothing wrong is ever read.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use mainstay_core::conformance::{Generator, ModelStore, Script};
use mainstay_core::{CollectionRef, Error, ErrorKind, Lsn, Record};
use mainstay_snapshot::layout::{SegmentName, bucket, manifest, segment};
use mainstay_snapshot::manifest::{BucketFile, CollectionManifest, Manifest, Source};
use mainstay_snapshot::place::PlaceOptions;
use mainstay_snapshot::repository::{Listed, Repository};
use mainstay_snapshot::segment::{Segment, TimeMark};
use mainstay_snapshot::take::{TakeOptions, take};
use mainstay_snapshot::verify::verify;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const QUIET: &(dyn Fn(u64, u64) + Sync) = &|_, _| {};

/// A file of the repository, and what it is read as.
#[derive(Clone)]
enum Kind {
    Manifest,
    Bucket(Box<CollectionManifest>, BucketFile),
    Segment(SegmentName),
}

struct Small {
    directory: tempfile::TempDir,
    repository: Repository,
    script: Script,
    listed: Listed,
    manifest: Manifest,
    files: Vec<(PathBuf, Kind)>,
}

/// What a file is read as when it is good.
#[derive(Debug, PartialEq)]
enum Content {
    Manifest(Box<Manifest>),
    Records(Vec<Record>),
    Segment(Segment),
}

impl Small {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let repository = Repository::open_for_writing(place, &PlaceOptions::default()).await.unwrap();
        let mut generator = Generator::new(11);
        let mut script = Script::new(1);
        for name in ["one", "two"] {
            let spec = generator.spec(name);
            let collection: CollectionRef = script.create(&spec);
            for _ in 0..20 {
                let point = generator.point(&spec);
                script.upsert(&collection, vec![point]);
            }
        }
        let store = ModelStore::default();
        script.apply_to(&store).await;
        let source = Source { member: "m".into(), backend: "model".into() };
        let options = TakeOptions { bucket_bytes: 24_000, ..TakeOptions::default() };
        let (from, to) = (script.position(Lsn(5)), script.position(script.end()));
        let draft = take(&repository, &store, source, from, None, options, QUIET).await.unwrap();
        let made = draft.commit(&repository, to).await.unwrap();
        let mut names = Vec::new();
        for first in [1_u64, 4, 7] {
            let time = chrono::DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
            let marks = vec![TimeMark { lsn: Lsn(first + 2), time }];
            let entries = vec![vec![first as u8; 40], vec![], vec![2; 9]];
            let segment = Segment { log: from.log, first: Lsn(first), marks, entries };
            names.push(repository.write_segment(segment).await.unwrap());
        }
        let listed = repository.snapshots().await.unwrap()[0];
        let root = directory.path();
        let mut files = vec![(root.join(manifest(listed.id, listed.hash).as_ref()), Kind::Manifest)];
        for collection in made.collections.values() {
            for file in collection.buckets.iter().flat_map(|bucket| &bucket.files) {
                let kind = Kind::Bucket(Box::new(collection.clone()), *file);
                files.push((root.join(bucket(file.hash).as_ref()), kind));
            }
        }
        files.extend(
            names.into_iter().map(|name| (root.join(segment(from.log, name).as_ref()), Kind::Segment(name))),
        );
        Self { directory, repository, script, listed, manifest: made, files }
    }

    async fn read(&self, kind: &Kind) -> Result<Content, Error> {
        Ok(match kind {
            Kind::Manifest => Content::Manifest(Box::new(self.repository.manifest(self.listed).await?)),
            Kind::Bucket(collection, file) => {
                Content::Records(self.repository.records(&collection.spec, *file).await?)
            }
            Kind::Segment(name) => {
                let log = self.script.position(Lsn(0)).log;
                Content::Segment(self.repository.read_segment(log, *name).await?)
            }
        })
    }

    /// Reads a damaged file.
    async fn assert_refused(&self, path: &Path, kind: &Kind, what: &str) {
        let file = path.file_name().unwrap().to_str().unwrap();
        let error = self.read(kind).await.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert!(error.to_string().contains(file), "{what}: {error} does not name {file}");
    }
}

#[tokio::test]
async fn whatever_happens_to_a_file_it_is_refused_by_name() {
    let small = Small::new().await;
    let mut random = StdRng::seed_from_u64(1);
    let mut cases = 0;
    assert!(small.files.len() >= 8, "{} files", small.files.len());
    for (path, kind) in &small.files {
        let good = std::fs::read(path).unwrap();
        let content = small.read(kind).await.unwrap();
        let is_manifest = matches!(kind, Kind::Manifest);
        for at in 0..good.len() {
            // All of a manifest, and samples of the others.
            let masks: &[u8] = match is_manifest {
                true => &[0x01, 0x20, 0x80, 0xff],
                false if random.random_bool(0.4) => &[1 << random.random_range(0..8)],
                false => &[],
            };
            for mask in masks {
                let mut bad = good.clone();
                bad[at] ^= mask;
                std::fs::write(path, bad).unwrap();
                small.assert_refused(path, kind, &format!("byte {at} by {mask:#x}")).await;
                cases += 1;
            }
        }
        for length in 0..good.len() {
            std::fs::write(path, &good[..length]).unwrap();
            small.assert_refused(path, kind, &format!("cut to {length}")).await;
            cases += 1;
        }
        for more in [&b"\0"[..], b" ", &good] {
            std::fs::write(path, [&good, more].concat()).unwrap();
            small.assert_refused(path, kind, "more bytes").await;
            cases += 1;
        }
        for (other, _) in small.files.iter().filter(|(other, _)| other != path) {
            std::fs::copy(other, path).unwrap();
            small.assert_refused(path, kind, &format!("swapped with {}", other.display())).await;
            cases += 1;
        }
        std::fs::remove_file(path).unwrap();
        small.assert_refused(path, kind, "removed").await;
        let verified = verify(&small.repository, small.listed, QUIET).await.unwrap();
        assert_eq!(verified.is_good(), matches!(kind, Kind::Segment(_)));
        std::fs::create_dir(path).unwrap();
        assert!(small.read(kind).await.is_err(), "a folder in its place");
        std::fs::remove_dir(path).unwrap();
        std::fs::write(path, good).unwrap();
        assert_eq!(small.read(kind).await.unwrap(), content);
        cases += 2;
    }
    assert!(cases >= 20_000, "{cases} cases");
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_in_place_of_a_file_leads_nowhere() {
    use std::os::unix::fs::symlink;
    let small = Small::new().await;
    let outside = small.directory.path().join("secret");
    std::fs::write(&outside, "secret").unwrap();
    for (path, kind) in &small.files {
        let good = std::fs::read(path).unwrap();
        for target in [outside.as_path(), Path::new("/dev/zero"), Path::new("/no/such/file"), path.as_path()]
        {
            std::fs::remove_file(path).unwrap();
            symlink(target, path).unwrap();
            let error = small.read(kind).await.unwrap_err();
            assert!(!error.to_string().contains("panic"), "{error}");
            assert!(error.to_string().contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
        }
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, good).unwrap();
    }
    assert!(verify(&small.repository, small.listed, QUIET).await.unwrap().is_good());
}

/// Whoever can write to a repository can write manifests whose names are right. Each byte of one changed in each bit.
#[tokio::test]
async fn a_manifest_whose_name_fits_may_lie_but_what_is_read_by_it_is_checked() {
    let small = Small::new().await;
    let good = small.manifest.print().unwrap();
    let (mut read, mut refused) = (0, 0);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            match Manifest::parse(&bad) {
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}");
                    refused += 1;
                }
                Ok(lying) => {
                    // The hashes are over ids and versions, so these are as they were.
                    assert_eq!(lying.hash(), small.manifest.hash());
                    read += 1;
                    for (collection, truth) in
                        lying.collections.values().zip(small.manifest.collections.values())
                    {
                        for (file, true_file) in collection
                            .buckets
                            .iter()
                            .zip(&truth.buckets)
                            .flat_map(|(bucket, true_bucket)| bucket.files.iter().zip(&true_bucket.files))
                            .filter(|(file, true_file)| file != true_file)
                        {
                            let found = small.repository.records(&collection.spec, *file).await;
                            // More bytes than there are is a lie that harms nobody.
                            assert!(found.is_err() || file.hash == true_file.hash, "byte {at}");
                        }
                    }
                }
            }
        }
    }
    assert!(read > 100 && refused > 10_000, "{read} read, {refused} refused");
}
