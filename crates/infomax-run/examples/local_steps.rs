//! Accuracy against the number of local steps, on the embedded images: the table of `docs/local-steps.md`.
//!
//! `cargo run --release -p infomax-run --example local_steps -- [RANKS] [EPOCHS] [SEEDS] [IMAGES]`
//!
//! Ranks are threads of this process that exchange through memory; all runs see the same batches, of which each rank
//! trains on its part.

#[path = "common/share.rs"]
mod share;

use infomax_core::{Collective, Counted, Local, replicas};
use infomax_run::{Assembly, Evaluation, RunConfig, Silent, evaluate};
use infomax_train::{Identity, Outcome, OuterConfig, Parts, RunDir, TrainConfig, Trainer};
use share::Share;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[allow(clippy::print_stdout)] // An example prints.
fn main() -> std::result::Result<(), Failure> {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut next = |default| numbers.next().transpose().map(|number| number.unwrap_or(default));
    let (ranks, epochs, seeds, images) = (next(2)?, next(10)?, next(1)?, next(4_000)?);
    let (ranks, images) = (usize::try_from(ranks)?, usize::try_from(images)?);
    println!(
        "{ranks} ranks, {images} images, {epochs} epochs, means over {seeds} seeds (lowest to highest)\n"
    );
    println!("| ranks | local steps H | outer | linear probe | kNN | MB exchanged a rank and step |");
    println!("|---|---|---|---|---|---|");
    let mean = OuterConfig { lr: 1.0, momentum: 0.0, nesterov: false };
    let paper = OuterConfig::default();
    let rows: [(usize, u64, Option<OuterConfig>, &str); 8] = [
        (1, 1, None, "-"),
        (ranks, 1, None, "-"),
        (ranks, 5, Some(mean), "mean of parameters"),
        (ranks, 5, Some(paper), "0.7, Nesterov 0.9"),
        (ranks, 14, Some(mean), "mean of parameters"),
        (ranks, 14, Some(paper), "0.7, Nesterov 0.9"),
        (ranks, 35, Some(mean), "mean of parameters"),
        (ranks, 35, Some(paper), "0.7, Nesterov 0.9"),
    ];
    for (ranks, local_steps, outer, words) in rows {
        let (mut linear, mut knn, mut megabytes) = (Vec::new(), Vec::new(), 0.0);
        for seed in 0..seeds {
            let run = TrainConfig { epochs, seed, local_steps, outer, ..TrainConfig::default() };
            let (evaluation, bytes) = train(ranks, images, &run)?;
            let row = evaluation.rows.first().ok_or("no representation was evaluated")?;
            linear.push(row.linear.unwrap_or(f64::NAN));
            knn.push(row.knn.unwrap_or(f64::NAN));
            megabytes = bytes / 1e6;
        }
        let way =
            if local_steps == 1 { "1 (gradients of every step)".into() } else { local_steps.to_string() };
        println!("| {ranks} | {way} | {words} | {} | {} | {megabytes:.3} |", spread(&linear), spread(&knn));
    }
    Ok(())
}

fn spread(values: &[f64]) -> String {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.1} % ({:.1} to {:.1})", 100.0 * mean, 100.0 * low, 100.0 * high)
}

/// Trains with these settings, and gives the evaluation of rank 0 and its bytes a step.
fn train(ranks: usize, images: usize, run: &TrainConfig) -> std::result::Result<(Evaluation, f64), Failure> {
    let collectives: Vec<Arc<dyn Collective>> = match ranks {
        1 => vec![Arc::new(Local)],
        _ => replicas(ranks).into_iter().map(|rank| Arc::new(rank) as Arc<dyn Collective>).collect(),
    };
    let results: Vec<std::result::Result<_, Failure>> = std::thread::scope(|scope| {
        let threads: Vec<_> = collectives
            .into_iter()
            .map(|collective| scope.spawn(move || one(Counted::new(collective), images, run)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a rank panicked".into()))
        };
        threads.into_iter().map(join).collect()
    });
    let mut first = None;
    for result in results {
        let result = result?;
        first.get_or_insert(result);
    }
    first.and_then(|(evaluation, bytes)| Some((evaluation?, bytes))).ok_or_else(|| "no rank".into())
}

fn one(
    counted: Counted,
    images: usize,
    run: &TrainConfig,
) -> std::result::Result<(Option<Evaluation>, f64), Failure> {
    let mut config = RunConfig::default();
    (config.data.train_images, config.data.test_images) = (images, (images / 4).max(500));
    (config.eval.random_baseline, config.eval.pixel_baseline) = (false, false);
    config.train.run = TrainConfig { log_every: 5, checkpoint_every_epochs: 0, ..run.clone() };
    let assembly = Assembly::new(&config, 1)?;
    let config = assembly.config;
    let share = Share { inner: Box::new(assembly.loader), rank: counted.rank(), ranks: counted.size() };
    let mut trainer = Trainer::new(Parts {
        learner: Box::new(assembly.learner),
        objective: assembly.objective,
        optimizer: assembly.optimizer,
        schedule: assembly.schedule,
        courses: assembly.courses,
        watchers: Vec::new(),
        source: Box::new(share),
        config: config.train.run.clone(),
        run_dir: RunDir::scratch()?,
        identity: Identity::default(),
        collective: Arc::new(counted.clone()),
        device: assembly.device,
    })?;
    let outcome = trainer.run(&AtomicBool::new(false), &mut infomax_train::Silent)?;
    let Outcome::Finished { step, .. } = outcome else { return Err("the run did not finish".into()) };
    // The last checkpoint of local steps gathers what every rank carries, once a run: no part of a step.
    let traffic = counted.traffic();
    let gathered = traffic.calls().filter(|call| call.0 == "gather" && run.outer.is_some());
    let bytes = traffic.bytes() - gathered.map(|call| call.2).sum::<u64>();
    let evaluation = match counted.rank() {
        0 => Some(evaluate(&config, &assembly.images, trainer.learner(), step, &mut Silent)?),
        _ => None,
    };
    Ok((evaluation, bytes as f64 / step as f64))
}
