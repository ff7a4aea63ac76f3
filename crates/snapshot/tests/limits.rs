//! What hostile files may cost. One test, because the memory of all tests of a binary is counted together.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use mainstay_core::conformance::{ModelStore, Script};
use mainstay_core::{CollectionName, CollectionSpec, Distance, Error, Lsn, Point, PointId, Record};
use mainstay_snapshot::manifest::{Bucket, BucketFile, CollectionManifest, Manifest, Source};
use mainstay_snapshot::older::{Backup, Limits};
use mainstay_snapshot::place::PlaceOptions;
use mainstay_snapshot::repository::Repository;
use mainstay_snapshot::segment::Segment;
use mainstay_snapshot::verify::verify;
use mainstay_snapshot::{ContentHash, SnapshotId, buckets, columns, load};
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use peak_alloc::PeakAlloc;
use serde_json::{Value, json};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;

/// Most memory that was asked for at once, beyond what was there before.
async fn peak<T>(work: impl Future<Output = T>) -> (T, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let answer = work.await;
    (answer, MEMORY.peak_usage().saturating_sub(before))
}

struct Place {
    directory: tempfile::TempDir,
    repository: Repository,
}

fn spec() -> CollectionSpec {
    CollectionSpec::dense(CollectionName::new("c").unwrap(), 2, Distance::Dot)
}

fn record(id: u64, text: String) -> Record {
    Record { version: Lsn(1), point: Point::new(id, vec![1.0, 2.0]).with_text(text) }
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        let repository = Repository::open_for_writing(place, &PlaceOptions::default()).await.unwrap();
        Self { directory, repository }
    }

    async fn put(&self, path: Path, bytes: impl Into<Bytes>) {
        let store = LocalFileSystem::new_with_prefix(self.directory.path()).unwrap();
        store.put(&path, bytes.into().into()).await.unwrap();
    }

    async fn bucket_file(&self, bytes: Vec<u8>, points: u64) -> BucketFile {
        let file = BucketFile { hash: ContentHash::of(&bytes), bytes: bytes.len() as u64, points };
        self.put(mainstay_snapshot::layout::bucket(file.hash), bytes).await;
        file
    }

    /// A snapshot, consistent in itself, of one collection whose only bucket has these files.
    async fn snapshot(&self, second: i64, files: Vec<BucketFile>, ids: &[u64]) -> Manifest {
        let points = files.iter().map(|file| file.points).sum();
        let hash = buckets::bucket_hash(ids.iter().map(|id| (PointId::Num(*id), Lsn(1))));
        let bucket = Bucket { number: 0, points, hash, files };
        let collection = CollectionManifest {
            spec: spec(),
            incarnation: Lsn(1),
            bits: 0,
            buckets: vec![bucket],
            graph: None,
        };
        let position = Script::new(1).position(Lsn(0));
        let time = DateTime::from_timestamp(second, 0).unwrap();
        let manifest = Manifest {
            id: SnapshotId::new(time, Lsn(0)),
            tool: "hostile".into(),
            source: Source { member: "m".into(), backend: "b".into() },
            ended: time,
            from: position,
            to: position,
            collections: [(collection.spec.name.clone(), collection)].into(),
        };
        let bytes = manifest.print().unwrap();
        let path = mainstay_snapshot::layout::manifest(manifest.id, ContentHash::of(&bytes));
        self.put(path, bytes).await;
        manifest
    }

    /// Reads the newest snapshot in every way there is: each is an error, of less than so much memory.
    async fn assert_refused(&self, what: &str, at_most: usize) -> Error {
        let listed = *self.repository.snapshots().await.unwrap().last().unwrap();
        let (verified, memory) = peak(verify(&self.repository, listed, &|_, _| {})).await;
        let problem = verified.unwrap().problems.pop().expect(what);
        assert!(memory < at_most, "{what}: {} MiB", memory / MIB);
        if let Ok(manifest) = self.repository.manifest(listed).await {
            let store = ModelStore::default();
            let (loaded, memory) =
                peak(load::load(&self.repository, &manifest, &store, None, &|_, _| {})).await;
            assert!(loaded.is_err(), "{what}");
            assert!(memory < at_most, "{what}: {} MiB", memory / MIB);
        }
        assert!(problem.to_string().contains(self.directory.path().to_str().unwrap()), "{what}: {problem}");
        println!("{what}: {} KiB, {problem}", memory >> 10);
        problem
    }
}

/// A zstd frame of so many zeros.
fn zeros(bytes: u64) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(bytes), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

/// A good file whose column of texts was replaced by zeros that claim to be so many; the frame has `real` of them.
fn bomb(claimed: u64, real: u64) -> Vec<u8> {
    let mut state = 1_u32;
    let noise: String = (0..120_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b' ' + (state >> 24) as u8 % 94)
        })
        .collect();
    let length = noise.len() as u64;
    let mut file = columns::encode(&spec(), &[record(1, noise)]).unwrap();
    let at = file
        .windows(12)
        .position(|bytes| bytes[..8] == length.to_le_bytes() && bytes[8..] == [0x28, 0xb5, 0x2f, 0xfd]);
    let at = at.expect("the texts are packed");
    file[at..at + 8].copy_from_slice(&claimed.to_le_bytes());
    let frame = zeros(real);
    assert!(frame.len() + 8 < 90_000, "{} bytes", frame.len());
    file[at + 8..at + 8 + frame.len()].copy_from_slice(&frame);
    file
}

/// A good file of 77 points whose description says that there are more.
fn many_rows(rows: i64) -> Vec<u8> {
    let records: Vec<_> = (0..77).map(|id| record(id, String::new())).collect();
    let mut file = columns::encode(&spec(), &records).unwrap();
    let mut changed = 0;
    for at in (0..file.len() - 8).step_by(8) {
        if file[at..at + 8] == 77_i64.to_le_bytes() {
            file[at..at + 8].copy_from_slice(&rows.to_le_bytes());
            changed += 1;
        }
    }
    assert!(changed > 4, "{changed} lengths");
    file
}

/// Columns of zeros, which pack well, of a file that is right in itself.
fn packed(points: u64) -> Vec<u8> {
    let records: Vec<_> = (0..points).map(|id| record(id, String::new())).collect();
    columns::encode(&spec(), &records).unwrap()
}

#[tokio::test]
async fn hostile_files_are_refused_before_they_cost_much() {
    buckets_cost_what_they_may().await;
    manifests_cost_what_they_may().await;
    older_files_cost_what_they_may();
}

async fn buckets_cost_what_they_may() {
    let place = Place::new().await;
    let second = std::cell::Cell::new(1_700_000_000);
    let one = async |what: &str, bytes: Vec<u8>, points: u64, at_most: usize| {
        second.set(second.get() + 1);
        let file = place.bucket_file(bytes, points).await;
        place.snapshot(second.get(), vec![file], &[1]).await;
        place.assert_refused(what, at_most).await
    };
    one("1 GiB that says so", bomb(1 << 30, 1 << 30), 1, 8 * MIB).await;
    one("1 GiB that says it is 200 MiB", bomb(200 << 20, 1 << 30), 1, 300 * MIB).await;
    one("1 GiB that says it is 1 MiB", bomb(1 << 20, 1 << 30), 1, 8 * MIB).await;
    one("a length below zero", bomb(u64::MAX - 5, 1 << 20), 1, 8 * MIB).await;
    for rows in [1 << 40, i64::MAX, -1, 200_000_000, 1_000_000] {
        one(&format!("{rows} points"), many_rows(rows), 77, 8 * MIB).await;
    }
    one("other points than the manifest has", packed(500), 400, 8 * MIB).await;
    // Many rows in few bytes, which the manifest says too.
    let wide = packed(400_000);
    let least = wide.len() / MIB;
    one("bucket of another hash", wide.clone(), 400_000, 600 * MIB).await;
    assert!(least < 8, "{least} MiB");

    // One file as if it were many.
    let file = place.bucket_file(packed(20_000), 20_000).await;
    second.set(second.get() + 1);
    place.snapshot(second.get(), vec![file; 5_000], &[1]).await;
    place.assert_refused("one file 5,000 times", 64 * MIB).await;

    // A payload of many small values.
    let mut records = vec![record(1, String::new())];
    let zeros: Vec<Value> = vec![json!(0); 1_000_000];
    records[0].point.payload.insert("a".into(), zeros.into());
    let bytes = columns::encode(&spec(), &records).unwrap();
    let copies = 8;
    let text = serde_json::to_string(&records[0].point.payload).unwrap();
    drop(records);
    assert!(text.len() < 3 * MIB && bytes.len() < MIB);
    let many: Vec<_> = (0..copies)
        .map(|id| {
            let mut record = record(id, String::new());
            record.point.payload.insert("a".into(), vec![json!(0); 1_000_000].into());
            record
        })
        .collect();
    let bytes = columns::encode(&spec(), &many).unwrap();
    drop(many);
    let error = one("values beyond the memory of a file", bytes, copies, 640 * MIB).await;
    assert!(error.to_string().contains("payload of point"), "{error}");

    // Segments.
    let mut bytes = b"MSTAYLOG\x01".to_vec();
    bytes.extend([7; 16]);
    for number in [1, 1, 1, 1_u64 << 30] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(zstd::bulk::compress(&[0; 100], 1).unwrap());
    let (read, memory) = peak(async { Segment::decode(&bytes) }).await;
    assert!(read.unwrap_err().contains("unpacked") && memory < MIB);
    bytes[49..57].copy_from_slice(&(60_u64 << 20).to_be_bytes());
    bytes.truncate(57);
    bytes.extend(self::zeros(1 << 30));
    let (read, memory) = peak(async { Segment::decode(&bytes) }).await;
    assert!(read.is_err() && memory < 80 * MIB, "{} MiB", memory / MIB);
    bytes.truncate(57);
    bytes.extend(self::zeros(60 << 20));
    let (read, memory) = peak(async { Segment::decode(&bytes) }).await;
    assert!(read.is_err() && memory < 640 * MIB, "{} MiB", memory / MIB);
}

async fn manifests_cost_what_they_may() {
    let place = Place::new().await;
    let file = place.bucket_file(packed(3), 3).await;
    let good = place.snapshot(1_700_000_000, vec![file], &[0, 1, 2]).await;
    let listed = place.repository.snapshots().await.unwrap()[0];
    assert!(verify(&place.repository, listed, &|_, _| {}).await.unwrap().is_good());
    let text = String::from_utf8(good.print().unwrap()).unwrap();
    let hash = file.hash.to_string();
    let deep = "[".repeat(3_000_000) + &"]".repeat(3_000_000);
    let replaced = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let mut cases = Vec::new();
    for bad in [
        "../../../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "..",
        "",
        "%2e%2e%2f",
        "C:\\x",
        &hash.to_uppercase(),
        &hash[..63],
    ] {
        cases.push((format!("hash {bad}"), replaced(&hash, &bad.replace('\\', "\\\\"))));
        cases.push((
            format!("name {bad}"),
            replaced("\"name\":\"c\"", &json!({ "name": bad }).to_string()[1..].replace('}', "")),
        ));
        cases.push((format!("id {bad}"), replaced(&good.id.to_string(), &bad.replace('\\', "\\\\"))));
    }
    for (key, value) in [
        ("points", "3"),
        ("bytes", &file.bytes.to_string()[..]),
        ("bits", "0"),
        ("number", "0"),
        ("dimension", "2"),
        ("incarnation", "1"),
        ("lsn", "0"),
        ("epoch", "1"),
        ("format", "3"),
    ] {
        for huge in [
            "18446744073709551615",
            "18446744073709551616",
            "4294967295",
            "1e400",
            "-1",
            "1000000000000",
            "65536",
        ] {
            cases.push((
                format!("{key} {huge}"),
                replaced(&format!("\"{key}\":{value}"), &format!("\"{key}\":{huge}")),
            ));
        }
        cases.push((
            format!("{key} nested"),
            replaced(&format!("\"{key}\":{value}"), &format!("\"{key}\":{deep}")),
        ));
    }
    for key in [
        "from",
        "to",
        "collection",
        "source",
        "collections",
        "buckets",
        "files",
        "vectors",
        "payload_indexes",
    ] {
        let from = format!("\"{key}\":");
        cases.push((format!("{key} nested"), replaced(&from, &format!("\"{key}\":{deep},\"x\":"))));
        // A million values, of two bytes each in the file.
        let list = format!("[{}0]", "0,".repeat(1_000_000));
        cases.push((format!("{key} long"), replaced(&from, &format!("\"{key}\":{list},\"x\":"))));
    }
    cases.push(("nothing but nesting".into(), deep.clone()));
    let mut lies = 0;
    for (what, text) in cases {
        let bytes = text.into_bytes();
        let length = bytes.len();
        let hash = ContentHash::of(&bytes);
        let (parsed, memory) = peak(async { Manifest::parse(&bytes) }).await;
        // Numbers of a position are not covered by a hash: any is as good as another.
        let position = what.starts_with("lsn") || what.starts_with("epoch");
        let believed = parsed.is_ok() && position;
        match parsed {
            Ok(_) => {
                let noticed = what.starts_with("dimension 65536") || what.starts_with("bytes 65536");
                assert!(position || noticed, "{what}");
                lies += 1;
            }
            Err(error) => assert!(!error.to_string().contains("overflow"), "{what}: {error}"),
        }
        assert!(memory < 16 * MIB, "{what}: {} KiB for {length} bytes", memory >> 10);
        // And through the repository, by a name that fits.
        let path = mainstay_snapshot::layout::manifest(good.id, hash);
        place.put(path.clone(), bytes).await;
        for listed in place.repository.snapshots().await.unwrap() {
            let verified = verify(&place.repository, listed, &|_, _| {}).await.unwrap();
            assert_eq!(verified.is_good(), listed.hash != hash || believed, "{what}: {verified:?}");
        }
        std::fs::remove_file(place.directory.path().join(path.as_ref())).unwrap();
    }
    assert!(lies < 20, "{lies}");

    // A manifest is looked at, not read, before its size is known.
    let path = mainstay_snapshot::layout::manifest(good.id, ContentHash::of(b"large"));
    let path = place.directory.path().join(path.as_ref());
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    for listed in place.repository.snapshots().await.unwrap() {
        let (_, memory) = peak(verify(&place.repository, listed, &|_, _| {})).await;
        assert!(memory < 8 * MIB, "{} MiB", memory / MIB);
    }
    tokio::time::timeout(Duration::from_secs(60), place.repository.snapshots()).await.unwrap().unwrap();
}

/// A backup of many points that is nowhere as a whole.
struct Endless {
    at: u64,
    points: u64,
    buffer: Cursor<Vec<u8>>,
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.buffer.position() == self.buffer.get_ref().len() as u64 {
            let text = match self.at {
                0 => r#"{"version":"2.0","metadata":{},"collections":{"c":{"points":["#.to_owned(),
                n if n <= self.points => {
                    let comma = if n > 1 { "," } else { "" };
                    let vector = "0.25,".repeat(255);
                    format!(r#"{comma}{{"id":{n},"vector":[{vector}1],"payload":{{"n":[{n}]}}}}"#)
                }
                n if n == self.points + 1 => "]}}}".to_owned(),
                _ => return Ok(0),
            };
            self.at += 1;
            self.buffer = Cursor::new(text.into_bytes());
        }
        self.buffer.read(into)
    }
}

impl Seek for Endless {
    fn seek(&mut self, _: SeekFrom) -> std::io::Result<u64> {
        (self.at, self.buffer) = (0, Cursor::new(Vec::new()));
        Ok(0)
    }
}

fn older_files_cost_what_they_may() {
    let measured = |input: Endless| {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let mut backup = Backup::read("b.json", input, Limits::default()).unwrap();
        let mut points = 0;
        backup
            .points(&mut |_, batch| {
                points += batch.len() as u64;
                Ok(())
            })
            .unwrap();
        (points, MEMORY.peak_usage().saturating_sub(before))
    };
    let (points, memory) = measured(Endless { at: 0, points: 20_000, buffer: Cursor::default() });
    assert_eq!(points, 20_000);
    // 26 MB of text.
    assert!(memory < 6 * MIB, "{} KiB", memory >> 10);

    for inside in ["0,".repeat(3_500_000), "[],".repeat(2_500_000), "{\"a\":0},".repeat(1_000_000)] {
        for text in [
            format!(
                r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"points":[{{"id":1,"payload":{{"a":[{inside}0]}}}}]}}}}}}"#
            ),
            format!(
                r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"points":[{{"id":[{inside}0]}}]}}}}}}"#
            ),
            format!(
                r#"{{"version":1,"metadata":{{}},"collections":{{"c":{{"config":[{inside}0],"points":[]}}}}}}"#
            ),
            format!(r#"{{"version":[{inside}0],"metadata":{{}},"collections":{{}}}}"#),
        ] {
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            assert!(Backup::read("b.json", Cursor::new(text.as_bytes()), Limits::default()).is_err());
            let memory = MEMORY.peak_usage().saturating_sub(before);
            assert!(memory < 160 * MIB, "{} MiB", memory / MIB);
        }
    }
}
