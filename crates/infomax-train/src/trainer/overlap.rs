//! Gradients that are summed over the ranks while the backward pass still runs.

use super::Trainer;
use crate::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId};
use infomax_core::{Collective, Params, Pending, Queued};
use infomax_kernels::{Told, backward_telling};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

/// A bucket is sent once it holds so many bytes: large beside what a message costs, small beside a model.
const BUCKET: usize = 8 << 20;

/// Of how many parts the gradient of each parameter is the sum, by name. Only of what is known before the backward pass ends:
/// a parameter that operations of Candle's own use, too, is not in it.
type Plan = BTreeMap<String, usize>;

/// Sums of gradients beside the backward pass.
///
/// The graph of a step tells nobody when the gradient of a parameter is whole. Of how many parts it is made is counted in one
/// step, and taken for granted in the next: with the last part the gradient goes into a bucket, and a full bucket into the queue
/// of [`Queued`]. What comes later than expected is summed at the end and added; what never comes is summed at the end.
/// Counts that differ between ranks would send different buckets: new counts hold only where all ranks have the same.
#[derive(Debug)]
pub(super) struct Overlap {
    queue: Queued,
    plan: Plan,
    bucket: usize,
}

/// The sums of one step.
#[derive(Debug)]
pub(super) struct Flight {
    state: Rc<RefCell<State>>,
    names: HashMap<TensorId, String>,
    /// Whether the counts of this step are not those of the plan.
    pub(super) changed: bool,
}

#[derive(Debug)]
struct State {
    queue: Queued,
    bucket: usize,
    /// Of how many parts each gradient is.
    plan: HashMap<TensorId, usize>,
    parts: HashMap<TensorId, (usize, Option<Tensor>)>,
    mixed: HashSet<TensorId>,
    filling: Vec<(TensorId, Tensor)>,
    bytes: usize,
    sent: Vec<(Vec<TensorId>, Pending)>,
    /// What came after a gradient was thought to be whole.
    after: HashMap<TensorId, Tensor>,
    error: Option<Error>,
}

impl State {
    fn told(&mut self, what: Told<'_>) {
        let result = match what {
            Told::Mixed { variable } => {
                self.mixed.insert(variable.id());
                Ok(())
            }
            Told::Part { variable, grad } => self.part(variable.id(), grad),
        };
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn part(&mut self, id: TensorId, grad: &Tensor) -> Result<()> {
        let expected = self.plan.get(&id).copied();
        let (count, sum) = self.parts.entry(id).or_default();
        *count += 1;
        let Some(expected) = expected else { return Ok(()) };
        let add = |before: Option<Tensor>| -> Result<Tensor> {
            Ok(match before {
                Some(before) => (before + grad)?,
                None => grad.clone(),
            })
        };
        if *count > expected {
            let rest = add(self.after.remove(&id))?;
            self.after.insert(id, rest);
            return Ok(());
        }
        let whole = add(sum.take())?;
        if *count < expected {
            *sum = Some(whole);
            return Ok(());
        }
        self.bytes += whole.elem_count() * whole.dtype().size_in_bytes();
        self.filling.push((id, whole));
        if self.bytes >= self.bucket { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<()> {
        let (ids, bucket) = std::mem::take(&mut self.filling).into_iter().unzip();
        self.bytes = 0;
        self.sent.push((ids, self.queue.start_sum(bucket)?));
        Ok(())
    }
}

impl Overlap {
    pub(super) fn new(queue: Queued) -> Self {
        Self { queue, plan: Plan::new(), bucket: BUCKET }
    }

    /// The backward pass of a loss, with the sums that could be started.
    pub(super) fn backward(&self, loss: &Tensor, params: &Params) -> Result<(GradStore, Flight)> {
        let names: HashMap<TensorId, String> =
            params.trainable().into_iter().map(|(name, param)| (param.var.id(), name)).collect();
        let plan = names.iter().filter_map(|(id, name)| Some((*id, *self.plan.get(name)?))).collect();
        let state = Rc::new(RefCell::new(State {
            queue: self.queue.clone(),
            bucket: self.bucket,
            plan,
            parts: HashMap::new(),
            mixed: HashSet::new(),
            filling: Vec::new(),
            bytes: 0,
            sent: Vec::new(),
            after: HashMap::new(),
            error: None,
        }));
        let teller = state.clone();
        let grads = backward_telling(loss, move |what| teller.borrow_mut().told(what))?;
        if let Some(error) = state.borrow_mut().error.take() {
            return Err(error);
        }
        let mut flight = Flight { state, names, changed: false };
        flight.changed = flight.counts() != self.plan;
        Ok((grads, flight))
    }

    /// The counts of a step for the next one, where all ranks have the same: every rank calls this, or none.
    pub(super) fn learn(&mut self, flight: &Flight) -> Result<()> {
        let plan = flight.counts();
        // One line at least: a gather of nothing is none.
        let words: String = plan.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        let bytes = format!("parts\n{words}").into_bytes();
        let length = bytes.len();
        let own = Tensor::from_vec(bytes, length, &candle_core::Device::Cpu)?;
        let all = self.queue.gather(&own)?;
        let texts = all.iter().map(|t| t.to_vec1::<u8>()).collect::<candle_core::Result<Vec<_>>>()?;
        self.plan = if texts.windows(2).all(|pair| pair[0] == pair[1]) { plan } else { Plan::new() };
        Ok(())
    }
}

impl Flight {
    /// Of how many parts the gradients of this step were.
    fn counts(&self) -> Plan {
        let state = self.state.borrow();
        let known = state.parts.iter().filter(|(id, _)| !state.mixed.contains(id));
        known.filter_map(|(id, (count, _))| Some((self.names.get(id)?.clone(), *count))).collect()
    }

    /// The sums over the ranks of what was sent, by name.
    pub(super) fn land(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = self.state.borrow_mut();
        // The last bucket is part of the rest, which is one message.
        state.filling.clear();
        let mut sums = BTreeMap::new();
        for (ids, pending) in std::mem::take(&mut state.sent) {
            for (id, sum) in ids.into_iter().zip(pending.wait()?) {
                sums.insert(self.names.get(&id).cloned().unwrap_or_default(), sum);
            }
        }
        // In the order of names, as all ranks have it.
        let mut after: Vec<(String, Tensor)> = std::mem::take(&mut state.after)
            .into_iter()
            .filter_map(|(id, rest)| Some((self.names.get(&id)?.clone(), rest)))
            .filter(|(name, _)| sums.contains_key(name))
            .collect();
        after.sort_by(|a, b| a.0.cmp(&b.0));
        if !after.is_empty() {
            let (names, mut rest): (Vec<String>, Vec<Tensor>) = after.into_iter().unzip();
            state.queue.sum_in_place(&mut rest)?;
            for (name, rest) in names.into_iter().zip(rest) {
                if let Some(sum) = sums.get_mut(&name) {
                    *sum = (&*sum + rest)?;
                }
            }
        }
        Ok(sums)
    }
}

impl Trainer {
    /// Starts to sum beside the backward pass, where there are several ranks that meet in each step.
    pub(super) fn start_overlap(&mut self) -> Result<()> {
        let wanted = self.parts.config.overlap && self.local.is_none() && self.parts.config.accumulate <= 1;
        if self.parts.collective.size() > 1 && wanted {
            let queue = Queued::new(self.parts.collective.clone())?;
            self.parts.collective = std::sync::Arc::new(queue.clone());
            self.overlap = Some(Overlap::new(queue));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use infomax_core::{Counted, Init, Key, ParamKind, replicas};
    use infomax_kernels::linear;
    use std::sync::Arc;

    /// Three layers, the second of which is used twice, and a parameter that only Candle's operations use.
    struct Net {
        params: Params,
        weights: [Var; 4],
    }

    impl Net {
        fn new() -> Self {
            let params = Params::new(DType::F32, &Device::Cpu, Key::new(1));
            let init = Init::Normal { mean: 0.0, std: 0.4 };
            let weights = ["a", "b", "c", "d"]
                .map(|name| params.root().get(name, (5, 5), ParamKind::Weight, init).unwrap());
            Self { params, weights }
        }

        fn loss(&self, rank: usize, uses: usize) -> Tensor {
            let [a, b, c, d] = &self.weights;
            let values: Vec<f32> = (0..15).map(|i| ((i + 15 * rank) as f32 * 0.7).sin()).collect();
            let mut xs = Tensor::from_vec(values, (3, 5), &Device::Cpu).unwrap();
            for weight in std::iter::once(a).chain(std::iter::repeat_n(b, uses)).chain([c]) {
                xs = linear(&xs, weight, None).unwrap().tanh().unwrap();
            }
            (xs.sqr().unwrap().sum_all().unwrap() + d.sqr().unwrap().sum_all().unwrap()).unwrap()
        }

        fn values(&self, grads: &GradStore) -> BTreeMap<String, Tensor> {
            let trainable = self.params.trainable().into_iter();
            trainable.filter_map(|(name, p)| Some((name, grads.get(&p.var)?.clone()))).collect()
        }
    }

    fn bits(t: &Tensor) -> Vec<u32> {
        let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    /// Uses of the second layer in each step, and the buckets that are sent before the backward pass ends.
    fn on_ranks(uses: [usize; 4], sent: [u64; 4], bucket: usize, exact: bool) {
        std::thread::scope(|scope| {
            for rank in replicas(3) {
                scope.spawn(move || {
                    let net = Net::new();
                    let place = rank.rank();
                    let counted = Counted::new(Arc::new(rank));
                    let queue = Queued::new(Arc::new(counted.clone())).unwrap();
                    let mut overlap = Overlap { bucket, ..Overlap::new(queue.clone()) };
                    for (step, uses) in uses.into_iter().enumerate() {
                        let loss = net.loss(place, uses);
                        let calls = |counted: &Counted| {
                            let sums = counted.take();
                            sums.calls()
                                .filter(|(name, ..)| *name == "sum_in_place")
                                .map(|c| c.1)
                                .sum::<u64>()
                        };
                        counted.take();
                        let (store, flight) = overlap.backward(&loss, &net.params).unwrap();
                        queue.barrier().unwrap();
                        assert_eq!(calls(&counted), sent[step], "step {step}");
                        let own = net.values(&store);
                        let sums = flight.land().unwrap();
                        if flight.changed {
                            overlap.learn(&flight).unwrap();
                        }
                        for (name, own) in own {
                            let mut expected = [own];
                            queue.sum_in_place(&mut expected).unwrap();
                            let Some(found) = sums.get(&name) else { continue };
                            if exact {
                                assert_eq!(bits(found), bits(&expected[0]), "step {step} {name}");
                            }
                            let off = (found - &expected[0]).unwrap().abs().unwrap().max_all().unwrap();
                            assert!(off.to_scalar::<f32>().unwrap() < 1e-6, "step {step} {name}");
                        }
                        assert!(!sums.contains_key("d"), "Candle alone has it");
                    }
                });
            }
        });
    }

    #[test]
    fn sums_beside_the_backward_pass_are_those_after_it() {
        // Nothing is known in the first step; then each of three is a bucket, or two of them, or none is full.
        on_ranks([2; 4], [0, 3, 3, 3], 1, true);
        on_ranks([2; 4], [0, 1, 1, 1], 2 * 100, true);
        on_ranks([2; 4], [0, 0, 0, 0], 1 << 20, true);
    }

    #[test]
    fn a_graph_that_changes_costs_a_step_and_no_error() {
        // More uses than in the step before: what came late is added. Fewer: it is never whole, and summed at the end.
        on_ranks([1, 2, 2, 1], [0, 3, 3, 2], 1, false);
    }

    /// Ranks whose gradients have other parts sum at the end.
    #[test]
    fn ranks_that_differ_do_not_overlap() {
        std::thread::scope(|scope| {
            for rank in replicas(2) {
                scope.spawn(move || {
                    let net = Net::new();
                    let place = rank.rank();
                    let mut overlap =
                        Overlap { bucket: 1, ..Overlap::new(Queued::new(Arc::new(rank)).unwrap()) };
                    for _ in 0..3 {
                        let (_, flight) = overlap.backward(&net.loss(place, 1 + place), &net.params).unwrap();
                        assert!(flight.land().unwrap().is_empty() && flight.changed);
                        overlap.learn(&flight).unwrap();
                        assert!(overlap.plan.is_empty());
                    }
                });
            }
        });
    }
}
