//! Writes the first files of the corpus: good ones, for the fuzzer to change. `cargo run --release --example seeds`

use std::path::Path;

use mainstay_core::conformance::{Generator, Script};
use mainstay_core::{CollectionName, CollectionSpec, Distance, Lsn, Point, Record};
use mainstay_snapshot::buckets::bucket_hash;
use mainstay_snapshot::manifest::{Bucket, BucketFile, CollectionManifest, Manifest, Source};
use mainstay_snapshot::segment::{Segment, TimeMark};
use mainstay_snapshot::{ContentHash, SnapshotId, columns};

fn write(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), bytes).unwrap();
}

fn older() {
    write("older", "v1", r#"{"version":1,"metadata":{},"collections":{"a":{"points":[]}}}"#);
    write(
        "older",
        "v2",
        r#"{"version":"2.0","metadata":{"x":[1]},"collections":{"a":{"metadata":{},"config":{"vectors":{"size":2,"distance":"Dot"}},"points":[{"id":7,"vector":[0.5,-1e3],"payload":{"k":[null,true,"v"]}}]},"b":{"points":[{"id":"00000000-0000-0000-0000-000000000007","vector":{"dense":[1],"sparse":{"indices":[3,1],"values":[1,2.5]}}}]}}}"#,
    );
    for (name, config, points) in [
        (
            "size",
            r#"{"vector_size":2,"distance":"cosine"}"#,
            r#"{"id":1,"vector":[3,4]},{"id":2,"vector":null}"#,
        ),
        (
            "named",
            r#"{"params":{"vectors":{"a":{"size":1}},"sparse_vectors":{"s":{}}}}"#,
            r#"{"id":1,"vector":{"a":[1]}}"#,
        ),
        (
            "default",
            r#"{"default_vector":null,"payload_schema":{"k":{"data_type":"keyword"}}}"#,
            r#"{"id":1,"vector":{"dense":[1]}}"#,
        ),
        (
            "text",
            "",
            r#"{"id":1,"vector":[1],"payload":{"text":"t"},"text_key":"text","more":0},{"id":9,"text":"u"}"#,
        ),
        ("many", r#"{"size":1}"#, r#"{"id":1},{"id":2},{"id":3},{"id":4},{"id":5},{"id":6},{"id":7}"#),
    ] {
        write("points", name, format!("{config}\0{points}"));
    }
}

fn manifest() {
    let script = Script::new(5);
    let (hash, id) = (ContentHash::of(b"x"), "20260131T120000.000Z-0");
    let file = BucketFile { hash, bytes: 900, points: 2 };
    let buckets = vec![Bucket { number: 1, points: 2, hash, files: vec![file] }];
    let name = CollectionName::new("c").unwrap();
    let spec = CollectionSpec::dense(name.clone(), 4, Distance::Cosine);
    let collection = CollectionManifest { spec, incarnation: Lsn(3), bits: 1, buckets };
    let id = SnapshotId::parse(id).unwrap();
    let position = script.position(Lsn(0));
    let manifest = |collections| Manifest {
        id,
        tool: "mainstay".into(),
        source: Source { member: "m".into(), backend: "b".into() },
        ended: id.time(),
        from: position,
        to: position,
        collections,
    };
    write("manifest", "empty", manifest([].into()).print().unwrap());
    write("manifest", "one", manifest([(name, collection)].into()).print().unwrap());
}

fn bucket() {
    let spec = mainstay_fuzz::spec();
    let mut generator = Generator::new(1);
    for count in [0, 1, 6] {
        let mut records: Vec<_> =
            (0..count).map(|at| Record { version: Lsn(at), point: generator.point(&spec) }).collect();
        records.push(Record { version: Lsn(9), point: Point::new(1_000 + count, vec![1.0, 2.0]) });
        records.sort_by_key(|record| record.point.id);
        records.dedup_by_key(|record| record.point.id);
        assert_ne!(bucket_hash([]), bucket_hash(records.iter().map(|r| (r.point.id, r.version))));
        write("bucket", &format!("points-{count}"), columns::encode(&spec, &records).unwrap());
    }
}

fn segment() {
    // As the target takes it apart: log id, epoch, first and last LSN, then marks and entries.
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
    let head = [[7; 16].to_vec(), numbers(&[1, 5, 6])].concat();
    let raw = [vec![0, 0, 0, 1], numbers(&[6, 1_700_000_000_000]), vec![0, 0, 0, 1, 9, 0, 0, 0, 0]].concat();
    write("segment", "body", [vec![0], head.clone(), raw.clone()].concat());
    let packed = zstd::bulk::compress(&raw, 1).unwrap();
    let whole = [b"MSTAYLOG\x01".to_vec(), head, numbers(&[raw.len() as u64]), packed].concat();
    let read: Segment = Segment::decode(&whole).unwrap();
    let mark: TimeMark = read.marks[0];
    assert_eq!((mark.lsn, read.entries.len()), (Lsn(6), 2));
    write("segment", "whole", [vec![1], whole].concat());
}

fn main() {
    older();
    manifest();
    bucket();
    segment();
}
