//! What is done with the bytes of each target; none of it may panic, and what is read must be whole. The crate's own tests
//! replay `corpus/` through the same functions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use mainstay_core::{CollectionName, CollectionSpec, Distance, Point, PointId, VectorName, VectorSpec};
use mainstay_snapshot::columns;
use mainstay_snapshot::manifest::Manifest;
use mainstay_snapshot::older::{Backup, Limits, Outcome, validate};
use mainstay_snapshot::segment::Segment;

/// Bytes as a backup file of version 1.0 or 2.0.
pub fn older(data: &[u8]) {
    let limits = Limits { value_bytes: 1 << 16, ids: 4, batch_points: 3, ..Limits::default() };
    let good = validate(data, &limits).iter().all(|checked| checked.outcome == Outcome::Passed);
    let Ok(mut backup) = Backup::read("fuzzed", Cursor::new(data), limits) else { return };
    assert!(good, "what is read passes every check");
    let mut ids: BTreeMap<CollectionName, BTreeSet<PointId>> = BTreeMap::new();
    let counts: BTreeMap<_, _> =
        backup.collections().iter().map(|c| (c.spec.name.clone(), c.points)).collect();
    backup.collections().iter().for_each(|collection| collection.spec.check().unwrap());
    let each = &mut |collection: &mainstay_snapshot::older::Collection, points: Vec<Point>| {
        for point in points {
            assert!(ids.entry(collection.spec.name.clone()).or_default().insert(point.id));
            assert_eq!(collection.spec.admit(point.clone()).unwrap(), point);
        }
        Ok(())
    };
    backup.points(each).expect("every point was checked by the first pass");
    for (name, points) in counts {
        assert_eq!(ids.get(&name).map_or(0, BTreeSet::len) as u64, points);
    }
}

/// Bytes as a `config` and, after a zero byte, the inside of `points`.
pub fn points(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (config, points) = (&data[..at], data.get(at + 1..).unwrap_or_default());
    let parts: [&[u8]; 5] = [
        br#"{"version":"2.0","metadata":{},"collections":{"c":{"config":"#,
        if config.is_empty() { b"null" } else { config },
        br#","points":["#,
        points,
        b"]}}}",
    ];
    older(&parts.concat());
}

/// Bytes as a manifest.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    let printed = manifest.print().unwrap();
    assert_eq!(Manifest::parse(&printed).unwrap(), manifest);
}

/// The collection that the files of the bucket target are of.
pub fn spec() -> CollectionSpec {
    let name = CollectionName::new("c").unwrap();
    CollectionSpec::dense(name, 2, Distance::Dot)
        .with_vector(
            VectorName::new("other").unwrap(),
            VectorSpec::Dense { dimension: 1, distance: Distance::Cosine },
        )
        .with_vector(VectorName::new("words").unwrap(), VectorSpec::Sparse)
}

/// Bytes as a bucket file.
pub fn bucket(data: &[u8]) {
    let Ok(records) = columns::decode(&spec(), data) else { return };
    let encoded = columns::encode(&spec(), &records).unwrap();
    assert_eq!(columns::decode(&spec(), &encoded).unwrap(), records);
}

/// Bytes as a segment or, if the first is even, as 40 bytes of its head and what it unpacks to.
pub fn segment(data: &[u8]) {
    let whole;
    let bytes = match data.split_first() {
        Some((first, rest)) if first % 2 == 0 && rest.len() >= 40 => {
            let (head, raw) = rest.split_at(40);
            let packed = zstd::bulk::compress(raw, 1).unwrap();
            let size = (raw.len() as u64).to_be_bytes();
            whole = [&b"MSTAYLOG\x01"[..], head, &size, &packed].concat();
            &whole
        }
        Some((_, rest)) => rest,
        None => data,
    };
    if let Ok(segment) = Segment::decode(bytes) {
        assert_eq!(segment.last().0 - segment.first.0 + 1, segment.entries.len() as u64);
        assert!(segment.marks.iter().all(|mark| mark.lsn >= segment.first && mark.lsn <= segment.last()));
    }
}
