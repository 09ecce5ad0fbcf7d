//! The loader: determinism, resuming, errors, counters.
#![allow(clippy::unwrap_used, clippy::panic)]

use candle_core::{Device, Tensor};
use infomax_augment::{Augmenter, EvalTransform, Image, Recipe, Scratch, ViewParams};
use infomax_core::{Batch, BatchSource as _, Key, Position};
use infomax_data::{
    Damaged, Dataset, Error, EvalLoader, ImageFolder, Loader, LoaderConfig, OpenOptions, Renderer, Result,
    Shapes, ShapesConfig, Verify, eval_tensors,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const LEN: usize = 50;

fn shapes() -> Arc<dyn Dataset> {
    Arc::new(Shapes::new(ShapesConfig { len: LEN, ..ShapesConfig::default() }).unwrap())
}

fn augmenter() -> Augmenter {
    Augmenter::new(&Recipe::preset("vicreg-cifar").unwrap().with_size(12)).unwrap()
}

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig { batch: 16, key: Key::new(3), workers, prefetch: 2, ..LoaderConfig::default() }
}

fn loader(workers: usize) -> Loader {
    Loader::new(shapes(), augmenter(), config(workers)).unwrap()
}

type Bits = (Vec<Vec<u32>>, Option<Vec<u32>>, Vec<u64>);

fn bits(batch: Batch) -> Bits {
    let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let views = batch.views.iter().map(|v| flat(&v.values).into_iter().map(f32::to_bits).collect()).collect();
    (views, batch.labels, batch.indices)
}

fn stream(loader: &mut Loader, count: usize) -> Vec<Bits> {
    (0..count).map(|_| bits(loader.next_batch().unwrap())).collect()
}

#[test]
fn an_epoch_visits_every_sample_at_most_once() {
    let mut loader = loader(2);
    assert_eq!((loader.batches_per_epoch(), loader.samples_per_epoch()), (3, 48));
    let first = stream(&mut loader, 3);
    let mut seen: Vec<u64> = first.iter().flat_map(|b| b.2.clone()).collect();
    let order = seen.clone();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 48);
    assert!(seen.iter().all(|i| *i < LEN as u64));
    assert_eq!(loader.position(), Position { epoch: 1, batch: 0 });
    let second: Vec<u64> = stream(&mut loader, 3).iter().flat_map(|b| b.2.clone()).collect();
    assert_ne!(order, second);
    for (_, labels, indices) in first {
        assert_eq!(labels.unwrap(), indices.iter().map(|i| (i % 10) as u32).collect::<Vec<_>>());
    }
}

/// The views of the host, made where a device would make them: one batch at a time, on the thread that asks.
#[derive(Debug)]
struct Elsewhere {
    images: Arc<dyn Dataset>,
    augmenter: Augmenter,
}

impl Renderer for Elsewhere {
    fn extent(&self) -> (usize, usize) {
        let first = self.images.image(0).unwrap();
        (first.width(), first.height())
    }

    fn render(&self, view: usize, samples: &[u64], params: &[ViewParams]) -> Result<Tensor> {
        let (c, h, w) = self.augmenter.output(view);
        let (mut all, mut scratch) = (Vec::new(), Scratch::default());
        for (sample, params) in samples.iter().zip(params) {
            let mut out = vec![0f32; c * h * w];
            let image = self.images.image(*sample as usize)?;
            self.augmenter.render(view, &image, params, &mut scratch, &mut out)?;
            all.extend(out);
        }
        Ok(Tensor::from_vec(all, (samples.len(), c, h, w), &Device::Cpu)?)
    }
}

#[test]
fn views_that_are_made_elsewhere_are_those_of_the_loader() {
    let renderer = || Arc::new(Elsewhere { images: shapes(), augmenter: augmenter() });
    let mut plain = loader(2);
    let mut other = loader(2).with_renderer(renderer()).unwrap();
    assert!(other.renderer().is_some() && plain.renderer().is_none());
    for _ in 0..5 {
        let (a, b) = (plain.next_batch().unwrap(), other.next_batch().unwrap());
        assert!(a.views.iter().zip(&b.views).all(|(a, b)| a.cuts == b.cuts && a.kind == b.kind));
        assert_eq!(plain.view_params(), other.view_params());
        assert_eq!(bits(a), bits(b));
        assert_eq!(plain.position(), other.position());
    }
    other.seek(Position { epoch: 0, batch: 1 }).unwrap();
    plain.seek(Position { epoch: 0, batch: 1 }).unwrap();
    assert_eq!(stream(&mut plain, 2), stream(&mut other, 2));
    // Its threads would go on with views of their own.
    assert!(plain.with_renderer(renderer()).is_err());
}

#[test]
fn bits_do_not_depend_on_the_number_of_workers() {
    let one = stream(&mut loader(1), 5);
    assert_eq!(one, stream(&mut loader(4), 5));
    let other = LoaderConfig { key: Key::new(4), ..config(1) };
    assert_ne!(one, stream(&mut Loader::new(shapes(), augmenter(), other).unwrap(), 5));
    assert_ne!(one[0].0[0], one[0].0[1], "the views of a sample differ");
}

#[test]
fn seeking_continues_exactly() {
    let all = stream(&mut loader(2), 8);
    for at in [0usize, 1, 2, 3, 5] {
        let mut resumed = loader(3);
        resumed.seek(Position { epoch: at as u64 / 3, batch: at as u64 % 3 }).unwrap();
        assert_eq!(stream(&mut resumed, 8 - at), all[at..], "from {at}");
    }
    let mut back = loader(2);
    stream(&mut back, 4);
    back.seek(Position::default()).unwrap();
    assert_eq!(stream(&mut back, 8), all);
    let message = back.seek(Position { epoch: 0, batch: 3 }).unwrap_err().to_string();
    assert!(message.contains("3 batches"), "{message}");
}

#[test]
fn ranks_share_the_order_without_overlap() {
    let part = |rank| {
        let config = LoaderConfig { batch: 8, rank, ranks: 2, ..config(1) };
        stream(&mut Loader::new(shapes(), augmenter(), config).unwrap(), 3)
    };
    let (a, b) = (part(0), part(1));
    let whole = stream(&mut loader(1), 3);
    for ((a, b), whole) in a.iter().zip(&b).zip(&whole) {
        assert_eq!([a.2.clone(), b.2.clone()].concat(), whole.2);
        assert_eq!([a.0[0].clone(), b.0[0].clone()].concat(), whole.0[0]);
    }
}

/// From the whole image and the parameters beside a batch, every view can be made again.
#[test]
fn the_parameters_of_the_views_are_beside_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for i in 0..20 {
        let kind = ["420", "gray", "progressive"][i % 3];
        std::fs::copy(golden.join(format!("{kind}.jpg")), dir.path().join(format!("{i:02}.jpg"))).unwrap();
    }
    // Without room for whole images only parts are decoded.
    let options = infomax_data::FolderOptions { cache_bytes: 0, verify: Verify::Never, ..Default::default() };
    let folder: Arc<dyn Dataset> = Arc::new(ImageFolder::open(dir.path(), &options).unwrap());
    for data in [shapes(), folder] {
        let mut loader = Loader::new(Arc::clone(&data), augmenter(), config(2)).unwrap();
        assert!(loader.view_params().is_empty());
        for _ in 0..2 {
            let batch = loader.next_batch().unwrap();
            assert_eq!(loader.view_params().len(), batch.views.len());
            for (v, (view, params)) in batch.views.iter().zip(loader.view_params()).enumerate() {
                assert_eq!(params.len(), batch.len());
                let rows = view.values.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
                let cuts = view.cuts.as_deref().unwrap();
                for (((row, params), index), cut) in rows.iter().zip(params).zip(&batch.indices).zip(cuts) {
                    let image = data.image(*index as usize).unwrap();
                    assert_eq!(cut.image, (image.width() as u32, image.height() as u32));
                    let (x, y) = params.source_point(0.3, 0.8);
                    let part = (x / image.width() as f64, y / image.height() as f64);
                    let found = cut.source_point(0.3, 0.8);
                    assert!((found.0 - part.0).abs() < 1e-12 && (found.1 - part.1).abs() < 1e-12, "{cut:?}");
                    let mut again = vec![0.0; row.len()];
                    let scratch = &mut infomax_augment::Scratch::default();
                    loader.augment().render(v, &image, params, scratch, &mut again).unwrap();
                    assert_eq!(*row, again);
                }
            }
        }
        let crops: Vec<_> = loader.view_params().iter().map(|params| params[0].crop).collect();
        assert_ne!(crops[0], crops[1]);
    }
}

#[test]
fn a_batch_that_is_too_large_names_both_numbers() {
    let config = LoaderConfig { batch: 64, ..config(1) };
    let message = Loader::new(shapes(), augmenter(), config.clone()).unwrap_err().to_string();
    assert!(message.contains("64") && message.contains("50"), "{message}");
    assert!(Loader::new(shapes(), augmenter(), LoaderConfig { batch: 0, ..config.clone() }).is_err());
    assert!(Loader::new(shapes(), augmenter(), LoaderConfig { batch: 2, rank: 1, ..config }).is_err());
}

#[test]
fn counters_count() {
    let mut loader = loader(2);
    stream(&mut loader, 4);
    let stats = loader.stats();
    assert_eq!(stats.samples, 64);
    assert!(stats.decode_s > 0.0 && stats.augment_s > 0.0 && stats.wait_s > 0.0, "{stats:?}");
}

/// Fails or panics at one sample while `broken` is set.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn Dataset>,
    broken: AtomicBool,
    panics: bool,
}

impl Dataset for Faulty {
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn image(&self, index: usize) -> Result<Image> {
        if index == 7 && self.broken.load(Ordering::Relaxed) {
            assert!(!self.panics, "sample seven is cursed");
            return Err(Error::Decode { path: "dir/seven.jpg".into(), reason: "cut".into() });
        }
        self.inner.image(index)
    }
    fn label(&self, _: usize) -> Option<u32> {
        None
    }
    fn classes(&self) -> &[String] {
        &[]
    }
    fn name(&self) -> String {
        "faulty".into()
    }
}

#[test]
fn errors_travel_with_the_name_and_the_batch_can_be_tried_again() {
    let data = Arc::new(Faulty { inner: shapes(), broken: AtomicBool::new(true), panics: false });
    let mut faulty = Loader::new(data.clone(), augmenter(), config(3)).unwrap();
    let mut good = loader(1);
    let mut errors = 0;
    for _ in 0..3 {
        let expected = bits(good.next_batch().unwrap());
        let at = faulty.position();
        let got = faulty.next_batch().map(bits).or_else(|e| {
            errors += 1;
            let message = e.to_string();
            assert!(message.contains("seven.jpg") && message.contains("sample 7"), "{message}");
            assert_eq!(faulty.position(), at);
            assert!(expected.2.contains(&7));
            assert!(faulty.next_batch().is_err(), "it stays an error");
            data.broken.store(false, Ordering::Relaxed);
            faulty.next_batch().map(bits)
        });
        let got = got.unwrap();
        assert_eq!((got.0, got.2), (expected.0, expected.2));
        assert_eq!(got.1, None, "no labels");
    }
    assert_eq!(errors, 1);
}

#[test]
fn a_damaged_sample_is_replaced_counted_and_named() {
    let make = |workers, most| {
        let data = Arc::new(Faulty { inner: shapes(), broken: AtomicBool::new(true), panics: false });
        let config = LoaderConfig { damaged: Damaged::Replace { most }, ..config(workers) };
        Loader::new(data, augmenter(), config).unwrap()
    };
    let mut loader = make(3, 1);
    let damaged = loader.damaged();
    let got = stream(&mut loader, 6);
    let whole = stream(&mut self::loader(1), 6);
    let mut replaced = 0;
    for (got, whole) in got.iter().zip(&whole) {
        assert!(!got.2.contains(&7));
        for (at, (g, w)) in got.2.iter().zip(&whole.2).enumerate() {
            let n = got.0[0].len() / got.2.len();
            if g == w {
                assert_eq!(got.0[0][at * n..][..n], whole.0[0][at * n..][..n]);
            } else {
                assert_eq!(*w, 7);
                replaced += 1;
            }
        }
    }
    assert!(replaced >= 1);
    let list = damaged.list();
    assert_eq!((damaged.count(), list.len(), list[0].0), (1, 1, 7));
    assert!(list[0].1.contains("seven.jpg"), "{list:?}");
    // The stand-in depends on key and position alone.
    assert_eq!(got, stream(&mut make(1, 1), 6));
    // Too many are an error that names them.
    let mut strict = make(2, 0);
    let message = (0..3).find_map(|_| strict.next_batch().err()).unwrap().to_string();
    assert!(message.contains("seven.jpg") && message.contains("more than the 0"), "{message}");
}

/// Files that vanish between the start and their use, as on a disk that fails.
#[test]
fn a_disk_error_in_an_epoch_is_counted_and_named() {
    let dir = tempfile::TempDir::new().unwrap();
    for i in 0..40u8 {
        let image = image::RgbImage::from_pixel(16, 16, image::Rgb([i, 0, 0]));
        image.save(dir.path().join(format!("{i:02}.png"))).unwrap();
    }
    let options = OpenOptions { cache_bytes: 0, verify: Verify::Never, ..OpenOptions::default() };
    let open = |damaged| {
        let data = Arc::new(ImageFolder::open(dir.path(), &options).unwrap());
        Loader::new(data, augmenter(), LoaderConfig { batch: 8, damaged, ..config(2) }).unwrap()
    };
    let mut stops = open(Damaged::Stop);
    let mut goes_on = open(Damaged::Replace { most: 4 });
    for name in ["03.png", "17.png"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let message = (0..5).find_map(|_| stops.next_batch().err()).unwrap().to_string();
    assert!(message.contains("03.png") || message.contains("17.png"), "{message}");
    let batches = stream(&mut goes_on, 5);
    assert!(batches.iter().all(|b| b.2.len() == 8 && !b.2.contains(&3) && !b.2.contains(&17)));
    let named: Vec<_> = goes_on.damaged().list();
    assert_eq!(named.iter().map(|d| d.0).collect::<Vec<_>>(), [3, 17]);
    assert!(named[1].1.contains("17.png"), "{named:?}");
}

/// Views of large JPEG and PNG files: decoded in part, and whole where there is a cache.
#[test]
fn decoding_in_part_changes_no_bit() {
    let dir = tempfile::TempDir::new().unwrap();
    for i in 0..12u32 {
        let image = image::RgbImage::from_fn(97 + i, 70 + 2 * i, |x, y| {
            image::Rgb([(x * 5 + i) as u8, (y * 3) as u8, (x * y / 9) as u8])
        });
        let extension = if i % 3 == 0 { "png" } else { "jpg" };
        image.save(dir.path().join(format!("{i:02}.{extension}"))).unwrap();
    }
    let views = |cache_bytes, verify| {
        let options = OpenOptions { cache_bytes, verify, ..OpenOptions::default() };
        let data = Arc::new(ImageFolder::open(dir.path(), &options).unwrap());
        stream(&mut Loader::new(data, augmenter(), LoaderConfig { batch: 4, ..config(2) }).unwrap(), 6)
    };
    let part = views(0, Verify::Never);
    assert_eq!(part, views(1 << 30, Verify::Never));
    assert_eq!(part, views(1 << 30, Verify::Auto));
}

#[test]
fn a_panic_becomes_an_error() {
    let data = Arc::new(Faulty { inner: shapes(), broken: AtomicBool::new(true), panics: true });
    let mut loader = Loader::new(data, augmenter(), config(2)).unwrap();
    let message = (0..3).find_map(|_| loader.next_batch().err()).unwrap().to_string();
    assert!(message.contains("cursed"), "{message}");
}

#[test]
fn dropping_with_a_full_queue_ends() {
    let mut loader = loader(2);
    loader.next_batch().unwrap();
    // Time for the queue to fill, so that the producer waits for room.
    std::thread::sleep(std::time::Duration::from_millis(50));
    drop(loader);
}

#[test]
fn evaluation_is_in_order_and_complete() {
    let transform = EvalTransform::new(16, &[0.5; 3], &[0.25; 3]).unwrap();
    let (all, labels) = eval_tensors(shapes(), &transform).unwrap();
    assert_eq!(all.dims(), [LEN, 3, 16, 16]);
    assert_eq!(labels, (0..LEN).map(|i| Some((i % 10) as u32)).collect::<Vec<_>>());
    let parts: Vec<_> =
        EvalLoader::new(shapes(), transform.clone(), 16, &Device::Cpu).unwrap().map(|b| b.unwrap()).collect();
    assert_eq!(parts.iter().map(|p| p.1.len()).collect::<Vec<_>>(), [16, 16, 16, 2]);
    let joined = candle_core::Tensor::cat(&parts.iter().map(|p| &p.0).collect::<Vec<_>>(), 0).unwrap();
    let flat = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(flat(&joined), flat(&all));
    let broken = Arc::new(Faulty { inner: shapes(), broken: AtomicBool::new(true), panics: false });
    let results: Vec<_> = EvalLoader::new(broken, transform, 5, &Device::Cpu).unwrap().collect();
    assert_eq!(results.len(), 2, "nothing follows an error");
    assert!(results[1].as_ref().unwrap_err().to_string().contains("seven.jpg"));
    // Left out, counted and named.
    let broken = Arc::new(Faulty { inner: shapes(), broken: AtomicBool::new(true), panics: false });
    let transform = EvalTransform::new(16, &[0.5; 3], &[0.25; 3]).unwrap();
    let pass = EvalLoader::new(broken.clone(), transform.clone(), 1, &Device::Cpu).unwrap();
    let pass = pass.with_damaged(Damaged::Replace { most: 1 });
    let damaged = pass.damaged();
    let parts: Vec<_> = pass.map(|b| b.unwrap().0).collect();
    assert_eq!((parts.len(), damaged.count(), damaged.list()[0].0), (LEN - 1, 1, 7));
    let joined = candle_core::Tensor::cat(&parts, 0).unwrap();
    let wide = EvalLoader::new(broken.clone(), transform.clone(), LEN, &Device::Cpu).unwrap();
    let wide = wide.with_damaged(Damaged::Replace { most: 1 }).next().unwrap().unwrap().0;
    assert_eq!(flat(&joined), flat(&wide));
    assert_eq!(flat(&joined)[..7 * 768], flat(&all)[..7 * 768]);
    assert_eq!(flat(&joined)[7 * 768..], flat(&all)[8 * 768..]);
    let none = EvalLoader::new(broken, transform, 5, &Device::Cpu).unwrap();
    let message = none.with_damaged(Damaged::Replace { most: 0 }).find_map(|b| b.err()).unwrap().to_string();
    assert!(message.contains("seven.jpg"), "{message}");
    // Gray output from RGB images.
    let gray = EvalTransform::new(8, &[0.0], &[1.0]).unwrap();
    assert_eq!(eval_tensors(shapes(), &gray).unwrap().0.dims(), [LEN, 1, 8, 8]);
}
