//! What a benchmark prints: one line for each promise, with what was measured beside it.

/// One side of pairs taken in turn, beside the other.
#[derive(Default)]
pub struct Pairs {
    ours: Vec<f64>,
    reference: Vec<f64>,
}

impl Pairs {
    pub fn add(&mut self, ours: f64, reference: f64) {
        self.ours.push(ours);
        self.reference.push(reference);
    }

    /// The median of the pairs' own ratios: a machine that slows down between two pairs changes both sides of each.
    pub fn ratio(&self) -> f64 {
        median(self.ours.iter().zip(&self.reference).map(|(ours, reference)| ours / reference))
    }

    /// The same with differences.
    pub fn difference(&self) -> f64 {
        median(self.ours.iter().zip(&self.reference).map(|(ours, reference)| ours - reference))
    }
}

/// What was promised.
#[derive(Clone, Copy)]
pub enum Target {
    /// The ratio is at most this.
    RatioAtMost(f64),
    /// The ratio is at least this.
    RatioAtLeast(f64),
    /// Ours is at most so much more than the reference.
    MoreAtMost(f64),
    /// Ours is at most this.
    AtMost(f64),
    /// Nothing: a figure beside the others.
    None,
}

/// Prints the heading with what is measured in and how busy the machine is, which the figures depend on.
pub fn heading(title: &str) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{title} (load {load} on {processors} processors)");
    println!("{:<44}{:>10}{:>11}{:>8}   target", "medians", "quarry", "reference", "ratio");
}

/// Prints one line of pairs.
pub fn row(case: &str, pairs: &Pairs, target: Target) {
    let [ours, reference] = [&pairs.ours, &pairs.reference].map(|side| median(side.iter().copied()));
    let ratio = pairs.ratio();
    let promise = match target {
        Target::RatioAtMost(most) => format!("≤ {most} ×{}", word(ratio <= most)),
        Target::RatioAtLeast(least) => format!("≥ {least} ×{}", word(ratio >= least)),
        Target::MoreAtMost(most) => {
            let more = pairs.difference();
            format!("≤ reference + {most:.0}{} ({more:+.0})", word(more <= most))
        }
        Target::AtMost(most) => format!("≤ {most}{}", word(ours <= most)),
        Target::None => String::new(),
    };
    println!("{case:<44}{ours:>10.1}{reference:>11.1}{ratio:>8.2}   {promise}");
}

/// Prints one figure that has no reference.
pub fn figure(case: &str, value: f64, target: Target) {
    let promise = match target {
        Target::AtMost(most) => format!("≤ {most}{}", word(value <= most)),
        Target::RatioAtMost(_) | Target::RatioAtLeast(_) | Target::MoreAtMost(_) | Target::None => String::new(),
    };
    println!("{case:<44}{value:>10.1}{:>11}{:>8}   {promise}", "", "");
}

fn word(met: bool) -> &'static str {
    if met { ", met" } else { ", MISSED" }
}

pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}
