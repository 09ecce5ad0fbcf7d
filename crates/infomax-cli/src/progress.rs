//! What a person sees while a run goes on.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use infomax_train::{Health, HealthState, Observer, StepMetrics};
use std::time::Instant;

/// A progress bar on standard error: epoch, step, images/s, time left, loss and its parts.
pub(crate) struct Progress {
    bar: ProgressBar,
    epochs: u64,
    batch: usize,
    /// Where the rate is measured from: a resumed run does not count what others did.
    start: Option<(Instant, u64)>,
    /// Seconds of waiting for batches since then.
    waited: f64,
    plain: bool,
}

impl Progress {
    /// A bar for a run of `total_steps`. Without a terminal, one line is printed for each epoch.
    pub(crate) fn new(epochs: u64, total_steps: u64, batch: usize, quiet: bool) -> Self {
        let bar = ProgressBar::new(total_steps);
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template("{prefix} [{bar:24}] {pos}/{len}  {msg}  {eta} left");
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        let plain = !quiet && bar.is_hidden();
        Self { bar, epochs, batch, start: None, waited: 0.0, plain }
    }

    /// Prints a line above the bar.
    pub(crate) fn say(&self, line: &str) {
        if self.plain || self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// The part of the time in which training waited for the loader, in per cent.
    fn wait(&self) -> f64 {
        self.start.map_or(0.0, |(time, _)| 100.0 * self.waited / time.elapsed().as_secs_f64().max(1e-9))
    }

    fn rate(&self, step: u64) -> f64 {
        self.start.map_or(0.0, |(time, first)| {
            (step - first) as f64 * self.batch as f64 / time.elapsed().as_secs_f64().max(1e-9)
        })
    }
}

/// The loss and its weighted parts, as `loss 21.40 = invariance 3.10 + variance 12.02 + ...`.
fn loss(metrics: &StepMetrics) -> String {
    let parts: Vec<String> =
        metrics.parts.iter().map(|p| format!("{} {:.3}", p.name, p.value * p.weight)).collect();
    format!("loss {:.3} = {}", metrics.total, parts.join(" + "))
}

impl Observer for Progress {
    fn on_step(&mut self, metrics: &StepMetrics) {
        match self.start {
            // The first step carries the start of the loader, so it is not part of the rate.
            None => self.start = Some((Instant::now(), metrics.step)),
            Some(_) => self.waited += metrics.time.data_wait_s,
        }
        let rate = self.rate(metrics.step);
        self.bar.set_position(metrics.step);
        self.bar.set_prefix(format!("epoch {}/{}", metrics.epoch + 1, self.epochs));
        self.bar.set_message(format!("{rate:.0} images/s  {}", loss(metrics)));
        if self.plain && metrics.total_steps > 0 {
            let per_epoch = metrics.total_steps.div_ceil(self.epochs.max(1)).max(1);
            if metrics.step.is_multiple_of(per_epoch) {
                eprintln!(
                    "epoch {}/{}  step {}/{}  {rate:.0} images/s  {:.0} % waiting for data  {}",
                    metrics.epoch + 1,
                    self.epochs,
                    metrics.step,
                    metrics.total_steps,
                    self.wait(),
                    loss(metrics)
                );
            }
        }
    }

    fn on_health(&mut self, health: &Health) {
        match health.state {
            HealthState::Healthy => {
                self.say(&format!("step {}: the embedding is healthy again", health.step))
            }
            _ => self.say(&format!("step {}: {:?}: {}", health.step, health.state, health.advice)),
        }
    }
}
