//! Figures and how they are printed.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
use tabled::builder::Builder;
use tabled::settings::Style;

/// How figures are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One object a line, for programs.
    Json,
}

/// One figure, with what it is compared with.
pub struct Figure {
    name: &'static str,
    value: f64,
    unit: &'static str,
    baseline: Option<f64>,
    /// The lowest and highest ratio of a single round.
    spread: Option<(f64, f64)>,
}

impl Figure {
    /// A figure that stands for itself.
    pub fn alone(name: &'static str, value: f64, unit: &'static str) -> Self {
        Self { name, value, unit, baseline: None, spread: None }
    }

    /// The medians of rounds of two sides; the i-th rounds of both ran together.
    pub fn of_rounds(name: &'static str, unit: &'static str, value: &[f64], baseline: &[f64]) -> Self {
        let ratios = value.iter().zip(baseline).map(|(value, baseline)| value / baseline);
        let spread =
            ratios.fold((f64::INFINITY, 0.0_f64), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
        Self { name, value: median(value), unit, baseline: Some(median(baseline)), spread: Some(spread) }
    }

    fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.value / baseline)
    }
}

/// The middle value; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The middle time in microseconds.
pub fn median_us(times: &[Duration]) -> f64 {
    median(&times.iter().map(|time| time.as_secs_f64() * 1e6).collect::<Vec<_>>())
}

/// Prints figures.
pub fn print(figures: &[Figure], format: Format) {
    if format == Format::Json {
        for figure in figures {
            let value = json!({
                "name": figure.name,
                "value": figure.value,
                "unit": figure.unit,
                "baseline": figure.baseline,
                "ratio": figure.ratio(),
                "ratio_low": figure.spread.map(|spread| spread.0),
                "ratio_high": figure.spread.map(|spread| spread.1),
            });
            println!("{value}");
        }
        return;
    }
    let mut table = Builder::default();
    table.push_record(["figure", "value", "baseline", "ratio", "rounds from", "to", "unit"]);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"));
    for figure in figures {
        table.push_record([
            figure.name.to_owned(),
            number(Some(figure.value)),
            number(figure.baseline),
            number(figure.ratio()),
            number(figure.spread.map(|spread| spread.0)),
            number(figure.spread.map(|spread| spread.1)),
            figure.unit.to_owned(),
        ]);
    }
    println!("{}", table.build().with(Style::rounded()));
}
