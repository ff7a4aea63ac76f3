use std::sync::Arc;

use mainstay_core::{CollectionName, CollectionSpec, Point};

use super::*;

const MIB: u64 = 1 << 20;

fn expected(points: u64, dimension: usize) -> Vec<Expected> {
    let spec = CollectionSpec::dense(CollectionName::new("docs").unwrap(), dimension, Distance::Cosine);
    let sample = vec![Arc::new(Point::new(1, vec![0.1; dimension]))];
    vec![Expected { spec, points, sample }]
}

fn options(max_memory: u64) -> MemoryOptions {
    MemoryOptions { max_memory: Some(max_memory), ..MemoryOptions::default() }
}

#[test]
fn zones_go_by_the_number_of_points() {
    let zones = [0, 99_999, 100_000, 500_000, 500_001].map(|points| Zone::of(points).as_str());
    assert_eq!(zones, ["green", "green", "yellow", "yellow", "red"]);
}

#[test]
fn the_smallest_form_is_f32_because_the_exact_vectors_are_kept_in_each() {
    let of = |quantization| {
        bytes(&MemoryOptions { quantization, ..MemoryOptions::default() }, &expected(65_536, 384)) / 65_536
    };
    let (f32, f16, i8) = (of(Quantization::F32), of(Quantization::F16), of(Quantization::I8));
    assert!((384 * 2..384 * 2 + 16).contains(&(f16 - f32)), "{f32} {f16}");
    assert!((384..384 + 16).contains(&(i8 - f32)), "{f32} {i8}");
}

#[test]
fn what_does_not_fit_as_configured_is_held_in_less_before_it_is_refused() {
    let all = expected(65_536, 384);
    let f16 = MemoryOptions { quantization: Quantization::F16, ..MemoryOptions::default() };
    let size = |quantization| bytes(&MemoryOptions { quantization, ..f16.clone() }, &all);
    let held_in = |max: u64| {
        let plan = plan(&MemoryOptions { max_memory: Some(max), ..f16.clone() }, &all, None);
        (plan.quantization, plan.refused.is_empty())
    };
    assert_eq!(held_in(size(Quantization::F16)), (Quantization::F16, true));
    assert_eq!(held_in(size(Quantization::F16) - 1), (Quantization::I8, true));
    assert_eq!(held_in(size(Quantization::I8) - 1), (Quantization::F32, true));
    assert_eq!(held_in(size(Quantization::F32) - 1), (Quantization::F32, false));
    let stepped = plan(&MemoryOptions { max_memory: Some(size(Quantization::I8)), ..f16 }, &all, None);
    assert!(stepped.notice().unwrap().contains("i8 instead of f16"), "{stepped:?}");
}

#[test]
fn the_red_zone_wants_permission_and_the_yellow_one_free_memory() {
    let refused = |options: &MemoryOptions, points, free| plan(options, &expected(points, 8), free).refused;
    let gib = options(1 << 30);
    assert!(refused(&gib, 500_000, None).is_empty());
    assert!(refused(&gib, 500_001, None)[0].contains("allow_red_zone"));
    let allowed = MemoryOptions { allow_red_zone: true, ..gib.clone() };
    assert!(refused(&allowed, 500_001, None).is_empty());
    // A green fill wants its own bytes; a yellow one twice as much and 500 MB, at most max_memory.
    let green = plan(&gib, &expected(50_000, 8), None);
    assert_eq!(green.needed_bytes, green.bytes);
    assert!(refused(&gib, 50_000, Some(green.bytes)).is_empty());
    assert!(refused(&gib, 50_000, Some(green.bytes - 1))[0].contains("free"));
    let yellow = plan(&gib, &expected(200_000, 8), None);
    assert_eq!(yellow.needed_bytes, yellow.bytes * 2 + SAFETY_BYTES);
    assert!(refused(&gib, 200_000, Some(yellow.needed_bytes - 1))[0].contains("free"));
    let small = options(yellow.bytes + MIB);
    assert_eq!(plan(&small, &expected(200_000, 8), None).needed_bytes, yellow.bytes + MIB);
}

#[test]
fn a_refusal_says_the_numbers_and_what_to_set() {
    let refusal = plan(&options(MIB), &expected(600_000, 8), Some(MIB)).accept().unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Rejected);
    let text = refusal.to_string();
    for word in ["600000 points", "bytes a point", "max_memory", "1.0 MiB", "allow_red_zone", "when_full"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_partial_store_takes_what_fits_and_counts_only_that() {
    let partial = MemoryOptions { when_full: WhenFull::Partial, ..options(64 * MIB) };
    let plan = plan(&partial, &expected(5_000_000, 8), Some(64 * MIB));
    assert!(plan.partial && plan.refused.is_empty(), "{plan:?}");
    assert!(plan.zone < Zone::Red);
    assert!(plan.notice().unwrap().contains("only a part"));
}

#[test]
fn nothing_takes_next_to_nothing_and_absurd_numbers_do_not_wrap() {
    let empty = plan(&options(MIB), &[], Some(0));
    assert_eq!((empty.bytes, empty.bytes_per_point(), empty.refused.len()), (0, 0, 0));
    let spec = expected(1, 65_536).remove(0).spec;
    let absurd = [Expected { spec, points: u64::MAX / 2, sample: Vec::new() }];
    assert!(!plan(&options(MIB), &absurd, None).refused.is_empty());
}
