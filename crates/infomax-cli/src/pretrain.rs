//! The main job: train without labels, then show what was learned.

use crate::args::PretrainArgs;
use crate::config::{self, RunConfig};
use crate::dataset::{self, Images};
use crate::evaluate;
use crate::progress::Progress;
use crate::{Status, print};
use anyhow::{Context as _, Result};
use candle_core::Device;
use infomax_augment::Augmenter;
use infomax_core::{BatchSource as _, Key, Learner};
use infomax_data::{DamagedSamples, Loader, LoaderConfig};
use infomax_models::{JointEmbedding, Precision};
use infomax_train::{HealthState, Outcome, RunDir, Trainer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// `infomax pretrain`.
pub(crate) fn run(args: &PretrainArgs) -> Result<Status> {
    let start = Instant::now();
    let quiet = args.output.quiet;
    let note = |line: &str| {
        if !quiet {
            eprintln!("{line}");
        }
    };
    let config = match &args.resume {
        Some(run) => RunConfig::of_run(run)?,
        None => RunConfig::resolve(&config::layers(&args.source)?)?,
    };

    let images = dataset::open(&config.data)?;
    images.describe().iter().for_each(|line| note(line));
    if let Some(why) = images.no_probe() {
        note(&format!("note: {why}; training does not need labels"));
    }

    // Everything that can be refused is refused before the folder of the run is made.
    let params = evaluate::params(&config);
    let learner = JointEmbedding::with_precision(&config.model, config.train.precision, &params)
        .context("[train] precision")?;
    let objective = config.objective.build()?;
    let optimizer = infomax_optim::build(&config.optim.optimizer)?;
    let recipe = config.augment.resolve()?;
    let seed = Key::new(config.train.run.seed);
    let loader = Loader::new(
        images.train.clone(),
        Augmenter::new(&recipe)?,
        LoaderConfig {
            batch: config.train.batch,
            key: seed.fold_named("data"),
            workers: args.output.threads.unwrap_or(0),
            prefetch: config.train.prefetch,
            device: Device::Cpu,
            damaged: dataset::damaged(&config.data, images.train.len()),
            ..LoaderConfig::default()
        },
    )?;
    let damaged = loader.damaged();
    let batches = loader.batches_per_epoch();
    let total = config.train.run.total_steps(batches);
    let schedule = config.optim.schedule.schedule(batches, total)?;
    note(&format!(
        "model: {} parameters, {} features{}; objective: {}; optimiser: {}, lr {}; {} epochs of {} steps of {}",
        params.count(),
        learner.feature_dim(),
        match config.train.precision {
            Precision::Bf16 => ", trained in bf16",
            Precision::F32 => "",
        },
        objective.name(),
        optimizer.name(),
        config.optim.schedule.lr,
        config.train.run.epochs,
        batches,
        config.train.batch,
    ));

    let (mut dir, path) = match &args.resume {
        Some(run) => (RunDir::open(run)?, run.clone()),
        None => {
            let path = match &args.run {
                Some(path) => path.clone(),
                None => next_run(Path::new("runs"), &format!("{}-{}", objective.name(), images.name))?,
            };
            (RunDir::create(&path, &config.to_toml()?)?, path)
        }
    };
    note(&format!("run: {}", path.display()));
    log_images(&mut dir, &images, &note)?;

    let mut trainer = Trainer::new(
        Box::new(learner),
        objective,
        optimizer,
        schedule,
        Box::new(loader),
        config.train.run.clone(),
        dir,
    )?;
    if args.resume.is_some() {
        match trainer.resume()? {
            Some(resumed) => {
                for warning in &resumed.warnings {
                    eprintln!("warning: {warning}");
                }
                note(&format!("resumed at step {} of {total}", resumed.step));
            }
            None => note("there is no checkpoint yet: starting at step 0"),
        }
    }

    let stop = stop_flag()?;
    let mut progress = Progress::new(config.train.run.epochs, total, config.train.batch, quiet);
    let outcome = trainer.run(&stop, &mut progress);
    progress.finish();
    log_damaged(trainer.run_dir_mut(), &damaged)?;
    let health = match outcome? {
        Outcome::Interrupted { checkpoint, step } => {
            eprintln!(
                "Stopped after step {step} of {total}; saved {}.\nContinue with: infomax pretrain --resume {}",
                checkpoint.display(),
                path.display()
            );
            return Ok(Status::Interrupted);
        }
        Outcome::Finished { health, .. } => health,
    };
    let train_s = start.elapsed().as_secs_f64();
    note(&format!("trained in {}", clock(train_s)));
    let mut status = Status::Done;
    if health.state == HealthState::Collapsed {
        eprintln!("The representation collapsed (step {}): {}", health.step, health.advice);
        status = Status::Collapsed;
    }
    if args.no_eval {
        return Ok(status);
    }
    let evaluation = evaluate::evaluate(&config, &images, trainer.learner(), total, quiet)?;
    evaluate::write(trainer.run_dir(), &evaluation)?;
    if args.output.json {
        let json = serde_json::json!({
            "run": path, "steps": total, "train_seconds": train_s,
            "images_per_s": (total * config.train.batch as u64) as f64 / train_s,
            "status": format!("{status:?}").to_lowercase(), "evaluation": evaluation,
        });
        print(&serde_json::to_string_pretty(&json)?)?;
    } else {
        print(&evaluate::text(&evaluation))?;
        note(&format!(
            "{} in all. Everything is in {path}; `infomax evaluate {path}` repeats the table.",
            clock(start.elapsed().as_secs_f64()),
            path = path.display()
        ));
    }
    Ok(status)
}

/// The next free `runs/NNN-NAME`.
fn next_run(root: &Path, name: &str) -> Result<PathBuf> {
    let mut last = 0u32;
    match std::fs::read_dir(root) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                let number = name.to_string_lossy().split('-').next().and_then(|n| n.parse().ok());
                last = last.max(number.unwrap_or(0));
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", root.display())),
    }
    Ok(root.join(format!("{:03}-{name}", last + 1)))
}

/// Writes what the run was given into its log, and says which files were left out.
fn log_images(dir: &mut RunDir, images: &Images, note: &dyn Fn(&str)) -> Result<()> {
    for line in images.describe() {
        dir.log(&line)?;
    }
    for (path, reason) in &images.skipped {
        dir.log(&format!("skipped {}: {reason}", path.display()))?;
    }
    if !images.skipped.is_empty() {
        note(&format!(
            "{} damaged files were left out (all are in {}):",
            images.skipped.len(),
            dir.path().join("log.txt").display()
        ));
        for (path, reason) in images.skipped.iter().take(5) {
            note(&format!("  {}: {reason}", path.display()));
        }
    }
    Ok(())
}

/// Says which samples could not be read while the run went on, and were replaced by others.
fn log_damaged(dir: &mut RunDir, damaged: &DamagedSamples) -> Result<()> {
    let list = damaged.list();
    for (_, reason) in &list {
        dir.log(&format!("replaced a sample that could not be read: {reason}"))?;
    }
    if !list.is_empty() {
        let log = dir.path().join("log.txt");
        eprintln!(
            "warning: {} samples could not be read and were replaced by others ({}):",
            list.len(),
            log.display()
        );
        list.iter().take(5).for_each(|(_, reason)| eprintln!("  {reason}"));
    }
    Ok(())
}

/// A flag that Ctrl-C (or a request to terminate) sets; the second one ends the program at once.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nFinishing the step and saving; once more to stop at once.");
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}

/// `3 min 20 s`.
fn clock(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole / 60 {
        0 => format!("{seconds:.1} s"),
        minutes => format!("{minutes} min {} s", whole % 60),
    }
}
