//! Medians over rounds, in Markdown tables.

use crate::load::{Latencies, Outcome, count};

/// The figures of one measurement, in the same order for every round.
#[derive(Default)]
pub(crate) struct Rounds(Vec<Vec<f64>>);

impl Rounds {
    pub(crate) fn push(&mut self, figures: impl Into<Vec<f64>>) {
        self.0.push(figures.into());
    }

    /// The median of one figure.
    pub(crate) fn median(&self, figure: usize) -> f64 {
        let mut values: Vec<f64> = self.0.iter().map(|round| round[figure]).collect();
        values.sort_unstable_by(f64::total_cmp);
        match (values.len(), values.get(values.len() / 2)) {
            (_, None) => f64::NAN,
            (length, Some(upper)) if length % 2 == 0 => {
                f64::midpoint(values[length / 2 - 1], *upper)
            }
            (_, Some(middle)) => *middle,
        }
    }
}

/// The figures of a load, in the order of the columns that [`LOAD_COLUMNS`] names.
pub(crate) fn figures(outcome: &Outcome) -> Vec<f64> {
    let mut figures = vec![outcome.rate];
    figures.extend(quantiles(&outcome.latencies));
    figures.extend(outcome.used);
    figures
}

/// The columns for a load, after its ratios.
pub(crate) const LOAD_COLUMNS: [&str; 6] = [
    "p50",
    "p99",
    "p99.9",
    USED_COLUMNS[0],
    USED_COLUMNS[1],
    USED_COLUMNS[2],
];

/// The columns for CPU time and memory.
pub(crate) const USED_COLUMNS: [&str; 3] = [
    "cores busy: service",
    "clients",
    "peak memory: service, clients",
];

/// The indices of the rate and the median latency in the figures of a load.
pub(crate) const RATE: usize = 0;
pub(crate) const P50: usize = 1;

/// The cells for [`LOAD_COLUMNS`].
pub(crate) fn load_cells(rounds: &Rounds) -> Vec<String> {
    let mut cells = time_cells(rounds, 1);
    cells.extend(used_cells(rounds, 4));
    cells
}

/// The cells for p50, p99 and p99.9. `first` is the index of p50.
pub(crate) fn time_cells(rounds: &Rounds, first: usize) -> Vec<String> {
    (first..first + 3)
        .map(|figure| time(rounds.median(figure)))
        .collect()
}

/// The cells for [`USED_COLUMNS`]. `first` is the index of the first figure.
pub(crate) fn used_cells(rounds: &Rounds, first: usize) -> [String; 3] {
    let cores = |figure| format!("{:.2}", rounds.median(figure));
    let memory = [first + 2, first + 3].map(|figure| mebibytes(rounds.median(figure)));
    [cores(first), cores(first + 1), memory.join(", ")]
}

/// p50, p99 and p99.9 in nanoseconds.
pub(crate) fn quantiles(latencies: &Latencies) -> [f64; 3] {
    [0.5, 0.99, 0.999].map(|quantile| count(latencies.value_at_quantile(quantile)))
}

/// Formats nanoseconds.
pub(crate) fn time(nanoseconds: f64) -> String {
    if nanoseconds < 1e6 {
        format!("{:.0} µs", nanoseconds / 1e3)
    } else if nanoseconds < 1e9 {
        format!("{:.2} ms", nanoseconds / 1e6)
    } else {
        format!("{:.2} s", nanoseconds / 1e9)
    }
}

/// Formats bytes.
pub(crate) fn mebibytes(bytes: f64) -> String {
    format!("{:.0} MiB", bytes / (1024.0 * 1024.0))
}

pub(crate) fn rate(per_second: f64) -> String {
    if per_second < 100.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

pub(crate) fn ratio(of: f64, to: f64) -> String {
    format!("**{:.2}**", of / to)
}

/// A table whose rows are printed only after the measured history has been verified.
pub(crate) struct Table {
    waiting: Vec<String>,
}

impl Table {
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let columns_end = "---|".repeat(columns.len());
        Self {
            waiting: vec![
                format!("\n### {title}\n"),
                format!("| {} |", columns.join(" | ")),
                format!("|{columns_end}"),
            ],
        }
    }

    pub(crate) fn row(&mut self, cells: &[String]) {
        self.waiting.push(format!("| {} |", cells.join(" | ")));
    }

    /// Prints the rows that are not printed yet.
    pub(crate) fn print(&mut self) {
        for line in self.waiting.drain(..) {
            println!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let mut rounds = Rounds::default();
        for value in [4.0, 1.0, 3.0, 2.0] {
            rounds.push([value]);
        }
        assert!((rounds.median(0) - 2.5).abs() < 1e-9);
        rounds.push([0.0]);
        assert!((rounds.median(0) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn times_have_the_unit_that_reads_best() {
        assert_eq!(time(1_234.0), "1 µs");
        assert_eq!(time(2_345_678.0), "2.35 ms");
        assert_eq!(time(2_345_678_901.0), "2.35 s");
    }
}
