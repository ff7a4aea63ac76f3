//! A reader of repositories that knows what `docs/snapshot-format.md` says and nothing else: it uses none of this crate's code, and
//! Arrow's own reader for the files of points. It must find the same points.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch, StructArray};
use mainstay_core::conformance::{Generator, ModelStore, Script, state_of};
use mainstay_core::{Lsn, Record, Vector};
use mainstay_snapshot::manifest::Source;
use mainstay_snapshot::place::PlaceOptions;
use mainstay_snapshot::repository::Repository;
use mainstay_snapshot::segment::{Segment, TimeMark};
use mainstay_snapshot::take::{TakeOptions, take};
use serde_json::{Map, Value, json};

/// A point as the reader has it: key, version, payload, text, dense and sparse vectors by name, floats as bits.
#[derive(Clone, Debug, PartialEq)]
struct Read {
    key: [u8; 17],
    version: u64,
    payload: Map<String, Value>,
    text: Option<String>,
    dense: BTreeMap<String, Vec<u32>>,
    sparse: BTreeMap<String, (Vec<u32>, Vec<u32>)>,
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn checked(path: &Path, hash: &str) -> Vec<u8> {
    assert!(hash.len() == 64 && hash.bytes().all(|digit| b"0123456789abcdef".contains(&digit)));
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), hash, "{}", path.display());
    bytes
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn be(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn bytes(hash: &str) -> [u8; 32] {
    *blake3::Hash::from_hex(hash).unwrap().as_bytes()
}

/// The only manifest of a repository.
fn manifest(root: &Path) -> Value {
    assert_eq!(json_file(&root.join("repository.json"))["format"], 3);
    let mut names = std::fs::read_dir(root.join("snapshots")).unwrap().map(|e| e.unwrap().file_name());
    let name = names.next().unwrap().into_string().unwrap();
    assert!(names.next().is_none());
    let (id, hash) = name.strip_suffix(".json").unwrap().rsplit_once('.').unwrap();
    let manifest: Value =
        serde_json::from_slice(&checked(&root.join("snapshots").join(&name), hash)).unwrap();
    assert_eq!((number(&manifest["format"]), text(&manifest["id"])), (3, id));
    assert!(id.ends_with(&format!("-{}", manifest["from"]["lsn"])));
    assert_eq!(manifest["from"]["log"], manifest["to"]["log"]);
    assert!(number(&manifest["from"]["lsn"]) <= number(&manifest["to"]["lsn"]));
    manifest
}

/// The points of a snapshot by collection, with the collection as its manifest describes it.
fn snapshot(root: &Path) -> Vec<(Value, Vec<Read>)> {
    let manifest = manifest(root);
    let (mut found, mut points, mut file_bytes) = (Vec::new(), 0, 0);
    let mut hashes = BTreeMap::new();
    for collection in manifest["collections"].as_array().unwrap() {
        let bits = number(&collection["bits"]);
        assert!(bits <= 16);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&be(number(&collection["collection"]["incarnation"]))).update(&be(bits));
        let (mut all, mut next) = (Vec::new(), 0);
        for bucket in collection["buckets"].as_array().unwrap() {
            let bucket_number = number(&bucket["number"]);
            assert!(bucket_number >= next && bucket_number < 1 << bits);
            next = bucket_number + 1;
            let mut of_bucket = Vec::new();
            for file in bucket["files"].as_array().unwrap() {
                let read = bucket_file(root, file, &collection["collection"]["vectors"]);
                file_bytes += number(&file["bytes"]);
                of_bucket.extend(read);
            }
            let mut bucket_hasher = blake3::Hasher::new();
            for point in &of_bucket {
                let hash = blake3::hash(&point.key);
                let first = u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
                assert_eq!(u64::from(first) >> (16 - bits), bucket_number);
                bucket_hasher.update(&point.key).update(&be(point.version));
            }
            assert!(of_bucket.windows(2).all(|pair| pair[0].key < pair[1].key));
            assert_eq!(bucket_hasher.finalize().to_hex().as_str(), text(&bucket["hash"]));
            assert_eq!(of_bucket.len() as u64, number(&bucket["points"]));
            hasher.update(&be(bucket_number)).update(&be(of_bucket.len() as u64));
            hasher.update(&bytes(text(&bucket["hash"])));
            all.extend(of_bucket);
        }
        assert_eq!(hasher.finalize().to_hex().as_str(), text(&collection["hash"]));
        assert_eq!(all.len() as u64, number(&collection["points"]));
        points += all.len() as u64;
        let name = text(&collection["collection"]["name"]).to_owned();
        hashes.insert(name, bytes(text(&collection["hash"])));
        all.sort_by_key(|point| point.key);
        found.push((collection["collection"].clone(), all));
    }
    let mut hasher = blake3::Hasher::new();
    for (name, hash) in hashes {
        hasher.update(&be(name.len() as u64)).update(name.as_bytes()).update(&hash);
    }
    assert_eq!(hasher.finalize().to_hex().as_str(), text(&manifest["hash"]));
    assert_eq!((points, file_bytes), (number(&manifest["points"]), number(&manifest["bytes"])));
    found
}

fn bucket_file(root: &Path, file: &Value, vectors: &Value) -> Vec<Read> {
    let hash = text(&file["hash"]);
    let bytes = checked(&root.join("buckets").join(&hash[..2]).join(format!("{hash}.arrows")), hash);
    assert_eq!(bytes.len() as u64, number(&file["bytes"]));
    let mut reader = arrow_ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none(), "one batch");
    let names: Vec<_> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
    let vectors = vectors.as_object().unwrap().iter().collect::<BTreeMap<_, _>>();
    let of_vectors = vectors.iter().map(|(name, vector)| match vector.as_str() {
        Some("sparse") => format!("sparse:{name}"),
        _ => format!("dense:{name}"),
    });
    let expected: Vec<_> =
        ["id", "version", "payload", "text"].map(str::to_owned).into_iter().chain(of_vectors).collect();
    assert_eq!(names, expected);
    assert_eq!(batch.num_rows() as u64, number(&file["points"]));
    (0..batch.num_rows()).map(|row| point(&batch, row)).collect()
}

fn point(batch: &RecordBatch, row: usize) -> Read {
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let string = |name: &str| {
        let texts = column(name).as_string::<i32>();
        texts.is_valid(row).then(|| texts.value(row).to_owned())
    };
    let mut read = Read {
        key: column("id").as_fixed_size_binary().value(row).try_into().unwrap(),
        version: column("version").as_primitive::<UInt64Type>().value(row),
        payload: string("payload").map(|text| serde_json::from_str(&text).unwrap()).unwrap_or_default(),
        text: string("text"),
        dense: BTreeMap::new(),
        sparse: BTreeMap::new(),
    };
    for (at, field) in batch.schema().fields().iter().enumerate().skip(4) {
        let vector: &StructArray = batch.column(at).as_struct();
        if vector.is_null(row) {
            continue;
        }
        let child = |name: &str| vector.column_by_name(name).unwrap();
        match field.name().split_once(':').unwrap() {
            ("dense", name) => {
                let planes = ["b0", "b1", "b2", "b3"].map(|b| child(b).as_fixed_size_binary().value(row));
                let bits = (0..planes[0].len()).map(|d| u32::from_le_bytes(planes.map(|plane| plane[d])));
                read.dense.insert(name.to_owned(), bits.collect());
            }
            ("sparse", name) => {
                let indices = child("indices").as_list::<i32>().value(row);
                let values = child("values").as_list::<i32>().value(row);
                let indices = indices.as_primitive::<UInt32Type>().values().to_vec();
                let values =
                    values.as_primitive::<Float32Type>().values().iter().map(|v| v.to_bits()).collect();
                read.sparse.insert(name.to_owned(), (indices, values));
            }
            other => panic!("{other:?}"),
        }
    }
    read
}

/// A point of the store as the reader would have it.
fn expected(record: &Record) -> Read {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let mut read = Read {
        key: record.point.id.to_key(),
        version: record.version.0,
        payload: record.point.payload.clone(),
        text: record.point.text.clone(),
        dense: BTreeMap::new(),
        sparse: BTreeMap::new(),
    };
    for (name, vector) in &record.point.vectors {
        match vector {
            Vector::Dense(values) => drop(read.dense.insert(name.to_string(), bits(values))),
            Vector::Sparse(sparse) => {
                drop(read.sparse.insert(name.to_string(), (sparse.indices.clone(), bits(&sparse.values))));
            }
        }
    }
    read
}

async fn write(script: &Script, store: &ModelStore, root: &Path) -> Repository {
    let repository =
        Repository::open_for_writing(root.to_str().unwrap(), &PlaceOptions::default()).await.unwrap();
    let source = Source { member: "standby".into(), backend: "model".into() };
    let options = TakeOptions { bucket_bytes: 8_192, ..TakeOptions::default() };
    let from = script.position(Lsn(script.end().0 / 2));
    let draft = take(&repository, store, source, from, None, options, &|_, _| {}).await.unwrap();
    draft.commit(&repository, script.position(script.end())).await.unwrap();
    repository
}

#[tokio::test]
async fn a_reader_by_the_specification_finds_the_same_points() {
    let mut points = 0;
    for seed in 0..30 {
        let script = Generator::new(seed).history(80);
        let store = ModelStore::default();
        script.apply_to(&store).await;
        let root = tempfile::tempdir().unwrap();
        write(&script, &store, root.path()).await;
        let found = snapshot(root.path());
        let state = state_of(&store).await;
        assert_eq!(found.len(), state.len());
        for (spec, incarnation, records) in state {
            let (described, read) =
                found.iter().find(|(described, _)| described["name"] == spec.name.as_str()).unwrap();
            assert_eq!(described["incarnation"], incarnation.0);
            assert_eq!(described["vectors"][""]["distance"], {
                let mainstay_core::VectorSpec::Dense { distance, .. } =
                    spec.vectors[&mainstay_core::VectorName::default()]
                else {
                    panic!("generated specs have a dense default vector");
                };
                json!(distance.as_str())
            });
            assert_eq!(*read, records.iter().map(expected).collect::<Vec<_>>(), "seed {seed}");
            points += read.len();
        }
    }
    assert!(points > 300, "{points} points were compared");
}

fn folder_of_one(path: &Path) -> (String, PathBuf) {
    let mut entries = std::fs::read_dir(path).unwrap();
    let entry = entries.next().unwrap().unwrap();
    assert!(entries.next().is_none());
    (entry.file_name().into_string().unwrap(), entry.path())
}

#[tokio::test]
async fn a_reader_by_the_specification_finds_the_entries_of_a_segment() {
    let root = tempfile::tempdir().unwrap();
    let repository =
        Repository::open_for_writing(root.path().to_str().unwrap(), &PlaceOptions::default()).await.unwrap();
    let log = Script::new(9).position(Lsn(0)).log;
    let time = chrono::DateTime::from_timestamp_millis(1_700_000_000_123).unwrap();
    let marks = vec![TimeMark { lsn: Lsn(41), time }, TimeMark { lsn: Lsn(42), time }];
    let entries = vec![vec![1, 2, 3], vec![], vec![7; 300]];
    repository.write_segment(Segment { log, first: Lsn(40), marks, entries: entries.clone() }).await.unwrap();

    let (folder, path) = folder_of_one(&root.path().join("log"));
    assert_eq!(folder, "00000000-0000-0000-0000-000000000009.1");
    let (name, path) = folder_of_one(&path);
    let (lsns, hash) = name.strip_suffix(".log").unwrap().split_once('.').unwrap();
    assert_eq!(lsns, "00000000000000000040-00000000000000000042");
    let bytes = checked(&path, hash);
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    assert_eq!((&bytes[..8], bytes[8], number(&bytes[9..25])), (&b"MSTAYLOG"[..], 1, 9));
    let head: Vec<_> = bytes[25..57].chunks(8).map(number).collect();
    assert_eq!(head[..3], [1, 40, 42]);
    let raw = zstd::decode_all(&bytes[57..]).unwrap();
    assert_eq!(raw.len() as u64, head[3]);
    assert_eq!(number(&raw[..4]), 2);
    let marks: Vec<_> = raw[4..36].chunks(8).map(number).collect();
    assert_eq!(marks, [41, 1_700_000_000_123, 42, 1_700_000_000_123]);
    let (mut rest, mut found) = (&raw[36..], Vec::new());
    while !rest.is_empty() {
        let length = number(&rest[..4]) as usize;
        found.push(rest[4..4 + length].to_vec());
        rest = &rest[4 + length..];
    }
    assert_eq!(found, entries);
}
