//! What a store says that it holds, beside an estimate made before and what the kernel says of the process.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;
use std::sync::Arc;

use common::{Filled, Shape};
use mainstay_core::expected::Survey;
use mainstay_memory::{MemoryOptions, Quantization, estimate};
use rand::SeedableRng;
use rand::rngs::StdRng;

const QUANTIZATIONS: [Quantization; 3] = [Quantization::F32, Quantization::F16, Quantization::I8];
const SMALL: Shape = Shape { dimension: 32, documents: false };
const PLAIN: Shape = Shape { dimension: 256, documents: false };
const DOCUMENTS: Shape = Shape { dimension: 256, documents: true };
/// The variable that makes this test a process that fills a store.
const CHILD: &str = "MAINSTAY_TEST_FILL";
/// By how much the process may take more than the store says: what the allocator keeps to itself.
const MARGIN: f64 = 0.05;
const MARGIN_BYTES: u64 = 4 << 20;

fn options(quantization: Quantization) -> MemoryOptions {
    MemoryOptions { quantization, ..MemoryOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_is_what_the_store_accounts_for_later() {
    const POINTS: u64 = 3_000;
    for shape in [SMALL, PLAIN, DOCUMENTS] {
        let (mut survey, mut rng) = (Survey::default(), StdRng::seed_from_u64(9));
        (0..POINTS).for_each(|id| survey.add(&Arc::new(shape.point(id, &mut rng))));
        let expected = [survey.expected(shape.spec())];
        for quantization in QUANTIZATIONS {
            let mut filled = Filled::new(options(quantization), shape).await;
            filled.write(0..POINTS).await.unwrap();
            let (estimated, held) = (estimate::bytes(&options(quantization), &expected), filled.held());
            let ratio = estimated as f64 / held as f64;
            println!("{shape:?} {quantization:?}: estimated {estimated}, accounted {held}, {ratio:.3}");
            assert!((0.95..1.10).contains(&ratio), "{shape:?} {quantization:?}: {estimated} and {held}");
        }
    }
}

/// Filled in a process of its own, a store accounts for what the process grew by, also while it is built anew.
#[test]
#[cfg(target_os = "linux")]
fn the_process_takes_no_more_than_the_store_accounts_for() {
    for case in ["plain f32", "plain f16", "plain i8", "documents f32", "rebuild f32"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, case)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        let line = text.lines().find_map(|line| line.split_once("measured ")).expect(&text).1;
        let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        let (accounted, taken) = (numbers[0], numbers[1]);
        println!("{case}: accounted {accounted}, taken {taken}, {:.3}", accounted as f64 / taken as f64);
        let most = (accounted as f64 * (1.0 + MARGIN)) as u64 + MARGIN_BYTES;
        assert!(taken <= most, "{case}: the process took {taken}, the store says {accounted}");
        assert!(accounted < taken * 2, "{case}: the process took {taken}, the store says {accounted}");
    }
}

/// Not a test by itself: the process of the one above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg(target_os = "linux")]
async fn child() {
    const POINTS: u64 = 12_000;
    let Ok(case) = std::env::var(CHILD) else { return };
    let (kind, quantization) = case.split_once(' ').unwrap();
    let shape = if kind == "documents" { DOCUMENTS } else { PLAIN };
    let quantization = QUANTIZATIONS.into_iter().find(|q| q.as_str() == quantization).unwrap();
    // What the first use of everything takes is not the store's.
    let mut first = Filled::new(options(quantization), shape).await;
    first.write(0..500).await.unwrap();
    drop(first);
    let before = of_process("VmRSS:");
    let mut filled = Filled::new(options(quantization), shape).await;
    filled.write(0..POINTS).await.unwrap();
    if kind != "rebuild" {
        println!("measured {} {}", filled.held(), of_process("VmRSS:").saturating_sub(before));
        return;
    }
    let mut peak = filled.held();
    let ids = (0..POINTS / 8).map(Into::into).collect();
    let op = mainstay_core::Op::Delete { collection: filled.collection.clone(), ids };
    filled.apply(op).await.unwrap();
    assert!(filled.store.is_rebuilding());
    while filled.store.is_rebuilding() {
        peak = peak.max(filled.held());
        tokio::task::yield_now().await;
    }
    println!("measured {} {}", peak, of_process("VmHWM:").saturating_sub(before));
}

/// A figure of this process, in bytes.
#[cfg(target_os = "linux")]
fn of_process(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}
