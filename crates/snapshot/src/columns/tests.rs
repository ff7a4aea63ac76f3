use mainstay_core::conformance::Generator;
use mainstay_core::{CollectionName, CollectionSpec, Distance, ErrorKind, Lsn, Point, Record};
use rand::Rng;

use super::{decode, encode};

fn records(generator: &mut Generator, count: usize) -> (mainstay_core::CollectionSpec, Vec<Record>) {
    let spec = generator.spec("docs");
    let mut records: Vec<_> =
        (0..count).map(|at| Record { version: Lsn(at as u64 * 3), point: generator.point(&spec) }).collect();
    records.sort_by_key(|record| record.point.id);
    records.dedup_by_key(|record| record.point.id);
    (spec, records)
}

#[test]
fn whatever_a_collection_takes_reads_back_to_the_bit() {
    for seed in 0..200 {
        let mut generator = Generator::new(seed);
        let count = generator.rng().random_range(0..40);
        let (spec, records) = records(&mut generator, count);
        let bytes = encode(&spec, &records).unwrap();
        assert_eq!(decode(&spec, &bytes).unwrap(), records, "seed {seed}");
    }
}

#[test]
fn noise_is_kept_and_what_is_beside_it_is_packed() {
    const POINTS: u64 = 400;
    const DIMENSION: usize = 256;
    let spec = CollectionSpec::dense(CollectionName::new("docs").unwrap(), DIMENSION, Distance::Dot);
    let mut generator = Generator::new(5);
    // Between 0.5 and 1: the lower bytes are noise, the highest is the same everywhere.
    let mut number = || f32::from_bits(0x3f00_0000 | (generator.rng().random::<u32>() >> 9));
    let point = |id| Point::new(id, (0..DIMENSION).map(|_| number()).collect::<Vec<_>>());
    let points = (0..POINTS).map(point);
    let records: Vec<_> = points.map(|point| Record { version: Lsn(7), point }).collect();
    let bytes = encode(&spec, &records).unwrap();
    assert_eq!(decode(&spec, &bytes).unwrap(), records);
    let raw = POINTS as usize * DIMENSION * 4;
    assert!(bytes.len() > raw / 2 && bytes.len() < raw / 5 * 4, "{} of {raw}", bytes.len());
}

#[test]
fn the_same_points_make_the_same_file() {
    let (spec, records) = records(&mut Generator::new(1), 30);
    assert_eq!(encode(&spec, &records).unwrap(), encode(&spec, &records).unwrap());
}

#[test]
fn a_file_of_another_collection_is_refused() {
    let (spec, records) = records(&mut Generator::new(2), 30);
    let mut other = spec.clone();
    other.vectors.remove(&mainstay_core::VectorName::new("second").unwrap());
    let bytes = encode(&spec, &records).unwrap();
    assert_eq!(decode(&other, &bytes).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn no_change_of_a_byte_and_no_cut_makes_a_reader_panic() {
    let (spec, records) = records(&mut Generator::new(3), 20);
    let good = encode(&spec, &records).unwrap();
    for length in 0..good.len() {
        let cut = &good[..length];
        assert_eq!(decode(&spec, cut).unwrap_err().kind(), ErrorKind::Corrupt, "cut to {length}");
    }
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            // Without the checksum over the file, some changes make other points; none may do more.
            if let Err(error) = decode(&spec, &bad) {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
    }
}
