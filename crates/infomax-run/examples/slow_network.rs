//! What a slow network costs a data-parallel step, with sums of gradients after and beside the backward pass, and with local
//! steps; and a model of it, drawn to 1,024 ranks. The tables of `docs/ranks.md`.
//!
//! `cargo run --release -p infomax-run --example slow_network -- [GBIT] [MS] [STEPS]`
//!
//! Ranks are threads of this process. Each exchange sleeps for as long as `infomax-ranks` would need on links of GBIT
//! Gbit/s and MS milliseconds one way: every operation begins with a round of headers, what is small travels within them,
//! what is large takes one more way (a gather) or two (a sum). Sleeping takes no processor, as a network card does not.

#[path = "common/share.rs"]
mod share;

use infomax_core::candle_core::Tensor;
use infomax_core::{Collective, Result, replicas};
use infomax_models::{EncoderConfig, ResNetConfig, VitConfig};
use infomax_run::{Assembly, RunConfig};
use infomax_train::{Identity, Outcome, OuterConfig, Parts, RunDir, TrainConfig, Trainer};
use share::Share;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What travels within the round of headers, in bytes.
const INLINE: usize = 8 << 10;

/// The batch of each rank.
const ROWS: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Network {
    bytes_per_s: f64,
    latency_s: f64,
}

#[allow(clippy::print_stdout)] // An example prints.
fn main() -> std::result::Result<(), Failure> {
    let mut words = std::env::args().skip(1).map(|word| word.parse::<f64>());
    let mut next = |default| words.next().transpose().map(|number| number.unwrap_or(default));
    let (gbit, ms, steps) = (next(1.0)?, next(5.0)?, next(8.0)? as u64);
    let network = Network { bytes_per_s: gbit * 1e9 / 8.0, latency_s: ms / 1e3 };
    println!("{ROWS} images a rank, links of {gbit} Gbit/s and {ms} ms, medians of {steps} steps\n");
    println!("| network | ranks | exchange | s a step | efficiency | the model says |");
    println!("|---|---|---|---|---|---|");
    let mut drawn = Vec::new();
    for (name, encoder) in networks() {
        for ranks in [2, 4] {
            let plain = TrainConfig { max_steps: Some(steps), overlap: false, ..TrainConfig::default() };
            let free = measure(ranks, &encoder, &plain, None)?;
            let after = measure(ranks, &encoder, &plain, Some(network))?;
            let beside =
                measure(ranks, &encoder, &TrainConfig { overlap: true, ..plain.clone() }, Some(network))?;
            let outer = Some(OuterConfig::default());
            let local = TrainConfig { local_steps: 50, outer, ..plain };
            let local = measure(ranks, &encoder, &local, Some(network))?;
            let calls = &after.calls;
            let model = Model { compute_s: free.step_s, calls, ranks, message_s: 0.0 };
            let rows = [
                ("none", free.step_s, free.step_s),
                ("after the backward pass", after.step_s, model.after(ranks, network)),
                ("beside it", beside.step_s, model.beside(ranks, network)),
                ("every 50 steps", local.step_s + local.meeting_s / 50.0, model.local(ranks, network, 50)),
            ];
            for (exchange, found, said) in rows {
                let efficiency = 100.0 * free.step_s / found;
                println!("| {name} | {ranks} | {exchange} | {found:.3} | {efficiency:.0} % | {said:.3} |");
            }
            if ranks == 4 {
                drawn.push((name, free.step_s, after.calls));
            }
        }
    }
    println!("\nEfficiency by the model, {ROWS} images a rank, 2 microseconds of processor a message:\n");
    println!("| network | links | exchange | 2 | 8 | 64 | 256 | 1,024 ranks | of the time lost at 1,024 |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for (name, compute_s, calls) in &drawn {
        let model = Model { compute_s: *compute_s, calls, ranks: 4, message_s: 2e-6 };
        for (gbit, ms) in [(1.0, 5.0), (10.0, 0.1), (100.0, 0.01)] {
            let network = Network { bytes_per_s: gbit * 1e9 / 8.0, latency_s: ms / 1e3 };
            for exchange in ["after", "beside", "every 50 steps"] {
                let time = |ranks: usize| match exchange {
                    "after" => model.after(ranks, network),
                    "beside" => model.beside(ranks, network),
                    _ => model.local(ranks, network, 50),
                };
                let cells = [2, 8, 64, 256, 1024].map(|k| format!("{:.0} %", 100.0 * compute_s / time(k)));
                let share = model.shares(1024, network);
                let lost = if exchange == "after" { share } else { String::new() };
                println!("| {name} | {gbit} Gbit/s, {ms} ms | {exchange} | {} | {lost} |", cells.join(" | "));
            }
        }
    }
    Ok(())
}

fn networks() -> [(&'static str, EncoderConfig); 2] {
    let resnet = ResNetConfig { blocks: vec![2, 2, 2, 2], width: 64, ..ResNetConfig::default() };
    let vit = VitConfig { image: 24, patch: 4, width: 192, depth: 12, heads: 3, ..VitConfig::default() };
    [
        ("ResNet-18, batch norm over all ranks", EncoderConfig::ResNet(resnet)),
        ("ViT-Ti/4, layer norm", EncoderConfig::Vit(vit)),
    ]
}

/// What is exchanged in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    /// A sum of gradients: its bytes.
    Gradients(usize),
    /// Another sum.
    Sum(usize),
    /// A gather: the bytes of one rank.
    Gather(usize),
    /// A word.
    Word,
}

impl Call {
    /// The seconds on these links.
    fn takes(self, ranks: usize, n: Network) -> f64 {
        let peers = (ranks - 1) as f64;
        let (ways, bytes) = match self {
            Self::Word => (1.0, 64.0 * peers),
            Self::Gradients(m) | Self::Sum(m) | Self::Gather(m) if m <= INLINE => (1.0, m as f64 * peers),
            Self::Gather(m) => (2.0, m as f64 * peers),
            Self::Gradients(m) | Self::Sum(m) => (3.0, 2.0 * m as f64 * peers / ranks as f64),
        };
        ways * n.latency_s + bytes / n.bytes_per_s
    }

    /// The messages that a rank sends.
    fn messages(self, ranks: usize) -> f64 {
        let peers = (ranks - 1) as f64;
        match self {
            Self::Word => peers,
            Self::Gradients(m) | Self::Sum(m) | Self::Gather(m) if m <= INLINE => peers,
            Self::Gather(_) => 2.0 * peers,
            Self::Gradients(_) | Self::Sum(_) => 3.0 * peers,
        }
    }
}

/// A step as compute, bytes and latency. The batch of each rank is the same for any number of ranks.
struct Model<'a> {
    compute_s: f64,
    calls: &'a [Call],
    /// The ranks with which the calls were counted.
    ranks: usize,
    /// The processor's time for a message.
    message_s: f64,
}

impl Model<'_> {
    /// The seconds of the calls that the step waits for, and those of gradients.
    fn parts(&self, ranks: usize, n: Network) -> (f64, f64) {
        let (mut waits, mut gradients) = (0.0, 0.0);
        for call in self.calls {
            let time = call.takes(ranks, n) + self.message_s * call.messages(ranks);
            if matches!(call, Call::Gradients(_)) { gradients += time } else { waits += time }
        }
        (waits, gradients)
    }

    fn after(&self, ranks: usize, n: Network) -> f64 {
        let (waits, gradients) = self.parts(ranks, n);
        self.compute_s + waits + gradients
    }

    /// Two thirds of a step are the backward pass, and hide the gradients but for the last bucket of 8 MiB.
    fn beside(&self, ranks: usize, n: Network) -> f64 {
        let (waits, gradients) = self.parts(ranks, n);
        let bytes = self.calls.iter().map(|c| if let Call::Gradients(m) = c { *m } else { 0 }).sum::<usize>();
        let last = gradients * (8e6 / bytes.max(1) as f64).min(1.0);
        self.compute_s + waits + last.max(gradients - 2.0 / 3.0 * self.compute_s)
    }

    fn local(&self, ranks: usize, n: Network, every: usize) -> f64 {
        let words = self.calls.iter().filter(|call| matches!(call, Call::Word));
        let words: f64 = words.map(|c| c.takes(ranks, n) + self.message_s * c.messages(ranks)).sum();
        self.compute_s + words + self.parts(ranks, n).1 / every as f64
    }

    /// Where the time goes that is no compute, in words.
    fn shares(&self, ranks: usize, n: Network) -> String {
        let free = Network { bytes_per_s: f64::INFINITY, latency_s: 0.0 };
        let only = |n: Network| self.calls.iter().map(|c| c.takes(ranks, n)).sum::<f64>();
        let latency = only(Network { latency_s: n.latency_s, ..free });
        let bytes = only(Network { bytes_per_s: n.bytes_per_s, ..free });
        let of = |pick: fn(&Call) -> bool| -> f64 {
            let n = Network { bytes_per_s: n.bytes_per_s, ..free };
            self.calls.iter().filter(|c| pick(c)).map(|c| c.takes(ranks, n)).sum()
        };
        let messages: f64 = self.calls.iter().map(|c| self.message_s * c.messages(ranks)).sum();
        let all = latency + bytes + messages;
        format!(
            "latency {:.0} %, bytes of gathers {:.0} %, other bytes {:.0} %, messages {:.0} % ({} calls, counted on {})",
            100.0 * latency / all,
            100.0 * of(|c| matches!(c, Call::Gather(_))) / all,
            100.0 * of(|c| !matches!(c, Call::Gather(_))) / all,
            100.0 * messages / all,
            self.calls.len(),
            self.ranks,
        )
    }
}

struct Measured {
    /// The median.
    step_s: f64,
    /// What the last step took longer, in which local steps meet.
    meeting_s: f64,
    /// The calls of a step in the midst.
    calls: Vec<Call>,
}

fn measure(
    ranks: usize,
    encoder: &EncoderConfig,
    run: &TrainConfig,
    network: Option<Network>,
) -> std::result::Result<Measured, Failure> {
    let results: Vec<std::result::Result<_, Failure>> = std::thread::scope(|scope| {
        let start = |rank| {
            let rank = Slow::new(Arc::new(rank), network);
            scope.spawn(move || one(rank, encoder, run))
        };
        let threads: Vec<_> = replicas(ranks).into_iter().map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err("a rank panicked".into()))
        };
        threads.into_iter().map(join).collect()
    });
    let mut all = results.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(all.swap_remove(0))
}

fn one(slow: Slow, encoder: &EncoderConfig, run: &TrainConfig) -> std::result::Result<Measured, Failure> {
    let mut config = RunConfig::default();
    let (rank, ranks) = (slow.rank(), slow.size());
    (config.data.train_images, config.data.test_images) = (ROWS * ranks * 4, 8);
    config.train.batch = ROWS * ranks;
    config.model.encoder = encoder.clone();
    config.train.run =
        TrainConfig { checkpoint_every_epochs: 0, keep_capsules: 0, epochs: 1000, ..run.clone() };
    config.train.run.monitor.every = 0;
    let assembly = Assembly::new(&config, 1)?;
    let clock = Clock { slow: slow.clone(), ..Clock::default() };
    let share = Share { inner: Box::new(assembly.loader), rank, ranks };
    let mut trainer = Trainer::new(Parts {
        learner: Box::new(assembly.learner),
        objective: assembly.objective,
        optimizer: assembly.optimizer,
        schedule: assembly.schedule,
        courses: assembly.courses,
        watchers: Vec::new(),
        source: Box::new(share),
        config: assembly.config.train.run.clone(),
        run_dir: RunDir::scratch()?,
        identity: Identity::default(),
        collective: Arc::new(slow),
        device: assembly.device,
    })?;
    let mut clock = clock;
    let outcome = trainer.run(&AtomicBool::new(false), &mut clock)?;
    let Outcome::Finished { .. } = outcome else { return Err("the run did not finish".into()) };
    let mut steps = clock.steps;
    let last = steps.pop().unwrap_or_default();
    // The first steps fill caches and learn the graph.
    let mut rest = steps.split_off(2.min(steps.len()));
    rest.sort_by(f64::total_cmp);
    let step_s = rest.get(rest.len() / 2).copied().ok_or("too few steps")?;
    Ok(Measured { step_s, meeting_s: (last - step_s).max(0.0), calls: clock.calls })
}

/// The seconds between steps, and the calls of the third one.
#[derive(Debug, Default)]
struct Clock {
    slow: Slow,
    last: Option<Instant>,
    steps: Vec<f64>,
    calls: Vec<Call>,
}

impl infomax_train::Observer for Clock {
    fn on_step(&mut self, _: &infomax_train::StepMetrics) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.steps.push(now.duration_since(last).as_secs_f64());
        }
        let calls = self.slow.take();
        if self.steps.len() == 3 {
            self.calls = calls;
        }
    }
}

/// A collective on links of its own: each call sleeps for as long as they would take.
#[derive(Clone, Debug)]
struct Slow {
    inner: Arc<dyn Collective>,
    network: Option<Network>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Default for Slow {
    fn default() -> Self {
        Self::new(Arc::new(infomax_core::Local), None)
    }
}

fn bytes(x: &Tensor) -> usize {
    x.elem_count() * x.dtype().size_in_bytes()
}

impl Slow {
    fn new(inner: Arc<dyn Collective>, network: Option<Network>) -> Self {
        Self { inner, network, calls: Arc::default() }
    }

    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn travel(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        if let Some(network) = self.network {
            std::thread::sleep(Duration::from_secs_f64(call.takes(self.size(), network)));
        }
    }
}

impl Collective for Slow {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn handle(&self) -> Arc<dyn Collective> {
        Arc::new(self.clone())
    }

    fn sum(&self, x: &Tensor) -> Result<Tensor> {
        let sum = self.inner.sum(x)?;
        self.travel(Call::Sum(bytes(x)));
        Ok(sum)
    }

    fn gather(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let all = self.inner.gather(x)?;
        self.travel(Call::Gather(bytes(x)));
        Ok(all)
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        let value = self.inner.broadcast(x, root)?;
        self.travel(Call::Gather(bytes(x)));
        Ok(value)
    }

    fn barrier(&self) -> Result<()> {
        self.inner.barrier()?;
        self.travel(Call::Word);
        Ok(())
    }

    fn agree(&self, word: u64) -> Result<u64> {
        let all = self.inner.agree(word)?;
        self.travel(Call::Word);
        Ok(all)
    }

    fn sum_in_place(&self, bucket: &mut [Tensor]) -> Result<()> {
        self.inner.sum_in_place(bucket)?;
        self.travel(Call::Gradients(bucket.iter().map(bytes).sum()));
        Ok(())
    }
}
