//! What a person sees while a run goes on.

use crate::pretrain::clock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use infomax_run::{Plan, RunObserver};
use infomax_train::{Health, HealthState, Observer, StepMetrics};
use std::time::Instant;

/// A progress bar on standard error: epoch, step, images/s, time left, loss and its parts; then the images of the
/// evaluation. One line is kept for each epoch.
pub(crate) struct Progress {
    bar: ProgressBar,
    quiet: bool,
    plan: Plan,
    /// When this was made.
    made: Instant,
    /// Where the rate is measured from: a resumed run does not count what others did.
    start: Option<(Instant, u64)>,
    /// Seconds of waiting for batches since then.
    waited: f64,
    plain: bool,
    /// What of an evaluation was said last, where lines take the place of a bar.
    said: String,
    /// What is done with the images.
    verb: &'static str,
}

impl Progress {
    /// An observer that shows nothing but warnings if it is quiet.
    pub(crate) fn new(quiet: bool) -> Self {
        let bar = ProgressBar::hidden();
        let plan = Plan { epochs: 0, per_epoch: 0, timed: false, steps: 0, done: 0, batch: 0 };
        Self {
            bar,
            quiet,
            plan,
            made: Instant::now(),
            start: None,
            waited: 0.0,
            plain: false,
            said: String::new(),
            verb: "evaluate",
        }
    }

    /// The same, with another word for what is done with the images.
    pub(crate) fn of(self, verb: &'static str) -> Self {
        Self { verb, ..self }
    }

    /// A line that is not shown if this is quiet.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.say(line);
        }
    }

    /// Prints a line above the bar.
    fn say(&self, line: &str) {
        if self.plain || self.bar.is_hidden() {
            crate::say!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    fn show(&mut self, length: u64, template: &str) {
        self.bar = ProgressBar::new(length);
        if self.quiet {
            self.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
        self.plain = !self.quiet && self.bar.is_hidden();
    }

    /// `3/10`, or the epoch alone where the run ends by time.
    fn epoch(&self, metrics: &StepMetrics) -> String {
        match self.plan.timed {
            true => format!("{}", metrics.epoch + 1),
            false => format!("{}/{}", metrics.epoch + 1, self.plan.epochs),
        }
    }

    /// The part of the time in which training waited for the loader, in per cent.
    fn wait(&self) -> f64 {
        self.start.map_or(0.0, |(time, _)| 100.0 * self.waited / time.elapsed().as_secs_f64().max(1e-9))
    }

    fn rate(&self, step: u64) -> f64 {
        self.start.map_or(0.0, |(time, first)| {
            (step - first) as f64 * self.plan.batch as f64 / time.elapsed().as_secs_f64().max(1e-9)
        })
    }
}

/// The loss and its weighted parts, as `loss 21.40 = invariance 3.10 + variance 12.02 + ...`.
fn loss(metrics: &StepMetrics) -> String {
    let parts: Vec<String> =
        metrics.parts.iter().map(|p| format!("{} {:.3}", p.name, p.value * p.weight)).collect();
    format!("loss {:.3} = {}", metrics.total, parts.join(" + "))
}

impl RunObserver for Progress {
    fn on_note(&mut self, line: &str) {
        self.note(line);
    }

    fn on_warning(&mut self, line: &str) {
        let text = format!("warning: {line}");
        self.bar.suspend(|| crate::say!("{text}"));
    }

    fn on_start(&mut self, plan: &Plan) {
        self.plan = *plan;
        self.show(plan.steps, "{prefix} [{bar:24}] {pos}/{len}  {msg}  {eta} left");
    }

    fn on_trained(&mut self) {
        crate::pretrain::trained();
        self.bar.finish_and_clear();
        self.note(&format!("trained in {}", clock(self.made.elapsed().as_secs_f64())));
        self.bar = ProgressBar::hidden();
    }

    fn on_evaluation(&mut self, done: u64, total: u64, what: &str) {
        if self.bar.length().is_none() {
            self.show(total, &format!("{} [{{bar:24}}] {{pos}}/{{len}} images  {{msg}}", self.verb));
        }
        self.bar.set_position(done);
        self.bar.set_message(what.to_owned());
        if self.plain && self.said != what {
            what.clone_into(&mut self.said);
            if !what.is_empty() {
                self.say(&format!("{}: {what} ({done} of {total} images)", self.verb));
            }
        }
        if done == total && what.is_empty() {
            self.bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn on_no_capsule(&mut self, reason: &str) {
        self.on_warning(&format!("the step that failed has no capsule: {reason}"));
    }

    fn on_capsule(&mut self, path: &std::path::Path, bytes: u64) {
        self.bar.suspend(|| {
            crate::say!(
                "What the step needs to be made again is kept ({:.1} MiB): infomax replay {}",
                bytes as f64 / 1048576.0,
                path.display()
            );
        });
    }

    fn on_step(&mut self, metrics: &StepMetrics) {
        match self.start {
            // The first step carries the start of the loader, so it is not part of the rate.
            None => self.start = Some((Instant::now(), metrics.step)),
            Some(_) => self.waited += metrics.time.data_wait_s,
        }
        let rate = self.rate(metrics.step);
        if self.plan.timed {
            self.bar.set_length(metrics.total_steps);
        }
        self.bar.set_position(metrics.step);
        self.bar.set_prefix(format!("epoch {}", self.epoch(metrics)));
        self.bar.set_message(format!("{rate:.0} images/s  {}", loss(metrics)));
        let last = metrics.step == metrics.total_steps && !self.plan.timed;
        if last || metrics.step.is_multiple_of(self.plan.per_epoch.max(1)) {
            // A terminal keeps these lines above the bar.
            self.note(&format!(
                "epoch {}  step {}/{}  {rate:.0} images/s  {:.0} % waiting for data  {}",
                self.epoch(metrics),
                metrics.step,
                metrics.total_steps,
                self.wait(),
                loss(metrics)
            ));
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
