//! The main job: train without labels, then show what was learned.

use crate::args::PretrainArgs;
use crate::progress::Progress;
use crate::ranks::Job;
use crate::{Status, evaluate, print};
use anyhow::{Context as _, Result};
use infomax_run::{Options, RunConfig, RunObserver, config};
use infomax_train::{Budget, HealthState, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// `infomax pretrain`.
pub(crate) fn run(args: &PretrainArgs, job: &Job) -> Result<Status> {
    let start = Instant::now();
    crate::threads(&args.output)?;
    let threads = match (args.output.threads, job.threads()) {
        (None, Some(own)) => {
            crate::start_threads(own)?;
            own
        }
        (chosen, _) => chosen.unwrap_or(0),
    };
    let budget = args.budget.clone().map(Budget::try_from).transpose();
    let budget = budget.map_err(|problem| anyhow::anyhow!("--budget: {problem}"))?;
    let config = match &args.resume {
        Some(run) => {
            if let Some(set) = args.source.set.first() {
                anyhow::bail!(
                    "--resume goes on with a run as it began, so that --set {set} cannot change it; --epochs, --budget, \
                     --stop-if and --device can. For other settings start a run from its weights: pretrain --config \
                     {run}/config.toml --init {run} --set {set}",
                    run = run.display()
                );
            }
            let mut config = RunConfig::of_run(run)?;
            // It is not part of what a run is: one that began on another machine goes on here.
            config.train.device = args.source.device.clone().unwrap_or(config.train.device);
            match args.stop_if.as_slice() {
                [] => {}
                [none] if none == "none" => config.train.stop_if.clear(),
                conditions => config.train.stop_if = conditions.to_vec(),
            }
            config
        }
        None => RunConfig::resolve(&config::layers(&args.origins())?)?,
    };
    let options = Options {
        run: args.resume.clone().or_else(|| args.run.clone()),
        resume: args.resume.is_some(),
        // Of a new run the epochs are part of its configuration.
        epochs: args.resume.as_ref().and(args.source.epochs),
        budget: args.resume.as_ref().and(budget),
        evaluate: !args.no_eval,
        workers: threads,
        stop: stop_flag(job.name())?,
        collective: job.collective(),
        local_rank: job.local_rank(),
    };
    let mut progress = Progress::new(args.output.quiet);
    if let Some(line) = job.describe(threads).filter(|_| job.is_root()) {
        progress.note(&line);
    }
    // Rank 0 speaks for all.
    let observer: &mut dyn RunObserver = if job.is_root() { &mut progress } else { &mut Other };
    let outcome = infomax_run::pretrain_with(&config, &options, observer)?;
    let status = match outcome.evaluation_stopped {
        Some(_) => Status::Interrupted,
        None => status(&outcome.training),
    };
    if !job.is_root() {
        return Ok(status);
    }
    let (run, total) = (outcome.run.display(), outcome.total_steps);
    if outcome.times.steps > 0 {
        progress.note(&format!("time: {}", outcome.times));
    }
    if let Some(by) = &outcome.evaluation_stopped {
        crate::say!(
            "The evaluation was stopped by {by}; all of the training is saved in {run}. `infomax evaluate {run}` evaluates it."
        );
    }
    match &outcome.training {
        Outcome::Interrupted { checkpoint, step } => {
            let of = if config.train.run.budget.is_some() { String::new() } else { format!(" of {total}") };
            crate::say!(
                "Stopped after step {step}{of}; saved {}.\nContinue with: infomax pretrain --resume {run}{}",
                checkpoint.display(),
                job.again(),
            );
        }
        Outcome::Stopped { checkpoint, step, reason } => {
            crate::say!("--stop-if holds at step {step}: {reason}\nSaved {}.", checkpoint.display());
        }
        Outcome::Finished { health, .. } if health.state == HealthState::Collapsed => {
            crate::say!("The representation collapsed (step {}): {}", health.step, health.advice);
        }
        Outcome::Finished { .. } => {}
    }
    if args.output.json {
        let status = match status {
            Status::ConditionHolds => "stopped".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        };
        let (steps, reason) = match &outcome.training {
            Outcome::Interrupted { step, .. } => (*step, None),
            Outcome::Stopped { step, reason, .. } => (*step, Some(reason)),
            Outcome::Finished { .. } => (total, None),
        };
        let json = serde_json::json!({
            "run": outcome.run, "steps": steps, "total_steps": total, "train_seconds": outcome.train_seconds,
            "images_per_s": outcome.images_per_s, "times": outcome.times,
            "status": status, "stopped_by": reason, "evaluation": outcome.evaluation,
        });
        print(&serde_json::to_string_pretty(&json)?)?;
    } else if let Some(evaluation) = &outcome.evaluation {
        print(&evaluate::text(evaluation))?;
        progress.note(&format!(
            "{} in all. Everything is in {run}; `infomax evaluate {run}` repeats the table.",
            clock(start.elapsed().as_secs_f64()),
        ));
    }
    Ok(status)
}

/// What a run that ended without an error has to tell the shell.
fn status(training: &Outcome) -> Status {
    match training {
        Outcome::Interrupted { .. } => Status::Interrupted,
        Outcome::Stopped { .. } => Status::ConditionHolds,
        Outcome::Finished { health, .. } if health.state == HealthState::Collapsed => Status::Collapsed,
        Outcome::Finished { .. } => Status::Done,
    }
}

/// Nothing is left to be finished or saved.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Of a rank that leaves the talking to rank 0.
struct Other;

impl infomax_train::Observer for Other {}

impl RunObserver for Other {
    fn on_trained(&mut self) {
        trained();
    }
}

/// All of the training is saved.
static TRAINED: AtomicBool = AtomicBool::new(false);

/// Says that the training is saved: a request to stop ends the evaluation.
pub(crate) fn trained() {
    TRAINED.store(true, Ordering::SeqCst);
}

/// Says that the work is over, for better or worse: a request to stop saves nothing any more.
pub(crate) fn ended() {
    ENDED.store(true, Ordering::SeqCst);
}

/// A flag that Ctrl-C (or a request to terminate) sets; the second one ends the program at once. Of several processes, `rank`
/// names the one that was asked.
pub(crate) fn stop_flag(rank: Option<String>) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) || ENDED.load(Ordering::SeqCst) {
            std::process::exit(130);
        }
        let name = rank.as_ref().map_or_else(String::new, |rank| format!("{rank}: "));
        let what = match TRAINED.load(Ordering::SeqCst) {
            true => "ending the evaluation; all of the training is saved",
            false => "finishing the step and saving",
        };
        crate::say!("\n{name}asked to stop: {what}; once more to stop at once.");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}

/// `3 min 20 s`.
pub(crate) fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole / 60 {
        0 => format!("{seconds:.1} s"),
        minutes => format!("{minutes} min {} s", whole % 60),
    }
}
